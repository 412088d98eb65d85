"""The exploration phase: RL steps, stored and watched, with evaluations and saved points."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from rloop.engines.base import Sampled, SampleRequest
from rloop.engines.rollout import NOTHING, Recalled
from rloop.errors import DegenerateRun, NonFinitePolicy, StoreError
from rloop.evaluation.tallies import Counts
from rloop.loop.alarms import Alarms
from rloop.loop.context import Context, policy_result
from rloop.loop.interrupt import Interrupted
from rloop.loop.rl import RLState, RLStep, RLTrainer, Successes
from rloop.loop.stopping import StopRules, needs_explored_weights
from rloop.observe.console import Bar
from rloop.observe.run_log import read_metrics
from rloop.types import Group, PolicyRef

RECALLED = (
    *("prompt_ids", "seed", "completion_ids", "behavior_logprobs", "finish_reason"),
    "policy_version",
)
"""Columns of what a step had sampled."""


@dataclass(slots=True, kw_only=True)
class Progress(RLState):
    """What a saved point of an exploration holds besides the engine's state."""

    streaks: dict[str, int] = field(default_factory=dict)
    """Steps in a row in which a rule of `loop.stopping` held."""
    sampled_tokens: int = 0
    trajectories: int = 0
    evaluated_step: int = 0
    """The step after which the policy in training was measured last."""
    last_pass_at_k: float | None = None
    reason: str | None = None
    """Why the exploration ends early."""


class Exploration:
    """RL from one start policy. Its product is the trajectories, not the last weights."""

    def __init__(
        self,
        context: Context,
        start: PolicyRef,
        iteration: int,
        *,
        base_counts: Mapping[str, Counts],
        keep_policy: bool,
    ) -> None:
        """Explore from `start`; `keep_policy` writes the explored weights as a policy directory."""
        self._context = context
        self._start = start
        self._config = context.recipe.explore
        self._key = f"{iteration}/explore"
        self._name = f"explored-{iteration:03d}"
        self._place = context.place(iteration, "explore", policy=self._name)
        self._base_counts = base_counts
        self._keep_policy = keep_policy
        self._stop_rules = StopRules(context.recipe)
        self._alarms = Alarms(context.recipe, context.log, context.console)
        self._at = Progress()
        self._is_broken = False

    def run(self, weights: Mapping[str, float] | None, replayed: Successes | None) -> PolicyRef:
        """Explore to the end or to an early stop, from the saved point if there is one."""
        context, config = self._context, self._config
        point = context.begin(self._key)
        self._restore(point)
        context.engine.load(self._start)
        context.begin_training(config.optimizer, self._place, point)
        trainer = RLTrainer(
            rollout=context.rollout,
            config=config,
            problems=context.problems.train,
            place=self._place,
            problem_weights=weights,
            replayed=replayed,
            keep=self._keep,
            recall=self._recall,
        )
        try:
            with (
                context.log.span("explore", self._place),
                context.console.phase(
                    self._place.iteration, "explore", config.steps, "step"
                ) as bar,
                self._surviving(),
            ):
                self._take_steps(trainer, bar)
            if self._at.reason is not None:
                ended = f"Exploration ends early at step {self._at.step}: {self._at.reason}."
                context.console.say(ended)
            if self._at.evaluated_step != self._at.step and not self._is_broken:
                with self._surviving():
                    self._evaluate()
        except Interrupted:
            self._save_point()
            raise
        return self._finish()

    def _take_steps(self, trainer: RLTrainer, bar: Bar) -> None:
        """Take the remaining steps, until one of them is the last."""
        # The interrupt may have come during the saved step's evaluation.
        self._at.reason = self._at.reason or self._evaluate_if_due()
        for result in trainer.steps(self._at) if self._at.reason is None else ():
            self._record(result)
            bar.advance(self._at.step, tokens=self._at.sampled_tokens)
            self._decide(result)
            if self._at.reason is not None:
                break

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """If the policy gives NaN, end the exploration, not the run: its trajectories are what
        counts.

        Raises DegenerateRun if the run would continue from RL's weights.
        """
        try:
            yield
        except NonFinitePolicy as error:
            if needs_explored_weights(self._context.recipe):
                raise DegenerateRun(
                    f"RL broke its policy at step {self._at.step}. {error}"
                ) from error
            self._is_broken = True
            # A step that failed was stored, but is no part of the exploration.
            self._context.store.drop_after(self._place.iteration, "explore", self._at.step)
            self._at.reason = self._at.reason or f"RL broke its policy. {error}".rstrip(".")

    def _restore(self, point: Mapping[str, Any]) -> None:
        """Go back to the saved point: files of later steps are moved aside, and the steps repeated
        with what was sampled in them (`_recall`).
        """
        known = {one.name for one in fields(Progress)}
        self._at = Progress(**{name: point[name] for name in known & point.keys()})
        self._stop_rules.streaks = self._at.streaks = dict(self._at.streaks)
        self._alarms.recall(read_metrics(self._context.run_dir), self._place)
        store, iteration = self._context.store, self._place.iteration
        store.drop_after(iteration, "explore", self._at.step)
        store.drop_after(iteration, "evaluate", self._at.evaluated_step)
        self._context.check_stored(iteration, point)

    def _keep(self, step: int, groups: Sequence[Group]) -> None:
        """Store what was sampled in a step, before anything can filter or fail."""
        if groups:
            self._context.store.append(replace(self._place, step=step), groups)

    def _recall(self, step: int, policy_version: int) -> Recalled:
        """Return what this step sampled before the run stopped, if its policy was the same."""
        store, iteration = self._context.store, self._place.iteration
        try:
            table = store.superseded(RECALLED, iteration, "explore", step)
        except StoreError as error:
            self._context.console.warn(f"Step {step} is sampled again: {error}")
            return NOTHING
        return {
            SampleRequest(tuple(row["prompt_ids"]), row["seed"]): Sampled(
                tuple(row["completion_ids"]), tuple(row["behavior_logprobs"]), row["finish_reason"]
            )
            for row in table.to_pylist()
            if row["policy_version"] == policy_version
        }

    def _record(self, result: RLStep) -> None:
        """Log a step."""
        place, metrics = replace(self._place, step=result.step), result.metrics
        self._context.log.metrics(place, metrics, result.groups)
        self._context.console.step(place, metrics)
        skipped = self._context.keep_skipped(place, result.skipped) if result.skipped else None
        self._alarms.step(place, metrics, skipped=skipped)
        self._at.sampled_tokens += int(metrics["sampled_tokens_count"])
        self._at.trajectories += sum(len(group.trajectories) for group in result.groups)

    def _decide(self, result: RLStep) -> None:
        """Decide whether exploration ends after this step; save a point if one is due."""
        rule = self._stop_rules.early_stop(result.metrics)
        self._at.reason = (
            self._stop_rules.check(result)
            or (rule if self._may_end() else None)
            or self._evaluate_if_due()
        )
        if self._at.reason is None and self._at.step % self._config.checkpoint_every == 0:
            self._save_point()
        self._context.progress(replace(self._place, step=self._at.step))

    def _evaluate_if_due(self) -> str | None:
        every = self._context.recipe.evaluate.every
        if not every or self._at.step % every or self._at.evaluated_step == self._at.step:
            return None
        previous = self._at.last_pass_at_k
        rule = self._stop_rules.early_stop_on_evaluation(previous, self._evaluate())
        return rule if self._may_end() else None

    def _may_end(self) -> bool:
        """Whether a rule of `early_stop` may end the exploration yet."""
        return self._at.step >= self._config.early_stop.min_steps

    def _evaluate(self) -> float:
        """Evaluate the policy in training; return the mean over tasks of pass@(largest k)."""
        context = self._context
        place = replace(self._place, phase="evaluate", step=self._at.step)
        found = context.measure(
            None, place, self._base_counts, policy_version=self._at.policy_version
        )
        self._alarms.evaluation(place, found.metrics)
        largest_k = max(context.recipe.evaluate.k)
        values = [found.metrics[f"{task}/pass@{largest_k}"] for task in found.counts]
        self._at.last_pass_at_k = sum(values) / len(values)
        self._at.evaluated_step = self._at.step
        return self._at.last_pass_at_k

    def _save_point(self) -> None:
        self._context.save_point(self._key, self._name, **asdict(self._at))

    def _finish(self) -> PolicyRef:
        context = self._context
        directory = context.policy_dir(self._name)
        policy = PolicyRef(path=directory, name=self._name)
        if self._keep_policy and not self._is_broken:
            with self._surviving():
                policy = context.engine.save_policy(directory, self._name)
        facts = {
            "steps": self._at.step,
            "early_stop": self._at.reason,
            "sampled_tokens": self._at.sampled_tokens,
            "trajectories": self._at.trajectories,
        }
        context.end(self._key, policy_result(policy, context.run_dir, **facts))
        return policy
