"""A recipe of a model and a training task: what the rest becomes."""

from pathlib import Path

import pytest
import yaml

from rloop.errors import ConfigError
from rloop.recipe.defaults import DEFAULTS, fill
from rloop.recipe.keys import recipe_fields
from rloop.recipe.load import load_recipe

ROOT = Path(__file__).parents[3]
GIVEN = sorted([*(ROOT / "recipes").glob("*.yaml"), *(ROOT / "proof").glob("*.yaml")])
SMALLEST = "policy: {path: random:llama}\ntasks: {train: [{source: gsm8k}]}\n"


@pytest.fixture
def recipe_from(tmp_path):
    def load(text="", *overrides, name="my sums.yaml"):
        path = tmp_path / name
        path.write_text(SMALLEST + text)
        return load_recipe(path, overrides)

    return load


@pytest.mark.parametrize("path", GIVEN, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_recipe_that_says_everything_is_not_changed(path):
    data = yaml.safe_load(path.read_text())
    assert fill(data) == data


def test_a_model_and_a_training_task_make_a_run_of_rloop(recipe_from):
    recipe = recipe_from()
    assert recipe.name == "my-sums"
    assert recipe.seed == 0
    assert recipe.iterations == 3
    assert recipe.tasks.evaluate == ()
    assert recipe.explore.optimizer.learning_rate == 1e-6
    assert recipe.finetune is not None
    assert recipe.finetune.optimizer.learning_rate == 5e-6
    assert recipe.expert is not None
    assert recipe.evaluate.k == (1, 8)


def test_what_is_said_of_a_section_stays_beside_its_defaults(recipe_from):
    recipe = recipe_from("explore: {sampling: {max_completion_tokens: 77}, clip_high: 0.3}\n")
    assert recipe.explore.clip_high == 0.3
    assert recipe.explore.group_size == DEFAULTS["explore"]["group_size"]
    assert recipe.evaluate.sampling.max_completion_tokens == 77


def test_without_fine_tuning_it_is_plain_rl(recipe_from):
    recipe = recipe_from("finetune: null\n")
    assert recipe.expert is None
    assert recipe_from("", "expert=null").finetune is None


def test_a_cold_start_needs_its_task_alone(recipe_from):
    coldstart = recipe_from("coldstart: {task: {source: gsm8k}}\n").coldstart
    assert coldstart is not None
    assert (coldstart.epochs, coldstart.batch_size) == (2, 32)


@pytest.mark.parametrize(
    ("evaluate", "samples", "ks"),
    [
        ("{samples: 4}", 4, (1, 4)),
        ("{samples: 32}", 32, (1, 8, 32)),
        ("{samples: 1}", 1, (1,)),
        ("{k: [1, 16]}", 16, (1, 16)),
        ("{k: [1]}", 8, (1,)),
        ("{}", 8, (1, 8)),
    ],
)
def test_k_and_the_number_of_samples_follow_each_other(recipe_from, evaluate, samples, ks):
    recipe = recipe_from(f"evaluate: {evaluate}\n")
    assert (recipe.evaluate.samples, recipe.evaluate.k) == (samples, ks)


def test_a_section_that_is_no_mapping_is_refused_as_before(recipe_from):
    with pytest.raises(ConfigError, match="explore must be a mapping, got 3"):
        recipe_from("explore: 3\n")
    with pytest.raises(ConfigError, match=r'evaluate.k must be .* got "x"'):
        recipe_from("evaluate: {k: x}\n")


def test_only_the_policy_and_the_training_task_have_no_default():
    required = [key for key, field in recipe_fields().items() if field.default == "required"]
    without_lists = [key for key in required if ".N." not in key and not key.startswith("engine")]
    assert without_lists == [
        "policy",
        "policy.path",
        "tasks",
        "tasks.train",
        "coldstart.task",
        "coldstart.task.source",
    ]
    assert recipe_fields()["explore.steps"].default == "50"
