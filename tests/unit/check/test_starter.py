"""The recipe that one line makes: sized for the device, and a recipe like any other."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from rloop.check.estimate import memory
from rloop.check.starter import FIT, Machine, starter_recipe
from rloop.errors import ConfigError
from rloop.policies.model_files import measure_model
from rloop.recipe.load import load_text

LAPTOP, CARD = Machine(kind="cpu", memory=16 * 10**9), Machine(kind="cuda", memory=80 * 10**9)
LLAMA_1B = {
    "hidden_size": 2048,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "num_hidden_layers": 16,
    "intermediate_size": 8192,
    "vocab_size": 128_256,
    "tie_word_embeddings": True,
    "max_position_embeddings": 4096,
}


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A folder with what the hub says of a model, without its weights."""
    folder = tmp_path / "llama-1b"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(LLAMA_1B))
    settings = {"chat_template": "{{ messages[0].content }}"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return str(folder)


def test_a_models_size_follows_from_its_configuration_alone(model: str):
    size = measure_model(model)
    assert size is not None
    # 16 x (2 x 2048 x 2048 + 2 x 512 x 2048 + 3 x 8192 x 2048) + 128,256 x 2048; the norms, some
    # 70,000 numbers, are left out
    assert size.parameters == 16 * 60_817_408 + 262_668_288


def test_a_large_card_trains_all_weights_for_longer_than_a_laptop(model: str):
    here, there = (
        load_text(starter_recipe(model, ["gsm8k"], machine=machine)) for machine in (LAPTOP, CARD)
    )
    assert there.engine.lora is None
    assert there.explore.optimizer.learning_rate == 1e-6
    assert there.explore.steps > here.explore.steps
    assert len(there.evaluate.temperatures) > len(here.evaluate.temperatures)
    assert there.explore.sampling.max_completion_tokens == 1024
    assert [task.split for task in there.tasks.evaluate] == ["test"]


@pytest.mark.parametrize("gigabytes", [12, 16, 24, 40, 80])
def test_what_is_planned_fits_into_memory(model: str, gigabytes: int):
    machine = replace(CARD, memory=gigabytes * 10**9)
    recipe = load_text(starter_recipe(model, ["gsm8k"], machine=machine))
    size = measure_model(model)
    assert size is not None
    engine = recipe.engine.model_copy(update={"device": "cuda"})
    held = memory(recipe.model_copy(update={"engine": engine}), size, 2, num_evaluate=200)
    assert held[-1].value <= FIT * machine.memory
    # adapters train where all weights do not fit, at ten times the rate
    has_adapters = recipe.engine.lora is not None
    assert recipe.explore.optimizer.learning_rate == pytest.approx(1e-5 if has_adapters else 1e-6)


def test_a_model_without_a_chat_template_stops_before_it_asks_itself_a_question(
    model: str, tmp_path: Path
):
    (Path(model) / "tokenizer_config.json").write_text("{}")
    recipe = load_text(starter_recipe(model, ["hub:owner/sums"], machine=LAPTOP))
    assert recipe.prompt.template == "Question: {problem}\nAnswer:"
    assert recipe.explore.sampling.stop == recipe.evaluate.sampling.stop == ("\nQuestion:",)


@pytest.mark.parametrize("verifier", ["exact", "choice", "python:mine:judge"])
def test_only_what_reads_boxes_asks_for_one(model: str, verifier: str):
    recipe = load_text(starter_recipe(model, ["hub:owner/sums"], verifier=verifier, machine=LAPTOP))
    assert recipe.prompt.suffix == ""
    assert recipe.tasks.train[0].verifier == verifier
    boxed = load_text(starter_recipe(model, ["hub:owner/sums"], machine=LAPTOP))
    assert "\\boxed{}" in boxed.prompt.suffix


def test_overrides_stand_in_the_recipe_and_every_value_is_yaml(model: str):
    given = ["explore.steps=3", "evaluate.samples=4", 'prompt.system="a: b # c"', "sinks=[wandb]"]
    text = starter_recipe(model, ["reasoning_gym:chain_sum"], overrides=given, machine=LAPTOP)
    assert yaml.safe_load(text)["explore"]["steps"] == 3
    recipe = load_text(text)
    assert (recipe.prompt.system, recipe.sinks) == ("a: b # c", ("wandb",))
    assert recipe.evaluate.k == (1, 4)
    train, held_out = recipe.tasks.train[0], recipe.tasks.evaluate[0]
    assert train.seed != held_out.seed


def test_completions_leave_room_for_the_prompt_in_a_short_context(model: str):
    config = LLAMA_1B | {"max_position_embeddings": 1024}
    (Path(model) / "config.json").write_text(json.dumps(config))
    recipe = load_text(starter_recipe(model, ["gsm8k"], machine=CARD))
    assert recipe.prompt.max_tokens + recipe.explore.sampling.max_completion_tokens <= 1024


def test_a_model_without_problems_is_refused_with_an_example():
    with pytest.raises(ConfigError, match="--task NAME or --data FILE"):
        starter_recipe("random:llama", [])


def test_a_model_that_no_machine_here_knows_is_said_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    text = starter_recipe("nobody/nothing", ["gsm8k"], machine=CARD)
    assert "its size is not known" in text
    assert load_text(text).policy.path == "nobody/nothing"


def test_a_long_file_holds_out_as_many_problems_as_a_device_can_measure(model, tmp_path):
    path = tmp_path / "sums.csv"
    for num_rows, held_out in ((95, []), (96, [24])):  # 4 x 24
        rows = [f"{n} + 1,{n + 1}" for n in range(num_rows)]
        path.write_text("\n".join(["question,answer", *rows]))
        recipe = load_text(starter_recipe(model, [f"file:{path}"], machine=LAPTOP))
        assert [task.size for task in recipe.tasks.evaluate] == held_out
