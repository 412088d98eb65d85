"""Prompts as text: what templates may do with them, and what is refused in one sentence."""

from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest
from doubles_policies import make_problem
from transformers.utils.chat_template_utils import render_jinja_template

from rloop.errors import ConfigError, EngineError
from rloop.policies import prompts as prompt_text
from rloop.policies.prompts import (
    PromptText,
    added_prefix,
    check_context,
    holds,
    shown,
    with_prefix,
)
from rloop.recipe.config import PromptConfig
from rloop.recipe.load import load_recipe

TINY = Path(__file__).parents[3] / "recipes" / "tiny.yaml"
PROBLEM = make_problem(3)
PARTS = (
    "{{ bos_token }}{% for m in messages %}<{{ m.role }}>"
    "{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}{% endif %}{% endfor %}"
    "{% endfor %}"
)
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}"
    "{% endif %}" + CHATML
)
SYSTEM_LOST = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
DATED = "{{ strftime_now('%d %b %Y') }}|{% for m in messages %}{{ m.content }}{% endfor %}"
THINKING = CHATML + "{% if enable_thinking is defined and not enable_thinking %}<no>{% endif %}"


def prompts(template: Any, **config: Any) -> PromptText:
    return PromptText(
        PromptConfig.model_validate(config),
        chat_template=template,
        special_tokens={"bos_token": "<s>"},
    )


def text(template: Any, **config: Any) -> str:
    return prompts(template, **config).text(PROBLEM)


# Content as text or as parts


def test_a_template_of_a_vision_model_gets_content_in_parts():
    assert text(PARTS) == "<s><user>3+1="
    assert text(PARTS, system="Be brief.", suffix=" Go.") == "<s><system>Be brief.<user>3+1= Go."


def test_system_as_text_and_problem_as_parts_is_found_too():
    template = (
        "{% if messages[0].role == 'system' %}{{ messages[0].content + '\n' }}{% endif %}"
        "{% for part in messages[-1].content %}{{ part.text }}{% endfor %}"
    )
    assert text(template, system="Be brief.") == "Be brief.\n3+1="


@pytest.mark.parametrize(
    "template",
    [
        "{{ bos_token }}",
        "{% for m in messages if m.role == 'assistant' %}{{ m.content }}{% endfor %}",
        "{{ messages[-1].content[:3] }}",
        "{% for m in messages %}{{ m.text }}{% endfor %}A:",
    ],
)
def test_a_prompt_without_the_problem_is_refused(template):
    with pytest.raises(EngineError, match=r"leaves the problem out.*prompt\.template with"):
        text(template)


def test_a_problem_that_a_template_cuts_is_refused_by_its_id():
    template = "{{ messages[-1].content.split('=')[0] }}"
    with pytest.raises(EngineError, match=r"leaves the text of toy/train/3 out"):
        text(template)


def test_a_problem_of_one_letter_is_missed_although_the_frame_has_it():
    # "a" stands in "assistant": only the text that a template is tried with shows the loss
    with pytest.raises(EngineError, match="leaves the problem out"):
        PromptText(
            PromptConfig(),
            chat_template="<|im_start|>assistant\n",
            special_tokens={},
        )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ("| trim", "If A < B, say\n'yes'"),
        ("| lower", "  if a < b, say\n'yes' "),
        ("| e", "  If A &lt; B, say\n&#39;yes&#39; "),
        ("| tojson", "\"  If A < B, say\\n'yes' \""),
    ],
)
def test_a_template_may_trim_lower_or_escape(change, expected):
    problem = replace(PROBLEM, question="  If A < B, say\n'yes' ")
    found = prompts(f"{{{{ messages[0].content {change} }}}}").text(problem)
    assert found == expected


@pytest.mark.parametrize(
    ("prompt", "content", "expected"),
    [
        ("<s>1 + 1 =", "1 + 1 =", True),
        ("<s>1 + 1 =", " 1 + 1 =\n", True),
        ("<s>1+1=", "1 + 1 =", True),
        ("<s>1 + 1", "1 + 1 =", False),
        ("<s>x &lt; 2", "x < 2", True),
        ("<s>x &lt; 2", "x > 2", False),
        ("<s>", "1", False),
    ],
)
def test_a_prompt_holds_a_text_whatever_became_of_its_blanks(prompt, content, expected):
    assert holds(prompt, content) is expected


# The system text


def test_a_template_that_refuses_the_system_role_says_where_to_put_the_text():
    with pytest.raises(EngineError) as raised:
        text(NO_SYSTEM, system="Be brief.")
    said = str(raised.value)
    assert "prompt.system cannot be used" in said
    assert "System role not supported" in said
    assert "prompt.suffix" in said
    assert "prompt.template" in said
    assert text(NO_SYSTEM) == "<|im_start|>user\n3+1=<|im_end|>\n<|im_start|>assistant\n"


@pytest.mark.parametrize("system", ["Be brief.", "3"])
def test_a_template_that_drops_the_system_text_is_refused(system):
    # "3" stands in the problem, and is no proof that the system text was kept
    with pytest.raises(EngineError, match=r"leaves prompt\.system out"):
        text(SYSTEM_LOST, system=system)
    assert text(SYSTEM_LOST) == "3+1="


def test_a_flag_that_a_template_takes_out_of_the_system_text_is_not_lost_text():
    template = CHATML.replace("m.content", "m.content.replace('/no_think', '')")
    assert "<|im_start|>system\n<|im_end|>" in text(template, system="/no_think")


# Broken templates


def test_a_syntax_error_is_one_sentence_with_its_line():
    with pytest.raises(EngineError, match=r"syntax error in line 2.*prompt\.template"):
        text("ok\n{% for m in messages %}{{ m.content }}")


@pytest.mark.parametrize(
    "template", ["{{ messages | nope }}", "{{ messages[9].content }}", "{{ 1 / 0 }}", "{{ x.y.z }}"]
)
def test_a_template_that_fails_is_one_sentence(template):
    with pytest.raises(EngineError, match=r"chat template.*prompt\.template"):
        text(template)


def test_of_several_templates_the_default_is_taken():
    assert text({"default": CHATML, "rag": PARTS}) == text(CHATML)
    assert text({"chat": CHATML}) == text(CHATML)
    with pytest.raises(EngineError, match=r"2 chat templates \(rag, tools\) and none is named"):
        text({"tools": CHATML, "rag": PARTS})


def test_generation_marks_and_loop_controls_render_as_in_transformers():
    template = (
        "{%- for m in messages %}\n  {% if loop.index > 2 %}{% break %}{% endif %}"
        "{% generation %}{{ m.content | tojson }}{% endgeneration %}\n{% endfor %}{{ bos_token }}"
    )
    messages = [{"role": "user", "content": "3+1="}]
    for same in (template, CHATML, THINKING):
        expected = render_jinja_template(
            [messages], chat_template=same, add_generation_prompt=True, bos_token="<s>"
        )[0]
        assert [text(same)] == [*expected]


# Arguments of the template


def test_arguments_reach_the_template_and_count_as_part_of_it():
    plain, off = prompts(THINKING), prompts(THINKING, template_args={"enable_thinking": False})
    assert plain.text(PROBLEM) + "<no>" == off.text(PROBLEM)
    assert plain.version != off.version
    assert plain.version == prompts(THINKING, template_args={}).version
    assert off.warnings() == []


def test_an_argument_that_changes_nothing_is_warned_of():
    found = prompts(THINKING, template_args={"enable_thinking": False, "think": False}).warnings()
    assert [sentence.split(" ")[0] for sentence in found] == ["prompt.template_args.think=false"]


# A template that writes the date


def test_a_date_in_the_template_is_the_pinned_one(monkeypatch):
    monkeypatch.setattr(prompt_text, "datetime", Midnight)
    pinned = prompts(DATED, date="2026-11-30")
    assert pinned.text(PROBLEM) == "30 Nov 2026|3+1="
    assert prompts(DATED).text(PROBLEM) == "01 Dec 2026|3+1="
    assert pinned.version != prompts(DATED, date="2026-12-01").version
    # a template without a date is the same on every day
    assert prompts(CHATML, date="2026-11-30").version == prompts(CHATML).version


class Midnight(datetime):
    """A clock that has gone on to the next day."""

    @classmethod
    def now(cls, tz: Any = None) -> "Midnight":
        return cls(2026, 12, 1, tzinfo=tz)


def test_a_date_that_is_none_is_refused():
    with pytest.raises(ValueError, match="'yesterday' is not a date"):
        PromptConfig(date="yesterday")
    assert PromptConfig(date="2026-11-30").date == date(2026, 11, 30).isoformat()


# The end of a turn


def test_what_follows_an_assistants_message_is_seen():
    assert prompts(CHATML).after_reply() == "<|im_end|>\n"
    assert prompts(PARTS).after_reply() == ""
    own = PromptConfig(template="{problem}")
    assert PromptText(own, chat_template=CHATML, special_tokens={}).after_reply() is None
    refusing = "{% if messages[-1].role == 'assistant' %}{{ raise_exception('no') }}{% endif %}"
    assert prompts(CHATML + refusing).after_reply() is None


# What the tokenizer adds, and what is shown


@pytest.mark.parametrize(
    ("bare", "whole", "prefix"),
    [
        ([7], [1, 7, 2], (1,)),
        ([7], [7, 2], ()),
        ([7, 8], [1, 5, 7, 8], (1, 5)),
        ([7], [7], ()),
    ],
)
def test_the_prefix_is_what_stands_before_the_text(bare, whole, prefix):
    assert added_prefix(bare, whole) == prefix


def test_a_prefix_comes_once():
    assert with_prefix([7, 8], (1,)) == (1, 7, 8)
    assert with_prefix([1, 7, 8], (1,)) == (1, 7, 8)
    assert with_prefix([7, 8], ()) == (7, 8)


def test_a_long_prompt_is_shown_by_its_ends_with_control_characters_visible():
    assert shown("<s>a\nb\x1b") == "  | <s>a\n  | b<U+001B>"
    long = shown("begin" + "x" * 5000 + "end")
    assert long.startswith("  | begin")
    assert long.endswith("end")
    assert len(long) < 1000
    lines = shown("\n".join(map(str, range(100)))).split("\n")
    # 6 lines, one that says what is left out, 6 lines
    assert len(lines) == 13
    assert "[88 lines left out]" in lines[6]


# The context


@pytest.mark.parametrize(("context", "fits"), [(110, True), (109, False)])
def test_prompt_and_completion_must_fit_the_context_together(context, fits):
    recipe = load_recipe(TINY, ["explore.sampling.max_completion_tokens=60"])
    if fits:
        return check_context(recipe, "explore", "t/1", 50, context)
    # 50 + 60 = 110 > 109: a completion may have 109 - 50 = 59, a prompt 109 - 60 = 49
    with pytest.raises(ConfigError, match=r"is 110, more than the 109.* to 59, or prompt.* to 49,"):
        check_context(recipe, "explore", "t/1", 50, context)
