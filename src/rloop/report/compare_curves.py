"""Methods compared at several temperatures: each method's curve of accuracy against pass@k, and how
far it lies above the base's and the reference's. From what runs measure at their end
(`evaluate.temperatures`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rloop.evaluation.intervals import Estimate
from rloop.evaluation.sharpening import Curve, CurveGain, curve_k, gain_over_curve
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

    Example: CurveResult(task="sums", method="RLoop", against="base", gain=CurveGain(...))
    """

    task: str
    method: str
    against: str
    gain: CurveGain

    @property
    def sentence(self) -> str:
        """Return what it says."""
        gain = self.gain
        low, high = 100 * gain.low, 100 * gain.high
        kind = "above" if gain.low > 0 else "below" if gain.high < 0 else "not clearly above"
        at = " and ".join(f"{temperature:g}" for temperature in dict.fromkeys(gain.temperatures))
        return (
            f"{self.method} is {kind} the curve of {self.against} on {self.task}: at temperature "
            f"{at} it has {100 * gain.value:+.1f} points [{low:+.1f}, {high:+.1f}] against the "
            f"best of {self.against} with as much pass@{gain.k}."
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
                if label not in (BASE, against):
                    gain = gain_over_curve(
                        curves[against], curves[label], k=k, confidence=confidence, seed=0
                    )
                    results.append(CurveResult(task=task, method=label, against=against, gain=gain))
        figures.append(curve_figure(task, _table(curves, k), len(figures)))
    return results, figures


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
