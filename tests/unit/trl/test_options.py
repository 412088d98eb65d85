"""What of a recipe becomes which option of TRL's, and what is refused."""

import math
from dataclasses import fields
from types import SimpleNamespace

import pytest
from doubles_runs import toy_recipe

from rloop.config import Recipe
from rloop.engines.trl.fields import option_names
from rloop.engines.trl.options import Site, check_recipe, grpo_options, sft_options
from rloop.errors import ConfigError
from rloop.recipe_keys import recipe_fields
from rloop.types import Place

PLACE = Place(run="toy", seed=0, iteration=1, phase="explore")


def changed(recipe: Recipe, **values: object) -> Recipe:
    """Return the recipe on TRL with dotted keys (a__b) replaced."""
    data = recipe.model_dump()
    data["engine"]["name"] = "trl"
    for key, value in values.items():
        *parents, name = key.split("__")
        place = data
        for parent in parents:
            place = place[parent]
        place[name] = value
    return Recipe.model_validate(data)


@pytest.fixture
def recipe(tmp_path):
    return changed(toy_recipe(tmp_path))


def grpo(recipe, *, size=1, longest_prompt=4):
    site = Site(size=size, is_cpu=True, is_bfloat16=False)
    return grpo_options(recipe, site, PLACE, num_steps=4, longest_prompt=longest_prompt)


def test_the_batch_is_cut_by_the_token_budget_and_the_processes(recipe):
    """3 prompts x 4 = 12 completions of up to 4 + 16 = 20 tokens; 100 tokens hold 5 of them, and 4
    is the largest part of 12 that fits.
    """
    one = grpo(changed(recipe, engine__microbatch_tokens=100))
    assert (one["per_device_train_batch_size"], one["gradient_accumulation_steps"]) == (4, 3)
    # Two processes have 6 each: 3 at a time, twice.
    two = grpo(changed(recipe, engine__microbatch_tokens=100), size=2)
    assert (two["per_device_train_batch_size"], two["gradient_accumulation_steps"]) == (3, 2)
    # Two updates a step: 6 completions each, generated together.
    halves = grpo(changed(recipe, engine__microbatch_tokens=100, explore__updates_per_step=2))
    assert (halves["per_device_train_batch_size"], halves["gradient_accumulation_steps"]) == (3, 2)
    assert halves["steps_per_generation"] == 4
    assert halves["max_steps"] == 8
    # A sequence longer than the budget goes alone.
    alone = grpo(recipe, longest_prompt=10**6)
    assert (alone["per_device_train_batch_size"], alone["gradient_accumulation_steps"]) == (1, 12)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        ("dapo", ("dapo", "token", 0.28)),
        ("gspo", ("grpo", "sequence", 0.28)),
        ("cispo", ("cispo", "token", 1.28)),
    ],
)
def test_losses_are_those_of_the_same_equation(recipe, loss, expected):
    options = grpo(changed(recipe, explore__loss=loss))
    found = (options["loss_type"], options["importance_sampling_level"], options["epsilon_high"])
    assert found == pytest.approx(expected)
    assert options["epsilon"] == 0.2
    assert options["delta"] == (2.0 if loss == "dapo" else None)
    assert options["vllm_importance_sampling_clip_max"] == 2.0
    assert options["scale_rewards"] == "none"


def test_an_optimizer_is_translated(recipe):
    plain = {"learning_rate": 1e-4, "schedule": "cosine", "warmup_frac": 1.0, "grad_clip": 0.0}
    options = grpo(changed(recipe, explore__optimizer=plain))
    assert options["learning_rate"] == 1e-4
    assert options["lr_scheduler_type"] == "cosine"
    assert math.ceil(1000 * options["warmup_steps"]) == 1000  # below 1, so a fraction to them
    assert options["warmup_steps"] < 1.0
    assert options["max_grad_norm"] == math.inf


def test_the_seed_differs_between_iterations_only(recipe):
    site = Site(size=1, is_cpu=True, is_bfloat16=False)
    places = [PLACE, PLACE, Place(run="toy", seed=0, iteration=2, phase="explore")]
    seeds = [
        grpo_options(recipe, site, place, num_steps=4, longest_prompt=4)["seed"] for place in places
    ]
    assert seeds[0] == seeds[1] != seeds[2]


def test_fine_tuning_takes_every_token_and_no_other_order(recipe):
    site = Site(size=2, is_cpu=True, is_bfloat16=True)
    options = sft_options(recipe, recipe.finetune, site, PLACE, longest=4, num_examples=8)
    assert options["max_length"] is None
    assert options["train_sampling_strategy"] == "sequential"
    assert options["bf16"] is True
    assert options["per_device_train_batch_size"] == 2


def test_a_rest_of_the_examples_is_shared_among_the_batches(recipe):
    """Two epochs of 82 in batches of at most 16: 11 updates, of 15 and the last of 14; not ten of
    16 and one of 4. Two processes take 8 each: ten of 16 and one of 4 is as even as they get.
    """
    recipe = changed(recipe, finetune__batch_size=16)
    for size, share in ((1, 15), (2, 8)):
        site = Site(size=size, is_cpu=True, is_bfloat16=False)
        options = sft_options(recipe, recipe.finetune, site, PLACE, longest=4, num_examples=2 * 82)
        rows = options["per_device_train_batch_size"]
        assert rows * options["gradient_accumulation_steps"] == share


def test_what_is_passed_through_arrives(recipe):
    options = grpo(changed(recipe, engine__trl__extra__grpo={"vllm_mode": "server"}))
    assert options["vllm_mode"] == "server"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (
            {"engine__trl__extra__grpo": {"learning_rate": 1.0}},
            "engine.trl.extra.grpo.learning_rate=1.0: this option comes from "
            "explore.optimizer.learning_rate. Set explore.optimizer.learning_rate alone.",
        ),
        (
            {"engine__trl__extra__sft": {"max_length": 8}},
            "engine.trl.extra.sft.max_length=8: this option is set by rloop itself. Leave it out.",
        ),
        ({"explore__group_size": 1, "explore__optimizer__learning_rate": 0.0}, "group_size >= 2"),
        ({"explore__sampling__temperature": 0.0}, "explore.sampling.temperature=0"),
        ({"expert__weight": "importance"}, "got expert.weight=importance"),
        ({"engine__offload_optimizer": True}, "engine.offload_optimizer is the native engine's"),
        (
            {"engine__trl__launch__processes": 5},
            "12 completions a step (explore.prompts_per_step=3 x explore.group_size=4) cannot be "
            # 5 x 4 and 3 x 5 are the nearest multiples of 5; 4 processes divide 12, and 4 examples.
            "shared by 5 processes in explore.updates_per_step=1 equal parts. Use --set "
            "explore.prompts_per_step=5, --set explore.group_size=5 or --set "
            "engine.trl.launch.processes=4.",
        ),
        (
            {"engine__trl__launch": {"processes": 2, "preset": "fsdp2"}},
            "preset=fsdp2 shards on GPUs only: on CPUs accelerate ignores it",
        ),
        (
            {"engine__trl__launch__processes": 3},
            "finetune.batch_size=4 cannot be shared by 3 processes. Use --set "
            "finetune.batch_size=3 or --set engine.trl.launch.processes=2.",
        ),
        (
            {"engine__trl__extra__grpo": {"vllm_moed": "server"}},
            "engine.trl.extra.grpo.vllm_moed is not a known key: TRL's GRPOConfig has no such "
            "option. Did you mean engine.trl.extra.grpo.vllm_mode?",
        ),
        (
            {"engine__trl__extra__grpo": {"lerning_rate": 1e-4}},
            "Did you mean explore.optimizer.learning_rate?",
        ),
        (
            {"engine__trl__extra__sft": {"pakcing": True}},
            "engine.trl.extra.sft.pakcing is not a known key: TRL's SFTConfig has no such option. "
            "Did you mean packing, which is set by rloop itself?",
        ),
        ({"explore__importance_cap": 1.28}, "above 1 + explore.clip_high=1.28, got 1.28"),
        ({"engine__trl__extra__grpo": {"delta": 4.0}}, "comes from explore.importance_cap"),
        ({"engine__trl__launch": {"machine_rank": 1}}, "machine_rank=1 is none of 1 machines"),
        (
            {"engine__trl__launch": {"processes": 4, "machines": 3}},
            "processes=4 cannot be shared by 3 machines",
        ),
        (
            {"engine__trl__launch": {"processes": 2, "machines": 2, "address": "10.0.0.1"}},
            "Use --set engine.trl.launch.port=29500",
        ),
        (
            {"engine__trl__launch": {"processes": 2, "machines": 2, "port": 29500}},
            "address=127.0.0.1 is each machine's own",
        ),
        ({"engine__trl__launch": {"config_file": "none.yaml"}}, "config_file=none.yaml is not a"),
        (
            {"expert": None, "finetune": None, "explore__average_every": 2},
            "explore.average_every=2 is the native engine's",
        ),
        (
            {"expert": None, "finetune": None, "explore__replay_per_group": 1},
            "explore.replay_per_group=1 is the native engine's",
        ),
        ({"explore__mask_truncated": True}, "explore.mask_truncated=True is the native engine's"),
        ({"rewards": [{"function": "accuracy"}]}, "rewards is the native engine's. Leave it out"),
    ],
)
def test_what_trl_cannot_do_is_refused_with_the_remedy(recipe, values, words):
    with pytest.raises(ConfigError) as raised:
        check_recipe(changed(recipe, **values))
    assert words in str(raised.value)


def test_what_trl_does_otherwise_is_said(recipe):
    assert check_recipe(recipe) == []
    [warning] = check_recipe(changed(recipe, explore__refill_rounds=2))
    assert "explore.refill_rounds=2 is not done: TRL has no dynamic sampling" in warning
    [warning] = check_recipe(changed(recipe, explore__kl_coef=0.1))
    assert "explore.kl_coef" in warning
    [warning] = check_recipe(changed(recipe, explore__entropy_coef=0.1))
    assert "explore.entropy_coef: on TRL the entropy is a mean over all" in warning
    [warning] = check_recipe(changed(recipe, explore__sampler="vllm"))
    assert "evaluates with rloop's own sampler" in warning


def test_more_processes_than_cores_is_a_warning_on_cpus_alone(recipe, monkeypatch):
    monkeypatch.setattr("rloop.engines.trl.options.allowed_cores", lambda: 1)
    two = {"processes": 2, "preset": "cpu"}
    [warning] = check_recipe(changed(recipe, engine__trl__launch=two))
    assert warning.startswith("2 processes on this machine, 1 core: they wait for each other.")
    meeting = {"machines": 2, "address": "10.0.0.1", "port": 29500}
    assert check_recipe(changed(recipe, engine__trl__launch=two | meeting)) == []
    on_gpus = changed(recipe, engine__trl__launch={"processes": 2}, engine__device="auto")
    assert check_recipe(on_gpus) == []
    [warning] = check_recipe(changed(on_gpus, engine__device="cpu"))
    assert "engine.trl.launch.processes=1" in warning


@pytest.mark.parametrize(("config", "phase"), [("GRPOConfig", "grpo"), ("SFTConfig", "sft")])
def test_the_options_read_from_files_are_those_that_trl_takes(config, phase):
    trl = pytest.importorskip("trl")
    taken = {field.name for field in fields(getattr(trl, config)) if field.init}
    assert option_names(config) == taken
    assert f"engine.trl.extra.{phase}" in [field.key for field in recipe_fields()]


def test_where_trl_is_laid_out_otherwise_nothing_is_refused(recipe, monkeypatch):
    for found in (None, SimpleNamespace(submodule_search_locations=["nowhere"])):
        option_names.cache_clear()
        monkeypatch.setattr("rloop.engines.trl.fields.find_spec", lambda name, found=found: found)
        assert grpo(changed(recipe, engine__trl__extra__grpo={"of_tomorrow": 1}))["of_tomorrow"]
    option_names.cache_clear()
