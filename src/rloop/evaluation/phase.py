"""The evaluation phase: sample held-out problems, store every trajectory, compute the metrics with
intervals.

Problems are sampled in chunks, each stored as soon as it is done, so that an interrupted evaluation
can continue where it was. Chunks depend only on the recipe, and each is one call of the sampler: a
problem is always sampled in the same batch, and a resumed evaluation gives the metrics of an
uninterrupted one. After Ctrl-C the finished part of the chunk is stored too; the rest of that chunk
is then sampled in another batch, which gives the same up to rounding.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rloop.engines.rollout import Rollout
from rloop.errors import StoreError
from rloop.evaluation.metrics import Values, mean_estimates, paired_estimates, problem_values
from rloop.evaluation.tallies import Counts, Tally, stored_tallies, tally
from rloop.recipe.config import EvaluateConfig
from rloop.recipe.engine import EngineConfig
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Group, Place, Problem

BATCHES_PER_CHUNK = 16
"""Full batches of completions in a chunk. At the end of a chunk the batch runs empty, which costs 4
to 13 % more decoding steps at 16 and 20 to 55 % at 4. A crash loses at most one chunk, Ctrl-C
none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """The result of one evaluation.

    Example: Measurement(counts={"gsm8k": {"gsm8k/test/0": Tally(samples=8, correct=3, ...)}},
    metrics={"gsm8k/avg@8": 0.375, ...})
    """

    counts: Mapping[str, Counts]
    """The counts of each problem's samples, by task."""
    metrics: Mapping[str, float]
    """`TASK/avg@n`, `maj@n`, `pass@k` and `cover@tau`, each with `_low` and `_high`, and with
    `_diff` from the base."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluator:
    """Measures policies on the same held-out tasks in the same way."""

    rollout: Rollout
    tasks: Mapping[str, Sequence[Problem]]
    config: EvaluateConfig
    store: TrajectoryStore
    max_batch: int = EngineConfig.model_fields["max_batch"].default
    """Completions that the engine decodes at the same time; determines the size of a chunk."""

    @property
    def num_completions(self) -> int:
        """Completions of all held-out problems."""
        return self.config.samples * sum(map(len, self.tasks.values()))

    def evaluate(
        self,
        place: Place,
        *,
        policy_version: int | None = None,
        base_counts: Mapping[str, Counts] | None = None,
        on_completion: Callable[[int], None] = lambda _: None,
        on_group: Callable[[Group], None] = lambda _: None,
        on_stored: Callable[[int], None] = lambda _: None,
    ) -> Measurement:
        """Measure the policy that the engine holds on every task; `place.policy` names it.

        `policy_version` is the version of a policy in training, None for a policy that is kept.

        Problems that the store already has for this place are not sampled again: `on_stored` gets
        the number of their completions, `on_completion` the tokens of each new one, and `on_group`
        each new group. A policy in training is always sampled again:
        what the store has of this step or a later one was written before the run was resumed, by
        weights that cannot be identified, and is moved aside. With `base_counts` (of the base
        policy), differences are paired on the same problems. Raises StoreError if the store has
        another number of samples.
        """
        if policy_version is not None:
            self.store.drop_after(place.iteration, place.phase, place.step - 1)
        stored = self._stored(place)
        on_stored(self.config.samples * sum(map(len, stored.values())))
        counts: dict[str, Counts] = {}
        metrics: dict[str, float] = {}
        for task, found in stored.items():
            self._sample_missing(
                task, found, place, policy_version, on_completion=on_completion, on_group=on_group
            )
            counts[task] = found
            base = (base_counts or {}).get(task)
            stats = task_metrics(found, self.config, base=base) | _health(list(found.values()))
            metrics |= {f"{task}/{key}": value for key, value in stats.items()}
        return Measurement(counts=counts, metrics=metrics)

    def _stored(self, place: Place) -> dict[str, dict[str, Tally]]:
        """Return the stored counts of each task's problems; StoreError if n differs."""
        rows = stored_tallies(self.store, place)
        found = {
            task: {
                p.problem_id: rows[task][p.problem_id]
                for p in those
                if p.problem_id in rows.get(task, {})
            }
            for task, those in self.tasks.items()
        }
        stored = {tally.samples for those in rows.values() for tally in those.values()}
        others = stored - {self.config.samples}
        if others:
            raise StoreError(
                f"Stored problems of {place.policy} have {min(others)} completions each, this "
                f"evaluation draws {self.config.samples}; the two cannot be mixed. Set "
                f"evaluate.samples back to {min(others)}, or evaluate into a new directory."
            )
        return found

    def _sample_missing(
        self,
        task: str,
        found: dict[str, Tally],
        place: Place,
        policy_version: int | None,
        *,
        on_completion: Callable[[int], None],
        on_group: Callable[[Group], None],
    ) -> None:
        """Sample and store the problems of a task that `found` lacks, chunk by chunk, and add them.

        After an error or an interrupt, the finished part of a chunk is stored, except for a policy
        in training.
        """
        problems, samples = self.tasks[task], self.config.samples
        numbers = {problem.problem_id: number for number, problem in enumerate(problems)}
        for chunk in chunks(problems, samples, self.max_batch):
            missing = [problem for problem in chunk if problem.problem_id not in found]
            if not missing:
                continue
            groups: list[Group] = []
            try:
                for group in self.rollout.groups(
                    missing,
                    samples,
                    self.config.sampling,
                    place,
                    policy_version=policy_version or 0,
                    on_completion=on_completion,
                ):
                    groups.append(group)
                    on_group(group)
            except Exception:
                if policy_version is None and groups:
                    self._append(task, groups, numbers, place)
                raise
            self._append(task, groups, numbers, place)
            found |= {group.problem.problem_id: tally(group) for group in groups}

    def _append(
        self, task: str, groups: list[Group], numbers: Mapping[str, int], place: Place
    ) -> None:
        """Store groups as a file; `numbers` has the index of each problem in the task.

        Unless it has the whole task, the file is named after the index of its first problem, so
        that no file of an earlier process with other chunks is ever replaced by one with other
        problems.
        """
        groups.sort(key=lambda group: numbers[group.problem.problem_id])
        first = numbers[groups[0].problem.problem_id]
        suffix = f"-{first:06d}" if len(groups) < len(numbers) else ""
        self.store.append(place, groups, part=f"{place.policy}-{task}{suffix}")


def chunks(
    problems: Sequence[Problem], num_samples: int, max_batch: int
) -> Iterator[Sequence[Problem]]:
    """Yield the problems in order, in chunks of nearly equal size.

    A chunk has about `BATCHES_PER_CHUNK` x `max_batch` completions, and only whole problems.
    """
    num_chunks = round(len(problems) * num_samples / (BATCHES_PER_CHUNK * max_batch))
    num_chunks = max(1, min(num_chunks, len(problems)))
    ends = (len(problems) * number // num_chunks for number in range(num_chunks + 1))
    for start, end in pairwise(ends):
        yield problems[start:end]


def task_metrics(
    counts: Counts, config: EvaluateConfig, *, base: Counts | None = None
) -> dict[str, float]:
    """Return the metrics of one task with their intervals, and paired differences from the base.

    Names are those of `problem_values`, each with `_low` and `_high`, and with `_diff`.
    """
    ids = sorted(counts)
    values = _values(counts, ids, config)
    found = mean_estimates(values, config.confidence)
    if base is not None:
        differences = paired_estimates(values, _values(base, ids, config), config.confidence)
        found |= {f"{name}_diff": estimate for name, estimate in differences.items()}
    metrics: dict[str, float] = {}
    for name, estimate in found.items():
        metrics |= {
            name: estimate.value,
            f"{name}_low": estimate.low,
            f"{name}_high": estimate.high,
        }
    return metrics


def _values(counts: Counts, ids: Sequence[str], config: EvaluateConfig) -> Values:
    return problem_values(
        config.samples,
        [counts[problem_id].correct for problem_id in ids],
        config.k,
        majority=[counts[problem_id].majority for problem_id in ids],
        taus=config.cover,
    )


def _health(tallies: Sequence[Tally]) -> dict[str, float]:
    num_samples = sum(tally.samples for tally in tallies)
    total = max(1, num_samples)
    num_tokens = sum(tally.tokens for tally in tallies)
    return {
        "problems_count": len(tallies),
        "samples_count": num_samples,
        "sampled_tokens_count": num_tokens,
        "completion_tokens_mean": num_tokens / total,
        "truncated_frac": sum(tally.truncated for tally in tallies) / total,
        "verdict_error_frac": sum(tally.errors for tally in tallies) / total,
    }
