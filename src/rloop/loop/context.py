"""What every phase of a run works with."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, Literal, cast

from rloop.config import Recipe
from rloop.engines.base import Engine
from rloop.errors import StoreError
from rloop.evaluation.divergence import Divergence
from rloop.evaluation.phase import Evaluator, Measurement
from rloop.evaluation.tallies import Counts
from rloop.loop.heartbeat import Heartbeat
from rloop.loop.interrupt import Interrupt
from rloop.loop.problems import RunProblems
from rloop.loop.state import Manifest
from rloop.loop.watch import check_verdicts
from rloop.observe.console import Console
from rloop.observe.run_log import RunLog
from rloop.store.records import logged_mark
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Group, PhaseName, Place, PolicyRef


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A run's recipe, problems and tools; one per process."""

    recipe: Recipe
    run_dir: Path
    engine: Engine
    base: PolicyRef
    problems: RunProblems
    store: TrajectoryStore
    divergence: Divergence
    log: RunLog
    console: Console
    manifest: Manifest
    interrupt: Interrupt
    heartbeat: Heartbeat

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
        iteration, phase, *_ = key.split("/")
        self.heartbeat.beat(self.place(int(iteration), cast(PhaseName, phase)))
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

    def save_point(self, key: str, name: str, step: int, **facts: Any) -> None:  # noqa: ANN401 (JSON)
        """Save the engine's state after a step, with what the phase itself has to remember.

        The manifest then points at it, and the state before is let go. A state that the manifest
        points to is never written again: to be killed then would lose it.
        """
        before = self.manifest.in_progress
        saved = before and before["state"]
        state = f"state/{name}-step-{step:06d}" if step else None
        if state and state != saved:
            self.engine.save_state(self.run_dir / state)
        position = self.log.position()
        self.manifest.save_point(
            {"key": key, "step": step, "state": state, "metrics_position": position, **facts}
        )
        if saved and saved != state:
            shutil.rmtree(self.run_dir / saved, ignore_errors=True)

    def drop_states(self) -> None:
        """Let go of the saved states of a phase that is complete."""
        shutil.rmtree(self.run_dir / "state", ignore_errors=True)

    def end(self, key: str, result: Mapping[str, Any]) -> None:
        """Record a phase as complete, once all that it logged is on the disk."""
        self.log.position()
        logged = logged_mark(self.run_dir / "metrics.jsonl")
        self.manifest.complete(key, result, logged=logged)

    def progress(self, place: Place) -> None:
        """Say that the run got to this place; Ctrl-C is honoured here, by raising Interrupted."""
        self.heartbeat.beat(place)
        self.interrupt.check()

    def keep_skipped(self, place: Place, metrics: Mapping[str, float]) -> Path | None:
        """Write the update that a step skipped as not finite; return the file, None without one."""
        if not metrics.get("skipped_updates_count"):
            return None
        name = f"{place.iteration:03d}-{place.phase}-{place.step:06d}"
        return self.engine.save_skipped(self.run_dir / "nonfinite" / name, place)

    def measure(
        self,
        policy: PolicyRef | Literal["live"],
        place: Place,
        base_counts: Mapping[str, Counts],
    ) -> Measurement:
        """Evaluate a policy, with a bar, events and a line of metrics; Ctrl-C is honoured.

        From iteration 1 on the line says how far the policy is from the base that entered the loop.
        DegenerateRun says that too many verdicts were errors.
        """
        evaluator = Evaluator(
            engine=self.engine,
            tasks=self.problems.evaluate,
            config=self.recipe.evaluate,
            store=self.store,
            max_batch=self.recipe.engine.max_batch,
        )
        with (
            self.log.span("evaluate", place),
            self.console.phase(
                place.iteration, "evaluate", evaluator.num_problems, "problem"
            ) as bar,
        ):

            def on_group(_: Group) -> None:
                bar.advance(bar.done + 1)
                self.progress(place)

            found = evaluator.evaluate(
                policy,
                place,
                base_counts=base_counts,
                on_group=on_group,
                on_stored=bar.advance,
            )
        if place.iteration:
            with self.log.span("divergence", place):
                moved = self.divergence.measure(policy, seed=place.seed)
            found = replace(found, metrics={**found.metrics, **moved})
        self.log.metrics(place, found.metrics)
        self.console.step(place, found.metrics)
        check_verdicts(found.metrics, self.recipe.tasks.max_error_frac, self.run_dir)
        return found

    def check_stored(self, iteration: int, sampled: Mapping[str, Any]) -> None:
        """Raise StoreError unless the store holds all that an exploration sampled.

        `sampled` has `sampled_tokens` and `trajectories`, as the manifest has them; what was set
        aside for good counts as stored.
        """
        table = self.store.query(
            "select coalesce(sum(completion_tokens), 0)::bigint as sampled_tokens, "
            "count(*) as trajectories from trajectories "
            f"where phase = 'explore' and iteration = {iteration}"
        )
        lost = self.manifest.lost(f"{iteration}/explore")
        for name, stored in table.to_pylist()[0].items():
            found = stored + sum(int(entry[name]) for entry in lost)
            wanted = sampled.get(name, found)
            if found != wanted:
                raise StoreError(
                    f"{self.run_dir / 'trajectories'} holds {found:,} {name.split('_')[-1]} of "
                    f"iteration {iteration}'s exploration, but {wanted:,} were sampled: files are "
                    "missing or changed. Restore them from a backup, or begin a new run."
                )

    def drop_policies(self, *, before: int) -> None:
        """Remove the policies of earlier iterations where the recipe keeps the last alone.

        Nothing needs them any more; base and cold start stay. Each is gone by name before it is
        gone in part.
        """
        if self.recipe.keep_policies == "all":
            return
        for iteration, kind in product(range(1, before), ("iter", "explored", "averaged")):
            policy = self.policy_dir(f"{kind}-{iteration:03d}")
            leaving = policy.with_name(f".{policy.name}.old")
            if policy.exists():
                policy.rename(leaving)
            shutil.rmtree(leaving, ignore_errors=True)

    def drop_snapshots(self, iteration: int) -> None:
        """Remove the policies that an average was made of, unless explored ones are to be kept."""
        if not self.recipe.keep_explored:
            for snapshot in self.policy_dir("").glob(f"explored-{iteration:03d}-step-*"):
                shutil.rmtree(snapshot, ignore_errors=True)

    def policy_dir(self, name: str) -> Path:
        """Return where the run keeps the policy of that name."""
        return self.run_dir / "policies" / name


def policy_result(policy: PolicyRef, run_dir: Path, **facts: object) -> dict[str, Any]:
    """Return a policy as the manifest records it.

    Its path is relative to the run directory where it lies inside, so that a run may be moved and
    resumed from anywhere.
    """
    path, home = policy.path.resolve(), run_dir.resolve()
    inside = path.is_relative_to(home)
    return {
        "policy": policy.name,
        "path": str(path.relative_to(home) if inside else path),
        **facts,
    }


def policy_from(result: Mapping[str, Any], run_dir: Path) -> PolicyRef:
    """Return the policy that a manifest's result names."""
    return PolicyRef(name=result["policy"], path=run_dir / result["path"])
