"""The self-test at the start: every task's own reference answers must be judged correct."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rloop.errors import TaskError
from rloop.tasks.pool import VerifierPool
from rloop.tasks.verifiers.registry import reference_text
from rloop.types import Problem, Verdict

MAX_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceReport:
    """Problems whose reference is judged correct, and those where it is not, with the verdict."""

    kept: tuple[Problem, ...]
    bad: tuple[tuple[Problem, Verdict], ...]

    def summary(self) -> str:
        """Return one line of counts."""
        num_judged = len(self.kept) + len(self.bad)
        dropped = f", {len(self.bad)} problems left out" if self.bad else ""
        return f"{len(self.kept)} of {num_judged} reference answers judged correct{dropped}"


def check_references(
    problems: Sequence[Problem], pool: VerifierPool, *, policy: Literal["stop", "drop"] = "stop"
) -> ReferenceReport:
    """Judge each problem's own reference; stop with those that fail, or leave them out."""
    verdicts = pool.verify([(problem, reference_text(problem)) for problem in problems])
    pairs = list(zip(problems, verdicts, strict=True))
    bad = tuple((problem, verdict) for problem, verdict in pairs if not verdict.is_correct)
    if bad:
        _check_verifiers_work(pairs)
    if bad and policy == "stop":
        shown = "\n".join(
            f"  {problem.problem_id}: reference {problem.answer!r:.80}, {problem.verifier} says "
            f"{verdict.kind} ({verdict.reason})"
            for problem, verdict in bad[:MAX_SHOWN]
        )
        raise TaskError(
            f"{len(bad)} of {len(pairs)} reference answers are not judged correct by their own "
            f"verifier:\n{shown}\nChoose another verifier, or leave them out with "
            "--set tasks.bad_references=drop."
        )
    kept = tuple(problem for problem, verdict in pairs if verdict.is_correct)
    if problems and not kept:
        raise TaskError(
            f"none of {len(pairs)} reference answers is judged correct; the first, "
            f"{bad[0][0].problem_id}: {bad[0][1].kind} ({bad[0][1].reason})"
        )
    return ReferenceReport(kept=kept, bad=bad)


def _check_verifiers_work(pairs: Sequence[tuple[Problem, Verdict]]) -> None:
    """Raise TaskError, in one sentence, for a verifier that gave nothing but errors."""
    for name in dict.fromkeys(problem.verifier for problem, _ in pairs):
        judged = [(problem, verdict) for problem, verdict in pairs if problem.verifier == name]
        if all(verdict.kind == "error" for _, verdict in judged):
            problem, verdict = judged[0]
            raise TaskError(
                f"The verifier {name} gave an error for all {len(judged)} reference answers it was "
                f"asked about; for {problem.problem_id}: {verdict.reason}. Mend it, or choose "
                "another verifier."
            )


def check_solutions(problems: Sequence[Problem], solution_template: str) -> None:
    """Raise TaskError unless each problem of a cold start has the solution its template wants."""
    lacking = [problem for problem in problems if problem.solution is None]
    if lacking and "{solution}" in solution_template:
        raise TaskError(
            f"coldstart.task: {len(lacking)} of {len(problems)} problems have no solution, such as "
            f"{lacking[0].problem_id}. Map a column with fields.solution, or use "
            "coldstart.solution_template: '{answer}'."
        )
