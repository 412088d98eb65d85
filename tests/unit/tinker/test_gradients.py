"""The gradient that a server is asked for is the objective's, whichever way the server reduces."""

from collections.abc import Sequence

import pytest
import torch

from rloop.algo.losses import TokenBatch, UpdateCounts, compute_loss
from rloop.algo.objective import Objective
from rloop.engines.base import TrainingSequence
from rloop.engines.tinker.gradients import (
    AdamClock,
    Pass,
    Reduction,
    check_objective,
    datum,
    gradient,
    linear_pass,
    named_pass,
    server_loss,
)
from rloop.errors import EngineError

LENGTHS = (3, 1, 4)
OBJECTIVES = {
    "dapo": Objective(loss="dapo", clip_low=0.2, clip_high=0.28, importance_cap=2.0),
    "ppo": Objective(loss="dapo", clip_low=0.2, clip_high=0.28),
    "cispo": Objective(loss="cispo", clip_high=0.28),
    "gspo": Objective(loss="gspo", clip_low=0.2, clip_high=0.28),
    "kl": Objective(loss="dapo", clip_low=0.2, clip_high=0.28, kl_coef=0.1),
    "sft": Objective(loss="sft"),
}
LOSSES = frozenset({"cross_entropy", "ppo", "cispo"})


def rows(seed: int) -> list[list[float]]:
    numbers = torch.Generator().manual_seed(seed)
    return [(-2.0 * torch.rand(n, generator=numbers)).tolist() for n in LENGTHS]


def sequences() -> list[TrainingSequence]:
    behavior, reference = rows(1), rows(2)
    return [
        TrainingSequence(
            prompt_ids=(5, 9),
            completion_ids=tuple(range(length)),
            behavior_logprobs=behavior[number],
            reference_logprobs=reference[number],
            advantage=(1.5, -1.0, -0.5)[number],
            weight=(1.0, 0.25, 3.0)[number],
        )
        for number, length in enumerate(LENGTHS)
    ]


def on_a_server(
    asked: Pass, logprobs: Sequence[torch.Tensor], reduction: Reduction
) -> torch.Tensor:
    """Return a server's loss, as Tinker's page of losses and SkyRL's source have it."""
    total = torch.zeros((), dtype=torch.float64)
    for one, policy in zip(asked.data, logprobs, strict=True):
        given = {
            name: torch.tensor(tensor["data"][-len(policy) :], dtype=torch.float64)
            for name, tensor in one["loss_fn_inputs"].items()
        }
        weights = given.get("weights", torch.ones_like(policy))
        config = asked.config or {}
        if asked.loss == "cross_entropy":
            loss = -policy
        else:
            ratio = (policy - given["logprobs"]).exp()
            low, high = config["clip_low_threshold"], config["clip_high_threshold"]
            clipped = ratio.clamp(low, high)
            if asked.loss == "ppo":
                loss = -torch.minimum(ratio * given["advantages"], clipped * given["advantages"])
            else:
                loss = -clipped.detach() * policy * given["advantages"]
        summed = (weights * loss).sum()
        total = total + (summed if reduction == "sum" else summed / weights.sum())
    return total if reduction == "sum" else total / len(logprobs)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_the_servers_gradient_is_the_objectives(name: str, reduction: Reduction):
    objective, given, counts = (
        OBJECTIVES[name],
        sequences(),
        UpdateCounts(num_tokens=11, num_sequences=5),
    )
    policy = [torch.tensor(row, dtype=torch.float64, requires_grad=True) for row in rows(3)]
    flat = torch.cat(policy)
    is_rl = objective.loss != "sft"

    def each(values: Sequence[float]) -> torch.Tensor:
        return torch.tensor(values, dtype=torch.float64).repeat_interleave(torch.tensor(LENGTHS))

    def stored(found: Sequence[Sequence[float] | None]) -> torch.Tensor:
        return torch.tensor([x for row in found for x in row or ()], dtype=torch.float64)

    tokens = TokenBatch(
        policy_logprobs_N=flat,
        behavior_logprobs_N=stored([s.behavior_logprobs for s in given]) if is_rl else None,
        reference_logprobs_N=(
            stored([s.reference_logprobs for s in given]) if objective.kl_coef else None
        ),
        advantages_N=each([s.advantage for s in given]),
        weights_N=each([s.weight for s in given]),
        lengths_B=LENGTHS,
    )
    wanted = torch.autograd.grad(compute_loss(objective, tokens, counts).loss, policy)
    loss = server_loss(objective, LOSSES)
    assert loss == {"ppo": "ppo", "cispo": "cispo"}.get(name)
    if loss is None:
        found = gradient(given, rows(3), objective, counts)
        asked = linear_pass(given, found.factors, reduction)
    else:
        asked = named_pass(loss, given, objective, counts, reduction)
    got = torch.autograd.grad(on_a_server(asked, policy, reduction), policy)
    for one, expected in zip(got, wanted, strict=True):
        assert one.tolist() == pytest.approx(expected.tolist(), rel=1e-9, abs=1e-12)


def test_a_datum_has_inputs_targets_and_numbers_in_step():
    one = TrainingSequence(prompt_ids=(5, 9, 5), completion_ids=(6, 0))
    found = datum(one, {"advantages": [0.5, -0.5]}, "mean")
    assert found["model_input"]["chunks"][0]["tokens"] == [5, 9, 5, 6]
    inputs = {name: tensor["data"] for name, tensor in found["loss_fn_inputs"].items()}
    # The prompt's own tokens are targets without a weight.
    assert inputs == {
        "target_tokens": [9, 5, 6, 0],
        "advantages": [0.0, 0.0, 0.5, -0.5],
        "weights": [0.0, 0.0, 1.0, 1.0],
    }


def test_metrics_are_the_learners():
    one = TrainingSequence(
        prompt_ids=(5,), completion_ids=(6, 0), behavior_logprobs=(-1.0, -1.0), advantage=1.0
    )
    counts = UpdateCounts(num_tokens=2, num_sequences=1)
    objective = Objective(loss="dapo", clip_low=0.2, clip_high=0.28)
    found = gradient([one], [(-1.0, -0.5)], objective, counts).metrics
    # Ratios 1 and exp(0.5) = 1.65, which is cut to 1.28: -(1 + 1.28) / 2 = -1.14.
    assert found == pytest.approx(
        {
            "loss_mean": -1.14,
            "entropy_mean": 0.75,
            "clip_frac": 0.5,
            "gap_mean": 0.25,
            "gap_max": 0.5,
        }
    )


def test_a_server_without_the_loss_is_refused_with_what_it_has():
    with pytest.raises(EngineError, match=r"needs the Tinker server's 'cispo'.* has cross_entropy"):
        check_objective(OBJECTIVES["dapo"], frozenset({"cross_entropy"}), "mean")
    with pytest.raises(EngineError, match=r"explore\.entropy_coef=0\.1 needs whole distributions"):
        check_objective(Objective(loss="dapo", entropy_coef=0.1), LOSSES, "sum")
    check_objective(OBJECTIVES["gspo"], frozenset({"cross_entropy"}), "sum")


def test_cleared_moments_count_from_one_although_the_server_counts_on():
    """Two Adams on the same gradients: a fresh one, and one of four steps with moments of zero."""
    gradients = (0.3, -0.2, 0.5)

    def walk(clock: AdamClock) -> list[float]:
        weight, m, v, found = 1.0, 0.0, 0.0, []
        for gradient_of_step in gradients:
            p = clock.parameters(learning_rate=0.1, weight_decay=0.01, grad_clip=0.0)
            clock.done += 1
            steps = clock.before + clock.done
            m = p["beta1"] * m + (1 - p["beta1"]) * gradient_of_step
            v = p["beta2"] * v + (1 - p["beta2"]) * gradient_of_step**2
            mean, spread = m / (1 - p["beta1"] ** steps), (v / (1 - p["beta2"] ** steps)) ** 0.5
            weight *= 1 - p["learning_rate"] * p["weight_decay"]
            weight -= p["learning_rate"] * mean / (spread + p["eps"])
            found.append(weight)
        return found

    cleared = AdamClock(done=3).cleared()
    assert (cleared.before, cleared.done) == (4, 0)
    assert walk(cleared) == pytest.approx(walk(AdamClock()), rel=1e-6)
