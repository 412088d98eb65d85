"""Anything may stand in a recipe or a completion: the answer is a sentence or a value."""

import string
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rloop.cli.browse import lines_of
from rloop.errors import ConfigError
from rloop.recipe.load import load_recipe
from rloop.tasks.verifiers import answers, exact, numeric, statements
from rloop.tasks.verifiers.numbers import last_number_span
from rloop.text import format_value
from rloop.types import Problem

BOUNDED = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
LATEX = st.lists(
    st.sampled_from(
        [r"\boxed{", "}", "{", r"\frac", "8", "-", ",", ".", "/", "%", "^", "####", "answer is",
         "<answer>", "</answer>", "```\n", "\n", " ", "\u00b2", "\u0663", "\u202e", "\ud800", "e9"]
    ),
    max_size=40,
).map("".join)  # fmt: skip
TEXTS = st.one_of(st.text(max_size=200), LATEX)
PLAIN = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.dates(),
        st.binary(max_size=8),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)
RECIPE = Path(__file__).parents[2] / "recipes" / "tiny.yaml"
WHOLE = yaml.safe_load(RECIPE.read_text())


def paths(tree, prefix=()):
    """Yield the places of a nested recipe."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree)
    for key, value in items:
        yield (*prefix, key)
        if isinstance(value, dict | list):
            yield from paths(value, (*prefix, key))


def said_of(path, overrides=()):
    """Return what a user is told of a recipe, `read` when nothing is wrong; no other error."""
    try:
        load_recipe(path, overrides)
    except ConfigError as error:
        return str(error)
    return "read"


@BOUNDED
@given(text=st.text(max_size=300))
@example(text="a: &a [*a]")
@example(text="!!python/object/apply:os.system ['true']")
@example(text="\x00")
@example(text="!!binary aGVsbG8=: 1")
@example(text="? [a, b]\n: 1")
@example(text="[" * 3000)
@example(text="a: &x [1,1]\nb: &y [*x,*x,*x,*x]\nc: [*y,*y,*y,*y]")
def test_any_text_as_a_recipe_is_refused_in_words(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8", errors="surrogatepass")
    assert said_of(path).strip()


@BOUNDED
@given(data=st.binary(max_size=200))
def test_any_bytes_as_a_recipe_are_refused_in_words(tmp_path, data):
    path = tmp_path / "recipe.yaml"
    path.write_bytes(data)
    assert said_of(path).strip()


@BOUNDED
@given(place=st.sampled_from(list(paths(WHOLE))), value=PLAIN)
def test_any_value_at_any_place_of_a_recipe_is_read_or_refused_in_words(tmp_path, place, value):
    tree = yaml.safe_load(yaml.safe_dump(WHOLE))
    *parents, name = place
    home = tree
    for parent in parents:
        home = home[parent]
    home[name] = value
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree, allow_unicode=True), encoding="utf-8")
    assert said_of(path).strip()


@BOUNDED
@given(override=st.one_of(st.text(max_size=60), st.from_regex(r"[a-z_.]{1,20}=.{0,20}")))
def test_any_override_is_read_or_refused_in_words(override):
    assert said_of(RECIPE, [override]).strip()


@BOUNDED
@given(text=TEXTS)
def test_any_completion_has_an_answer_or_none(text):
    for find in (answers.after_phrase, answers.last_box):
        find(text)
    for found in (answers.bare(text), statements.last_lines(text)):
        assert found in answers.with_ascii_numbers(text) or found in text
    place = last_number_span(text)
    assert place is None or text[slice(*place)]


@BOUNDED
@given(text=TEXTS, reference=st.sampled_from(["8", "-0.5", "1,000", "50%"]))
def test_any_completion_gets_a_verdict_of_the_plain_verifiers(text, reference):
    for verifier in (numeric, exact):
        problem = Problem(
            problem_id="t/0", task="t", question="?", answer=reference, verifier="numeric"
        )
        assert verifier.judge(problem, text).kind in ("correct", "wrong")


@BOUNDED
@given(text=st.text(max_size=100))
def test_what_a_model_wrote_cannot_move_the_cursor(text):
    row: dict[str, Any] = dict.fromkeys(
        ("iteration", "phase", "step", "policy", "problem_id", "member", "verdict", "answer",
         "reference", "reward", "completion_tokens", "finish_reason", "reason"), 0,
    )  # fmt: skip
    row |= {"prompt_text": text, "completion_text": text, "answer": text, "reason": text}
    row["rewards"] = [{"name": "mine", "value": 0.5, "reason": text}]
    shown = "\n".join(lines_of(row)) + format_value(text)
    odd = set(shown) - set(string.printable) - set(text)
    assert odd <= set("<>U+"), odd
    assert not set(shown) & {chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))}
    shown.encode("utf-8")


@pytest.mark.parametrize("text", ["\x1b[2J\x1b[H", "\x9b2J", "\r\rspoofed", "\u202egnp.exe"])
def test_known_tricks_are_shown_as_what_they_are(text):
    assert "<U+" in format_value(text)
