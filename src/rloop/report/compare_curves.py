"""Methods compared at several temperatures: each method's curve of accuracy against pass@k, and how
far it lies above the base's and the reference's. From what runs measure at their end
(`evaluate.temperatures`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rloop.evaluation.intervals import Estimate
from rloop.evaluation.sharpening import Curve, CurveGap, accuracy_at, curve_gap, curve_k
from rloop.report.charts import Figure
from rloop.report.compare_runs import ComparedRun, MethodGroup
from rloop.report.temperatures import after_training, curve_figure, pass_ks
from rloop.run_directory import Row
from rloop.store.trajectories import TrajectoryStore

BASE = "base"
"""What the curve of the loops' start is called."""
_COUNTS = """
    select task, problem_id, num_rows, num_correct from groups where phase = 'evaluate'
"""

Curves = Mapping[str, Sequence[Curve]]
"""By method, a curve a run; all have the same problems and samples."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveResult:
    """How far one method's curve lies above another curve on a task.

    Example: CurveResult(task="sums", method="RLoop", against="base", gap=CurveGap(...))
    """

    task: str
    method: str
    against: str
    gap: CurveGap
    at_base: tuple[float, float | None, float] | None = None
    """Against the base: its pass@k at the highest temperature, and the accuracy that the method
    (None: out of reach) and the base itself have with at least that much."""

    @property
    def points(self) -> Estimate:
        """Return the gap with its interval, a fraction."""
        return Estimate(self.gap.value, self.gap.low, self.gap.high)

    @property
    def sentence(self) -> str:
        """Return what it says."""
        gap, (lowest, highest) = self.gap, self.gap.passes
        low, high = 100 * gap.low, 100 * gap.high
        kind = "above" if gap.low > 0 else "below" if gap.high < 0 else "not clearly above or below"
        where = f"of {lowest:.3f}"
        if highest - lowest > 0.0005:
            where += f" to {highest:.3f}"
        said = (
            f"On {self.task} the curve of {self.method} is {kind} that of {self.against}: "
            f"{100 * gap.value:+.1f} points [{low:+.1f}, {high:+.1f}] of accuracy at equal "
            f"pass@{gap.k} {where}."
        )
        if self.at_base is None:
            return said
        passes, ours, theirs = self.at_base
        if ours is None:
            return f"{said} It does not reach the base's pass@{gap.k} of {passes:.3f}."
        return (
            f"{said} With at least the base's pass@{gap.k} of {passes:.3f} it has an accuracy of "
            f"{ours:.3f}, the base {theirs:.3f}."
        )


def compare_curves(
    groups: Sequence[MethodGroup], reference: MethodGroup, confidence: float
) -> tuple[list[CurveResult], list[Figure]]:
    """Return every method against the base and the reference, and a chart a task.

    Nothing where a run was not measured at several temperatures.
    """
    results: list[CurveResult] = []
    figures: list[Figure] = []
    for task, curves in method_curves(groups).items():
        k = _curve_k(groups, curves[BASE][0].num_samples)
        for label in curves:
            for against in dict.fromkeys((BASE, reference.label)):
                if label in (BASE, against):
                    continue
                gap = curve_gap(curves[against], curves[label], k=k, confidence=confidence, seed=0)
                at_base = _at_base(curves, label, k) if against == BASE else None
                results.append(
                    CurveResult(task=task, method=label, against=against, gap=gap, at_base=at_base)
                )
        figures.append(curve_figure(task, _table(curves, k), len(figures)))
    return results, figures


def _at_base(curves: Curves, label: str, k: int) -> tuple[float, float | None, float]:
    passes = float(np.mean([curve.values(k)[1, -1].mean() for curve in curves[BASE]]))
    ours, theirs = (accuracy_at(curves[name], passes, k=k) for name in (label, BASE))
    assert theirs is not None, "the base reaches what it reaches at its highest temperature"
    return passes, ours, theirs


def _curve_k(groups: Sequence[MethodGroup], num_samples: int) -> int:
    """Return the k of the curves among those that all runs measured."""
    points = [after_training(run.run).points for group in groups for run in group.runs]
    found = [pass_ks(point["metric"] for point in those) for those in points]
    return curve_k(set.intersection(*found), num_samples)


def method_curves(groups: Sequence[MethodGroup]) -> dict[str, Curves]:
    """Return the curves of the base and of each method, by task.

    Temperatures and problems are those that all runs have.
    """
    counts = [(group.label, _counts(run)) for group in groups for run in group.runs]
    if any(len(found) == 0 for _, found in counts):
        return {}
    shared = set.intersection(*(set(found) for _, found in counts))
    tasks = dict.fromkeys(task for task, _, _ in sorted(shared))
    curves: dict[str, Curves] = {}
    for task in tasks:
        places = sorted(place for place in shared if place[0] == task)
        problems = set.intersection(*(set(found[place]) for _, found in counts for place in places))
        sizes = {
            size
            for _, found in counts
            for place in places
            for problem, (size, _) in found[place].items()
            if problem in problems
        }
        if len(sizes) != 1 or not problems:
            continue
        by_label: dict[str, list[Curve]] = {BASE: []}
        for label, found in counts:
            for is_base in (True, False):
                points = [
                    (place[1], {p: found[place][p][1] for p in problems})
                    for place in places
                    if place[2] == is_base
                ]
                if points:
                    name = BASE if is_base else label
                    by_label.setdefault(name, []).append(Curve.of(points, min(sizes)))
        if all(by_label.values()):
            curves[task] = by_label
    return curves


def _counts(run: ComparedRun) -> dict[tuple[str, float, bool], dict[str, tuple[int, int]]]:
    """Return (completions, correct ones) of each problem by task, temperature and whether it is the
    base.
    """
    measured = after_training(run.run)
    found: dict[tuple[str, float, bool], dict[str, tuple[int, int]]] = {}
    places = {(p["folder"], p["temperature"], p["is_base"]) for p in measured.points}
    for folder, temperature, is_base in sorted(places):
        for row in TrajectoryStore(measured.folder / folder).query(_COUNTS).to_pylist():
            key = (row["task"], temperature, is_base)
            found.setdefault(key, {})[row["problem_id"]] = (row["num_rows"], row["num_correct"])
    return found


def _table(curves: Curves, k: int) -> list[Row]:
    """Return the points of all curves, means over runs, in the form that `curve_figure` draws."""
    rows: list[Row] = []
    for label, those in curves.items():
        average_T, passes_T = np.mean([curve.values(k).mean(axis=2) for curve in those], axis=0)
        points = zip(those[0].temperatures, average_T.tolist(), passes_T.tolist(), strict=True)
        rows += [
            {
                "policy": label,
                "temperature": temperature,
                "is_base": label == BASE,
                "cells": {
                    f"avg@{those[0].num_samples}": Estimate(average, average, average),
                    f"pass@{k}": Estimate(passes, passes, passes),
                },
            }
            for temperature, average, passes in points
        ]
    return rows
