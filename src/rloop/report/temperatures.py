"""The page of `rloop eval --temperatures`: avg@n against pass@k, a curve a policy."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rloop.disk import write_text
from rloop.errors import StoreError
from rloop.evaluation.intervals import Estimate
from rloop.evaluation.sharpening import curve_k, gain_sentence
from rloop.observe import metric_keys
from rloop.report.charts import Figure, Heading, tradeoff
from rloop.report.html import render_page
from rloop.run_directory import Row, Run, temperatures_folder

PLACE = ("policy", "temperature", "is_base")
"""What a row of a table is about."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AfterTraining:
    """What a run measured at several temperatures at its end; empty where it has not, or not yet.

    Example: AfterTraining(folder=Path("runs/demo/temperatures/iter-002-n8"), points=[{"policy":
    "base", "temperature": 0.5, ...}], gains=[{"policy": "iter-002", "value": 0.12, ...}])
    """

    folder: Path
    points: list[Row]
    """Rows of `scores.json`."""
    gains: list[Row]
    """Rows of `sharpening.json`: how far the policy lies above the base's curve."""


def after_training(run: Run) -> AfterTraining:
    """Read what a run measured at its end; StoreError where it is damaged."""
    evaluate = run.config.get("evaluate", {})
    made = [str(phase["policy"]) for phase in run.phases.values() if phase and "policy" in phase]
    samples = min(evaluate.get("samples", 0), evaluate.get("temperature_samples", 0))
    folder = temperatures_folder(run.directory, made[-1] if made else "", samples)
    if not (folder / "sharpening.json").exists():
        return AfterTraining(folder=folder, points=[], gains=[])
    try:
        points, gains = (
            json.loads((folder / name).read_text()) for name in ("scores.json", "sharpening.json")
        )
    except (OSError, ValueError) as error:
        raise StoreError(
            f"{folder} is damaged ({error}). Remove it; `rloop resume {run.directory}` measures "
            "again."
        ) from error
    return AfterTraining(folder=folder, points=points, gains=gains)


def tables_of(points: Sequence[Row]) -> dict[str, list[Row]]:
    """Return the rows of each task's table, policies in the order in which they were measured.

    A point is a row of `scores.json`: policy, temperature, is_base, task, metric, value, low, high.
    A row has policy, temperature and is_base, and in `cells` an estimate for each metric, in order.
    """
    tables: dict[str, list[Row]] = {}
    for task in dict.fromkeys(point["task"] for point in points):
        here = [point for point in points if point["task"] == task]
        rows: dict[tuple[Any, ...], dict[str, Estimate]] = {}
        for point in here:
            place = tuple(point[name] for name in PLACE)
            found = Estimate(point["value"], point["low"], point["high"])
            rows.setdefault(place, {})[point["metric"]] = found
        metrics = metric_keys.in_order({point["metric"] for point in here})
        tables[task] = [
            dict(zip(PLACE, place, strict=True))
            | {"cells": {metric: cells[metric] for metric in metrics}}
            for place, cells in rows.items()
        ]
    return tables


def write_page(points: Sequence[Row], gains: Sequence[Row], path: Path) -> Path:
    """Write the page of all points and what they say of sharpening; return its path."""
    tables = tables_of(points)
    page = render_page(
        "temperatures.html.j2",
        figures=[curve_figure(*table, index) for index, table in enumerate(tables.items())],
        title="rloop eval: temperatures",
        policies=list(dict.fromkeys(point["policy"] for point in points)),
        temperatures=sorted({point["temperature"] for point in points}),
        tables=tables,
        sentences=[gain_sentence(gain) for gain in gains],
    )
    write_text(path, page)
    return path


def pass_ks(metrics: Iterable[str]) -> set[int]:
    """Return the values of k among metrics. Example: {1, 8} of avg@8, pass@1, pass@8."""
    return {int(name[5:]) for name in metrics if name.startswith("pass@")}


def curve_figure(task: str, table: Sequence[Row], index: int) -> Figure:
    """Return avg@n against pass@k, points labelled by temperature, bases dashed."""
    average = metric_keys.headline(table[0]["cells"])[0]
    ks = pass_ks(table[0]["cells"])
    passes = f"pass@{curve_k(ks, int(average[4:]))}" if ks else average
    rows = [
        {
            "series": row["policy"],
            "order": row["temperature"],
            "label": f"{row['temperature']:g}",
            "x": row["cells"][average].value,
            "value": row["cells"][passes].value,
        }
        for row in table
    ]
    said = ", ".join(
        f"{row['series']} at {row['label']} {row['x']:.1%} and {row['value']:.1%}" for row in rows
    )
    bases = list(dict.fromkeys(row["policy"] for row in table if row["is_base"]))
    dashed = f" Dashed: {', '.join(bases)}, where training started." if bases else ""
    heading = Heading(
        f"temperatures-{index}",
        f"{passes} against {average}: {task}",
        "One curve per policy; points are labelled by temperature. Up and to the right is better."
        f"{dashed}",
        f"{average} and {passes}: {said}.",
    )
    return tradeoff(heading, rows, (average, passes), "temperature", bases)
