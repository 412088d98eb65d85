"""Prompts by the model's chat template and by the recipe's own."""

from dataclasses import replace
from typing import Any

import pytest
from doubles_policies import EOS, chat_tokenizer, make_problem
from transformers import PreTrainedTokenizerFast

from rloop.errors import EngineError
from rloop.policies.random_model import character_tokenizer
from rloop.policies.renderer import Renderer
from rloop.recipe.config import PromptConfig

PROBLEM = make_problem(3)


def renderer(
    tokenizer: PreTrainedTokenizerFast | None = None,
    *,
    num_embeddings: int | None = None,
    **config: Any,
) -> Renderer:
    settings = PromptConfig.model_validate(config)
    return Renderer(
        tokenizer or character_tokenizer(),
        settings,
        stop_ids=(EOS,),
        num_embeddings=num_embeddings,
    )


def text(**config: Any) -> str:
    return renderer(**config).prompt(PROBLEM).text


def test_the_chat_template_frames_system_text_problem_and_suffix():
    assert text() == "<bos>Q:3+1=\nA:"
    assert text(system="Be brief.", suffix=" Box it.") == "<bos>Be brief.\nQ:3+1= Box it.\nA:"


def test_a_template_of_the_recipe_takes_its_place():
    found = text(template="{system}|{problem}|", system="S")
    assert found == "S|3+1=|"


def test_braces_of_a_problem_stay_as_they_are():
    problem = replace(PROBLEM, question=r"\frac{1}{2} {system}")
    assert renderer(template="{problem}").prompt(problem).text == r"\frac{1}{2} {system}"


def test_ids_are_the_tokens_of_the_text_with_one_bos():
    tokenizer = character_tokenizer()
    prompt = renderer(tokenizer).prompt(PROBLEM)
    assert prompt.ids.count(tokenizer.bos_token_id) == 1
    assert len(prompt.ids) == 1 + len("Q:3+1=\nA:")


def test_the_version_changes_with_what_shapes_a_prompt():
    configs: list[dict[str, Any]] = [
        {},
        {"system": "S"},
        {"suffix": "!"},
        {"template": "{problem}"},
    ]
    versions = [renderer(**config).version for config in configs]
    assert len(set(versions)) == 4
    assert renderer().version == versions[0]


def test_a_model_without_a_chat_template_needs_one():
    tokenizer = character_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(EngineError, match=r"no chat template.*prompt\.template"):
        renderer(tokenizer).prompt(PROBLEM)


# What the tokenizer adds by itself


@pytest.mark.parametrize(
    ("adds", "template", "expected"),
    [
        (("<bos>", "<eos>"), "Q:{problem}", "<bos>Q:3+1="),
        (("<bos>", None), "<bos>Q:{problem}", "<bos>Q:3+1="),
        ((None, "<eos>"), "Q:{problem}", "Q:3+1="),
        ((None, None), "<bos>Q:{problem}", "<bos>Q:3+1="),
    ],
)
def test_a_template_of_the_recipe_has_bos_once_where_it_is_added_and_never_eos(
    adds, template, expected
):
    tokenizer = chat_tokenizer(adds=adds)
    x = tokenizer.convert_tokens_to_ids("x")
    bos, eos = ([token] if is_added else [] for token, is_added in zip((1, 2), adds, strict=True))
    assert tokenizer("x")["input_ids"] == [*bos, x, *eos]
    found = renderer(tokenizer, template=template)
    assert tokenizer.decode([*found.prompt(PROBLEM).ids]) == expected
    assert found.report([PROBLEM]).first == expected


def test_a_chat_template_writes_its_special_tokens_alone():
    tokenizer = chat_tokenizer(adds=("<bos>", "<eos>"))
    found = renderer(tokenizer)
    assert tokenizer.decode([*found.prompt(PROBLEM).ids]) == "<bos>Q:3+1=\nA:"
    assert found.report([PROBLEM]).first == "<bos>Q:3+1=\nA:"


# What cannot be a prompt


def test_a_token_without_an_embedding_is_refused_only_where_a_prompt_has_it():
    tokenizer = chat_tokenizer("<image>")  # id 100
    found = renderer(tokenizer, template="{problem}", num_embeddings=100)
    assert len(found.prompt(PROBLEM).ids) == 4
    with pytest.raises(EngineError, match=r"toy/train/3 has the token 100, .* has 100 em"):
        found.prompt(replace(PROBLEM, question="what is in <image>?"))


def test_half_a_character_is_one_sentence():
    with pytest.raises(EngineError, match=r"prompt of toy/train/3: the tokenizer refuses.*ud800"):
        renderer(template="{problem}").prompt(replace(PROBLEM, question="x\ud800y"))
