"""The command `rloop judge`: a verifier tried on one answer, or on a file of answers."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from rloop.cli.options import JsonOption
from rloop.cli.tables import print_json, print_table
from rloop.errors import ConfigError


def judge(
    text: Annotated[
        str | None,
        typer.Argument(
            help="Completion to judge; - reads standard input. One that begins with a minus sign "
            "comes last, behind --."
        ),
    ] = None,
    verifier: Annotated[
        str, typer.Option(help="math, numeric, exact, choice or python:module:function.")
    ] = "math",
    answer: Annotated[str | None, typer.Option(help="Reference answer.")] = None,
    question: Annotated[
        str | None,
        typer.Option(help="The problem's text: an answer that only repeats it is wrong."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            help="A file as tasks have (.jsonl, .json, .parquet, .gz) with answer, completion "
            "and, where known, expected (true or false), problem or question."
        ),
    ] = None,
    *,
    as_json: JsonOption = False,
) -> None:
    """Try a verifier: show the answer it finds, each step, the verdict and the reason.

    With --file: a table of the verdicts that differ from `expected`, and exit code 1 if any do.

    Example: rloop judge --verifier math --answer "(-\\infty,3)" "So \\boxed{x<3}."
    """
    from rloop.tasks.judge import judge_one

    if file is not None:
        _refuse({"a completion": text, "--answer": answer, "--question": question})
        return _judge_file(verifier, file, as_json=as_json)
    if answer is None or text is None:
        raise ConfigError(
            "rloop judge needs --answer REFERENCE and a completion (or - for standard input), or "
            "--file PAIRS.jsonl."
        )
    completion = sys.stdin.read() if text == "-" else text
    one = judge_one(verifier, answer, completion, question or "")
    if as_json:
        return print_json(one.as_json())
    rows = [*one.steps, ("verdict", one.verdict.kind)]
    rows += [("reason", one.verdict.reason)] if one.verdict.reason else []
    print_table(("step", "what came out"), rows)


def _refuse(given: dict[str, str | None]) -> None:
    """Raise ConfigError for what would be ignored beside a file."""
    extra = [name for name, value in given.items() if value is not None]
    if extra:
        raise ConfigError(
            f"--file brings its own answers and completions, got {' and '.join(extra)} as well. "
            "Leave out one or the other."
        )


def _judge_file(verifier: str, path: Path, *, as_json: bool) -> None:
    from rloop.tasks.judge import judge_file, summary

    judged = judge_file(verifier, path, with_steps=as_json)
    differing = [one for one in judged if one.disagrees]
    if as_json:
        print_json([one.as_json() for one in judged])
    elif differing or all(one.expected is None for one in judged):
        columns = ("answer", "completion", "expected", "verdict", "found", "reason")
        shown = differing or judged
        print_table(columns, [[one.as_json()[name] for name in columns] for one in shown])
    sys.stderr.write(f"{summary(judged)}\n")
    raise typer.Exit(1 if differing else 0)
