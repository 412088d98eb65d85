"""From rloop's objectives to requests that a Tinker server supports.

A server takes one number per token of each sequence and a named loss. Two ways give the gradient of
`algo.losses`, up to the last bits:

- the server's own `ppo` or `cispo`, if that is the same equation;
- else the client's: L depends on the weights only through the tokens' log-probabilities, so dL =
sum_t (dL / dlogprob_t) dlogprob_t, and a loss that is linear in them with these factors has the
same gradient. This takes one more forward pass.

Servers that divide (SkyRL's JAX back end) take the mean over a sequence's tokens by their weights,
then over the update's sequences; Tinker itself sums. The denominators are folded into the numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp
from typing import Any, Literal

import torch

from rloop.algo.losses import MAX_LOG_RATIO, TokenBatch, UpdateCounts, compute_loss
from rloop.algo.objective import Objective
from rloop.engines.base import TrainingSequence
from rloop.errors import EngineError

Reduction = Literal["sum", "mean"]
Rows = Sequence[Sequence[float]]
"""[T] numbers for each sequence."""

NO_CAP = exp(MAX_LOG_RATIO)
"""An importance cap above every clamped ratio."""
Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """A request for one forward and backward pass.

    Example: Pass(loss="ppo", config={"clip_low_threshold": 0.8, "clip_high_threshold": 1.28},
    data=[...])
    """

    loss: str
    config: Mapping[str, float] | None
    data: Sequence[Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Gradient:
    """An update's loss in numbers, from the policy before it.

    Example: Gradient(factors=((-0.1, -0.1),), metrics={"loss_mean": 0.3, "gap_max": 1e-6})
    """

    factors: Rows
    """dL / dlogprob of each completion's tokens."""
    metrics: Mapping[str, float]


def server_loss(objective: Objective, losses: frozenset[str]) -> str | None:
    """Return the server's loss with the objective's equation; None if there is none."""
    if objective.kl_coef or objective.entropy_coef:
        return None
    if objective.loss == "cispo" and "cispo" in losses:
        return "cispo"
    # `ppo` has no cap on a bad token's ratio.
    is_plain = objective.loss == "dapo" and objective.importance_cap >= NO_CAP
    return "ppo" if is_plain and "ppo" in losses else None


def check_objective(objective: Objective, losses: frozenset[str], reduction: Reduction) -> None:
    """Raise EngineError for objectives that this server cannot compute."""
    if objective.entropy_coef:
        raise EngineError(
            f"explore.entropy_coef={objective.entropy_coef} needs whole distributions, but the "
            f"Tinker protocol only gives log-probabilities of the sampled tokens. Set it to 0."
        )
    needed = "cross_entropy" if reduction == "sum" else "cispo"
    if server_loss(objective, losses) is None and needed not in losses:
        raise EngineError(
            f"The loss {objective.loss!r} needs the Tinker server's {needed!r}. This server has "
            f"{', '.join(sorted(losses))}."
        )


def named_pass(
    loss: str,
    sequences: Sequence[TrainingSequence],
    objective: Objective,
    counts: UpdateCounts,
    reduction: Reduction,
) -> Pass:
    """Return the pass with the server's own loss."""
    low = 1.0 - objective.clip_low if loss == "ppo" else 0.0
    config = {"clip_low_threshold": low, "clip_high_threshold": 1.0 + objective.clip_high}
    data = []
    for sequence in sequences:
        fold = _fold(sequence, len(sequences), reduction) / counts.num_tokens
        given = {
            "logprobs": sequence.behavior_logprobs or (),
            "advantages": [sequence.advantage * fold] * len(sequence.completion_ids),
        }
        data.append(datum(sequence, given, reduction))
    return Pass(loss=loss, config=config, data=data)


def linear_pass(sequences: Sequence[TrainingSequence], factors: Rows, reduction: Reduction) -> Pass:
    """Return the pass whose loss is sum_t factor_t logprob_t.

    If the server sums, this is `cross_entropy` with these weights. If it divides by the weights, it
    is `cispo` with the ratio clipped to one: -advantage_t logprob_t.
    """
    data = []
    for sequence, row in zip(sequences, factors, strict=True):
        fold = _fold(sequence, len(sequences), reduction)
        scaled = [-factor * fold for factor in row]
        if reduction == "sum":
            given = {"weights": scaled}
        else:
            given = {"advantages": scaled, "logprobs": [0.0] * len(row)}
        data.append(datum(sequence, given, reduction))
    if reduction == "sum":
        return Pass(loss="cross_entropy", config=None, data=data)
    ones = {"clip_low_threshold": 1.0, "clip_high_threshold": 1.0}
    return Pass(loss="cispo", config=ones, data=data)


def _fold(sequence: TrainingSequence, num_sent: int, reduction: Reduction) -> float:
    """Return the factors that cancel the server's denominators."""
    return 1.0 if reduction == "sum" else float(len(sequence.completion_ids) * num_sent)


def datum(
    sequence: TrainingSequence, given: Mapping[str, Sequence[float]], reduction: Reduction
) -> Json:
    """Return a sequence in the protocol's form: inputs, targets shifted by one, numbers per target.

    `given` are numbers for the completion's tokens; the prompt's tokens get zeros.
    """
    ids = [*sequence.prompt_ids, *sequence.completion_ids]
    ahead = len(sequence.prompt_ids) - 1
    if ahead < 0:
        raise EngineError("A training sequence has an empty prompt: its first token has no input.")
    if reduction == "mean" and "weights" not in given:
        given = {**given, "weights": [1.0] * len(sequence.completion_ids)}
    inputs = {
        name: _tensor([0.0] * ahead + list(numbers), "float32") for name, numbers in given.items()
    }
    return {
        "model_input": {"chunks": [{"type": "encoded_text", "tokens": ids[:-1]}]},
        "loss_fn_inputs": {"target_tokens": _tensor(ids[1:], "int64"), **inputs},
    }


def _tensor(data: Sequence[float], dtype: str) -> Json:
    return {"data": data, "dtype": dtype, "shape": [len(data)]}


def gradient(
    sequences: Sequence[TrainingSequence],
    logprobs: Rows,
    objective: Objective,
    counts: UpdateCounts,
) -> Gradient:
    """Return the objective's gradient with respect to the log-probabilities, and the update's
    metrics."""
    policy_N = torch.tensor([p for row in logprobs for p in row], dtype=torch.float64)
    tokens = _token_batch(sequences, policy_N.requires_grad_(), objective)
    output = compute_loss(objective, tokens, counts)
    output.loss.backward()  # type: ignore[no-untyped-call]
    assert policy_N.grad is not None, "every loss depends on the log-probabilities"
    factors = torch.split(policy_N.grad, list(tokens.lengths_B))
    metrics = {"loss_mean": float(output.loss.detach())}
    if tokens.behavior_logprobs_N is not None:
        own_N = torch.tensor(
            [not s.is_replayed for s in sequences for _ in s.completion_ids], dtype=torch.bool
        )
        gap_N = (policy_N.detach() - tokens.behavior_logprobs_N).abs()[own_N]
        metrics |= {
            # For tokens that the policy samples, the mean of -logprob is the entropy.
            "entropy_mean": -float(policy_N.detach().mean()),
            "clip_frac": float(output.is_clipped_N.double().mean()),
        }
        if len(gap_N):
            metrics |= {"gap_mean": float(gap_N.mean()), "gap_max": float(gap_N.max())}
    if tokens.reference_logprobs_N is not None:
        metrics["kl_mean"] = float(output.kl_N.mean())
    return Gradient(factors=[row.tolist() for row in factors], metrics=metrics)


def _token_batch(
    sequences: Sequence[TrainingSequence], policy_N: torch.Tensor, objective: Objective
) -> TokenBatch:
    def laid(rows: Sequence[Sequence[float] | None]) -> torch.Tensor:
        return torch.tensor([x for row in rows for x in row or ()], dtype=torch.float64)

    def repeated(values: Sequence[float]) -> torch.Tensor:
        return laid([[v] * len(s.completion_ids) for v, s in zip(values, sequences, strict=True)])

    is_rl, has_kl = objective.loss != "sft", objective.kl_coef > 0.0
    return TokenBatch(
        policy_logprobs_N=policy_N,
        behavior_logprobs_N=laid([s.behavior_logprobs for s in sequences]) if is_rl else None,
        reference_logprobs_N=laid([s.reference_logprobs for s in sequences]) if has_kl else None,
        advantages_N=repeated([s.advantage for s in sequences]),
        weights_N=repeated([s.weight for s in sequences]),
        lengths_B=[len(s.completion_ids) for s in sequences],
    )


@dataclass(slots=True, kw_only=True)
class AdamClock:
    """The step count of the server's Adam, and how many of these steps belong to this phase.

    Adam divides its moments by 1 - beta^n to correct their bias. If the server's n started before
    the moments did (because it cannot load weights without them, so they were set to zero), the
    learning rate compensates for the difference.
    """

    done: int = 0
    """Steps since the moments were set to zero."""
    before: int = 0
    """Steps that the server had counted until then."""
    beta1: float = 0.9
    beta2: float = 0.999

    def parameters(
        self, *, learning_rate: float, weight_decay: float, grad_clip: float
    ) -> dict[str, float]:
        """Return the next step's parameters."""
        scale = self._correction(self.done + 1) / self._correction(self.before + self.done + 1)
        return {
            "learning_rate": learning_rate * scale,
            "beta1": self.beta1,
            "beta2": self.beta2,
            "eps": 1e-8,
            "weight_decay": weight_decay / scale,
            "grad_clip_norm": grad_clip,
        }

    def _correction(self, steps: int) -> float:
        return float((1.0 - self.beta2**steps) ** 0.5 / (1.0 - self.beta1**steps))

    def cleared(self) -> "AdamClock":
        """Return the clock after a step that set the moments to zero (`ZERO_MOMENTS`)."""
        return replace(self, done=0, before=self.before + self.done + 1)


ZERO_MOMENTS = {
    "learning_rate": 0.0,
    "beta1": 0.0,
    "beta2": 0.0,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "grad_clip_norm": 0.0,
}
"""A step without a gradient that leaves the weights as they are and the moments at zero."""
