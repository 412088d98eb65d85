"""Reinforcement learning from one policy, step by step: the whole of DAPO (arXiv 2503.14476).

A step draws problems, samples a group of completions for each, has them judged, replaces groups
without a signal by fresh ones (dynamic sampling, section 3.2), gives each completion its advantage
over its group, and updates the policy. The equations are in `algo`
(docs/explanation/method.md lists them).
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from rloop.algo.advantages import is_trained_on, member_advantages
from rloop.algo.objective import Objective
from rloop.algo.order import ProblemOrder
from rloop.algo.replay import is_replayed, join_replayed
from rloop.algo.schedule import learning_rate, split_evenly
from rloop.engines.base import Engine, TrainingSequence
from rloop.engines.rollout import NOTHING, Recalled, Rollout
from rloop.recipe.config import ExploreConfig
from rloop.tasks.rewards import reward_metrics
from rloop.types import Group, Place, Problem, Trajectory

Successes = Mapping[str, Sequence[Trajectory]]
"""Stored successes by problem_id, for replay."""


@dataclass(slots=True, kw_only=True)
class RLState:
    """The state of an exploration: with the engine's state, all that is needed to continue it."""

    step: int = 0
    """Steps done."""
    drawn: int = 0
    """Problems drawn so far."""
    policy_version: int = 0
    """Updates that moved the policy: not frozen, not skipped, and with a gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RLStep:
    """One RL step: every group sampled in it, before any filter, and the metrics of its updates.

    Example: RLStep(step=3, groups=(...), metrics={"reward_mean": 0.41, "entropy_mean": 1.2})
    """

    step: int
    groups: tuple[Group, ...]
    metrics: Mapping[str, float]
    """Keys without the phase: `reward_mean`, `grad_norm`, `sample_s`, ..."""
    skipped: tuple[TrainingSequence, ...] = ()
    """The batch of the step's first update that was skipped because it was not finite."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RLTrainer:
    """RL of the policy that the rollout's engine holds and trains; `steps` is the algorithm."""

    rollout: Rollout
    config: ExploreConfig
    problems: Sequence[Problem]
    place: Place
    problem_weights: Mapping[str, float] | None = None
    """Weight of each problem in the draw (`explore.focus: hard`); None shuffles them in epochs."""
    replayed: Successes | None = None
    """Successes that join groups, `explore.replay_per_group` of each problem."""
    keep: Callable[[int, Sequence[Group]], None] = lambda *_: None
    """Called with a step and the groups sampled in it, before anything is learned from them; with
    those that were finished if sampling fails."""
    recall: Callable[[int, int], Recalled] = lambda *_: NOTHING
    """Returns what was sampled in a step before, by the policy of that version."""

    @property
    def engine(self) -> Engine:
        """The engine that samples and learns."""
        return self.rollout.engine

    def steps(self, state: RLState) -> Iterator[RLStep]:
        """Do and yield the remaining steps; `state` is kept up to date."""
        order = ProblemOrder(self.problems, self.place, self.problem_weights, drawn=state.drawn)
        while state.step < self.config.steps:
            begin = time.perf_counter()
            recalled = self.recall(state.step + 1, state.policy_version)
            groups, trained = self._sample(order, state, recalled)
            sampled = time.perf_counter()
            parts = split_evenly(trained, self.config.updates_per_step)
            batches = [self._sequences(part) for part in parts]
            updates = self._update([batch for batch in batches if batch], state)
            learned = time.perf_counter()
            state.step += 1
            state.drawn = order.drawn
            state.policy_version += sum(_has_moved(metrics) for _, metrics in updates)
            yield RLStep(
                step=state.step,
                groups=tuple(groups),
                metrics=sampling_metrics(groups, len(trained))
                | mean_metrics([metrics for _, metrics in updates])
                | self._replay_metrics(updates)
                | timing_metrics(groups, sampled - begin, learned - sampled, recalled),
                skipped=next((tuple(s) for s, m in updates if m["skipped_updates_count"]), ()),
            )

    def _sample(
        self, order: ProblemOrder, state: RLState, recalled: Recalled
    ) -> tuple[list[Group], list[Group]]:
        """Return every group sampled in a step, and the groups to train on.

        Dynamic sampling: other problems replace those whose groups have no signal, at most
        `refill_rounds` times.
        """
        wanted, groups, trained = self.config.prompts_per_step, list[Group](), list[Group]()
        finished = dict[str, Group]()
        try:
            for _ in range(1 + self.config.refill_rounds):
                drawn = {group.problem.problem_id for group in groups}
                problems = order.draw(wanted - len(trained), exclude=drawn)
                if not problems:
                    break
                for group in self._groups(problems, state, recalled):
                    finished[group.problem.problem_id] = group
                fresh = [finished.pop(problem.problem_id) for problem in problems]
                groups += fresh
                trained += [
                    g for g in map(self._joined, fresh) if member_advantages(g, self.config)
                ]
        finally:
            self.keep(state.step + 1, [*groups, *finished.values()])
        return groups, trained

    def _groups(
        self, problems: Sequence[Problem], state: RLState, recalled: Recalled
    ) -> Iterator[Group]:
        """Sample and judge one group per problem; yield them as they are done."""
        return self.rollout.groups(
            problems,
            self.config.group_size,
            self.config.sampling,
            replace(self.place, step=state.step + 1),
            policy_version=state.policy_version,
            recalled=recalled,
        )

    def _joined(self, group: Group) -> Group:
        """Return the group with the replayed successes among its members."""
        successes = (self.replayed or {}).get(group.problem.problem_id, ())
        return join_replayed(group, successes, self.config.replay_per_group)

    def _sequences(self, groups: Sequence[Group]) -> list[TrainingSequence]:
        """Return the training data of an update: completions with their advantages."""
        return [
            TrainingSequence(
                prompt_ids=t.completion.prompt_ids,
                completion_ids=t.completion.completion_ids,
                behavior_logprobs=t.completion.behavior_logprobs,
                advantage=advantage,
                is_replayed=is_replayed(t, group),
            )
            for group in groups
            for t, advantage in zip(
                group.trajectories, member_advantages(group, self.config) or (), strict=True
            )
            if is_trained_on(t, self.config)
        ]

    def _update(
        self, batches: Sequence[list[TrainingSequence]], state: RLState
    ) -> list[tuple[list[TrainingSequence], dict[str, float]]]:
        """Do one update per batch; return each batch with its metrics.

        The schedule counts steps, so a step with fewer updates, or none, takes as much of it.
        """
        config, planned = self.config, self.config.updates_per_step
        objective = Objective(
            loss=config.loss,
            clip_low=config.clip_low,
            clip_high=config.clip_high,
            importance_cap=config.importance_cap,
            kl_coef=config.kl_coef,
            entropy_coef=config.entropy_coef,
            temperature=config.sampling.temperature or 1.0,
        )
        # Before the first update, because adapters compute the reference from the weights that it
        # moves.
        batches = [self._with_reference(batch, objective) for batch in batches]
        done = []
        for number, batch in enumerate(batches):
            position = planned * (state.step + number / len(batches))
            rate = learning_rate(config.optimizer, position, planned * config.steps)
            done.append((batch, self.engine.update(batch, objective, learning_rate=rate)))
        return done

    def _with_reference(
        self, batch: list[TrainingSequence], objective: Objective
    ) -> list[TrainingSequence]:
        """Add the start policy's log-probabilities if there is a KL penalty."""
        if objective.kl_coef == 0:
            return batch
        temperature = objective.temperature
        found = self.engine.logprobs(batch, temperature=temperature, at_start=True)
        return [replace(s, reference_logprobs=p) for s, p in zip(batch, found, strict=True)]

    def _replay_metrics(
        self, updates: Sequence[tuple[list[TrainingSequence], Mapping[str, float]]]
    ) -> dict[str, float]:
        if not self.config.replay_per_group:
            return {}
        return {"replayed_count": float(sum(s.is_replayed for batch, _ in updates for s in batch))}


def _has_moved(metrics: Mapping[str, float]) -> bool:
    """Whether an update moved the policy."""
    return "loss_mean" in metrics and not metrics["skipped_updates_count"]


def sampling_metrics(groups: Sequence[Group], num_with_signal: int) -> dict[str, float]:
    """Return the metrics of a step over every sampled trajectory, before any filter: rewards, group
    fractions, distinct answers, lengths and verdict errors.
    """
    trajectories = [t for group in groups for t in group.trajectories]
    num_groups, total = len(groups), len(trajectories)
    num_tokens = sum(len(t.completion.completion_ids) for t in trajectories)
    all_correct = sum(g.num_correct == len(g.trajectories) for g in groups)
    all_wrong = sum(g.num_correct == 0 for g in groups)
    return {
        "reward_mean": sum(t.reward for t in trajectories) / total,
        **reward_metrics(trajectories),
        "groups_count": num_groups,
        "groups_all_correct_frac": all_correct / num_groups,
        "groups_all_wrong_frac": all_wrong / num_groups,
        "groups_mixed_frac": (num_groups - all_correct - all_wrong) / num_groups,
        "groups_signal_frac": num_with_signal / num_groups,
        "distinct_answers_mean": sum(map(_num_answers, groups)) / num_groups,
        "truncated_frac": sum(t.completion.is_truncated for t in trajectories) / total,
        "verdict_error_frac": sum(t.verdict.kind == "error" for t in trajectories) / total,
        "completion_tokens_mean": num_tokens / total,
        "sampled_tokens_count": num_tokens,
        "trajectories_count": total,
    }


def _num_answers(group: Group) -> int:
    """Return the number of distinct answers in a group; completions without an answer do not
    count."""
    return len({t.verdict.answer for t in group.trajectories} - {None})


def timing_metrics(
    groups: Sequence[Group], sample_s: float, learn_s: float, recalled: Recalled = NOTHING
) -> dict[str, float]:
    """Return the seconds of a step's parts, and the sampler's speed if nothing was recalled."""
    times = {"sample_s": sample_s, "learn_s": learn_s, "step_s": sample_s + learn_s}
    if recalled:
        return times
    num_tokens = sum(len(t.completion.completion_ids) for g in groups for t in g.trajectories)
    return {**times, "tokens_per_s": num_tokens / max(sample_s, 1e-9)}


def mean_metrics(updates: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Merge the metrics of a step's updates: maxima of `_max`, sums of `_count`, token means of the
    rest.

    The gap between sampler and learner is the first update's, before the step's own learning moves
    the policy.
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
