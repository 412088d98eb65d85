"""`rloop` with scripted engines, for the processes of a sweep; how a run goes is in its method."""

import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence

from doubles_runs import half_right
from doubles_scripted import ScriptedEngine

from rloop import cli
from rloop.engines import registry
from rloop.engines.base import Engine, Sampled, SampleRequest
from rloop.errors import EngineError
from rloop.recipe.config import Recipe, SamplingConfig


class Slow(ScriptedEngine):
    """Samples for as long as the test wants."""

    def sample(
        self, requests: Sequence[SampleRequest], settings: SamplingConfig
    ) -> Iterator[tuple[int, Sampled]]:
        """Yield what the scripted engine does, with a pause before each."""
        for found in super().sample(requests, settings):
            time.sleep(0.05)
            yield found


def build_engine(recipe: Recipe) -> Engine:
    """Return the engine that the variable HOW asks for."""
    how = os.environ.get("HOW", "")
    if how == "slow":
        return Slow(recipe, half_right)
    if how == "fail" and "rl-seed-0" in recipe.name:
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "fail" and "raft-seed-0" in recipe.name:
        raise EngineError("The engine is out of order.")
    if how == "fail" and "rest_em-seed-0" in recipe.name:
        return ScriptedEngine(recipe, lambda *_: "no")
    return ScriptedEngine(recipe, half_right)


registry.build_engine = build_engine
if __name__ == "__main__":
    sys.argv[0] = "rloop"
    cli.main()
