"""What a run's numbers say, in words: did it help, does it overfit, what was forgotten."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rloop.evaluation.checkpoints import Checkpoint, half_losses, solved_matrix, training_paths
from rloop.evaluation.intervals import Estimate
from rloop.evaluation.overfitting import (
    MIN_CHECKPOINTS,
    MIN_PROBLEMS,
    MIN_REWARDS,
    Overfitting,
    Rewards,
    overfitting_verdict,
    read_first_steps,
)
from rloop.report.formatting import percent, percent_interval, points, points_interval
from rloop.report.held_out import HeldOut
from rloop.report.tables import Cell, TaskTable, verdict
from rloop.report.temperatures import after_training
from rloop.run_directory import Row, Run
from rloop.store.trajectories import TrajectoryStore

MIN_CUT_CHANGE = 0.1
"""Change of the fraction of completions that are cut from which it is spoken of."""
WANTED_CHECKPOINTS = 10
"""Measurements along an exploration that the advice aims at."""
MAX_SENTENCES = 3
"""On overfitting, at length; other explorations follow in a few words."""
WIDER = (
    "These intervals are wider than the table's because they account for choosing among "
    "checkpoints."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conclusion:
    """The answer to one question.

    Example: Conclusion(question="Did it help?", answer="Yes: +21.4 points", kind="gain",
    sentences=("avg@8 rose from 19.8 % ...",))
    """

    question: str
    answer: str
    kind: str
    """`gain`, `loss` or `unclear`: what its colour says beside the words."""
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskConclusions:
    """What is to be said of one held-out task.

    Example: TaskConclusions(task="sums", between="base to iter-002", found=(Conclusion(...),))
    """

    task: str
    between: str
    """The policies that are compared."""
    found: tuple[Conclusion, ...]


def conclusions(
    run: Run, tables: Sequence[TaskTable], tasks: Sequence[HeldOut]
) -> list[TaskConclusions]:
    """Return what is to be said of each task that has an outcome."""
    held = {one.task: one for one in tasks}
    gains = {gain["task"]: gain for gain in after_training(run).gains}
    found = []
    for table in tables:
        if table.outcome is None or table.row(table.reference) is None:
            continue
        said: list[Conclusion | None] = [_help(table, run.confidence)]
        if table.task in gains:
            said.append(sharpening(gains[table.task]))
        if table.task in held:
            kind, _, k = table.headline_metrics[-1].partition("@")
            if kind == "pass":
                said.append(overfitting(run, held[table.task], int(k)))
            said.append(forgotten(held[table.task]))
        found.append(
            TaskConclusions(
                task=table.task,
                between=f"{table.reference} to {table.outcome.policy}",
                found=tuple(one for one in said if one is not None),
            )
        )
    return found


# Did it help?


def headline(table: TaskTable, confidence: float) -> list[str]:
    """Return a sentence for each headline metric: from the reference to the last kept policy."""
    before, after = table.row(table.reference), table.outcome
    if before is None or after is None:
        return []
    return [
        _change(name, before.cells[name], after.cells[name], confidence)
        for name in table.headline_metrics
        if name in before.cells and name in after.cells
    ]


def _change(name: str, before: Cell, after: Cell, confidence: float) -> str:
    old, new, difference = before.value, after.value, after.difference
    if old is None or new is None:
        return f"{name} was not measured."
    start, end = (f"{percent(one.value)} {percent_interval(one)}" for one in (old, new))
    verb = "rose" if new.value > old.value else "fell"
    text = (
        f"{name} stayed at {end}"
        if new.value == old.value
        else f"{name} {verb} from {start} to {end}"
    )
    if difference is None:
        return f"{text}; no paired difference was recorded."
    held = "includes" if verdict(difference) == "unclear" else "excludes"
    return (
        f"{text}: {points(difference)} points; the {100 * confidence:g} % interval "
        f"{points_interval(difference)} {held} zero."
    )


def _help(table: TaskTable, confidence: float) -> Conclusion:
    """Return whether accuracy and pass@k rose; by avg@n, which the first metric is."""
    assert table.outcome is not None, "a conclusion needs an outcome"
    difference = table.outcome.cells[table.headline_metrics[0]].difference
    kind = verdict(difference)
    word = {"gain": "Yes", "loss": "No", "unclear": "Not clear"}[kind]
    return Conclusion(
        question="Did it help?",
        answer=word if difference is None else f"{word}: {points(difference)} points",
        kind=kind,
        sentences=(*headline(table, confidence), *_cut(table)),
    )


def sharpening(gain: Row) -> Conclusion:
    """Return whether the policy lies above the base's whole curve of accuracy against pass@k."""
    kind = "gain" if gain["low"] > 0 else "loss" if gain["high"] <= 0 else "unclear"
    word = {"gain": "Yes", "loss": "No", "unclear": "Cannot tell"}[kind]
    return Conclusion(
        question="More than sharpening?",
        answer=f"{word}: {100 * gain['value']:+.1f} points",
        kind=kind,
        sentences=(
            f"At the base's best temperature with as much pass@{gain['k']}, the difference in "
            f"accuracy lies between {100 * gain['low']:+.1f} and {100 * gain['high']:+.1f} points.",
        ),
    )


def _cut(table: TaskTable) -> list[str]:
    """Return a sentence where far fewer or more completions are cut: length is in the difference.

    Example: base cut in 45 % and iter-002 in 3 % of its completions.
    """
    before, after = table.row(table.reference), table.outcome
    assert before is not None, "a conclusion needs the reference"
    assert after is not None, "a conclusion needs an outcome"
    old, new = before.measures["truncated"], after.measures["truncated"]
    if old is None or new is None or abs(new - old) < MIN_CUT_CHANGE:
        return []
    kind = "answers that are no longer cut" if new < old else "answers that are cut now"
    return [
        f"Completions cut at the length limit went from {percent(old)} ({before.policy}) to "
        f"{percent(new)} ({after.policy}): part of the difference may be {kind}."
    ]


# What was forgotten?


def forgotten(held: HeldOut) -> Conclusion | None:
    """Return which problems the outcome no longer solves; None without an outcome."""
    outcome = held.outcome
    if outcome is None:
        return None
    before, after = solved_matrix([held.reference, outcome])
    every = solved_matrix(held.checkpoints)
    lost, known, new = (int((x).sum()) for x in (before & ~after, before, after & ~before))
    unknown = len(before) - known
    ever = int((every.any(axis=0) & ~every[-1]).sum())
    first, last = held.reference.label, outcome.label
    sentences = [f"{first} solved none of the {len(before)} problems."]
    if known:
        sentences = [
            f"Of the {known} problems that {first} solved, {last} leaves {lost} unsolved "
            f"({percent(lost / known)}).{_chance(held.reference, outcome)}"
        ]
    if unknown:
        sentences.append(
            f"Of the {unknown} that {first} did not solve, it solves {new} "
            f"({percent(new / unknown)})."
        )
    sentences.append(
        f"Of all {every.shape[1]} problems, {ever} ({percent(ever / every.shape[1])}) were solved "
        f"by some checkpoint of the run, but not by {last}."
    )
    return Conclusion(
        question="What was forgotten?",
        answer=f"{lost} of {known} problems" if known else "Nothing to forget",
        kind="unclear",
        sentences=tuple(sentences),
    )


def _chance(first: Checkpoint, last: Checkpoint) -> str:
    """Return a sentence of what chance makes of it; empty where there are no two halves."""
    found = half_losses(first, last)
    if found is None or math.isnan(found[0]):
        return ""
    return (
        f" Part of this is chance: of what {first.label} solves in one half of the samples, "
        f"{last.label} misses {percent(found[0])} in the other half, and {first.label} itself "
        f"{percent(found[1])}."
    )


# Does it overfit?


def read_rewards(run: Run) -> Rewards:
    """Return what a run's explorations earned.

    With `explore.focus: hard` later iterations draw harder problems: their first steps do not
    compare.
    """
    is_focused = (run.config.get("explore") or {}).get("focus") == "hard"
    return Rewards(
        by_step=run.accuracy_by_step,
        first_steps={} if is_focused else read_first_steps(TrajectoryStore(run.directory)),
    )


def overfitting(run: Run, held: HeldOut, k: int) -> Conclusion | None:
    """Return whether a run overfits; None without a path.

    The answer is that of the policies kept, of the last exploration in plain RL. The sentences add
    the explorations in which held-out pass@k fell, else the last one; the others in a few words.
    """
    restarts = bool((run.config.get("explore") or {}).get("replay_per_group"))
    paths = training_paths(held.checkpoints, restarts=restarts)
    if not paths:
        return None
    rewards, seed = read_rewards(run), int(run.config.get("seed", 0))
    found = [
        (
            name,
            overfitting_verdict(rewards, path, k, seed=seed, confidence=run.confidence),
        )
        for name, path in paths.items()
    ]
    (name, main), others = found[-1], found[-2::-1]
    answer, kind = {
        "overfits": (f"Yes, from {_where(main.path[main.best])} on", "loss"),
        "falls": (f"pass@{k} fell", "loss"),
        "rises": (f"No: pass@{k} rose", "gain"),
        "holds": ("No sign of it", "unclear"),
        "too few": ("Too few measurements", "unclear"),
    }[main.kind]
    if main.kind in ("holds", "too few") and any(one.kind == "overfits" for _, one in others):
        answer = "Only inside RL"
    lost = [one for one in others if one[1].kind in ("overfits", "falls")]
    shown = (lost or others[:1])[: MAX_SENTENCES - 1]
    sentences = [_named(name, main), *(_named(*one) for one in shown)]
    sentences += in_short([one for one in others if one not in shown])
    if main.kind != "too few":
        sentences.append(WIDER)
    return Conclusion(
        question="Does it overfit?", answer=answer, kind=kind, sentences=tuple(sentences)
    )


def in_short(found: Sequence[tuple[str, Overfitting]]) -> list[str]:
    """Return a sentence for the explorations of which no more is said, so that none is silent."""
    words = {"overfits": "fell too", "falls": "fell too", "too few": "too few measurements"}
    said: dict[str, list[str]] = {}
    for name, one in reversed(found):
        said.setdefault(words.get(one.kind, "no clear fall"), []).append(name)
    return [_capital(f"{', '.join(names)}: {word}.") for word, names in said.items()]


def _named(name: str, found: Overfitting) -> str:
    """Return a sentence after its path, without the task, which the page has above."""
    sentence = overfitting_sentence(found).replace(f" on {found.path[-1].task}", "", 1)
    return f"{_capital(name)}: {sentence[0].lower()}{sentence[1:]}"


def overfitting_sentence(found: Overfitting) -> str:
    """Return the verdict on a path in words with its numbers."""
    name = f"Held-out pass@{found.k} on {found.path[-1].task}"
    if found.kind == "too few":
        return f"{name} {_too_few(found)}"
    assert found.fall is not None, "a path that is long enough was compared"
    assert found.gain is not None, "a path that is long enough was compared"
    start, best, last = (_measured(found, index) for index in (0, found.best, -1))
    sure = "over 99.9 %" if found.sure > 0.999 else f"{math.floor(100 * found.sure)} %"
    if found.kind in ("overfits", "falls"):
        return (
            f"{name} fell from {best} to {last} ({_points(found.fall)}, {sure} sure){_why(found)}"
        )
    beside = ""
    if found.fall.value >= 0:
        beside = "; no measurement was higher"
    elif best != start:
        beside = (
            f"; the best was {best}, a difference ({_points(found.fall)}) within what chance and "
            "choosing the best explain"
        )
    if found.kind == "rises":
        return f"{name} rose from {start} to {last} ({_points(found.gain)}, {sure} sure){beside}."
    return f"{name} went from {start} to {last} ({_points(found.gain)}), no clear change{beside}."


def _why(found: Overfitting) -> str:
    """Return what the training reward did while held-out pass@k fell."""
    is_kept = found.path[-1].is_kept
    whose = " of the policies kept" if is_kept else ""
    if found.reward is None and is_kept:
        return (
            "; whether these policies earned more training reward meanwhile is not known, since no "
            "two of them began explorations that compare."
        )
    if found.reward is None:
        return (
            f"; fewer than {MIN_REWARDS} RL steps lie between, too few to say whether the training "
            "reward rose meanwhile."
        )
    before, after, change = found.reward.before, found.reward.after, found.reward.change
    if found.kind == "overfits":
        return (
            f" while the training reward{whose} rose from {before:.2f} to {after:.2f}: the policy "
            f"overfits from {_where(found.path[found.best])} on."
        )
    return (
        f"; the training reward{whose} did not clearly rise meanwhile ({before:.2f} to "
        f"{after:.2f}, {change.value:+.2f} [{change.low:+.2f}, {change.high:+.2f}]): a loss, but "
        "not overfitting."
    )


def _too_few(found: Overfitting) -> str:
    """Return why a path cannot be judged, and what to set so that it can."""
    first, last = found.path[0], found.path[-1]
    if len(found.path) >= MIN_CHECKPOINTS:
        return (
            f"has {found.num_problems} problems that all {len(found.path)} measurements share, "
            f"fewer than the {MIN_PROBLEMS} that a verdict needs: measure on more problems "
            "(tasks.evaluate)."
        )
    every = max(1, found.num_steps // WANTED_CHECKPOINTS)
    remedy = "run more iterations" if last.is_kept else f"set evaluate.every to {every}"
    places = dict.fromkeys((_where(first), _where(last)))
    return (
        f"was measured only at {' and '.join(places)}, too few times to say since when it falls: "
        f"{remedy}."
    )


def _measured(found: Overfitting, index: int) -> str:
    return f"{100 * found.values[index]:.1f} % at {_where(found.path[index])}"


def _where(checkpoint: Checkpoint) -> str:
    """Return a place in words: the start, a kept policy's name, or the step it follows."""
    if checkpoint.is_kept:
        return f"the start ({checkpoint.policy})" if not checkpoint.iteration else checkpoint.policy
    of = f" of iteration {checkpoint.iteration}" if checkpoint.iteration > 1 else ""
    return f"step {checkpoint.step}{of}"


def _points(difference: Estimate) -> str:
    return f"{points(difference)} points {points_interval(difference)}"


def _capital(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}"
