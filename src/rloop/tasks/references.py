"""The check of verifiers at the start: what they must accept, and what they must not.

Every reference must be judged correct, also in other forms (a decimal as a fraction, without a box,
with a full stop). Every question, the reference of another problem, and an empty text, given as
if they were the completion, must be judged wrong: a verifier that accepts the question pays a
policy for repeating it. A user's own verifier must judge them without an error, too: one that
raises for all but a bare reference gives errors for most of what a policy writes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rloop.errors import TaskError
from rloop.tasks.pool import VerifierPool
from rloop.tasks.verifiers.forms import other_forms
from rloop.tasks.verifiers.python import PREFIX
from rloop.tasks.verifiers.registry import reference_text
from rloop.types import Problem, Verdict

MAX_SHOWN = 5
MAX_OTHERS_FRAC = 0.2
"""A user's own verifier may accept other problems' references (any prime will do); not so many."""
_OWN = ("math", "numeric", "exact", "choice")

Progress = Callable[[int, int], None]
"""Told how many verdicts are done, of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceReport:
    """Problems that their verifier judges as it must, and the others, each with the verdict."""

    kept: tuple[Problem, ...]
    bad: tuple[tuple[Problem, Verdict], ...]

    def summary(self) -> str:
        """Return one line of counts."""
        num_judged = len(self.kept) + len(self.bad)
        dropped = f", {len(self.bad)} problems left out" if self.bad else ""
        return f"{len(self.kept)} of {num_judged} reference answers judged correct{dropped}"


@dataclass(frozen=True, slots=True)
class _Trial:
    """A text that is judged as if a policy had written it, and what the verdict must be."""

    problem: Problem
    text: str
    what: str
    """What the text is, for the message: `the question`."""
    is_right: bool = False


def check_references(
    problems: Sequence[Problem],
    pool: VerifierPool,
    *,
    policy: Literal["stop", "drop"] = "stop",
    on_progress: Progress | None = None,
) -> ReferenceReport:
    """Try each problem's verifier; stop with those that fail, or leave their problems out."""
    trials = [*_own_references(problems), *_forms(problems), *_wrong_texts(problems)]
    verdicts = _judged(pool, trials, on_progress)
    pairs = list(zip(trials, verdicts, strict=True))
    own = pairs[: len(problems)]
    if any(not verdict.is_correct for _, verdict in own):
        _check_verifiers_work(own)
    failed = {
        id(trial.problem): (trial, verdict)
        for trial, verdict in reversed(pairs)
        if _is_failure(trial, verdict)
    }
    _add_accepted_others(problems, pool, failed)
    bad = [failed[id(problem)] for problem in problems if id(problem) in failed]
    kept = tuple(problem for problem in problems if id(problem) not in failed)
    if bad and (policy == "stop" or not kept):
        raise TaskError(_message(bad, len(problems), pool, is_all=policy == "drop"))
    return ReferenceReport(kept=kept, bad=tuple((trial.problem, verdict) for trial, verdict in bad))


def _is_failure(trial: _Trial, verdict: Verdict) -> bool:
    is_own_error = verdict.kind == "error" and _is_foreign(trial.problem)
    return verdict.is_correct != trial.is_right or is_own_error


def _is_foreign(problem: Problem) -> bool:
    """Whether the code that judges is the user's, or an environment's."""
    return problem.verifier.startswith(PREFIX) or problem.verifier == "rubric"


def _own_references(problems: Sequence[Problem]) -> list[_Trial]:
    return [_Trial(p, reference_text(p), "its own reference", is_right=True) for p in problems]


def _forms(problems: Sequence[Problem]) -> Iterator[_Trial]:
    """Yield other forms of each reference; equal references of a verifier are tried once."""
    seen: set[tuple[str, str]] = set()
    for problem in problems:
        if (problem.verifier, problem.answer) in seen:
            continue
        seen.add((problem.verifier, problem.answer))
        for text in other_forms(problem.verifier, problem.answer, problem.question):
            yield _Trial(problem, text, f"its reference written as {text!r:.80}", is_right=True)


def _wrong_texts(problems: Sequence[Problem]) -> Iterator[_Trial]:
    for problem in problems:
        yield _Trial(problem, problem.question, "the question itself")
    empty = {problem.verifier: problem for problem in reversed(problems)}
    for problem in problems:
        if _is_foreign(problem) or problem is empty[problem.verifier]:
            yield _Trial(problem, "", "an empty text")


def _judged(
    pool: VerifierPool, trials: Sequence[_Trial], on_progress: Progress | None
) -> list[Verdict]:
    futures = [pool.submit(trial.problem, trial.text) for trial in trials]
    verdicts = []
    for done, future in enumerate(futures, 1):
        verdicts.append(future.result())
        if on_progress is not None:
            on_progress(done, len(futures))
    return verdicts


def _add_accepted_others(
    problems: Sequence[Problem],
    pool: VerifierPool,
    failed: dict[int, tuple[_Trial, Verdict]],
) -> None:
    """Add problems whose verifier accepts the reference of another problem.

    Where each accepts the other's, they are equal (10 and 10%, where percent are asked for). A
    user's verifier may know several right answers, so that only accepting many is a failure.
    """
    trials, backwards = [], []
    for problem, other in _with_others(problems):
        swapped = replace(problem, answer=other.answer)
        trials.append(_Trial(problem, reference_text(swapped), f"{other.problem_id}'s reference"))
        backwards.append((swapped, reference_text(problem)))
    verdicts = pool.verify((trial.problem, trial.text) for trial in trials)
    accepted = [i for i, verdict in enumerate(verdicts) if verdict.is_correct]
    returned = dict(zip(accepted, pool.verify(backwards[i] for i in accepted), strict=True))
    for index, (trial, verdict) in enumerate(zip(trials, verdicts, strict=True)):
        name = trial.problem.verifier
        is_failure = _is_failure(trial, verdict)
        if verdict.is_correct and name in _OWN:
            is_failure = not returned[index].is_correct
        elif verdict.is_correct:
            tried = [i for i, other in enumerate(trials) if other.problem.verifier == name]
            share = sum(verdicts[i].is_correct for i in tried) / len(tried)
            is_failure = len(tried) > 1 and share > MAX_OTHERS_FRAC
        if is_failure:
            failed.setdefault(id(trial.problem), (trial, verdict))


def _with_others(problems: Sequence[Problem]) -> Iterator[tuple[Problem, Problem]]:
    """Yield each problem with the next one of its task and verifier that has another reference."""
    groups: dict[tuple[str, str], list[Problem]] = {}
    for problem in problems:
        if problem.verifier in _OWN or _is_foreign(problem):
            groups.setdefault((problem.task, problem.verifier), []).append(problem)
    for group in groups.values():
        following: Problem | None = None
        nexts = {}
        for problem in reversed([*group, *group]):
            if following is not None and following.answer != problem.answer:
                nexts[id(problem)] = following
            elif following is not None and id(following) in nexts:
                nexts[id(problem)] = nexts[id(following)]
            following = problem
        yield from ((p, nexts[id(p)]) for p in group if id(p) in nexts)


def _message(
    bad: Sequence[tuple[_Trial, Verdict]], num_problems: int, pool: VerifierPool, *, is_all: bool
) -> str:
    shown = "\n".join(
        f"  {trial.problem.problem_id} (reference {trial.problem.answer!r:.80}): "
        f"{trial.problem.verifier} {_said(trial, verdict)}"
        for trial, verdict in bad[:MAX_SHOWN]
    )
    head = f"{len(bad)} of {num_problems} problems are not judged as they should be"
    if is_all:
        return f"{head}: none is left.\n{shown}\n{_advice(bad, pool)}"
    return (
        f"{head}:\n{shown}\n{_advice(bad, pool)} Or leave these problems out with "
        "--set tasks.bad_references=drop."
    )


def _said(trial: _Trial, verdict: Verdict) -> str:
    """Return what a verifier gave for a text. Example: `judges its own reference wrong`."""
    text = f", {trial.text!r:.80}," if not trial.is_right and trial.text else ""
    score = "" if verdict.score in (None, 1.0) else f"score {verdict.score:g}, correct is 1"
    why = "; ".join(part for part in (score, _one_line(verdict.reason)) if part)
    shown = f" ({why})" if why else ""
    if verdict.kind == "error":
        return f"gives an error for {trial.what}{text}{shown}"
    return f"judges {trial.what}{text} {verdict.kind}{shown}"


def _one_line(reason: str) -> str:
    """Return what a verifier said, perhaps the text of its exception, in one line."""
    return " ".join(reason.split()).rstrip(".")


def _advice(bad: Sequence[tuple[_Trial, Verdict]], pool: VerifierPool) -> str:
    """Return what to do: which verifier of ours judges the failed problems as it must, if any."""
    failed = list({id(t.problem): t.problem for t, _ in bad[:200]}.values())
    names = {problem.verifier for problem in failed}
    if names == {"reasoning_gym"}:
        return "Draw other problems by changing the task's seed."
    if names == {"rubric"}:
        return (
            "Choose another environment, or correct this one: its rubric must give the reference "
            "its full reward, and nothing else, without an exception."
        )
    mend = [name for name in sorted(names) if name.startswith(PREFIX)]
    advice = "".join(
        f"Fix {name}: it must accept the reference (problem.answer, which is text), and return "
        "False without an exception for the question, an empty text and other references, as for "
        "anything a policy may write. "
        for name in mend
    )
    for name in ("numeric", "choice", "math", "exact"):
        others = [replace(problem, verifier=name) for problem in failed]
        trials = [*_own_references(others), *_wrong_texts(others)]
        verdicts = pool.verify((trial.problem, trial.text) for trial in trials)
        if all(v.is_correct == t.is_right for t, v in zip(trials, verdicts, strict=True)):
            choose = f"{advice}Or choose" if advice else "Choose"
            return f"{choose} another verifier: {name} judges these correctly (verifier: {name})."
    return advice.strip() or "Choose another verifier, or fix the references."


def _check_verifiers_work(pairs: Sequence[tuple[_Trial, Verdict]]) -> None:
    """Raise TaskError, in one sentence, for a verifier that gave nothing but errors."""
    for name in dict.fromkeys(trial.problem.verifier for trial, _ in pairs):
        judged = [(t.problem, verdict) for t, verdict in pairs if t.problem.verifier == name]
        if all(verdict.kind == "error" for _, verdict in judged):
            problem, verdict = judged[0]
            raise TaskError(
                f"The verifier {name} gave an error for all {len(judged)} reference answers it was "
                f"asked about; for {problem.problem_id}: {_one_line(verdict.reason)}. Fix it, or "
                "choose another verifier."
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
