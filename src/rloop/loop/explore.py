"""The exploration phase: pull RL steps, keep every trajectory, watch, evaluate, save points."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rloop.engines.base import LIVE, ExploreStep, Successes
from rloop.errors import DegenerateRun, NonFinitePolicy
from rloop.evaluation.tallies import Counts
from rloop.loop.alarms import Alarms
from rloop.loop.context import Context, policy_result
from rloop.loop.interrupt import Interrupted
from rloop.loop.revisits import revisit_similarity
from rloop.loop.step_budget import StepBudget
from rloop.loop.watch import Watch, needs_explored_weights
from rloop.observe.bar import Bar
from rloop.observe.run_log import read_metrics
from rloop.types import PolicyRef


class Exploration:
    """RL from one start policy; its product is the trajectories, not the last weights."""

    def __init__(
        self,
        context: Context,
        start: PolicyRef,
        iteration: int,
        *,
        budget: StepBudget,
        base_counts: Mapping[str, Counts],
        keep_policy: bool,
    ) -> None:
        """Explore from `start`; `keep_policy` writes the explored weights as a policy directory."""
        self._budget = budget
        self._context = context
        self._start = start
        self._key = f"{iteration}/explore"
        self._name = f"explored-{iteration:03d}"
        self._place = context.place(iteration, "explore", policy=self._name)
        self._base_counts = base_counts
        self._keep_policy = keep_policy
        self._watch = Watch(context.recipe)
        self._alarms = Alarms(context.recipe, context.log, context.console)
        self._step = 0
        self._evaluated_step = 0
        self._sampled_tokens = 0
        self._num_trajectories = 0
        self._last_pass_at_k: float | None = None
        self._reason: str | None = None
        self._is_broken = False

    def run(self, weights: Mapping[str, float] | None, replayed: Successes | None) -> PolicyRef:
        """Explore to the end, or to an early stop; resume from a saved point where there is one."""
        context, num_steps = self._context, self._budget.num_steps
        point = context.begin(self._key)
        self._restore(point)
        steps = context.engine.explore(
            self._start,
            context.problems.train,
            self._place,
            num_steps=num_steps,
            problem_weights=weights,
            replayed=replayed,
            resume_from=context.run_dir / point["state"] if point["state"] else None,
        )
        try:
            with (
                context.log.span("explore", self._place),
                context.console.phase(self._place.iteration, "explore", num_steps, "step") as bar,
                self._surviving(),
            ):
                self._pull(steps, bar)
            if self._reason is not None:
                ended = f"Exploration ends early at step {self._step}: {self._reason}."
                context.console.say(ended)
            if self._evaluated_step != self._step and not self._is_broken:
                with self._surviving():
                    self._evaluate()
        except Interrupted:
            self._save_point()
            raise
        return self._finish()

    def _pull(self, steps: Iterator[ExploreStep], bar: Bar) -> None:
        """Take the steps that are left, until one of them is to be the last."""
        # An interrupt may have come in the middle of the saved step's evaluation.
        self._reason = self._reason or self._evaluate_if_due()
        for result in steps if self._reason is None else ():
            metrics = self._record(result)
            bar.advance(self._step, tokens=self._sampled_tokens)
            self._snapshot_if_due()
            self._judge(result, metrics)
            if self._reason is not None:
                break

    @contextmanager
    def _surviving(self) -> Iterator[None]:
        """End the exploration, not the run, when its policy gives NaN: its pool is what counts.

        Where RL's weights are what the run goes on with, DegenerateRun says so.
        """
        try:
            yield
        except NonFinitePolicy as error:
            if needs_explored_weights(self._context.recipe):
                raise DegenerateRun(f"RL broke its policy at step {self._step}. {error}") from error
            self._is_broken = True
            self._reason = self._reason or f"RL broke its policy. {error}".rstrip(".")

    def _restore(self, point: Mapping[str, Any]) -> None:
        """Go back to the point; files of later steps are set aside, those steps come again."""
        self._step = int(point["step"])
        self._watch.streaks = dict(point["streaks"])
        self._evaluated_step = int(point.get("evaluated_step", 0))
        self._sampled_tokens = int(point.get("sampled_tokens", 0))
        self._num_trajectories = int(point.get("trajectories", 0))
        self._last_pass_at_k = point.get("last_pass_at_k")
        self._reason = point.get("reason")
        self._alarms.recall(read_metrics(self._context.run_dir), self._place)
        store, iteration = self._context.store, self._place.iteration
        store.drop_after(iteration, "explore", self._step)
        store.drop_after(iteration, "evaluate", self._evaluated_step)
        self._context.check_stored(iteration, point)

    def _record(self, result: ExploreStep) -> Mapping[str, float]:
        """Store first, before anything can filter or fail, then log; return what was logged."""
        place, metrics = replace(self._place, step=result.step), dict(result.metrics)
        self._context.store.append(place, result.groups)
        if self._context.recipe.explore.early_stop.max_similarity is not None:
            metrics |= revisit_similarity(self._context.store, place, result.groups)
        self._context.log.metrics(place, metrics)
        self._context.console.step(place, metrics)
        skipped = self._context.keep_skipped(place, metrics)
        self._alarms.step(place, metrics, skipped=skipped)
        self._step = result.step
        self._sampled_tokens += int(result.metrics["sampled_tokens_count"])
        self._num_trajectories += sum(len(group.trajectories) for group in result.groups)
        return metrics

    def _judge(self, result: ExploreStep, metrics: Mapping[str, float]) -> None:
        """Decide whether exploration ends after this step; save a point where one is due."""
        every = self._context.recipe.explore.checkpoint_every
        rule = self._watch.early_stop(metrics)
        self._reason = (
            self._watch.check(result)
            or (rule if self._budget.may_end(self._step) else None)
            or self._evaluate_if_due()
        )
        if self._reason is None and self._step % every == 0:
            self._save_point()
        self._context.progress(replace(self._place, step=self._step))

    def _evaluate_if_due(self) -> str | None:
        every = self._context.recipe.evaluate.every
        if not every or self._step % every or self._evaluated_step == self._step:
            return None
        previous = self._last_pass_at_k
        rule = self._watch.early_stop_on_evaluation(previous, self._evaluate())
        return rule if self._budget.may_end(self._step) else None

    def _evaluate(self) -> float:
        """Measure the policy in training; return the mean over tasks of pass@(largest k)."""
        context = self._context
        place = replace(self._place, phase="evaluate", step=self._step)
        found = context.measure(LIVE, place, self._base_counts)
        self._alarms.evaluation(place, found.metrics)
        largest_k = max(context.recipe.evaluate.k)
        values = [found.metrics[f"{task}/pass@{largest_k}"] for task in found.counts]
        self._last_pass_at_k = sum(values) / len(values)
        self._evaluated_step = self._step
        return self._last_pass_at_k

    def _save_point(self) -> None:
        self._context.save_point(
            self._key,
            self._name,
            self._step,
            streaks=self._watch.streaks,
            sampled_tokens=self._sampled_tokens,
            trajectories=self._num_trajectories,
            last_pass_at_k=self._last_pass_at_k,
            evaluated_step=self._evaluated_step,
            reason=self._reason,
        )

    def _snapshot_if_due(self) -> None:
        """Keep the policy of this step for the average, before anything can interrupt."""
        every = self._context.recipe.explore.average_every
        if every and self._step % every == 0:
            self._snapshot(self._step, goes_on=True)

    def _snapshot(self, step: int, *, goes_on: bool) -> None:
        snapshot = self._snapshot_of(step)
        with self._surviving():
            self._context.engine.save_policy(snapshot.path, snapshot.name, goes_on=goes_on)

    def _snapshot_of(self, step: int) -> PolicyRef:
        name = f"{self._name}-step-{step:06d}"
        return PolicyRef(path=self._context.policy_dir(name), name=name)

    def _averaged(self, every: int) -> PolicyRef:
        """Return the mean of the policies kept on the way and the last one."""
        context, name = self._context, f"averaged-{self._place.iteration:03d}"
        steps = [*range(every, self._step, every), self._step]
        self._snapshot(self._step, goes_on=False)
        snapshots = [self._snapshot_of(step) for step in steps]
        return context.engine.average(snapshots, context.policy_dir(name), name)

    def _finish(self) -> PolicyRef:
        context, every = self._context, self._context.recipe.explore.average_every
        directory = context.policy_dir(self._name)
        policy = PolicyRef(path=directory, name=self._name)
        if self._keep_policy and not self._is_broken:
            with self._surviving():
                policy = (
                    self._averaged(every)
                    if every
                    else context.engine.save_policy(directory, self._name)
                )
        facts = {
            "steps": self._step,
            "early_stop": self._reason,
            "sampled_tokens": self._sampled_tokens,
            "trajectories": self._num_trajectories,
        }
        result = policy_result(policy, context.run_dir, **facts)
        context.end(self._key, result)
        context.drop_states()
        return policy
