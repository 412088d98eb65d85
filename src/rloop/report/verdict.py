"""The verdict in words, a task at a time: did it help, does it overfit, what was forgotten."""

from collections.abc import Sequence
from dataclasses import dataclass

from rloop.report.held_out import HeldOut, forgotten_words
from rloop.report.overfitting import overfitting_words
from rloop.report.results import PolicyRow, TaskTable, headline, verdict
from rloop.report.run_record import RunRecord
from rloop.report.words import percent, points

MIN_CUT_CHANGE = 0.1
"""Change of the fraction of completions that are cut from which the verdict speaks of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The answer to one question.

    Example: Finding(question="Did it help?", answer="Yes: +21.4 points", kind="gain",
    sentences=("avg@8 rose from 19.8 % ...",))
    """

    question: str
    answer: str
    kind: str
    """`gain`, `loss` or `unclear`: what its colour says beside the words."""
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskVerdict:
    """What is to be said of one held-out task.

    Example: TaskVerdict(task="sums", between="base to iter-002", findings=(Finding(...),))
    """

    task: str
    between: str
    """The policies that are compared."""
    findings: tuple[Finding, ...]


def task_verdicts(
    record: RunRecord, tables: Sequence[TaskTable], tasks: Sequence[HeldOut]
) -> list[TaskVerdict]:
    """Return the verdict of each task that has an outcome."""
    held = {one.task: one for one in tasks}
    found = []
    for table in tables:
        if table.outcome is None or table.row(table.reference) is None:
            continue
        findings: list[Finding | None] = [_help(table, record.confidence)]
        if table.task in held:
            one = held[table.task]
            findings += [_overfitting(record, one, table), _forgotten(one)]
        found.append(
            TaskVerdict(
                task=table.task,
                between=f"{table.reference} to {table.outcome.policy}",
                findings=tuple(one for one in findings if one is not None),
            )
        )
    return found


def _help(table: TaskTable, confidence: float) -> Finding | None:
    """Return whether accuracy and pass@k rose; by avg@n, which the first metric is."""
    assert table.outcome is not None, "a verdict needs an outcome"
    difference = table.outcome.cells[table.headline_metrics[0]].difference
    kind = verdict(difference)
    word = {"gain": "Yes", "loss": "No", "unclear": "Not clear"}[kind]
    answer = word if difference is None else f"{word}: {points(difference)} points"
    sentences = (*headline(table, confidence), *_cut_words(table, table.outcome))
    return Finding(question="Did it help?", answer=answer, kind=kind, sentences=sentences)


def _cut_words(table: TaskTable, after: PolicyRow) -> list[str]:
    """Return a sentence where far fewer or more completions are cut: length is in the difference.

    Example: base cut in 45 % and iter-002 in 3 % of its completions.
    """
    before = table.row(table.reference)
    if before is None or before.truncated_frac is None or after.truncated_frac is None:
        return []
    change = after.truncated_frac - before.truncated_frac
    if abs(change) < MIN_CUT_CHANGE:
        return []
    kind = "answers that are no longer cut" if change < 0 else "answers that are cut now"
    return [
        f"Completions cut at the length limit went from {percent(before.truncated_frac)} "
        f"({before.policy}) to {percent(after.truncated_frac)} ({after.policy}): part of the "
        f"difference may be {kind}."
    ]


def _overfitting(record: RunRecord, held: HeldOut, table: TaskTable) -> Finding | None:
    kind, _, k = table.headline_metrics[-1].partition("@")
    words = overfitting_words(record, held, int(k)) if kind == "pass" else None
    if words is None:
        return None
    answer, kind, sentences = words
    return Finding(
        question="Does it overfit?", answer=answer, kind=kind, sentences=tuple(sentences)
    )


def _forgotten(held: HeldOut) -> Finding | None:
    answer, sentences = forgotten_words(held)
    if not sentences:
        return None
    return Finding(
        question="What was forgotten?",
        answer=answer,
        kind="unclear",
        sentences=tuple(sentences),
    )
