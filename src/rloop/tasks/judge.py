"""`rloop judge`: try a verifier on an answer, or on a file of answers with known verdicts."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rloop.errors import ConfigError
from rloop.tasks.pool import VerifierPool
from rloop.tasks.readers import Row, read_rows
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
    """Judge each row of a file that a task could have. Steps cost a second judgement of each.

    A row has `answer` and `completion`, perhaps `expected` and `problem` or `question`.
    ConfigError names the row that cannot be judged, TaskError the line that cannot be read.
    """
    rows = [_checked(row, f"{path}, row {number}") for number, row in enumerate(read_rows(path), 1)]
    if not rows:
        raise ConfigError(f"{path} has no rows to judge.")
    pairs = [
        (
            _problem(verifier, row["answer"], row.get("problem") or row.get("question") or ""),
            row["completion"],
        )
        for row in rows
    ]
    with VerifierPool(num_workers) as pool:
        verdicts = pool.verify(pairs)
    judged = []
    for row, pair, verdict in zip(rows, pairs, verdicts, strict=True):
        is_shown = with_steps and verdict.kind != "error" and not verifier.startswith(PREFIX)
        judged.append(
            Judgement(
                answer=row["answer"],
                completion=row["completion"],
                expected=row.get("expected"),
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


def _checked(row: Row, place: str) -> Row:
    """Return a row; ConfigError where its values are not what they must be."""
    for key in ("answer", "completion"):
        if not isinstance(row.get(key), str):
            raise ConfigError(
                f'{place}: "{key}" must be a text, got {row.get(key)!r:.60}. Put it in quotes.'
            )
    expected = row.get("expected")
    if not (expected is None or isinstance(expected, bool)):
        raise ConfigError(f'{place}: "expected" must be true or false, got {expected!r:.40}.')
    return row
