"""What each method forgot, and whether it overfits: solved problems from start to end, by seed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, nan

from rloop.evaluation.checkpoints import half_losses, solved_matrix
from rloop.evaluation.forgetting import ever_solved_loss, forgetting, newly_solved
from rloop.evaluation.overfitting import overfitting_verdict
from rloop.report.compare_groups import MethodGroup
from rloop.report.compare_results import TaskValues
from rloop.report.compare_runs import ComparedRun
from rloop.report.overfitting import read_rewards
from rloop.report.words import percent

WORDS = {
    "overfits": "overfits",
    "falls": "held-out falls",
    "holds": "no clear change",
    "rises": "held-out rises",
    "too few": "too little to tell",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRow:
    """One method on one task; fractions are the mean over seeds, and the lowest to the highest.

    Example: LossRow(label="Plain RL", forgotten=("12.5 %", "0.0 % to 25.0 %"),
    from_half_to_half="20.1 %", by_chance="18.0 %", learned=("40.0 %", ""),
    ever_lost=("6.2 %", ""), num_checkpoints="3", verdict="held-out rises in 2 of 2 seeds",
    sentences=("rl-seed-0: Held-out pass@8 ...",))
    """

    label: str
    forgotten: tuple[str, str]
    """Of the problems that the start solved, those that the last policy does not."""
    from_half_to_half: str
    """Of what the start solved in one half of its samples, what the last policy misses in the other
    half of its own."""
    by_chance: str
    """What the start itself misses in its other half."""
    learned: tuple[str, str]
    """Of those that the start did not solve, those that the last policy does."""
    ever_lost: tuple[str, str]
    """Of all problems, those that some policy on the way solved and the last does not."""
    num_checkpoints: str
    verdict: str
    sentences: tuple[str, ...]


def loss_rows(
    values: TaskValues, groups: Sequence[MethodGroup], *, confidence: float
) -> list[LossRow]:
    """Return a row for each method whose runs have a start and an end."""
    found = []
    for group in groups:
        if not all(values.task_run(run).has_reference for run in group.runs):
            continue
        paths = [solved_matrix(values.task_run(run).path) for run in group.runs]
        halves = [_halves(values, run) for run in group.runs]
        verdicts = [_verdict(values, run, confidence) for run in group.runs]
        lengths = sorted({len(path) for path in paths})
        found.append(
            LossRow(
                label=group.label,
                forgotten=_over_seeds([forgetting(path[0], path[-1]) for path in paths]),
                from_half_to_half=_over_seeds([lost for lost, _ in halves])[0],
                by_chance=_over_seeds([chance for _, chance in halves])[0],
                learned=_over_seeds([newly_solved(path[0], path[-1]) for path in paths]),
                ever_lost=_over_seeds([ever_solved_loss(path) for path in paths]),
                num_checkpoints=" to ".join(
                    str(n) for n in dict.fromkeys(lengths[:: len(lengths) - 1 or 1])
                ),
                verdict=_summary([kind for kind, _ in verdicts]),
                sentences=tuple(
                    f"{run.name}: {sentence}"
                    for run, (_, sentence) in zip(group.runs, verdicts, strict=True)
                ),
            )
        )
    return found


def _halves(values: TaskValues, run: ComparedRun) -> tuple[float, float]:
    """Return what the last policy and what the start itself lose from half to half of the samples;
    NaN where there are no halves.
    """
    path = values.task_run(run).path
    return half_losses(path[0], path[-1]) or (nan, nan)


def _verdict(values: TaskValues, run: ComparedRun, confidence: float) -> tuple[str, str]:
    """Return the kind and the sentence of the overfitting verdict on what a run hands over."""
    path = values.task_run(run).path
    k = max((k for k in run.record.config["evaluate"]["k"]), default=1)
    found = overfitting_verdict(
        read_rewards(run.record),
        path,
        min(k, values.num_samples),
        seed=run.seed,
        confidence=confidence,
    )
    return found.kind, found.sentence


def _summary(kinds: Sequence[str]) -> str:
    """Return `overfits in 2 of 3 seeds, no clear change in 1`."""
    if len(kinds) == 1:
        return WORDS[kinds[0]]
    told = Counter(kinds).most_common()
    (first, times), *rest = told
    more = "".join(f", {WORDS[kind]} in {number}" for kind, number in rest)
    return f"{WORDS[first]} in {times} of {len(kinds)} seeds{more}"


def _over_seeds(fractions: Sequence[float]) -> tuple[str, str]:
    """Return the mean, and from the lowest to the highest where they differ; 0/0 left out."""
    known = [fraction for fraction in fractions if not isnan(fraction)]
    if not known:
        return percent(None), ""
    is_spread = min(known) < max(known)
    spread = f"{percent(min(known))} to {percent(max(known))}" if is_spread else ""
    return percent(sum(known) / len(known)), spread
