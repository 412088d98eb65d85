"""Held-out problems by checkpoint: what was known, what was lost, and pass@k against k."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isnan

from rloop.evaluation.checkpoints import (
    MAX_CHECKPOINTS,
    Checkpoint,
    default_ks,
    evenly_spaced,
    half_losses,
    pass_curve,
    solved_matrix,
    spread_checkpoints,
)
from rloop.evaluation.forgetting import forgetting_matrix, newly_solved_matrix
from rloop.report.results import logged_tasks, reference_policy
from rloop.report.run_record import Row, RunRecord
from rloop.report.words import percent
from rloop.store.trajectories import TrajectoryStore
from rloop.text import visible

MAX_CURVES = 6
MAX_LOST = 8
MAX_PROMPT = 160
"""Characters of a prompt in the list of forgotten problems, its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """One held-out task of a run, measured at its checkpoints.

    Example: HeldOut(task="sums", checkpoints=(base, explored, iter_1), line=(base, iter_1),
    has_reference=True)
    """

    task: str
    checkpoints: tuple[Checkpoint, ...]
    """In the order of training, up to the last policy kept."""
    line: tuple[Checkpoint, ...]
    """The reference policy first, then the policies that the run goes on with."""
    has_reference: bool
    """Whether the line begins with the policy that the others are compared with."""

    @property
    def reference(self) -> Checkpoint:
        """Where the loop began; the only policy of an evaluation by itself."""
        return self.line[0]

    @property
    def outcome(self) -> Checkpoint | None:
        """The last policy kept; None until there is one after the reference."""
        return self.line[-1] if self.has_reference and len(self.line) > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class LostProblem:
    """A problem that the reference solved and the outcome does not.

    Example: LostProblem(problem_id="sums/7", prompt="1+1=", counts=("3/8", "0/8"))
    """

    problem_id: str
    prompt: str
    counts: tuple[str, ...]
    """Correct of n samples, for each policy of the line."""


def held_out_tasks(record: RunRecord, checkpoints: Iterable[Checkpoint]) -> list[HeldOut]:
    """Return each task with the checkpoints that the page compares, in the order of the log."""
    by_task: dict[str, list[Checkpoint]] = {task: [] for task in logged_tasks(record)}
    for checkpoint in checkpoints:
        by_task.setdefault(checkpoint.task, []).append(checkpoint)
    return [_held_out(record, task, found) for task, found in by_task.items() if found]


def pass_rows(checkpoints: Sequence[tuple[str, Checkpoint]], *, confidence: float) -> list[Row]:
    """Return pass@k of each named checkpoint at powers of two and at n: policy, k, value, ..."""
    rows = []
    for name, checkpoint in checkpoints:
        ks = default_ks(checkpoint.num_samples)
        curve = pass_curve(checkpoint, ks, confidence=confidence)
        rows += [
            {"policy": name, "k": k, "value": found.value, "low": found.low, "high": found.high}
            for k, found in curve.items()
        ]
    return rows


def shown_curves(held: HeldOut) -> list[tuple[str, Checkpoint]]:
    """Return the policies whose curves are drawn: the first, the last and some between."""
    chosen = evenly_spaced(range(len(held.line)), MAX_CURVES)
    return [(held.line[index].label, held.line[index]) for index in chosen]


def forgotten_words(held: HeldOut) -> tuple[str, list[str]]:
    """Return what was forgotten in a few words, and in sentences; empty without an outcome."""
    outcome = held.outcome
    if outcome is None:
        return "", []
    before, after = solved_matrix([held.reference, outcome])
    every = solved_matrix(held.checkpoints)
    lost, known, new = (int((x).sum()) for x in (before & ~after, before, after & ~before))
    unknown = len(before) - known
    ever = int((every.any(axis=0) & ~every[-1]).sum())
    first, last = held.reference.label, outcome.label
    if known == 0:
        sentences = [f"{first} solved none of the {len(before)} problems."]
    else:
        sentences = [
            f"Of the {known} problems that {first} solved, {last} leaves {lost} unsolved "
            f"({percent(lost / known)}).{_chance_words(held.reference, outcome)}"
        ]
    if unknown:
        sentences.append(
            f"Of the {unknown} that {first} did not solve, it solves {new} "
            f"({percent(new / unknown)})."
        )
    sentences.append(
        f"Of all {every.shape[1]} problems, {ever} ({percent(ever / every.shape[1])}) were solved "
        f"at some measurement of the run, but not by {last}."
    )
    return (f"{lost} of {known} problems" if known else "Nothing to forget"), sentences


def matrix_rows(held: HeldOut, *, is_forgetting: bool) -> list[Row]:
    """Return the forgetting or the newly-solved matrix as rows: a, b, value, said.

    `value` is None where it is 0/0. No rows for fewer than two checkpoints.
    """
    if len(held.checkpoints) < 2:
        return []
    chosen = spread_checkpoints(held.checkpoints, MAX_CHECKPOINTS)
    shown = [held.checkpoints[index] for index in chosen]
    solved = solved_matrix(shown)
    matrix = forgetting_matrix(solved) if is_forgetting else newly_solved_matrix(solved)
    knew = solved if is_forgetting else ~solved
    whole = knew.sum(axis=1)
    part = knew.astype(int) @ ~knew.T
    return [
        {
            "a": a.label,
            "b": b.label,
            "value": float(matrix[i, j]) if whole[i] else None,
            "said": f"{part[i, j]} of {whole[i]}",
        }
        for i, a in enumerate(shown)
        for j, b in enumerate(shown)
    ]


def num_left_out(held: HeldOut) -> int:
    """Return how many checkpoints the matrices leave out."""
    return max(0, len(held.checkpoints) - MAX_CHECKPOINTS)


def lost_problems(held: HeldOut, store: TrajectoryStore) -> list[LostProblem]:
    """Return the problems that the reference solved most often and the outcome never does."""
    outcome = held.outcome
    if outcome is None:
        return []
    known = held.reference.counts
    lost = [name for name, number in outcome.counts.items() if not number and known.get(name)]
    lost = sorted(lost, key=lambda name: (-known[name], name))[:MAX_LOST]
    if not lost:
        return []
    quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in lost)
    found = store.query(
        "select problem_id, any_value(prompt_text) as prompt from trajectories "
        f"where phase = 'evaluate' and iteration = {outcome.iteration} and problem_id in ({quoted})"
        " group by problem_id"
    )
    prompts = {row["problem_id"]: row["prompt"] for row in found.to_pylist()}
    return [
        LostProblem(
            problem_id=visible(name),
            prompt=visible(_end(prompts.get(name, "").strip())),
            counts=tuple(f"{c.counts.get(name, 0)}/{c.num_samples}" for c in held.line),
        )
        for name in lost
    ]


def _chance_words(first: Checkpoint, last: Checkpoint) -> str:
    """Return a sentence of what chance makes of it; empty where there are no two halves."""
    found = half_losses(first, last)
    if found is None or isnan(found[0]):
        return ""
    return (
        f" Chance is part of it: of what {first.label} solves in one half of the samples, "
        f"{last.label} misses {percent(found[0])} in the other half, and {first.label} itself "
        f"{percent(found[1])}."
    )


def _held_out(record: RunRecord, task: str, found: Sequence[Checkpoint]) -> HeldOut:
    reference = reference_policy(record)
    last_explored = {c.policy: c for c in found if not c.is_kept}
    line = [
        c
        for c in found
        if (c.is_kept and c.policy not in {"base", "coldstart"} - {reference})
        or (record.is_plain_rl and c is last_explored.get(c.policy))
    ]
    line = line or [found[-1]]
    last = list(found).index(line[-1])
    return HeldOut(
        task=task,
        checkpoints=tuple(found[: last + 1]),
        line=tuple(line),
        has_reference=line[0].policy == reference,
    )


def _end(text: str) -> str:
    return text if len(text) <= MAX_PROMPT else f"[...] {text[-MAX_PROMPT:]}"
