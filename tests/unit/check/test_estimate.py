"""Estimates, multiplied out by hand."""

import dataclasses
import json
import platform
from pathlib import Path
from types import SimpleNamespace

import pytest

from rloop.check import estimate
from rloop.check.estimate import (
    KERNEL_BYTES,
    PROGRAM_BYTES,
    auto_device,
    batch_arithmetic,
    compute_bytes,
    disk,
    disk_warnings,
    memory,
    num_evaluations,
    run_tokens,
)
from rloop.policies.model_files import ModelSize, measure_model
from rloop.recipe.config import Recipe
from rloop.recipe.load import load_recipe

RECIPES = Path(__file__).parents[3] / "recipes"
SIZE = ModelSize(
    parameters=1_000_000,
    layers=2,
    width=8,
    inner_width=16,
    query_width=8,
    kv_width=4,
    vocabulary=100,
    has_head_norms=False,
    linears={"q_proj": (128, 32), "up_proj": (256, 48)},
)


@pytest.fixture
def values():
    rate = {"learning_rate": 1e-6}
    return {
        "name": "small",
        "seed": 0,
        "iterations": 2,
        "policy": {"path": "random:llama"},
        "tasks": {"train": [{"source": "gsm8k"}], "evaluate": [{"source": "math500"}]},
        "prompt": {"max_tokens": 10},
        "explore": {
            "steps": 10,
            "prompts_per_step": 4,
            "group_size": 8,
            "refill_rounds": 1,
            "updates_per_step": 2,
            "sampling": {"max_completion_tokens": 50},
            "optimizer": rate,
        },
        "expert": {"max_success_rate": 0.5, "per_problem_cap": 3},
        "finetune": {"epochs": 2, "batch_size": 16, "optimizer": rate},
        "evaluate": {
            "samples": 8,
            "k": [8],
            "every": 4,
            "temperatures": [],
            "sampling": {"max_completion_tokens": 30},
        },
        "engine": {"max_batch": 4, "microbatch_tokens": 100},
    }


def named(rows):
    return {row.name: row.value for row in rows}


def test_batch_arithmetic_multiplies_out(values):
    rows = named(batch_arithmetic(Recipe.model_validate(values), num_train=20, num_evaluate=5))
    assert rows["completions per step"] == 4 * 8
    assert rows["sampled tokens per step, at most"] == 32 * 2 * 50
    assert rows["sampled tokens per iteration, at most"] == 32_000  # 10 steps x 3,200
    assert rows["completions per update"] == 16  # 32 / 2
    assert rows["RL updates per iteration"] == 20  # 10 x 2
    assert rows["passes over the training problems"] == 2.0  # 40 prompts / 20
    assert rows["expert set, at most"] == 60  # 3 x 20, fewer than 640 completions
    assert rows["RFT updates per iteration, at most"] == 8  # 2 x ceil(60 / 16) = 2 x 4
    # base + 2 x (inside at steps 4 and 8, explored, next) = 1 + 2 x 4
    assert rows["evaluations"] == 9
    assert rows["completions per evaluation"] == 40
    assert rows["sampled tokens of the run, at most"] == 74_800  # 2 x 32,000 + 9 x 40 x 30


def test_plain_rl_has_no_expert_set_and_measures_once_an_iteration(values):
    values |= {"expert": None, "finetune": None}
    recipe = Recipe.model_validate(values)
    assert "expert set, at most" not in named(batch_arithmetic(recipe, 20, 5))
    assert num_evaluations(recipe) == 7  # 1 + 2 x (2 inside + 1)


def test_a_frozen_policy_takes_no_rl_updates(values):
    values["explore"]["optimizer"] = {"learning_rate": 0}
    rows = named(batch_arithmetic(Recipe.model_validate(values), 20, 5))
    assert rows["RL updates per iteration"] == 0


def test_an_evaluation_at_the_last_step_is_the_explored_policys_own(values):
    values["evaluate"]["every"] = 5
    # steps 5 and 10; 10 is the end: 1 + 2 x (1 inside + 2)
    assert num_evaluations(Recipe.model_validate(values)) == 7


def test_disk_counts_trajectories_policies_and_two_states(values):
    recipe = Recipe.model_validate(values)
    rows = named(disk(recipe, 5, SIZE))
    # 12 x 74,800 tokens + 1,000 x (2 x 640 explored + 9 x 40 evaluated) = 897,600 + 1,640,000
    assert run_tokens(recipe, 5) == 74_800
    assert rows["trajectories, at most"] == 2_537_600
    assert rows["policies"] == 8_000_000  # one next policy in each of 2 iterations, float32
    assert rows["saved state"] == 24_000_000  # 2 x 12 bytes
    assert rows["together"] == 34_537_600
    assert list(named(disk(recipe, 5, None))) == ["trajectories, at most", "together"]


def test_explored_policies_kept_are_counted(values):
    values["keep_explored"] = True
    assert named(disk(Recipe.model_validate(values), 5, SIZE))["policies"] == 16_000_000


def test_keeping_the_last_policies_alone_counts_two_iterations_at_a_time(values):
    values |= {"keep_policies": "last", "iterations": 5}
    assert named(disk(Recipe.model_validate(values), 5, SIZE))["policies"] == 8_000_000
    values["keep_policies"] = "best"  # which may be a third one's
    assert named(disk(Recipe.model_validate(values), 5, SIZE))["policies"] == 12_000_000


def test_policies_are_as_wide_as_they_are_sampled(values):
    values["engine"]["dtype"] = "bfloat16"
    # 2 iterations x 1,000,000 parameters x 2 bytes
    assert named(disk(Recipe.model_validate(values), 5, SIZE))["policies"] == 4_000_000


def test_what_a_run_has_written_counts_as_free_for_it(values, tmp_path, monkeypatch):
    written = disk(Recipe.model_validate(values), 5, SIZE)  # 34,537,600 bytes, 32,000,000 weights
    run_dir = tmp_path / "run"
    assert "may write 34.5 MB" in disk_warnings_with(33_000_000, written, run_dir, monkeypatch)[0]
    run_dir.mkdir()
    (run_dir / "part").write_bytes(bytes(1_600_000))
    assert disk_warnings_with(33_000_000, written, run_dir, monkeypatch) == []


def test_weights_that_cannot_fit_are_said_so_with_the_remedy(values, tmp_path, monkeypatch):
    written = disk(Recipe.model_validate(values), 5, SIZE)
    (said,) = disk_warnings_with(31_000_000, written, tmp_path / "run", monkeypatch)
    assert said == (
        f"Policies and saved states alone take 32 MB, and {tmp_path} has 31 MB for it: the disk "
        "will be full. Choose another --out, or --set keep_policies=last."
    )


def disk_warnings_with(free, written, folder, monkeypatch):
    """Return the warnings on a disk with so many bytes free, which no test can make."""
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    return disk_warnings(written, folder)


def test_memory_adds_weights_states_cache_activations_and_logits(values):
    rows = named(memory(Recipe.model_validate(values), SIZE, 2))
    assert rows["program"] == PROGRAM_BYTES
    on_cpu = Recipe.model_validate(values | {"engine": values["engine"] | {"device": "cpu"}})
    assert named(memory(on_cpu, SIZE, 2))["program"] == PROGRAM_BYTES + KERNEL_BYTES
    assert named(memory(on_cpu, SIZE, 4))["program"] == PROGRAM_BYTES
    assert rows["weights to compute with"] == 2_000_000
    assert rows["weights, gradients and Adam moments"] == 16_000_000
    # 2 caches x 2 layers x 4 wide x 2 bytes x 4 rows x (10 + 50) tokens
    assert rows["key-value cache"] == 7_680
    values["engine"]["max_batch"] = 256  # 4 x 8 completions of a step, or 5 x 8 of an evaluation
    recipe = Recipe.model_validate(values)
    assert named(memory(recipe, SIZE, 2))["key-value cache"] == 7_680 * 32 / 4
    assert named(memory(recipe, SIZE, 2, num_evaluate=5))["key-value cache"] == 7_680 * 40 / 4
    # a token in a layer: inputs of norms and linear maps 4 x 8 + 8, query 8, keys and values 2 x 4,
    # gate, up and a product 3 x 16: 104 x 2 bytes; 100 tokens x (2 layers + 2) x 208
    assert rows["activations"] == 83_200
    # 2.5 x (100 tokens x 100 words x 4 bytes) and 100 words x 8 wide x 2 x 2
    assert rows["logits"] == 103_200
    assert rows["together"] == sum(value for name, value in rows.items() if name != "together")


def test_float32_computes_with_the_master_weights_and_checkpointing_keeps_less(values):
    values["engine"]["gradient_checkpointing"] = True
    rows = named(memory(Recipe.model_validate(values), SIZE, 4))
    assert "weights to compute with" not in rows
    # a layer 104 x 4 = 416; 100 tokens x (2 layers x 8 x 4 bytes + 2 x 416)
    assert rows["activations"] == 89_600


def test_adapters_train_few_numbers_beside_the_start_policys_weights(values):
    values["engine"]["lora"] = {"rank": 3, "alpha": 6}
    recipe = Recipe.model_validate(values)
    rows = named(memory(recipe, SIZE, 2))
    assert rows["weights to compute with"] == 2_000_000
    assert rows["start policy's weights"] == 768  # (128 + 256) x 2 bytes
    # 3 x (32 + 48) = 240 numbers of 4 + 4 + 8 bytes
    assert rows["adapters, gradients and Adam moments"] == 3_840
    assert rows["activations"] == 83_200
    assert rows["logits"] == 100_000  # a frozen embedding has no gradient
    assert named(disk(recipe, 5, SIZE))["saved state"] == 2 * 240 * (4 + 8)
    values["engine"]["lora"]["target_modules"] = ["up_proj"]
    rows = named(memory(Recipe.model_validate(values), SIZE, 2))
    assert rows["start policy's weights"] == 512
    assert rows["adapters, gradients and Adam moments"] == 3 * 48 * 16


def test_a_divergence_penalty_holds_a_second_model_unless_adapters_can_be_left_out(values):
    values["explore"]["kl_coef"] = 0.1
    assert named(memory(Recipe.model_validate(values), SIZE, 2))["reference policy"] == 2_000_000
    values["engine"]["lora"] = {"rank": 1, "alpha": 1}
    assert "reference policy" not in named(memory(Recipe.model_validate(values), SIZE, 2))


def test_a_micro_batch_is_no_larger_than_an_update_nor_smaller_than_a_sequence(values):
    values["engine"]["microbatch_tokens"] = 4096
    # an update of 4 x 8 / 2 = 16 completions, or 16 examples, of at most 60 tokens: 960
    rows = named(memory(Recipe.model_validate(values), SIZE, 4))
    assert rows["activations"] == 960 * 4 * 416
    values["engine"]["microbatch_tokens"] = 20
    rows = named(memory(Recipe.model_validate(values), SIZE, 4))
    assert rows["activations"] == 60 * 4 * 416


def test_head_norms_and_offloaded_masters_count(values):
    values["engine"]["offload_optimizer"] = True
    size = dataclasses.replace(SIZE, has_head_norms=True)
    rows = named(memory(Recipe.model_validate(values), size, 4))
    assert rows["weights to compute with"] == 4_000_000  # the masters are copies of them
    assert rows["activations"] == 100 * 4 * (416 + (8 + 4) * 4)


def test_the_recipe_for_7b_fits_the_80_gb_that_it_names(tmp_path):
    """Qwen2.5-Math-7B: 28 layers, width 3,584, 28 heads of 128, 4 of them key heads."""
    width, kv, inner, vocabulary = 3584, 512, 18_944, 152_064
    config = {
        "hidden_size": width,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "num_hidden_layers": 28,
        "intermediate_size": inner,
        "vocab_size": vocabulary,
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    layer = {"self_attn.q_proj.weight": [width, width], "self_attn.o_proj.weight": [width, width]}
    layer |= {f"self_attn.{name}_proj.weight": [kv, width] for name in "kv"}
    layer |= {f"mlp.{name}_proj.weight": [inner, width] for name in ("gate", "up")}
    layer |= {"mlp.down_proj.weight": [width, inner], "self_attn.q_proj.bias": [width]}
    layer |= {f"self_attn.{name}_proj.bias": [kv] for name in "kv"}
    layer |= {f"{name}_layernorm.weight": [width] for name in ("input", "post_attention")}
    shapes = {f"model.layers.{n}.{name}": shape for n in range(28) for name, shape in layer.items()}
    shapes |= {"model.embed_tokens.weight": [vocabulary, width], "model.norm.weight": [width]}
    shapes |= {"lm_head.weight": [vocabulary, width]}
    header = {n: {"dtype": "BF16", "shape": s, "data_offsets": [0, 0]} for n, s in shapes.items()}
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    size = measure_model(str(tmp_path))
    assert size is not None
    assert size.parameters == 7_615_616_512
    recipe = load_recipe(RECIPES / "qwen2.5-math-7b.yaml")
    rows = named(memory(recipe, size, 2))
    assert rows["key-value cache"] == 57_344 * 80 * 4096
    assert rows["gradients of an update"] == 7_615_616_512 * 4
    assert 75e9 < rows["on the GPU"] < 80e9
    assert rows["weights, gradients and Adam moments"] < 130e9 - rows["program"]


def test_the_end_at_several_temperatures_is_sampled_too(values):
    before = run_tokens(Recipe.model_validate(values), 5)
    values["evaluate"]["temperatures"] = [0.5, 1.0]
    # 5 problems x 2 policies x 2 temperatures x 8 samples x 30 tokens
    assert run_tokens(Recipe.model_validate(values), 5) - before == 4800


def test_an_apple_gpu_computes_in_float32_and_shares_the_machines_memory(values, monkeypatch):
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    monkeypatch.setattr(estimate, "cuda_memory", list)
    assert auto_device() == "mps"
    values["engine"] |= {"device": "mps", "offload_optimizer": True}
    recipe = Recipe.model_validate(values)
    assert compute_bytes(recipe) == 4
    rows = named(memory(recipe, SIZE, 4))
    assert rows["weights to compute with"] == 4_000_000
    assert "on the GPU" not in rows  # there is one memory
    monkeypatch.setattr(estimate, "cuda_memory", lambda: [8 * 10**9])
    assert auto_device() == "cuda"
