"""What every phase of a run uses: recipe, problems, engine, store and logs."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, cast

from rloop.disk import write_text
from rloop.engines.base import Engine, TrainingSequence
from rloop.engines.rollout import Rollout
from rloop.errors import StoreError
from rloop.evaluation.divergence import Divergence
from rloop.evaluation.phase import Evaluator, Measurement
from rloop.evaluation.tallies import Counts
from rloop.loop.heartbeat import Heartbeat
from rloop.loop.interrupt import Interrupt
from rloop.loop.manifest import Manifest
from rloop.loop.problems import RunProblems
from rloop.loop.stopping import check_verdicts
from rloop.observe.console import Console
from rloop.observe.metric_keys import best_policy
from rloop.observe.run_log import RunLog, final_rows
from rloop.recipe.config import OptimizerConfig, Recipe
from rloop.store.records import logged_mark
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Group, PhaseName, Place, PolicyRef, stable_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """A run's recipe, problems and tools; one per process."""

    recipe: Recipe
    run_dir: Path
    rollout: Rollout
    base: PolicyRef
    problems: RunProblems
    store: TrajectoryStore
    divergence: Divergence
    log: RunLog
    console: Console
    manifest: Manifest
    interrupt: Interrupt
    heartbeat: Heartbeat

    @property
    def engine(self) -> Engine:
        """The engine that samples and learns."""
        return self.rollout.engine

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
        """Return the phase's saved point if the run was interrupted in it, else its start.

        Metrics written after that point are removed; the phase writes them again.
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
        """Save the engine's state after a step, with what the phase itself must remember.

        The manifest then points at it, and the previous state is removed. A state that the manifest
        points at is never overwritten, because a kill during the write would lose it.
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

    def begin_training(
        self, optimizer: OptimizerConfig, place: Place, point: Mapping[str, Any]
    ) -> None:
        """Train the policy that the engine holds, from a phase's saved point on."""
        state = self.run_dir / point["state"] if point["state"] else None
        self.engine.begin(optimizer, seed=phase_seed(place), state=state)

    def end(self, key: str, result: Mapping[str, Any]) -> None:
        """Record a phase as complete, after everything it logged has reached the disk.

        Its saved states are removed.
        """
        self.log.position()
        logged = logged_mark(self.run_dir / "metrics.jsonl")
        self.manifest.complete(key, result, logged=logged)
        shutil.rmtree(self.run_dir / "state", ignore_errors=True)

    def progress(self, place: Place) -> None:
        """Report that the run reached this place; after Ctrl-C, raise Interrupted."""
        self.heartbeat.beat(place)
        self.interrupt.check()

    def keep_skipped(self, place: Place, batch: Sequence[TrainingSequence]) -> Path | None:
        """Write the batch of an update that was skipped because it was not finite, as JSON lines.

        Return the file, or None if it could not be written: a failed diagnosis does not stop a run.
        """
        name = f"{place.iteration:03d}-{place.phase}-{place.step:06d}.jsonl"
        path = self.run_dir / "nonfinite" / name
        path.parent.mkdir(exist_ok=True)
        try:
            write_text(path, "".join(json.dumps(asdict(one)) + "\n" for one in batch))
        except OSError as error:
            self.console.warn(f"{path} could not be written ({error.strerror}).")
            return None
        return path

    def measure(
        self,
        policy: PolicyRef | None,
        place: Place,
        base_counts: Mapping[str, Counts],
        *,
        policy_version: int | None = None,
    ) -> Measurement:
        """Evaluate a policy, with a progress bar, events and a line of metrics.

        None stands for the policy in training, after that many updates.

        From iteration 1 on, the line has the KL from the policy that entered the loop. Raises
        Interrupted after Ctrl-C, and DegenerateRun if too many verdicts were errors.
        """
        if policy is not None:
            self.engine.load(policy)
        evaluator = Evaluator(
            rollout=self.rollout,
            tasks=self.problems.evaluate,
            config=self.recipe.evaluate,
            store=self.store,
            max_batch=self.recipe.engine.max_batch,
        )
        total, together = evaluator.num_completions, evaluator.max_batch
        shown = self.console.phase(
            place.iteration, "evaluate", total, "completion", together=together
        )
        with self.log.span("evaluate", place), shown as bar:

            def on_group(_: Group) -> None:
                self.progress(place)

            found = evaluator.evaluate(
                place,
                policy_version=policy_version,
                base_counts=base_counts,
                on_completion=bar.count,
                on_group=on_group,
                on_stored=bar.advance,
            )
        if place.iteration:
            with self.log.span("divergence", place):
                moved = self.divergence.measure(seed=place.seed)
            found = replace(found, metrics={**found.metrics, **moved})
        self.log.metrics(place, found.metrics)
        self.console.step(place, found.metrics)
        check_verdicts(found.metrics, self.recipe.tasks.max_error_frac, self.run_dir)
        return found

    def check_stored(self, iteration: int, sampled: Mapping[str, Any]) -> None:
        """Raise StoreError unless the store has all trajectories that an exploration sampled."""
        stored = self.store.count(iteration=iteration, phase="explore")
        wanted = sampled.get("trajectories", stored)
        if stored != wanted:
            raise StoreError(
                f"{self.run_dir / 'trajectories'} holds {stored:,} trajectories of iteration "
                f"{iteration}'s exploration, but {wanted:,} were sampled: files are missing or "
                "changed. Restore them from a backup, or begin a new run."
            )

    def drop_policies(self, *, before: int) -> None:
        """Remove the policies of earlier iterations if the recipe keeps only the last, and perhaps
        the best.

        Nothing needs them any more; base and cold start stay. Each is renamed before its files are
        deleted, so that no partial policy is found under its name.
        """
        if self.recipe.keep_policies == "all":
            return
        best = None
        if self.recipe.keep_policies == "best":
            there = [path.name for path in (self.run_dir / "policies").iterdir()]
            best = best_policy(final_rows(self.run_dir), there, self.recipe.best_by)
        for iteration, kind in product(range(1, before), ("iter", "explored", "finetuned")):
            policy = self.policy_dir(f"{kind}-{iteration:03d}")
            leaving = policy.with_name(f".{policy.name}.old")
            if policy.exists() and policy.name != best:
                policy.rename(leaving)
            shutil.rmtree(leaving, ignore_errors=True)

    def policy_dir(self, name: str) -> Path:
        """Return where the run keeps the policy of that name."""
        return self.run_dir / "policies" / name


def phase_seed(place: Place) -> int:
    """Return the seed of an engine's own random draws while a phase trains."""
    return stable_hash(place.seed, place.iteration, place.phase, "adapters")


def policy_result(policy: PolicyRef, run_dir: Path, **facts: object) -> dict[str, Any]:
    """Return a policy as the manifest records it.

    A path inside the run directory is relative to it, so that a run can be moved and resumed from
    anywhere.
    """
    path, home = policy.path.resolve(), run_dir.resolve()
    inside = path.is_relative_to(home)
    return {
        "policy": policy.name,
        "path": str(path.relative_to(home) if inside else path),
        **facts,
    }


def policy_from(result: Mapping[str, Any], run_dir: Path) -> PolicyRef:
    """Return the policy that a result in the manifest names."""
    return PolicyRef(name=result["policy"], path=run_dir / result["path"])
