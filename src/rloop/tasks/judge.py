"""`rloop judge`: try a verifier on an answer, or on a file of answers with known verdicts."""

import gzip
import json
import sys
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rloop.errors import ConfigError
from rloop.tasks.pool import VerifierPool
from rloop.tasks.verifiers import registry
from rloop.tasks.verifiers.python import PREFIX
from rloop.types import Problem, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A completion and what a verifier says of it."""

    answer: str
    """The reference."""
    completion: str
    expected: bool | None
    """Whether it is right, None where nobody has said."""
    verdict: Verdict
    steps: tuple[tuple[str, str], ...] = ()

    @property
    def disagrees(self) -> bool:
        """Whether the verdict is not the expected one; an error never is."""
        if self.expected is None:
            return False
        return self.verdict.kind != ("correct" if self.expected else "wrong")

    def as_json(self) -> dict[str, Any]:
        """Return the fields for `--json`."""
        return {
            "answer": self.answer,
            "completion": self.completion,
            "expected": self.expected,
            "verdict": self.verdict.kind,
            "reason": self.verdict.reason,
            "found": self.verdict.answer,
            "verifier": self.verdict.verifier_version,
            "steps": [list(step) for step in self.steps],
        }


def judge_one(verifier: str, answer: str, completion: str, question: str = "") -> Judgement:
    """Judge one completion and return the steps; a user's verifier runs under a time limit."""
    problem = _problem(verifier, answer, question)
    steps: tuple[tuple[str, str], ...] = ()
    if verifier.startswith(PREFIX):
        with VerifierPool() as pool:
            (verdict,) = pool.verify([(problem, completion)])
    else:
        verdict, found = registry.explain(problem, completion)
        steps = tuple(found)
    return Judgement(
        answer=answer, completion=completion, expected=None, verdict=verdict, steps=steps
    )


def judge_file(
    verifier: str, path: Path, *, with_steps: bool = False, num_workers: int = 2
) -> list[Judgement]:
    """Judge each row of a file; `-` is standard input. Steps cost a second judgement of each.

    A row has `answer` and `completion`, perhaps `expected` and `problem` or `question`.
    ConfigError names the row that cannot be read.
    """
    rows = list(_rows(path))
    pairs = [(_problem(verifier, row["answer"], row["problem"]), row["completion"]) for row in rows]
    with VerifierPool(num_workers) as pool:
        verdicts = pool.verify(pairs)
    judged = []
    for row, pair, verdict in zip(rows, pairs, verdicts, strict=True):
        is_shown = with_steps and verdict.kind != "error" and not verifier.startswith(PREFIX)
        judged.append(
            Judgement(
                answer=row["answer"],
                completion=row["completion"],
                expected=row["expected"],
                verdict=verdict,
                steps=tuple(registry.explain(*pair)[1]) if is_shown else (),
            )
        )
    return judged


def summary(judged: Sequence[Judgement]) -> str:
    """Return a sentence of counts."""
    kinds = {
        kind: sum(j.verdict.kind == kind for j in judged) for kind in ("correct", "wrong", "error")
    }
    known = [j for j in judged if j.expected is not None]
    text = f"{len(judged)} judged: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    if not known:
        return text + "."
    wrong = [j for j in known if not j.expected]
    accepted = sum(j.verdict.is_correct for j in wrong)
    rejected = sum(not j.verdict.is_correct for j in known if j.expected)
    return (
        f"{text}. Of {len(wrong)} wrong ones {accepted} accepted, of {len(known) - len(wrong)} "
        f"right ones {rejected} not accepted."
    )


def _problem(verifier: str, answer: str, question: str) -> Problem:
    if verifier in registry.OF_SOURCES:
        raise ConfigError(
            f"{verifier} judges problems of {registry.OF_SOURCES[verifier]}:NAME only, and an "
            "answer alone is not one. Choose another --verifier."
        )
    registry.check_verifier_name(verifier, registry.VERSIONS.keys() - registry.OF_SOURCES.keys())
    return Problem(
        problem_id="judge/0", task="judge", question=question, answer=answer, verifier=verifier
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    name = "standard input" if str(path) == "-" else str(path)
    text = _text(path, name)
    # JSON lines end in a newline alone: other line ends, such as U+2028, may stand inside a string.
    if text.lstrip().startswith("["):
        parsed = _parsed(text, name)
        rows = [(row, f"{name}, row {number}") for number, row in enumerate(parsed, 1)]
    else:
        lines = [(line, f"{name}, line {n}") for n, line in enumerate(text.split("\n"), 1)]
        rows = [(_parsed(line, place), place) for line, place in lines if line.strip()]
    if not rows:
        raise ConfigError(f"{name} has no rows to judge.")
    return [_row(row, place) for row, place in rows]


def _text(path: Path, name: str) -> str:
    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{name} cannot be read: {reason}.") from error


def _parsed(text: str, place: str) -> Any:  # noqa: ANN401 -- a user's JSON
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{place} is not JSON: {error.msg}.") from error


def _row(row: Any, place: str) -> dict[str, Any]:  # noqa: ANN401 -- a user's JSON
    if not isinstance(row, dict) or not {"answer", "completion"} <= row.keys():
        raise ConfigError(f'{place} needs the keys "answer" and "completion", got {row!r:.80}.')
    expected = row.get("expected")
    if not (expected is None or isinstance(expected, bool)):
        raise ConfigError(f'{place}: "expected" must be true or false, got {expected!r:.40}.')
    if row.get("problem") is not None and row.get("question") is not None:
        raise ConfigError(
            f'{place} has "problem" and "question", which mean the same thing. Keep one.'
        )
    question = row.get("problem") if row.get("problem") is not None else row.get("question")
    texts = {
        "answer": row["answer"],
        "completion": row["completion"],
        "problem": "" if question is None else question,
    }
    for key, value in texts.items():
        if value is None:
            raise ConfigError(f'{place}: "{key}" is null. Give a string, or leave the row out.')
        if not isinstance(value, str):
            raise ConfigError(
                f'{place}: "{key}" must be a text, got {value!r:.60}. Put it in quotes.'
            )
    return {**texts, "expected": expected}
