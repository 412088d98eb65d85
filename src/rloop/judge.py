"""`rloop judge`: try a verifier on an answer, or on a file of answers with known verdicts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rloop.errors import ConfigError, TaskError
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


def judge_file(verifier: str, path: Path, *, num_workers: int = 2) -> list[Judgement]:
    """Judge each line of a file of JSON lines.

    A line has `answer` and `completion`, perhaps `expected` and `problem`. TaskError names the
    line that cannot be read.
    """
    rows = list(_rows(path))
    pairs = [(_problem(verifier, row["answer"], row["problem"]), row["completion"]) for row in rows]
    with VerifierPool(num_workers) as pool:
        verdicts = pool.verify(pairs)
    return [
        Judgement(
            answer=row["answer"],
            completion=row["completion"],
            expected=row["expected"],
            verdict=verdict,
        )
        for row, verdict in zip(rows, verdicts, strict=True)
    ]


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
    registry.check_verifier_name(verifier)
    if verifier == "reasoning_gym":
        raise ConfigError(
            "reasoning_gym judges the entries of its own data sets, which an answer alone does not "
            "hold. Choose another --verifier."
        )
    return Problem(
        problem_id="judge/0", task="judge", question=question, answer=answer, verifier=verifier
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path} cannot be read: {error}.") from error
    rows = [
        _row(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
    if not rows:
        raise TaskError(f"{path} has no lines to judge.")
    return rows


def _row(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise TaskError(f"{place} is not JSON: {error.msg}.") from error
    if not isinstance(row, dict) or not {"answer", "completion"} <= row.keys():
        raise TaskError(f'{place} needs the keys "answer" and "completion", got {line!r:.80}.')
    expected = row.get("expected")
    if expected not in (None, True, False):
        raise TaskError(f'{place}: "expected" must be true or false, got {expected!r:.40}.')
    texts = {key: row.get(key, "") for key in ("answer", "completion", "problem")}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise TaskError(
                f'{place}: "{key}" must be a text, got {value!r:.60}. Put it in quotes.'
            )
    return {**texts, "expected": expected}
