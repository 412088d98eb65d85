"""Recipes: what is read, what is refused, and with which words."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rloop.errors import ConfigError
from rloop.recipe.checks import recipe_warnings
from rloop.recipe.config import Recipe
from rloop.recipe.keys import ELSEWHERE, recipe_fields
from rloop.recipe.load import load_recipe, resolved_json
from rloop.recipe.packaged import packaged_recipes

PACKAGED = f"rloop comes with: {', '.join(packaged_recipes())}"

RECIPE = """
name: small
seed: 0
iterations: 2
policy: {path: random:llama}
tasks:
  train: [{source: gsm8k, split: train}]
  evaluate: [{source: gsm8k, split: test, size: 100}, {source: math500}]
explore:
  steps: 10
  prompts_per_step: 4
  group_size: 8
  sampling: {max_completion_tokens: 64}
  optimizer: {learning_rate: 1e-6}
expert: {max_success_rate: 0.5}
finetune: {epochs: 1, batch_size: 8, optimizer: {learning_rate: 2e-5}}
evaluate: {samples: 8, k: [1, 8], sampling: {max_completion_tokens: 64}}
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "small.yaml"
    path.write_text(RECIPE)
    return path


def refusal(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-6", 1e-6), ("1E+2", 100.0), ("2.5e-3", 2.5e-3), ("-1e1", -10.0), ("1.e2", 100.0)],
)
def test_numbers_are_read_as_people_write_them(path, text, value):
    if value >= 0:
        recipe = load_recipe(path, [f"finetune.optimizer.learning_rate={text}"])
        assert recipe.finetune is not None
        assert recipe.finetune.optimizer.learning_rate == value
    else:
        assert f"must be a number >= 0, got {value}" in refusal(
            path, f"finetune.optimizer.learning_rate={text}"
        )


def test_overrides_reach_lists_make_mappings_and_take_null(path):
    recipe = load_recipe(
        path,
        [
            "explore.steps=3",
            "tasks.evaluate.1.size=5",
            "prompt.suffix=' Box it.'",
            "evaluate.k=[1, 2]",
            "expert=null",
            "finetune=null",
            "name=2025-01-01",
        ],
    )
    assert recipe.explore.steps == 3
    assert recipe.tasks.evaluate[1].size == 5
    assert recipe.prompt.suffix == " Box it."
    assert recipe.evaluate.k == (1, 2)
    assert recipe.expert is None
    assert recipe.name == "2025-01-01"


@pytest.mark.parametrize("text", ["{problem}", "Q: {problem} A:", "[1]", "12"])
def test_an_override_of_text_is_taken_as_written(path, text):
    assert load_recipe(path, [f"prompt.system={text}"]).prompt.system == text


def test_an_override_of_text_may_be_quoted_or_null(path):
    assert load_recipe(path, ["prompt.template='{problem} = '"]).prompt.template == "{problem} = "
    assert load_recipe(path, ["prompt.template=x", "prompt.template=null"]).prompt.template is None


def test_the_last_override_wins(path):
    assert load_recipe(path, ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "tasks.evaluate.2.size=5",
            "tasks.evaluate is a list of 2; give an index from 0 to 1, got `2`",
        ),
        ("tasks.evaluate.first.size=5", "got `first`"),
        ("explore.steps.x=5", "explore.steps is the single value 10, it has no key `x`"),
        ("evaluate.k=[1", "the value is not valid YAML"),
    ],
)
def test_an_override_that_cannot_be_is_refused(path, override, words):
    assert words in refusal(path, override)


def test_unknown_key_is_answered_with_the_nearest_and_all_valid_ones(path):
    message = refusal(path, "explore.grup_size=4")
    assert message.startswith(f"{path}: explore.grup_size is not a known key.")
    assert "Did you mean explore.group_size?" in message
    assert "Keys of explore: steps, prompts_per_step, group_size, sampling" in message


def test_unknown_key_in_a_list_entry_keeps_its_index(path):
    message = refusal(path, "tasks.train.0.szie=4")
    assert "tasks.train.0.szie is not a known key. Did you mean tasks.train.0.size?" in message


def test_unknown_key_far_from_all_is_not_guessed_at(path):
    message = refusal(path, "zzz=4")
    assert "Did you mean" not in message
    assert "Keys of a recipe: name, seed, iterations" in message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("explore.steps=ten", 'explore.steps must be an integer >= 1, got "ten".'),
        ("explore.steps=true", "explore.steps must be an integer >= 1, got true."),
        ("explore.steps=0", "explore.steps must be an integer >= 1, got 0."),
        ("explore.steps=2.5", "explore.steps must be an integer >= 1, got 2.5."),
        ("explore.clip_low=.nan", "explore.clip_low must be a number >= 0, got NaN."),
        ("explore.clip_low=.inf", "explore.clip_low must be a number >= 0, got Infinity."),
        ("expert.max_success_rate=1.5", "must be a number >= 0 and <= 1, got 1.5."),
        (
            "engine.device=gpu",
            "engine.device: 'gpu' is not a device. Give auto, cpu, cuda, cuda:N or mps.",
        ),
        ("engine.device=cuda:x", "engine.device: 'cuda:x' is not a device."),
        ("explore.loss=ppo", 'explore.loss must be one of dapo, gspo, cispo, got "ppo".'),
        ("expert.per_problem_cap=0", "must be an integer >= 1 or null, got 0."),
        ("policy.trust_remote_code=maybe", 'must be true or false, got "maybe".'),
        ("policy=gpt", 'policy must be a mapping, got "gpt".'),
        ("tasks.train=[]", "tasks.train must be a non-empty list, each a mapping, got []."),
        ("evaluate.k=[1, x]", 'evaluate.k.1 must be an integer >= 1, got "x".'),
        (
            "explore.loss=grpo",
            'got "grpo", a value of explore.advantage: set explore.advantage=grpo.',
        ),
        ("sinks=wandb", 'got "wandb": write [wandb].'),
        ("name=a b", 'underscores and hyphens, no spaces, got "a b".'),
        ("tasks.train.0.params=3", "tasks.train.0.params must be a mapping, got 3."),
        ("tasks.train.0.fields={a: 1}", "tasks.train.0.fields.a must be text, got 1."),
        ("sinks=[wandbb]", "sinks.0 must be one of tensorboard, wandb, trackio, mlflow, got"),
    ],
)
def test_a_wrong_value_is_answered_with_what_is_allowed(path, override, words):
    assert words in refusal(path, override)


def test_a_long_value_is_shortened(path):
    assert refusal(path, f"explore.steps={'x' * 500}").endswith("xxx....")


def test_a_missing_key_says_what_it_must_be(path):
    path.write_text(RECIPE.replace("policy: {path: random:llama}", "policy: {}"))
    assert refusal(path).startswith(
        f"{path}: policy.path is missing. It must be text: A Hugging Face directory or hub name"
    )


def test_several_problems_are_all_listed(path):
    lines = refusal(path, "explore.steps=0", "seed=x", "explore.loss=ppo").splitlines()
    assert [line.split(": ")[1].split(" ")[0] for line in lines] == [
        "seed",
        "explore.steps",
        "explore.loss",
    ]


def test_entries_that_are_wrong_do_not_also_make_the_list_too_short(path):
    assert (
        refusal(path, "tasks.train=[{source: 3}]")
        == f"{path}: tasks.train.0.source must be text, got 3."
    )


def test_k_beyond_the_samples_is_refused_with_the_remedy(path):
    message = refusal(path, "evaluate.k=[1, 16]")
    assert "pass@16 needs at least 16 samples per problem, got evaluate.samples=8" in message
    assert "Value error" not in message


@pytest.mark.parametrize("override", ["explore.steps", "=3", "explore..steps=3", ".steps=3", "x.="])
def test_an_override_without_key_and_value_is_refused(path, override):
    assert refusal(path, override).startswith(
        "--set takes KEY=VALUE, such as explore.steps=20, got"
    )


def test_a_template_needs_the_problem_and_falling_pass_at_k_its_evaluations(path):
    assert refusal(path, "prompt.template=hello").endswith(
        "prompt.template must contain {problem}, got 'hello'."
    )
    assert "evaluate.every=0. Use --set evaluate.every=10." in refusal(
        path, "explore.early_stop={pass_at_k_falls: 2}"
    )


def test_exploring_with_a_cut_distribution_is_a_warning_where_ratios_are_taken(path):
    assert recipe_warnings(load_recipe(path)) == ()
    for cut in ("top_p=0.9", "top_k=50"):
        (warning,) = recipe_warnings(load_recipe(path, [f"explore.sampling.{cut}"]))
        assert cut in warning
        assert "ratios of the policy loss are biased" in warning
        frozen = [f"explore.sampling.{cut}", "explore.optimizer.learning_rate=0"]
        assert recipe_warnings(load_recipe(path, frozen)) == ()


def test_a_system_text_that_the_template_leaves_out_is_a_warning(path):
    overrides = ["prompt.system=Be brief.", "prompt.template={problem}"]
    assert "prompt.system is not used" in recipe_warnings(load_recipe(path, overrides))[0]
    assert (
        recipe_warnings(load_recipe(path, [overrides[0], "prompt.template={system} {problem}"]))
        == ()
    )


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("explore.min_entropy=0.1", "explore.early_stop.min_entropy"),
        ("rank=2", "engine.tinker.rank or engine.lora.rank"),
        ("explore.learning_rate=0.1", "explore.optimizer.learning_rate"),
        ("batch_size=2", "coldstart.batch_size or finetune.batch_size"),
    ],
)
def test_a_key_that_stands_further_down_is_named(path, override, meant):
    assert f"is not a known key. Did you mean {meant}?" in refusal(path, override)


def test_a_group_of_one_is_refused_with_the_remedy(path):
    assert "explore.group_size must be >= 2" in refusal(path, "explore.group_size=1")


def test_more_updates_than_groups_in_a_step_are_refused(path):
    assert refusal(path, "explore.updates_per_step=5").endswith(
        "updates_per_step=5 is more than explore.prompts_per_step=4: an update needs a group. "
        "Lower it."
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nname: b\n", "line 2, column 1: the key `name` appears twice"),
        ("a: [1", "is not valid YAML: line"),
        ("- 1\n", "holds a list, not a mapping"),
        ("", "holds nothing, not a mapping"),
        ("just words", "holds text, not a mapping"),
        ("a: !!python/object:os.system {}", "is not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_in_a_sentence(path, text, words):
    path.write_text(text)
    message = refusal(path)
    assert str(path) in message
    assert words in message
    assert "\n" not in message


def test_a_missing_file_names_the_recipes_beside_it(path):
    assert refusal(path.with_name("smal.yaml")) == (
        f"There is no recipe at {path.with_name('smal.yaml')}. Here are: {path}. {PACKAGED}."
    )


def test_a_folder_or_a_binary_file_is_refused_in_a_sentence(path):
    assert refusal(path.parent) == (
        f"{path.parent} is a folder, not a recipe. Here are: {path}. {PACKAGED}."
    )
    path.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as a recipe" in refusal(path)


def test_the_resolved_json_loads_back_to_the_same_recipe(path):
    recipe = load_recipe(path)
    path.write_text(resolved_json(recipe))
    assert load_recipe(path) == recipe
    assert json.loads(path.read_text())["explore"]["clip_high"] == 0.28


@settings(max_examples=30)
@given(
    rate=st.floats(0, 1e6, allow_nan=False),
    seed=st.integers(-(2**60), 2**60),
    suffix=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20),
    size=st.none() | st.integers(1, 10**9),
)
def test_recipe_to_json_to_recipe_is_identity(tmp_path_factory, rate, seed, suffix, size):
    folder = tmp_path_factory.mktemp("recipe")
    (folder / "small.yaml").write_text(RECIPE)
    given_values = json.dumps({"learning_rate": rate})
    recipe = load_recipe(
        folder / "small.yaml",
        [
            f"explore.optimizer={given_values}",
            f"seed={seed}",
            f"prompt.suffix={json.dumps(suffix)}",
            f"tasks.train.0.size={json.dumps(size)}",
        ],
    )
    assert recipe.explore.optimizer.learning_rate == rate
    assert (recipe.seed, recipe.prompt.suffix, recipe.tasks.train[0].size) == (seed, suffix, size)
    assert Recipe.model_validate_json(resolved_json(recipe)) == recipe


def test_every_key_has_a_description_and_parents_come_first():
    keys = list(recipe_fields())
    assert all(f.description.rstrip("`").endswith(".") for f in recipe_fields().values())
    for key in keys:
        parent = key.rpartition(".")[0].removesuffix(".N")
        assert not parent or keys.index(parent) < keys.index(key)


def test_a_key_is_described_in_words():
    fields = recipe_fields()
    assert fields["explore.steps"].type == "an integer >= 1"
    assert fields["tasks.train.N.fields"].type == "a mapping, each text"
    assert fields["tasks.train.N.params"].type == "a mapping"
    assert fields["evaluate.confidence"].type == "a number > 0 and < 1"
    assert fields["expert"].type == "a mapping or null"


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("num_generations", "explore.group_size"),
        ("beta", "explore.kl_coef"),
        ("explore.epsilon", "explore.clip_low"),
        ("explore.epsilon_high", "explore.clip_high"),
        ("max_completion_length", "explore.sampling.max_completion_tokens"),
        ("engine.lora.r", "engine.lora.rank"),
        ("engine.lora.lora_alpha", "engine.lora.alpha"),
        ("per_device_train_batch_size", "explore.prompts_per_step"),
        ("num_iterations", "explore.updates_per_step"),
    ],
)
def test_a_key_of_another_library_is_answered_with_ours(path, theirs, ours):
    message = refusal(path, f"{theirs}=1")
    assert f"{theirs} is not a known key. The nearest key here is {ours}." in message


def test_names_that_other_libraries_share_with_us_are_found_further_down(path):
    assert "Did you mean explore.sampling.temperature or" in refusal(path, "temperature=1")
    assert "or explore.optimizer.learning_rate or" in refusal(path, "learning_rate=1")


def test_keys_of_other_libraries_lead_to_keys_that_there_are_and_are_none_themselves():
    fields = recipe_fields()
    assert set(ELSEWHERE.values()) <= set(fields)
    for name in ELSEWHERE:
        homes = {key.rpartition(".")[0] for key in fields if key.rpartition(".")[2] == name}
        assert homes <= {"explore.early_stop"}, name


def test_a_policy_of_a_run_is_evaluated_with_that_runs_recipe(tmp_path: Path):
    from rloop.recipe.load import evaluation_recipe, recipe_of_policy

    policy = tmp_path / "run" / "policies" / "iter-001"
    policy.mkdir(parents=True)
    assert recipe_of_policy(str(policy)) is None
    recipe = load_recipe(Path(__file__).parents[3] / "recipes" / "tiny.yaml")
    (tmp_path / "run" / "config.json").write_text(resolved_json(recipe))
    base = recipe_of_policy(str(policy))
    assert base is not None
    found = evaluation_recipe(base, ["evaluate.samples=16"], ["sums-heldout"])
    assert found.prompt == recipe.prompt
    assert found.tasks.evaluate == recipe.tasks.evaluate
    assert evaluation_recipe(base, [], ["gsm8k"]).tasks.evaluate[0].source == "gsm8k"


def test_a_policy_that_a_run_lacks_and_a_run_for_a_policy_are_answered_with_what_there_is(
    tmp_path: Path,
):
    from rloop.recipe.load import check_policy

    run = tmp_path / "run"
    for name in ("iter-001", "iter-002"):
        (run / "policies" / name).mkdir(parents=True)
    (run / "manifest.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"no policy iter-007 in .*run; it has iter-001, iter-00"):
        check_policy(str(run / "policies" / "iter-007"))
    with pytest.raises(ConfigError, match=r"is a run, not a policy.*policies/iter-001, "):
        check_policy(str(run))
    for other in (run / "policies" / "iter-001", "org/model", run / "else" / "x.gguf"):
        check_policy(str(other))


def test_fewer_samples_of_an_evaluation_drop_the_values_of_k_they_cannot_give():
    from rloop.recipe.load import evaluation_recipe

    given = ["policy.path=random:llama", "evaluate.samples=16"]
    assert evaluation_recipe(None, given, ["gsm8k"]).evaluate.k == (1, 8)
    with pytest.raises(ConfigError, match="pass@32 needs at least 32 samples"):
        evaluation_recipe(None, [*given, "evaluate.k=[32]"], ["gsm8k"])


def test_rewards_are_named_by_their_functions_and_weigh_one(path):
    recipe = load_recipe(
        path, ["rewards=[{function: accuracy}, {function: python:mine.judges:polite, weight: 0.5}]"]
    )
    assert [(r.label, r.weight) for r in recipe.rewards] == [("accuracy", 1.0), ("polite", 0.5)]


@pytest.mark.parametrize(
    ("rewards", "words"),
    [
        ("[{function: acuracy}]", "function 'acuracy' is unknown. Choose accuracy, format, length"),
        ("[{function: format}]", "function format needs a pattern"),
        ("[{function: length, pattern: a}]", "function length has no pattern"),
        ("[{function: format, pattern: '('}]", "pattern '(' is not a regular expression: missing"),
        ("[{function: length, weight: heavy}]", "rewards.0.weight"),
        ("[{function: length}, {function: length}]", "two are named 'length'. Give one of them a"),
        ("[{function: length, name: too long}]", "rewards.0.name"),
        ("[{function: length, wieght: 1}]", "weight"),
    ],
)
def test_rewards_that_cannot_be_are_refused_with_the_remedy(path, rewards, words):
    assert words in refusal(path, f"rewards={rewards}")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("explore.overlong_buffer_tokens=4", "Set explore.overlong_buffer_tokens=0."),
        ("rewards=[{function: accuracy}, {function: length, weight: -0.5}]", "the weight -0.5"),
    ],
)
def test_maxrl_refuses_what_can_make_a_mean_reward_negative(path, override, words):
    maxrl = "explore.advantage=maxrl"
    assert words in refusal(path, maxrl, override)
    assert load_recipe(path, [maxrl]).explore.advantage == "maxrl"


def test_rewards_without_accuracy_are_a_warning(path):
    (warning,) = recipe_warnings(load_recipe(path, ["rewards=[{function: length}]"]))
    assert "rewards has no accuracy" in warning
    assert not recipe_warnings(load_recipe(path, ["rewards=[{function: accuracy}]"]))
