"""The exploration phase: take RL steps, store every trajectory, evaluate, save points."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from rloop.errors import DegenerateRun, NonFinitePolicy
from rloop.evaluation.tallies import Counts
from rloop.loop.alarms import Alarms
from rloop.loop.context import Context, phase_seed, policy_result
from rloop.loop.interrupt import Interrupted
from rloop.loop.rl import Explorer, ExploreStep, RLState, Successes
from rloop.loop.stopping import Watch, needs_explored_weights
from rloop.observe.console import Bar
from rloop.observe.run_log import read_metrics
from rloop.types import PolicyRef


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
        self._watch = Watch(context.recipe)
        self._alarms = Alarms(context.recipe, context.log, context.console)
        self._state = RLState()
        self._evaluated_step = 0
        self._sampled_tokens = 0
        self._num_trajectories = 0
        self._last_pass_at_k: float | None = None
        self._reason: str | None = None
        self._is_broken = False

    @property
    def _step(self) -> int:
        """RL steps that are done and stored so far."""
        return self._state.step

    def run(self, weights: Mapping[str, float] | None, replayed: Successes | None) -> PolicyRef:
        """Explore to the end or to an early stop, from the saved point if there is one."""
        context, config = self._context, self._config
        point = context.begin(self._key)
        self._restore(point)
        engine = context.engine
        engine.load(self._start)
        engine.begin(config.optimizer, seed=phase_seed(self._place), state=context.state_of(point))
        explorer = Explorer(
            rollout=context.rollout,
            config=config,
            problems=context.problems.train,
            place=self._place,
            problem_weights=weights,
            replayed=replayed,
        )
        try:
            with (
                context.log.span("explore", self._place),
                context.console.phase(
                    self._place.iteration, "explore", config.steps, "step"
                ) as bar,
                self._surviving(),
            ):
                self._pull(explorer, bar)
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

    def _pull(self, explorer: Explorer, bar: Bar) -> None:
        """Take the remaining steps, until one of them is the last."""
        # The interrupt may have come during the saved step's evaluation.
        self._reason = self._reason or self._evaluate_if_due()
        for result in explorer.steps(self._state) if self._reason is None else ():
            self._record(result)
            bar.advance(self._step, tokens=self._sampled_tokens)
            self._judge(result)
            if self._reason is not None:
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
                raise DegenerateRun(f"RL broke its policy at step {self._step}. {error}") from error
            self._is_broken = True
            self._reason = self._reason or f"RL broke its policy. {error}".rstrip(".")

    def _restore(self, point: Mapping[str, Any]) -> None:
        """Go back to the saved point: files of later steps are moved aside, and the steps
        repeated."""
        self._state = RLState(
            step=int(point["step"]),
            drawn=int(point.get("drawn", 0)),
            policy_version=int(point.get("policy_version", 0)),
        )
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

    def _record(self, result: ExploreStep) -> None:
        """Store the step, before anything can filter or fail, and then log it."""
        place, metrics = replace(self._place, step=result.step), result.metrics
        self._context.store.append(place, result.groups)
        self._context.log.metrics(place, metrics, result.groups)
        self._context.console.step(place, metrics)
        skipped = self._context.keep_skipped(place, result.skipped) if result.skipped else None
        self._alarms.step(place, metrics, skipped=skipped)
        self._sampled_tokens += int(metrics["sampled_tokens_count"])
        self._num_trajectories += sum(len(group.trajectories) for group in result.groups)

    def _judge(self, result: ExploreStep) -> None:
        """Decide whether exploration ends after this step; save a point if one is due."""
        rule = self._watch.early_stop(result.metrics)
        self._reason = (
            self._watch.check(result)
            or (rule if self._may_end() else None)
            or self._evaluate_if_due()
        )
        if self._reason is None and self._step % self._config.checkpoint_every == 0:
            self._save_point()
        self._context.progress(replace(self._place, step=self._step))

    def _evaluate_if_due(self) -> str | None:
        every = self._context.recipe.evaluate.every
        if not every or self._step % every or self._evaluated_step == self._step:
            return None
        previous = self._last_pass_at_k
        rule = self._watch.early_stop_on_evaluation(previous, self._evaluate())
        return rule if self._may_end() else None

    def _may_end(self) -> bool:
        """Whether a rule of `early_stop` may end the exploration yet."""
        return self._step >= self._config.early_stop.min_steps

    def _evaluate(self) -> float:
        """Evaluate the policy in training; return the mean over tasks of pass@(largest k)."""
        context = self._context
        place = replace(self._place, phase="evaluate", step=self._step)
        found = context.measure(
            None, place, self._base_counts, policy_version=self._state.policy_version
        )
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
            drawn=self._state.drawn,
            policy_version=self._state.policy_version,
            streaks=self._watch.streaks,
            sampled_tokens=self._sampled_tokens,
            trajectories=self._num_trajectories,
            last_pass_at_k=self._last_pass_at_k,
            evaluated_step=self._evaluated_step,
            reason=self._reason,
        )

    def _finish(self) -> PolicyRef:
        context = self._context
        directory = context.policy_dir(self._name)
        policy = PolicyRef(path=directory, name=self._name)
        if self._keep_policy and not self._is_broken:
            with self._surviving():
                policy = context.engine.save_policy(directory, self._name)
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
