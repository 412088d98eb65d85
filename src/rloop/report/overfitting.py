"""Whether a run overfits, in words: by the policies it keeps, and inside its explorations."""

from collections.abc import Sequence

from rloop.evaluation.checkpoints import training_paths
from rloop.evaluation.overfitting import Overfitting, overfitting_verdict
from rloop.report.held_out import HeldOut
from rloop.report.run_record import RunRecord

MAX_SENTENCES = 3


def overfitting_words(
    record: RunRecord, held: HeldOut, k: int
) -> tuple[str, str, list[str]] | None:
    """Return the answer, `gain`, `loss` or `unclear`, and sentences; None without a path.

    The answer is that of the policies kept, of the last exploration in plain RL. The sentences add
    the explorations in which held-out pass@k fell; a last one where there is nothing else to add.
    """
    rewards = {
        (int(row["iteration"]), int(row["step"])): float(row["explore/reward_mean"])
        for row in record.rows("explore")
        if row.get("explore/reward_mean") is not None
    }
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
        for path in training_paths(held.checkpoints)
    ]
    if not found:
        return None
    (name, main), others = found[-1], found[-2::-1]
    answer, kind = _answer(main)
    if main.kind in ("holds", "too few") and any(one.kind == "overfits" for _, one in others):
        answer = "Only inside RL"
    return answer, kind, [_said(name, main), *_others(others)][:MAX_SENTENCES]


def _answer(verdict: Overfitting) -> tuple[str, str]:
    since = verdict.best.label if verdict.best else ""
    return {
        "overfits": (f"Yes, since {since}", "loss"),
        "falls": (f"pass@{verdict.k} fell", "loss"),
        "rises": (f"No: pass@{verdict.k} rose", "gain"),
        "holds": ("No sign of it", "unclear"),
        "too few": ("Too few measurements", "unclear"),
    }[verdict.kind]


def _others(found: Sequence[tuple[str, Overfitting]]) -> list[str]:
    """Return the explorations that lost something, latest first; else what the last one did."""
    lost = [one for one in found if one[1].kind in ("overfits", "falls")]
    return [_said(name, verdict) for name, verdict in lost or found[:1]]


def _said(name: str, verdict: Overfitting) -> str:
    """Return the verdict's sentence after its path, without the task, which the page has above."""
    sentence = verdict.sentence.replace(f" on {verdict.task}", "", 1)
    return f"{name[0].upper()}{name[1:]}: {sentence[0].lower()}{sentence[1:]}"
