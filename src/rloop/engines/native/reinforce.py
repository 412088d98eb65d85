"""Reinforcement learning, one step at a time: roll out, refill groups without a signal, update.

The order of DAPO (arXiv 2503.14476): dynamic sampling, group advantages, clipped token-mean
updates.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from rloop.algo.advantages import is_trained_on, member_advantages
from rloop.algo.losses import Objective
from rloop.algo.replay import is_replayed, join_replayed
from rloop.config import ExploreConfig
from rloop.engines.base import ExploreStep, Successes
from rloop.engines.native.learner import Learner
from rloop.engines.native.microbatch import TrainingSequence
from rloop.engines.native.order import ProblemOrder
from rloop.engines.native.rollout import Roller
from rloop.engines.native.schedule import split_evenly
from rloop.engines.native.step_metrics import sampling_metrics, timing_metrics
from rloop.types import Group, Place, Problem

Reference = Callable[[Sequence[TrainingSequence]], list[TrainingSequence]]
"""Fills in reference logprobs where the recipe has a divergence penalty."""


class Reinforcer:
    """RL from one start policy; its state is the learner's, the order's and the last step's
    number.
    """

    def __init__(
        self,
        config: ExploreConfig,
        roller: Roller,
        learner: Learner,
        order: ProblemOrder,
        place: Place,
        reference: Reference,
        replayed: Successes,
    ) -> None:
        """Begin before step 1."""
        self._config = config
        self._roller = roller
        self._learner = learner
        self._order = order
        self._place = place
        self._reference = reference
        self._replayed = replayed
        self.step = 0

    def state(self) -> dict[str, int]:
        """Return what, with the learner's state, continues this exploration."""
        return {"step": self.step, "drawn": self._order.drawn}

    def restore(self, state: Mapping[str, int]) -> None:
        """Continue after the step of a saved state."""
        self.step, self._order.drawn = state["step"], state["drawn"]

    def run(self, num_steps: int) -> Iterator[ExploreStep]:
        """Yield the steps up to `num_steps`."""
        while self.step < num_steps:
            begin = time.perf_counter()
            groups, trained = self._roll_out(self.step + 1)
            sampled = time.perf_counter()
            metrics = sampling_metrics(groups, len(trained))
            metrics |= self._learn(trained)
            learned = time.perf_counter()
            metrics |= timing_metrics(
                metrics["sampled_tokens_count"], sampled - begin, learned - sampled
            )
            self.step += 1
            yield ExploreStep(step=self.step, groups=tuple(groups), metrics=metrics)

    def _roll_out(self, step: int) -> tuple[list[Group], list[Group]]:
        """Return every group sampled in the step, and those to train on."""
        wanted = self._config.prompts_per_step
        groups = self._sample(self._order.draw(wanted), step)
        trained = self._trained(groups)
        for _ in range(self._config.refill_rounds):
            drawn = {group.problem.problem_id for group in groups}
            problems = self._order.draw(wanted - len(trained), exclude=drawn)
            if not problems:
                break
            fresh = self._sample(problems, step)
            groups += fresh
            trained += self._trained(fresh)
        return groups, trained

    def _trained(self, groups: Sequence[Group]) -> list[Group]:
        """Return the groups that have a signal, once what is replayed has joined them."""
        count = self._config.replay_per_group
        joined = [
            join_replayed(group, self._replayed.get(group.problem.problem_id, ()), count)
            for group in groups
        ]
        return [group for group in joined if member_advantages(group, self._config) is not None]

    def _sample(self, problems: Sequence[Problem], step: int) -> list[Group]:
        """Return one group a problem, in the order of the problems."""
        place = Place(
            run=self._place.run,
            seed=self._place.seed,
            iteration=self._place.iteration,
            phase=self._place.phase,
            step=step,
            policy=self._place.policy,
        )
        groups = self._roller.roll_out(
            problems,
            self._config.group_size,
            self._config.sampling,
            place,
            policy_version=self._learner.policy_version,
        )
        by_id = {group.problem.problem_id: group for group in groups}
        return [by_id[problem.problem_id] for problem in problems]

    def _learn(self, groups: Sequence[Group]) -> dict[str, float]:
        """Split the groups into the step's updates, as equal as can be, and do them.

        The schedule counts steps: a step of fewer updates, or of none, takes as much of it.
        """
        planned = self._config.updates_per_step
        parts = [
            [s for group in part for s in self._sequences(group)]
            for part in split_evenly(groups, planned)
        ]
        parts = [part for part in parts if part]  # all of it may be masked
        # Before the first update, which moves what a reference with adapters is computed by.
        parts = [self._reference(part) for part in parts]
        objective = Objective(
            loss=self._config.loss,
            clip_low=self._config.clip_low,
            clip_high=self._config.clip_high,
            importance_cap=self._config.importance_cap,
            kl_coef=self._config.kl_coef,
            entropy_coef=self._config.entropy_coef,
            temperature=self._config.sampling.temperature or 1.0,
        )
        updates = [
            self._learner.update(part, objective, position=planned * (self.step + i / len(parts)))
            for i, part in enumerate(parts)
        ]
        metrics = mean_metrics(updates)
        if self._config.replay_per_group:
            metrics["replayed_count"] = float(sum(s.is_replayed for p in parts for s in p))
        return metrics

    def _sequences(self, group: Group) -> list[TrainingSequence]:
        advantages = member_advantages(group, self._config)
        assert advantages is not None, f"group {group.problem.problem_id} has no signal"
        return [
            TrainingSequence(
                prompt_ids=t.completion.prompt_ids,
                completion_ids=t.completion.completion_ids,
                behavior_logprobs=t.completion.behavior_logprobs,
                advantage=advantage,
                is_replayed=is_replayed(t, group),
            )
            for t, advantage in zip(group.trajectories, advantages, strict=True)
            if is_trained_on(t, self._config)
        ]


def mean_metrics(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return a step's updates as one: maxima of `_max`, sums of `_count`, token means of the rest.

    The sampler-learner gap is the first update's, before the step's own learning moves the policy.
    """
    merged: dict[str, float] = {}
    for key in {key: None for update in updates for key in update}:
        values = [update[key] for update in updates if key in update]
        if key.startswith("gap_"):
            merged[key] = values[0]
        elif key.endswith("_max"):
            merged[key] = max(values)
        elif key.endswith("_count"):
            merged[key] = sum(values)
        else:
            tokens = [update["loss_tokens_count"] for update in updates if key in update]
            pairs = zip(values, tokens, strict=True)
            merged[key] = sum(value * count for value, count in pairs) / sum(tokens)
    return merged
