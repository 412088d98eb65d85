"""One update, seen from all sides, on tiny random models."""

from dataclasses import replace

import pytest
import torch
from doubles_models import FAMILIES, VOCABULARY, tiny_model

from rloop.algo.losses import LOSSES
from rloop.algo.objective import Objective
from rloop.engines.base import TrainingSequence
from rloop.engines.native import attention
from rloop.engines.native.learner import Learner
from rloop.engines.native.logprobs import sequence_logprobs
from rloop.errors import EngineError
from rloop.recipe.config import OptimizerConfig
from rloop.recipe.engine import EngineConfig

SFT = Objective(loss="sft")
DAPO = Objective(loss="dapo", clip_low=0.2, clip_high=0.28)
LENGTHS = [(3, 5), (7, 2), (1, 9), (4, 4), (2, 1)]


def make_sequences(model=None, *, temperature=1.0, shift=0.1, lengths=LENGTHS, num_prompts=None):
    """Random ids; with a model, behavior log-probabilities near its own and mixed advantages.

    With fewer prompts than sequences these take turns, and share theirs.
    """
    generator = torch.Generator().manual_seed(1)

    def ids(count):
        return tuple(torch.randint(1, VOCABULARY, (count,), generator=generator).tolist())

    plain = [TrainingSequence(prompt_ids=ids(p), completion_ids=ids(c)) for p, c in lengths]
    plain = [
        replace(sequence, prompt_ids=plain[index % (num_prompts or len(plain))].prompt_ids)
        for index, sequence in enumerate(plain)
    ]
    if model is None:
        return plain
    known = sequence_logprobs(model, plain, temperature=temperature, microbatch_tokens=64)
    sequences = []
    for index, (sequence, logprobs) in enumerate(zip(plain, known, strict=True)):
        noise = torch.randn(len(logprobs), generator=generator) * shift
        sequences.append(
            TrainingSequence(
                prompt_ids=sequence.prompt_ids,
                completion_ids=sequence.completion_ids,
                behavior_logprobs=(torch.tensor(logprobs) + noise).tolist(),
                reference_logprobs=(torch.tensor(logprobs) - noise).tolist(),
                advantage=(-1.0) ** index * (index + 1) / 2,
                weight=1.0 + index,
            )
        )
    return sequences


def make_learner(model, *, rate=1e-3, engine=None, **optimizer):
    return Learner(
        model,
        OptimizerConfig(learning_rate=rate, **optimizer),
        EngineConfig(**({"microbatch_tokens": 32} | (engine or {}))),
    )


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def accumulated_gradient(model, sequences, objective, **engine):
    """The gradient of one update, caught before the step."""
    learner = make_learner(model, engine=engine)
    caught = {}
    learner._masters.step = lambda **_: caught.update(
        {n: p.grad.clone() for n, p in learner._masters._masters.items()}
    )
    metrics = learner.update(sequences, objective, learning_rate=1e-3)
    learner.close()
    return metrics, torch.cat([grad.flatten() for grad in caught.values()])


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_does_not_depend_on_the_microbatch_split(name):
    model = tiny_model()
    objective = Objective(
        loss=name, clip_low=0.1, clip_high=0.1, kl_coef=0.05, entropy_coef=0.02, temperature=0.8
    )
    sequences = make_sequences(model, temperature=0.8)
    whole = accumulated_gradient(model, sequences, objective, microbatch_tokens=1000)
    for tokens in (1, 16, 24):
        split = accumulated_gradient(model, sequences, objective, microbatch_tokens=tokens)
        assert (split[1] - whole[1]).abs().max() / whole[1].abs().max() < 1e-5
        assert split[0] == pytest.approx(whole[0], rel=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize(("implementation", "shape"), [("sdpa", (2, 15)), ("rloop", (1, 26))])
def test_a_shared_prompt_gives_the_loss_and_gradient_of_separate_rows(
    implementation, shape, name, family
):
    model = tiny_model(family)
    attention.register()
    model.set_attn_implementation(implementation)
    objective = Objective(
        loss=name, clip_low=0.1, clip_high=0.1, kl_coef=0.05, entropy_coef=0.02, temperature=0.8
    )
    sequences = make_sequences(model, temperature=0.8, num_prompts=2)
    separate = accumulated_gradient(model, sequences, objective, microbatch_tokens=1)
    computed = []
    embedding = model.model.embed_tokens
    embedding.register_forward_hook(lambda *call: computed.append(call[1][0].shape))
    sizes = [parameter.numel() for parameter in model.parameters()]
    floor = 1e-3 * separate[1].norm()  # a key bias has no gradient but rounding
    for tokens, is_on in ((1000, False), (1000, True), (14, False)):
        shared = accumulated_gradient(
            model, sequences, objective, microbatch_tokens=tokens, gradient_checkpointing=is_on
        )
        assert shared[0] == pytest.approx(separate[0], rel=1e-5)
        for one, other in zip(shared[1].split(sizes), separate[1].split(sizes), strict=True):
            assert (one - other).norm() <= 1e-5 * max(other.norm(), floor)
    # prompt 0 has completions of 5, 9 and 1 tokens: 3 + 4 + 8 + 0 = 15; prompt 1 of 2 and 4: 11
    assert computed.count(shape) == 2
    # at most 14: 3 + 8 + 0 and, alone, 3 + 4
    assert computed[-3:] == [(1, 11), (1, 11), (1, 7)]


def test_gradient_checkpointing_changes_memory_only():
    model = tiny_model()
    sequences = make_sequences(model)
    plain = accumulated_gradient(model, sequences, DAPO)
    again = accumulated_gradient(model, sequences, DAPO, gradient_checkpointing=True)
    torch.testing.assert_close(again[1], plain[1])
    assert not any(module.training for module in model.modules())


def test_dropout_in_the_config_does_not_act():
    model = tiny_model()
    sequences = make_sequences(model)
    expected = accumulated_gradient(model, sequences, DAPO)
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    model.train()
    for is_on in (False, True):
        found = accumulated_gradient(model, sequences, DAPO, gradient_checkpointing=is_on)
        torch.testing.assert_close(found[1], expected[1])


def test_zero_advantages_cost_nothing_but_count_in_the_denominator():
    model = tiny_model()
    one, *rest = make_sequences(model)
    silent = [
        TrainingSequence(
            prompt_ids=s.prompt_ids,
            completion_ids=s.completion_ids,
            behavior_logprobs=s.behavior_logprobs,
        )
        for s in rest
    ]
    alone, alone_gradient = accumulated_gradient(model, [one], DAPO)
    mixed, mixed_gradient = accumulated_gradient(model, [one, *silent], DAPO)
    assert mixed["trained_sequences_count"] == 1
    # 5 of 5 + 2 + 9 + 4 + 1 = 21 tokens carry a signal
    assert mixed["loss_tokens_count"] == 21
    torch.testing.assert_close(mixed_gradient * 21, alone_gradient * 5)
    assert mixed["loss_mean"] * 21 == pytest.approx(alone["loss_mean"] * 5)


def test_sft_loss_and_gradient_equal_those_of_transformers():
    """The token mean over the batch, as transformers takes it with num_items_in_batch."""
    model = tiny_model("qwen3")
    sequences = make_sequences()
    metrics, gradient = accumulated_gradient(model, sequences, SFT, microbatch_tokens=16)
    num_tokens = sum(len(s.completion_ids) for s in sequences)
    loss = torch.zeros(())
    for s in sequences:
        ids = torch.tensor([[*s.prompt_ids, *s.completion_ids]])
        labels = ids.clone()
        labels[:, : len(s.prompt_ids)] = -100
        loss = loss + model(ids, labels=labels, num_items_in_batch=num_tokens).loss
    expected = torch.autograd.grad(loss, list(model.parameters()))
    torch.testing.assert_close(gradient, torch.cat([grad.flatten() for grad in expected]))
    assert metrics["loss_mean"] == pytest.approx(loss.item(), rel=1e-6)


def test_the_last_token_is_supervised_and_the_prompt_is_not():
    """With one completion token, EOS, all of the gradient is EOS's."""
    model = tiny_model(tied=False)
    eos = 7
    sequence = TrainingSequence(prompt_ids=(3, 4, 5), completion_ids=(eos,))
    learner = make_learner(model, rate=1e-2)
    before = sequence_logprobs(model, [sequence], temperature=1.0, microbatch_tokens=64)[0][0]
    learner.update([sequence], SFT, learning_rate=1e-2)
    after = sequence_logprobs(model, [sequence], temperature=1.0, microbatch_tokens=64)[0][0]
    assert after > before
    model = tiny_model(tied=False)
    longer = TrainingSequence(prompt_ids=(3, 4, 5), completion_ids=(6, eos))
    learner = make_learner(model)
    learner._masters.step = lambda **_: None
    learner.update([longer], SFT, learning_rate=1e-3)
    pull_V = model.lm_head.weight.grad.norm(dim=-1)
    assert pull_V[eos] > 10 * pull_V[11]  # token 11 is no target, token 7 is


def test_four_sequences_are_learnt_by_heart_in_fifty_updates():
    model = tiny_model()
    sequences = make_sequences(lengths=LENGTHS[:4])
    learner = make_learner(model, rate=1e-2)
    losses = [learner.update(sequences, SFT, learning_rate=1e-2)["loss_mean"] for _ in range(50)]
    assert losses[0] > 3.0
    assert losses[-1] < 0.05


@pytest.mark.parametrize("engine", [{}, {"offload_optimizer": True}])
def test_bf16_weights_move_on_average_as_far_as_float32_masters(engine):
    """A first update of AdamW at 1e-4 moves each of the model's 17,696 weights by 1e-4.

    Most of them are near 0.13, where bfloat16 has a step of 5e-4 to 1e-3, so rounding to nearest
    leaves four of five where they are. Rounded by chance a weight's move has a standard deviation
    of at most sqrt(1e-4 x 2e-3); five of their mean are 1.7e-5.
    """
    model = tiny_model(dtype=torch.bfloat16)
    sequences = make_sequences(model)
    start = {name: weight.float() for name, weight in weights_of(model).items()}
    exact = tiny_model(dtype=torch.bfloat16).float()
    make_learner(exact).update(sequences, SFT, learning_rate=1e-4)
    target = {name: weight - start[name] for name, weight in weights_of(exact).items()}
    make_learner(model, engine=engine).update(sequences, SFT, learning_rate=1e-4)
    along = torch.cat(
        [
            ((weight.float() - start[name]) * target[name].sign()).flatten()
            for name, weight in weights_of(model).items()
        ]
    )
    wanted = torch.cat([move.abs().flatten() for move in target.values()]).mean()
    assert wanted.item() == pytest.approx(1e-4, rel=0.05)
    assert along.mean().item() == pytest.approx(1e-4, abs=2.5e-5)


def test_weights_stay_where_their_masters_do():
    """A rate so small that no float32 master of 0.01 or more moves."""
    model = tiny_model(dtype=torch.bfloat16)
    start = weights_of(model)
    make_learner(model).update(make_sequences(model), SFT, learning_rate=1e-12)
    for name, weight in weights_of(model).items():
        large = start[name].abs() >= 0.01
        assert torch.equal(weight[large], start[name][large]), name


def test_separate_masters_step_as_the_models_own_parameters_do():
    own, offloaded = tiny_model(), tiny_model()
    sequences = make_sequences(own)
    learners = [make_learner(own), make_learner(offloaded, engine={"offload_optimizer": True})]
    for _ in range(3):
        one, other = [learner.update(sequences, DAPO, learning_rate=1e-3) for learner in learners]
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    for name, weight in weights_of(own).items():
        torch.testing.assert_close(weights_of(offloaded)[name], weight)
    assert all(p.grad is None for p in offloaded.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saved_after_two_updates_and_loaded_equals_four_straight_to_the_bit(dtype, tmp_path):
    rates = [5e-4, 1e-3, 1e-3, 5e-4]
    straight = tiny_model(dtype=dtype)
    sequences = make_sequences(straight)
    learner = make_learner(straight, weight_decay=0.1)
    for index, rate in enumerate(rates):
        if index == 2:
            learner.save(tmp_path)
        expected = learner.update(sequences, DAPO, learning_rate=rate)

    resumed = tiny_model(dtype=dtype, seed=9)
    learner = make_learner(resumed, weight_decay=0.1)
    learner.load(tmp_path)
    for rate in rates[2:]:
        found = learner.update(sequences, DAPO, learning_rate=rate)
    assert found == expected
    for name, weight in weights_of(straight).items():
        assert torch.equal(weights_of(resumed)[name], weight), name
    assert [path.name for path in tmp_path.iterdir()] == ["learner.safetensors"]


def test_a_state_of_another_model_is_refused(tmp_path):
    make_learner(tiny_model()).save(tmp_path)
    with pytest.raises(EngineError, match=r"model: for model\.layers\.0\.self_attn\.q_norm"):
        make_learner(tiny_model("qwen3")).load(tmp_path)


def test_a_step_that_is_not_finite_is_skipped_and_counted():
    model = tiny_model()
    good = make_sequences(model)
    broken = [
        TrainingSequence(
            prompt_ids=good[0].prompt_ids,
            completion_ids=good[0].completion_ids,
            behavior_logprobs=good[0].behavior_logprobs,
            advantage=float("nan"),
        )
    ]
    learner = make_learner(model)
    before = weights_of(model)
    metrics = learner.update([*good[1:], *broken], DAPO, learning_rate=1e-3)
    assert metrics["skipped_updates_count"] == 1
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    # nothing of the broken gradient is left
    metrics = learner.update(good, DAPO, learning_rate=1e-3)
    assert metrics["skipped_updates_count"] == 0
    assert all(p.isfinite().all() for p in model.parameters())


def test_a_rate_of_zero_freezes_the_policy_and_skips_the_work():
    model = tiny_model()
    sequences = make_sequences(model)
    learner = make_learner(model, rate=0.0)
    model.model.embed_tokens = None  # any pass through the model would raise
    metrics = learner.update(sequences, DAPO, learning_rate=0.0)
    assert metrics["learning_rate"] == 0.0
    assert metrics["loss_tokens_count"] == 21
    assert metrics["trained_sequences_count"] == 0
    assert "grad_norm" not in metrics


def test_metrics_on_policy():
    """Behavior equal to the policy: ratios are 1, nothing is clipped, the gap is rounding."""
    model = tiny_model()
    sequences = make_sequences(model, shift=0.0)
    metrics, gradient = accumulated_gradient(model, sequences, DAPO)
    # all ratios are 1: loss = -sum of advantage * length / 21
    # advantages .5, -1, 1.5, -2, 2.5 on 5, 2, 9, 4, 1 tokens: -(2.5 - 2 + 13.5 - 8 + 2.5) / 21
    assert metrics["loss_mean"] == pytest.approx(-8.5 / 21, abs=1e-6)
    assert metrics["clip_frac"] == 0.0
    assert metrics["gap_max"] < 1e-5
    assert metrics["grad_norm"] == pytest.approx(gradient.norm().item(), rel=1e-5)
    assert "kl_mean" not in metrics


def test_metrics_off_policy():
    model = tiny_model()
    sequences = make_sequences(model, shift=0.0)
    # every stored log-probability is 0.5 too low: ratio e^0.5 = 1.65 > 1.28 is clipped where A > 0
    stored = [
        TrainingSequence(
            prompt_ids=s.prompt_ids,
            completion_ids=s.completion_ids,
            behavior_logprobs=[x - 0.5 for x in s.behavior_logprobs],
            reference_logprobs=s.reference_logprobs,
            advantage=s.advantage,
        )
        for s in sequences
    ]
    objective = Objective(loss="dapo", clip_low=0.2, clip_high=0.28, kl_coef=0.1)
    metrics, _ = accumulated_gradient(model, stored, objective)
    assert metrics["gap_mean"] == pytest.approx(0.5, abs=1e-5)
    assert metrics["gap_max"] == pytest.approx(0.5, abs=1e-5)
    assert metrics["clip_frac"] == pytest.approx(15 / 21)  # advantages > 0: 5 + 9 + 1 tokens
    assert metrics["kl_mean"] == pytest.approx(0.0, abs=1e-6)  # the reference is the policy itself


def test_an_entropy_bonus_keeps_the_entropy_up():
    sequences = make_sequences(tiny_model(), shift=0.0)
    ends = []
    for coef in (0.0, 0.5):
        model = tiny_model()
        learner = make_learner(model)
        objective = Objective(loss="dapo", clip_low=9.0, clip_high=9.0, entropy_coef=coef)
        updates = [learner.update(sequences, objective, learning_rate=3e-3) for _ in range(8)]
        ends.append(updates[-1]["entropy_mean"])
    without, with_bonus = ends
    assert with_bonus > without + 0.01


def test_an_entropy_bonus_alone_moves_the_policy():
    sequences = [replace(s, advantage=0.0) for s in make_sequences(tiny_model(), shift=0.0)]
    for coef, num_trained in ((0.0, 0), (0.5, len(sequences))):
        objective = Objective(loss="dapo", clip_low=0.2, clip_high=0.2, entropy_coef=coef)
        metrics = make_learner(tiny_model()).update(sequences, objective, learning_rate=1e-3)
        assert metrics["trained_sequences_count"] == num_trained


def test_what_cannot_be_trained_on_is_refused_in_a_sentence():
    learner = make_learner(tiny_model())

    def update(sequence, objective):
        learner.update([sequence], objective, learning_rate=1e-3)

    with pytest.raises(EngineError, match="sequence 0 has 0 prompt and 1 completion tokens"):
        update(TrainingSequence(prompt_ids=(), completion_ids=(1,)), SFT)
    bad = TrainingSequence(prompt_ids=(1,), completion_ids=(1,), behavior_logprobs=(0.0, 0.0))
    with pytest.raises(EngineError, match="1 completion_ids but 2 behavior_logprobs"):
        update(bad, SFT)
    with pytest.raises(EngineError, match="has no behavior_logprobs, which loss 'dapo'"):
        update(TrainingSequence(prompt_ids=(1,), completion_ids=(1,)), DAPO)
