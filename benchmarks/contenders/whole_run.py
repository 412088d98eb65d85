"""O1 and O2: a whole run, and how much of it is neither sampling nor learning nor weights.

The recipe is named after the work file. Sampling and learning are the steps of RL and of SFT and
the groups of evaluations, waiting for verifiers included; weights are policies and saved points,
read and written. What is left of the time between the first completion and the end is bookkeeping:
loop, store, selection, evaluation and logs. Start-up (verifiers, the first model) is a part of its
own.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from contenders.measure import read_work, report
from contenders.spans import SET_UP, WEIGHTS, Spans, gaps

from rloop.engines.native import engine as native
from rloop.engines.native.engine import NativeEngine
from rloop.engines.registry import build_engine
from rloop.engines.rollout import Rollout
from rloop.loop import sft
from rloop.loop.rl import RLTrainer
from rloop.recipe.load import load_recipe
from rloop.session.process import start

ROOT = Path(__file__).parents[2]
PHASES = ("explore", "finetune", "evaluate")


def main() -> None:
    """Run and report."""
    shape = read_work()["shape"]
    path = ROOT / sys.argv[2]
    recipe = load_recipe(
        path, [f"iterations={shape['iterations']}", f"explore.steps={shape['steps']}"]
    )
    spans = Spans()
    listen(spans)
    with tempfile.TemporaryDirectory() as folder:
        launch = time.perf_counter()
        code = start(path, recipe, Path(folder) / "run", build_engine)
        end = time.perf_counter()
    assert code == 0, f"the run ended with {code}"
    begin = next(span.begin for span in spans.done if span.kind in PHASES)
    spans.done = [span for span in spans.done if span.begin >= begin]
    engine = {
        "sampling, learning": spans.total(*PHASES),
        "weights": spans.total(WEIGHTS),
        "new optimizers": spans.total(SET_UP),
    }
    parts = {
        "run": end - begin,
        **engine,
        "bookkeeping": end - begin - sum(engine.values()),
        "phase change": max(seconds for *_, seconds in spans.phase_changes()),
        "start-up": begin - launch,
    }
    for kinds, seconds in gaps(spans.done).items():
        sys.stderr.write(f"{kinds}: {seconds:.3f} s\n")
    for one, two, seconds in spans.phase_changes():
        sys.stderr.write(f"from {one} to {two}: {seconds:.3f} s\n")
    report(parts, count=1, check=0, package="rloop-rl")


def listen(spans: Spans) -> None:
    """Record what the engine does, by phase."""
    module: Any = native
    for owner, name, kind in (
        (RLTrainer, "steps", "explore"),
        (Rollout, "groups", "evaluate"),
        (sft, "sft_steps", "finetune"),
    ):
        setattr(owner, name, spans.around_each(kind, getattr(owner, name)))
    for owner, name, kind in (
        (NativeEngine, "logprobs", "evaluate"),
        (NativeEngine, "begin", SET_UP),
        (module, "load_policy", WEIGHTS),
        (module, "save_policy", WEIGHTS),
        (NativeEngine, "save_state", WEIGHTS),
    ):
        setattr(owner, name, spans.around(kind, getattr(owner, name)))


if __name__ == "__main__":
    main()
