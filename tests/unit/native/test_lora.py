"""Low-rank adapters against peft, against all weights, and what they leave behind."""

import copy

import pytest
import torch
from doubles_models import tiny_model
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from rloop.algo.objective import Objective
from rloop.engines.base import TrainingSequence
from rloop.engines.native import attention
from rloop.engines.native.learner import Learner
from rloop.engines.native.lora import LowRankWeights
from rloop.errors import EngineError
from rloop.policies.checkpoint import save_policy
from rloop.recipe.config import OptimizerConfig
from rloop.recipe.engine import EngineConfig, LoraConfig

RANK, ALPHA = 4, 8.0
SFT = Objective(loss="sft")
LORA = LoraConfig(rank=RANK, alpha=ALPHA)
EXAMPLES = [
    TrainingSequence(prompt_ids=(5, 9, 7), completion_ids=(6, 11, 2)),
    TrainingSequence(prompt_ids=(5, 9, 7), completion_ids=(8, 2)),
    TrainingSequence(prompt_ids=(4,), completion_ids=(3, 3, 12, 10, 2)),
]


def make_learner(model, *, rate=1e-2, seed=0, lora=LORA, decay=0.1, **engine):
    return Learner(
        model,
        OptimizerConfig(learning_rate=rate, weight_decay=decay, grad_clip=0.05),
        EngineConfig(**({"microbatch_tokens": 16, "lora": lora} | engine)),
        seed=seed,
    )


def bits_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def logits_of(model):
    with torch.no_grad():
        return model(torch.tensor([[5, 9, 7, 6, 11, 2, 3]])).logits


def with_peft(model, learner):
    """Return a copy of the model under peft's adapters, with the numbers of the learner's own."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(
        r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    adapted = peft.get_peft_model(copy.deepcopy(model), config)
    masters = dict(learner._masters._masters)
    with torch.no_grad():
        for name, factor in adapted.named_parameters():
            if "lora_" in name:
                own = name.removeprefix("base_model.model.").removesuffix(".default.weight")
                factor.copy_(masters.pop(own))
    assert masters == {}, "peft adapts other layers"
    return adapted


def hand_loop(adapted, num_steps, learning_rate=1e-2):
    """Train peft's adapters on the examples as one would by hand: one example at a time."""
    factors = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(factors, lr=learning_rate, weight_decay=0.1)
    num_tokens = sum(len(example.completion_ids) for example in EXAMPLES)
    for _ in range(num_steps):
        for example in EXAMPLES:
            ids = torch.tensor([[*example.prompt_ids, *example.completion_ids]])
            labels = ids.clone()
            labels[0, : len(example.prompt_ids)] = -100
            loss = adapted(ids, labels=labels).loss  # a mean over the example's tokens
            (loss * len(example.completion_ids) / num_tokens).backward()
        torch.nn.utils.clip_grad_norm_(factors, 0.05)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_adapters_train_as_pefts_own_do(family):
    model = tiny_model(family)
    learner = make_learner(model)
    adapted = with_peft(model, learner)
    for _ in range(4):
        learner.update(EXAMPLES, SFT, learning_rate=1e-2)
    hand_loop(adapted, 4)
    found = learner._masters._masters
    for name, factor in adapted.named_parameters():
        if "lora_" in name:
            own = name.removeprefix("base_model.model.").removesuffix(".default.weight")
            # an element's first Adam step is its gradient's sign, however small the gradient
            torch.testing.assert_close(found[own], factor, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(logits_of(model), logits_of(adapted), atol=2e-3, rtol=1e-3)
    moved = logits_of(model) - logits_of(tiny_model(family))
    assert moved.abs().max() > 0.1  # or the comparison would say nothing


def test_a_merged_directory_gives_the_logits_of_the_adapter(tmp_path):
    """A bfloat16 weight is off by less than 1/128 of itself; logits here are about 3."""
    model = tiny_model(dtype=torch.bfloat16)
    learner = make_learner(model)
    for _ in range(4):
        learner.update(EXAMPLES, SFT, learning_rate=1e-2)
    adapted = with_peft(tiny_model(dtype=torch.bfloat16).float(), learner)
    merged = bits_of(model)
    learner.close()
    (tmp_path / "source").mkdir()
    save_policy(model, tmp_path / "policy", source_dir=tmp_path / "source")
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "policy", dtype=torch.float32)
    for name, weight in loaded.named_parameters():
        assert torch.equal(weight, merged[name].float()), name
    difference = (logits_of(loaded) - logits_of(adapted)).abs().max()
    change = (logits_of(loaded) - logits_of(tiny_model())).abs().max()
    assert difference < 0.1 < 0.3 < change


def test_nothing_but_the_targets_moves_and_all_trains_again_after_the_phase():
    model = tiny_model()
    before = bits_of(model)
    learner = make_learner(model, lora=LoraConfig(rank=1, alpha=1, target_modules=("v_proj",)))
    learner.update(EXAMPLES, SFT, learning_rate=1e-2)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {f"model.layers.{layer}.self_attn.v_proj.weight" for layer in (0, 1)}
    learner.close()
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_a_phases_adapter_starts_from_its_start_policy_with_numbers_of_its_seed():
    model = tiny_model()
    learners = [make_learner(copy.deepcopy(model), seed=seed) for seed in (1, 1, 2)]
    first, again, other = [bits(learner) for learner in learners]
    name = "model.layers.0.mlp.down_proj.lora_"
    assert torch.equal(first[f"{name}A"], again[f"{name}A"])
    assert not torch.equal(first[f"{name}A"], other[f"{name}A"])
    assert first[f"{name}A"].abs().max() <= 48**-0.5  # I = 48, as peft's kaiming_uniform(sqrt 5)
    assert not first[f"{name}B"].any()
    before = bits_of(model)
    make_learner(model)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def bits(learner):
    return {name: p.detach().clone() for name, p in learner._masters._masters.items()}


@pytest.mark.parametrize("offload", [False, True])
def test_the_start_policy_comes_back_inside_the_block_and_goes_to_the_bit(offload):
    model = tiny_model(dtype=torch.bfloat16)
    start = bits_of(model)
    learner = make_learner(model, offload_optimizer=offload)
    learner.update(EXAMPLES, SFT, learning_rate=1e-2)
    learnt = bits_of(model)
    with learner.at_start():
        assert all(torch.equal(p, start[name]) for name, p in model.named_parameters())
    assert all(torch.equal(p, learnt[name]) for name, p in model.named_parameters())
    assert not all(torch.equal(learnt[name], start[name]) for name in start)


def test_a_frozen_policy_is_its_own_start_policy():
    model = tiny_model()
    start = bits_of(model)
    learner = make_learner(model, rate=0.0)
    with learner.at_start():
        learner.update(EXAMPLES, SFT, learning_rate=1e-2)
        assert all(torch.equal(p, start[name]) for name, p in model.named_parameters())
    assert all(torch.equal(p, start[name]) for name, p in model.named_parameters())


def test_gradient_checkpointing_gives_the_same_adapters():
    attention.register()
    found = []
    for is_on in (False, True):
        model = tiny_model()
        learner = make_learner(model, gradient_checkpointing=is_on)
        learner.update(EXAMPLES, SFT, learning_rate=1e-2)
        learner.update(EXAMPLES, SFT, learning_rate=1e-2)
        found.append(bits(learner))
    for name, factor in found[0].items():
        torch.testing.assert_close(found[1][name], factor)
        assert factor.any(), name


def test_the_gradient_is_that_of_all_weights_projected():
    """dB = s G A^T and dA = s B^T G, with s = 8 / 4."""
    model = tiny_model()
    weights = LowRankWeights(model, LORA, seed=0, offload=False)
    name = "model.layers.1.mlp.up_proj"
    a, b = weights.masters[f"{name}.lora_A"], weights.masters[f"{name}.lora_B"]
    with torch.no_grad():
        b.fill_(0.5)
    weight = model.get_parameter(f"{name}.weight")
    gradient = torch.arange(weight.numel(), dtype=torch.float32).reshape(weight.shape) / 100
    for _ in range(2):  # of two micro-batches
        (weight * gradient).sum().backward()
    torch.testing.assert_close(b.grad, 2 * 2.0 * gradient @ a.detach().t())
    torch.testing.assert_close(a.grad, 2 * 2.0 * b.detach().t() @ gradient)
    assert weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_state_holds_adapters_only_and_continues_to_the_bit(dtype, tmp_path):
    straight = tiny_model(dtype=dtype)
    learner = make_learner(straight)
    for index in range(4):
        if index == 2:
            learner.save(tmp_path)
        expected = learner.update(EXAMPLES, SFT, learning_rate=1e-2)
    resumed = tiny_model(dtype=dtype)
    learner = make_learner(resumed)
    learner.load(tmp_path)
    assert [learner.update(EXAMPLES, SFT, learning_rate=1e-2) for _ in range(2)][1] == expected
    for name, weight in bits_of(straight).items():
        assert torch.equal(bits_of(resumed)[name], weight), name
    with safe_open(tmp_path / "learner.safetensors", framework="pt") as stored:
        names = list(stored.keys())
        sizes = [stored.get_tensor(name).numel() for name in names if name.startswith("master")]
    assert all("lora_" in name for name in names)
    # 2 layers x rank 4 x (q 32+32, k and v 32+16, o 32+32, gate and up 32+48, down 48+32)
    assert sum(sizes) == 2 * 4 * (64 + 2 * 48 + 64 + 3 * 80)


def test_a_layer_that_is_not_there_is_named_with_those_that_are():
    config = LoraConfig(rank=1, alpha=1, target_modules=("q_proj", "wq"))
    with pytest.raises(EngineError) as raised:
        make_learner(tiny_model(), lora=config)
    assert "names ['wq'], which this llama model does not have" in str(raised.value)
    assert "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj" in str(raised.value)
