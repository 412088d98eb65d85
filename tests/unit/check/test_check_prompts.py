"""`rloop check` on prompts: the first one shown, and the context that they need."""

import json
from pathlib import Path

import pytest
from doubles_policies import chat_tokenizer, make_problem, write_policy
from gguf import GGUFWriter

from rloop.check.recipe import check_prompts, longest_prompt
from rloop.errors import ConfigError, EngineError
from rloop.policies.model_files import read_tokenizer
from rloop.recipe.config import Recipe
from rloop.recipe.load import load_recipe
from rloop.tasks.load import load_tasks

TINY = Path(__file__).parents[3] / "recipes" / "tiny.yaml"
TRAIN, HELD_OUT = [make_problem(3), make_problem(1000)], [make_problem(50)]
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def recipe(path: object, **prompt: object) -> Recipe:
    data = load_recipe(TINY).model_dump(mode="json")
    data["policy"]["path"] = str(path)
    data["prompt"] = prompt
    for section in ("explore", "evaluate"):
        data[section]["sampling"]["max_completion_tokens"] = 30
    return Recipe.model_validate(data)


def templates(path: Path) -> object:
    found = read_tokenizer(str(path))
    return found and found.chat_template


def test_the_first_prompt_is_the_one_that_a_run_builds(tmp_path):
    tokenizer = chat_tokenizer("<|im_start|>", "<|im_end|>", template=CHATML)
    path = write_policy(tmp_path / "m", tokenizer, num_rows=102)
    config = recipe(path, system="Be brief.", suffix=" Go.")
    first, warnings = check_prompts(config, TRAIN, HELD_OUT)
    expected = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n3+1= Go.<|im_end|>\n"
    assert first == expected + "<|im_start|>assistant\n"
    assert warnings == []


@pytest.mark.parametrize("source", ["random:llama", "random:qwen3-2x64"])
def test_a_random_models_template_is_known(source):
    assert check_prompts(recipe(source), TRAIN, HELD_OUT)[0] == "<bos>Q:3+1=\nA:"


def test_where_there_is_no_tokenizer_only_a_template_of_the_recipe_is_shown():
    assert check_prompts(recipe("nobody/nothing-here"), TRAIN, HELD_OUT)[0] is None
    config = recipe("nobody/nothing-here", template="Q:{problem}")
    assert check_prompts(config, TRAIN, HELD_OUT)[0] == "Q:3+1="
    assert check_prompts(recipe("random:llama"), [], [])[0] is None


def test_templates_are_found_wherever_transformers_finds_them(tmp_path):
    tokenizer = chat_tokenizer(template="plain")
    path = write_policy(tmp_path / "m", tokenizer, num_rows=100)
    file, settings = path / "chat_template.jinja", path / "tokenizer_config.json"
    assert templates(path) == {"default": "plain"}
    file.unlink()
    old = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"chat_template": old}))
    assert templates(path) == {"default": "a", "tool_use": "b"}
    folder = path / "additional_chat_templates"
    folder.mkdir()
    (folder / "rag.jinja").write_text("c")
    assert templates(path) == {"rag": "c"}


def test_a_gguf_file_says_its_template_and_special_tokens(tmp_path):
    file = tmp_path / "m.gguf"
    writer = GGUFWriter(file, "llama")
    writer.add_array("tokenizer.ggml.tokens", ["<unk>", "<s>", "</s>"])
    writer.add_bos_token_id(1)
    writer.add_chat_template("{{ bos_token }}{{ messages[0].content }}")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert check_prompts(recipe(file), TRAIN, HELD_OUT)[0] == "<s>3+1="


@pytest.mark.parametrize("content", ["{", "[]", '{"bos_token": 3}'])
def test_damaged_files_are_left_to_the_run(tmp_path, content):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text(content)
    assert check_prompts(recipe(tmp_path, template="{problem}"), TRAIN, [])[0] == "3+1="


def test_a_template_that_a_run_would_refuse_is_refused(tmp_path):
    tokenizer = chat_tokenizer(template="{{ bos_token }}")
    path = write_policy(tmp_path / "m", tokenizer, num_rows=100)
    with pytest.raises(EngineError, match="leaves the problem out"):
        check_prompts(recipe(path), TRAIN, HELD_OUT)


def test_an_argument_that_changes_nothing_is_warned_of(tmp_path):
    path = write_policy(tmp_path / "m", chat_tokenizer(), num_rows=100)
    _, (warning,) = check_prompts(recipe(path, template_args={"x": 1}), TRAIN, HELD_OUT)
    assert warning.startswith("prompt.template_args.x=1 changes nothing")


# The context: prompts are <bos>Q:1000+1=\nA: of 13 tokens at most


def test_the_longest_real_prompt_is_held_against_the_context(tmp_path):
    tokenizer = chat_tokenizer()
    fits = write_policy(tmp_path / "a", tokenizer, num_rows=100, max_position_embeddings=43)
    assert check_prompts(recipe(fits), TRAIN, HELD_OUT)[1] == []
    short = write_policy(tmp_path / "b", tokenizer, num_rows=100, max_position_embeddings=42)
    # 13 + 30 = 43 > 42
    with pytest.raises(ConfigError, match=r"toy/train/1000 has 13 tokens.*is 43, more than the 42"):
        check_prompts(recipe(short), TRAIN, HELD_OUT)
    # a prompt that is left out does not count: the next one has 10 tokens
    assert check_prompts(recipe(short, max_tokens=12), TRAIN, HELD_OUT)[1] == []


def test_bos_that_is_added_counts_and_eos_does_not(tmp_path):
    tokenizer = chat_tokenizer(adds=("<bos>", "<eos>"))
    path = write_policy(tmp_path / "m", tokenizer, num_rows=100, max_position_embeddings=37)
    # <bos>1000+1= is 8 tokens: 8 + 30 = 38 > 37
    with pytest.raises(ConfigError, match="has 8 tokens"):
        check_prompts(recipe(path, template="{problem}"), TRAIN, HELD_OUT)


def test_without_a_tokenizer_the_limits_are_held_against_the_context(tmp_path):
    path = write_policy(tmp_path / "m", chat_tokenizer(), num_rows=100, max_position_embeddings=99)
    (path / "tokenizer.json").unlink()
    _, warnings = check_prompts(recipe(path, max_tokens=70), TRAIN, [])
    # 70 + 30 = 100 > 99
    assert len(warnings) == 1
    assert "are 100 tokens together, more than the 99" in warnings[0]
    assert check_prompts(recipe(path, max_tokens=69), TRAIN, [])[1] == []


def test_a_window_of_attention_is_warned_of_with_both_numbers(tmp_path):
    path = write_policy(tmp_path / "m", chat_tokenizer(), num_rows=100)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"sliding_window": 64}))
    _, (warning,) = check_prompts(recipe(path, max_tokens=40), TRAIN, HELD_OUT)
    assert "window of 64 tokens" in warning
    assert "= 70 is longer" in warning


def test_memory_is_that_of_the_longest_prompt_and_not_of_the_limit():
    recipe = load_recipe(TINY)
    problems = load_tasks(recipe.tasks).train
    # the tiny model has a token a character and BOS; the prompt is the problem alone
    assert longest_prompt(recipe, problems) == 1 + max(len(p.question) for p in problems)
    limited = load_recipe(TINY, ["prompt.max_tokens=1"])
    assert longest_prompt(limited, problems) == 1
    assert longest_prompt(recipe, ()) == recipe.prompt.max_tokens
