"""How far training has moved a policy: KL(base, policy) on training prompts.

The probe is completions that the base itself sampled in the first step of the first exploration,
with their stored log-probabilities, so measuring costs a forward pass and no sampling. The base is
the policy that enters the loop: the recipe's, or the cold-started one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rloop.engines.base import Engine, TrainingSequence
from rloop.evaluation.intervals import Estimate
from rloop.store.trajectories import TrajectoryStore
from rloop.types import Example, stable_hash

MAX_COMPLETIONS = 32
"""Few, for small evaluations: the demo's, of 320 completions, takes 15 % longer with it."""
MAX_TOKENS = 65_536
"""Prompts included; limits the time for long completions."""

NUM_RESAMPLES = 10_000
"""Bootstrap draws: the Monte Carlo error of an endpoint is about 1 % of the width."""

_SQL = f"""
    select problem_id, prompt_ids, completion_ids, behavior_logprobs, temperature
    from trajectories
    where phase = 'explore' and iteration = 1 and step = 1 and completion_tokens > 0
    order by member, seed limit {MAX_COMPLETIONS}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """The base's completions, with the log-probability of each token at the sampling temperature.

    Example: Probe(examples=(Example(problem_id="t/0", prompt_ids=(5, 9), completion_ids=(6, 0)),),
    logprobs=((-0.1, -0.02),), temperature=1.0)
    """

    examples: tuple[Example, ...]
    logprobs: tuple[tuple[float, ...], ...]
    """[T] for each example, from the sampler."""
    temperature: float


class Divergence:
    """Measures all policies of a run on the same probe."""

    def __init__(self, engine: Engine, store: TrajectoryStore, *, confidence: float) -> None:
        """Score with `engine` the completions of `store`; nothing is read yet."""
        self._engine = engine
        self._store = store
        self._confidence = confidence
        self._probe: Probe | None = None

    def measure(self, *, seed: int) -> dict[str, float]:
        """Return `kl_base_mean` (nats per token) of the policy that the engine holds, with the ends
        of its interval.

        Empty before the first exploration's first step, when there is no probe.
        """
        probe = self._probe = self._probe or read_probe(self._store)
        if probe is None:
            return {}
        sequences = [
            TrainingSequence(prompt_ids=e.prompt_ids, completion_ids=e.completion_ids)
            for e in probe.examples
        ]
        logprobs = self._engine.logprobs(sequences, temperature=probe.temperature)
        found = mean_divergence(probe, logprobs, seed=seed, confidence=self._confidence)
        return {
            "kl_base_mean": found.value,
            "kl_base_mean_low": found.low,
            "kl_base_mean_high": found.high,
        }


def read_probe(store: TrajectoryStore) -> Probe | None:
    """Return the probe of a run; None before its first exploration has stored a step.

    One completion of each problem, then a second of each, and so on, ordered by their seeds (as
    good as random), until one exceeds a bound.
    """
    rows = list(_within(store.query(_SQL).to_pylist(), MAX_TOKENS))
    if not rows:
        return None
    return Probe(
        examples=tuple(
            Example(
                problem_id=row["problem_id"],
                prompt_ids=tuple(row["prompt_ids"]),
                completion_ids=tuple(row["completion_ids"]),
            )
            for row in rows
        ),
        logprobs=tuple(tuple(row["behavior_logprobs"]) for row in rows),
        temperature=rows[0]["temperature"],
    )


def _within(rows: Sequence[dict[str, Any]], max_tokens: int) -> Iterator[dict[str, Any]]:
    """Yield rows up to and including the one that reaches the bound, so that long completions are
    not left out."""
    num_tokens = 0
    for row in rows:
        if num_tokens >= max_tokens:
            return
        num_tokens += len(row["prompt_ids"]) + len(row["completion_ids"])
        yield row


def mean_divergence(
    probe: Probe, logprobs: Sequence[Sequence[float]], *, seed: int, confidence: float
) -> Estimate:
    """Return the mean of k3 over the probe's tokens, with a bootstrap interval over its problems.

    `logprobs` are the policy's, [T] for each example. The base's come from the sampler: if sampler
    and learner differ by g on a token, a policy that has not moved shows about g^2 / 2 (0.0017 for
    SmolLM2-135M in bfloat16 on a CPU, 0 in float32). With top-p or top-k the tokens are not drawn
    from the distribution that is compared, so the mean is biased. The bootstrap draws the same
    problems for every policy of a run, from the run's seed.
    """
    names = {example.problem_id: None for example in probe.examples}
    numbers = {name: number for number, name in enumerate(names)}
    owners = [numbers[example.problem_id] for example in probe.examples]
    pairs = zip(probe.logprobs, logprobs, strict=True)
    sums = [k3(np.array(base), np.array(policy)).sum() for base, policy in pairs]
    sums_P = np.bincount(owners, weights=sums)
    tokens_P = np.bincount(owners, weights=[len(base) for base in probe.logprobs])
    rng = np.random.default_rng(stable_hash(seed, "bootstrap"))
    draws = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=NUM_RESAMPLES)
    means = (draws @ sums_P) / (draws @ tokens_P)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Estimate(float(sums_P.sum() / tokens_P.sum()), float(low), float(high))


def k3(
    base_logprobs: NDArray[np.float64], policy_logprobs: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return r - 1 - log r, with r = policy / base probability of a token that the base sampled.

    It is never negative, its mean is KL(base, policy), and it varies less than -log r (J. Schulman,
    2020,
    "Approximating KL divergence": k3). Example: equal probabilities give 0, r = 1/2 gives 0.193.
    """
    log_ratio = policy_logprobs - base_logprobs
    return np.expm1(log_ratio) - log_ratio
