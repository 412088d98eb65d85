"""Whether a run overfits, in words: by the policies it keeps, and inside its explorations."""

from collections.abc import Sequence

from rloop.evaluation.checkpoints import training_paths
from rloop.evaluation.overfitting import (
    Overfitting,
    Rewards,
    overfitting_verdict,
    read_first_steps,
)
from rloop.observe.metric_keys import training_accuracy
from rloop.report.held_out import HeldOut
from rloop.report.run_record import RunRecord
from rloop.store.trajectories import TrajectoryStore

MAX_SENTENCES = 3
"""At length; other explorations follow in a few words."""
WIDER = "Intervals here are wider than the table's: they allow for choosing among checkpoints."


def read_rewards(record: RunRecord) -> Rewards:
    """Return what a run's explorations earned.

    With `explore.focus: hard` later iterations draw harder problems: their first steps do not
    compare.
    """
    is_focused = (record.config.get("explore") or {}).get("focus") == "hard"
    return Rewards(
        by_step={
            (int(row["iteration"]), int(row["step"])): value
            for row in record.rows("explore")
            if (value := training_accuracy(row)) is not None
        },
        first_steps={} if is_focused else read_first_steps(TrajectoryStore(record.directory)),
    )


def overfitting_words(
    record: RunRecord, held: HeldOut, k: int
) -> tuple[str, str, list[str]] | None:
    """Return the answer, `gain`, `loss` or `unclear`, and sentences; None without a path.

    The answer is that of the policies kept, of the last exploration in plain RL. The sentences add
    the explorations in which held-out pass@k fell, else the last one; the others in a few words.
    """
    rewards = read_rewards(record)
    found = [
        (
            path.name,
            overfitting_verdict(
                rewards,
                path.checkpoints,
                k,
                seed=int(record.config.get("seed", 0)),
                confidence=record.confidence,
            ),
        )
        for path in training_paths(
            held.checkpoints,
            restarts=bool((record.config.get("explore") or {}).get("replay_per_group")),
        )
    ]
    if not found:
        return None
    (name, main), others = found[-1], found[-2::-1]
    answer, kind = _answer(main)
    if main.kind in ("holds", "too few") and any(one.kind == "overfits" for _, one in others):
        answer = "Only inside RL"
    shown = _others(others)[: MAX_SENTENCES - 1]
    rest = [one for one in others if one not in shown]
    sentences = [_said(name, main), *(_said(*one) for one in shown), *_in_short(rest)]
    if main.kind != "too few":
        sentences.append(WIDER)
    return answer, kind, sentences


def _answer(verdict: Overfitting) -> tuple[str, str]:
    since = verdict.best.label if verdict.best else ""
    return {
        "overfits": (f"Yes, since {since}", "loss"),
        "falls": (f"pass@{verdict.k} fell", "loss"),
        "rises": (f"No: pass@{verdict.k} rose", "gain"),
        "holds": ("No sign of it", "unclear"),
        "too few": ("Too few measurements", "unclear"),
    }[verdict.kind]


def _others(found: Sequence[tuple[str, Overfitting]]) -> Sequence[tuple[str, Overfitting]]:
    """Return the explorations that lost something, latest first; else the last one."""
    return [one for one in found if one[1].kind in ("overfits", "falls")] or found[:1]


def _in_short(found: Sequence[tuple[str, Overfitting]]) -> list[str]:
    """Return a sentence for the explorations of which no more is said, so that none is silent."""
    words = {"overfits": "fell too", "falls": "fell too", "too few": "too few measurements"}
    said: dict[str, list[str]] = {}
    for name, verdict in reversed(found):
        said.setdefault(words.get(verdict.kind, "no clear fall"), []).append(name)
    sentences = [f"{', '.join(names)}: {word}." for word, names in said.items()]
    return [f"{sentence[0].upper()}{sentence[1:]}" for sentence in sentences]


def _said(name: str, verdict: Overfitting) -> str:
    """Return the verdict's sentence after its path, without the task, which the page has above."""
    sentence = verdict.sentence.replace(f" on {verdict.task}", "", 1)
    return f"{name[0].upper()}{name[1:]}: {sentence[0].lower()}{sentence[1:]}"
