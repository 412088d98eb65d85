"""What every phase of a run works with."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rloop.config import Recipe
from rloop.engines.base import Engine
from rloop.loop.interrupt import Interrupt
from rloop.loop.state import Manifest
from rloop.observe.console import Console
from rloop.observe.run_log import RunLog
from rloop.store.trajectories import TrajectoryStore
from rloop.types import PhaseName, Place, PolicyRef, Problem


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A run's recipe, problems and tools; one per process."""

    recipe: Recipe
    run_dir: Path
    engine: Engine
    train_problems: tuple[Problem, ...]
    evaluate_problems: Mapping[str, tuple[Problem, ...]]
    coldstart_problems: tuple[Problem, ...]
    store: TrajectoryStore
    log: RunLog
    console: Console
    manifest: Manifest
    interrupt: Interrupt

    def place(self, iteration: int, phase: PhaseName, *, policy: str = "") -> Place:
        """Return a place in this run."""
        return Place(
            run=self.recipe.name,
            seed=self.recipe.seed,
            iteration=iteration,
            phase=phase,
            policy=policy,
        )

    def begin(self, key: str) -> Mapping[str, Any]:
        """Return the saved point of the phase: the one of an interrupted run, else its very start.

        Metrics written after that point are cut off; the phase writes them again.
        """
        point = self.manifest.in_progress
        if point is not None and point["key"] == key:
            self.log.truncate(point["metrics_position"])
            return point
        point = {
            "key": key,
            "step": 0,
            "state": None,
            "metrics_position": self.log.position(),
            "streaks": {},
        }
        self.manifest.save_point(point)
        return point

    def policy_dir(self, name: str) -> Path:
        """Return where the run keeps the policy of that name."""
        return self.run_dir / "policies" / name

    def stepped(self, place: Place, step: int) -> Place:
        """Return the place at a step."""
        return replace(place, step=step)


def policy_result(policy: PolicyRef, **facts: object) -> dict[str, Any]:
    """Return a policy as the manifest records it."""
    return {"policy": policy.name, "path": str(policy.path), **facts}


def policy_from(result: Mapping[str, Any]) -> PolicyRef:
    """Return the policy that a manifest's result names."""
    return PolicyRef(name=result["policy"], path=Path(result["path"]))
