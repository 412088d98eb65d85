"""`rloop judge`: files as they come, words for each mistake, exit codes."""

import gzip
import json
import sys

import pytest

from rloop.cli import main
from rloop.tasks.judge import judge_file, judge_one, summary


@pytest.fixture
def rloop(monkeypatch, capsys):
    """Run a command; returns (exit code, standard output, standard error)."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["rloop", "judge", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        told = capsys.readouterr()
        return end.value.code or 0, told.out, told.err

    return call


def row(completion, expected=None, **more):
    return {"answer": "5", "completion": completion, "expected": expected, **more}


def lines(*rows):
    return "\n".join(json.dumps(r, ensure_ascii=False) for r in rows)


def test_a_verdict_names_the_version_and_the_steps():
    judged = judge_one("numeric", "5", "It is 5.")
    assert judged.verdict.is_correct
    assert judged.as_json()["verifier"].startswith("numeric/")
    assert dict(judged.steps)["found"] == "5"


def test_the_exit_code_says_whether_a_verdict_differs(rloop, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(lines(row("5", expected=True), row("6", expected=False)))
    code, out, err = rloop("--file", path)
    assert (code, out) == (0, "")
    assert "Of 1 wrong ones 0 accepted, of 1 right ones 0 not accepted." in err
    path.write_text(lines(row("5", expected=True), row("6", expected=True)))
    code, out, err = rloop("--file", path)
    assert (code, out.count("wrong")) == (1, 1)
    assert "of 2 right ones 1 not accepted" in err


def test_line_ends_inside_a_string_do_not_end_a_row(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(lines(row("a\u2028b\u0085c\n\n\\boxed{5}"), row("\\boxed{5}")))
    assert [j.verdict.kind for j in judge_file("math", path)] == ["correct", "correct"]


def test_a_file_may_be_compressed_or_a_list(tmp_path):
    packed, listed = tmp_path / "pairs.jsonl.gz", tmp_path / "pairs.json"
    packed.write_bytes(gzip.compress(lines(row("5"), row("6")).encode()))
    listed.write_text(json.dumps([row("5"), row("6")], indent=2))
    for path in (packed, listed):
        assert summary(judge_file("math", path)) == "2 judged: 1 correct, 1 wrong, 0 error."


def test_json_of_a_file_holds_the_steps(rloop, tmp_path):
    path = tmp_path / "one.json"
    path.write_text(json.dumps([{"answer": "B", "completion": "So B."}]))
    _, out, _ = rloop("--file", path, "--verifier", "choice", "--json")
    (judged,) = json.loads(out)
    assert judged["verdict"] == "correct"
    assert ["letters", "B"] in judged["steps"]


@pytest.mark.parametrize("key", ["problem", "question"])
def test_the_problem_has_two_names_and_may_be_null(tmp_path, key):
    path = tmp_path / "pairs.jsonl"
    asked = "What is 2 + 3? Answer with a number, such as 5"
    path.write_text(lines(row(asked, **{key: asked}), row("5", **{key: None})))
    assert [j.verdict.kind for j in judge_file("numeric", path)] == ["wrong", "correct"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (lines(row("5", expected=1)), 'row 1: "expected" must be true or false, got 1'),
        (lines(row("5"), row(None)), 'row 2: "completion" must be a text, got None'),
        (lines(row(5)), 'row 1: "completion" must be a text, got 5'),
        ("\n", "has no rows to judge"),
    ],
)
def test_a_row_that_cannot_be_judged_is_named(rloop, tmp_path, text, said):
    path = tmp_path / "pairs.jsonl"
    path.write_text(text)
    code, out, err = rloop("--file", path)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--file", "x.json", "--answer", "5"), "got --answer as well"),
        (("--file", "x.json", "--question", "?", "5"), "got a completion and --question as well"),
        (("--answer", "5"), "needs --answer REFERENCE and a completion"),
        (("--answer", "5", "5", "--verifier", "maths"), "Did you mean math? Choose choice, exact"),
        (("--answer", "5", "5", "--verifier", "reasoning_gym"), "Choose another --verifier"),
    ],
)
def test_a_call_that_cannot_be_is_refused(rloop, arguments, said):
    code, out, err = rloop(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert ("reasoning_gym" in err) == ("reasoning_gym" in arguments)


def test_a_completion_may_begin_with_a_minus_sign(rloop):
    code, out, _ = rloop("--answer", "-5", "--", "-5")
    assert (code, "correct" in out) == (0, True)
