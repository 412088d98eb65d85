"""The page of `rloop eval --temperatures`: avg@n against pass@k, a curve a policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rloop.disk import write_text
from rloop.evaluation.intervals import Estimate
from rloop.observe import metric_keys
from rloop.report.charts import Figure, Heading, tradeoff
from rloop.report.html import render_page
from rloop.run_directory import Row


@dataclass(frozen=True, slots=True, kw_only=True)
class PointRow:
    """A policy at a temperature on one task.

    Example: PointRow(policy="iter-002", temperature=0.5, is_base=False, is_first=True,
    cells=(Estimate(0.41, 0.38, 0.44), ...))
    """

    policy: str
    temperature: float
    is_base: bool
    is_first: bool
    """Of its policy in the table."""
    cells: tuple[Estimate, ...]
    """In the order of the table's metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """All points of one task.

    Example: Table(name="gsm8k", metrics=("avg@32", "maj@32", "pass@32"), rows=(PointRow(...),))
    """

    name: str
    metrics: tuple[str, ...]
    rows: tuple[PointRow, ...]


def tables_of(points: Sequence[Row]) -> list[Table]:
    """Return a table for each task, policies in the order in which they were measured.

    A point is a row of `scores.json`: policy, temperature, is_base, task, metric, value, low, high.
    """
    found = []
    for task in dict.fromkeys(point["task"] for point in points):
        here = [point for point in points if point["task"] == task]
        metrics = metric_keys.in_order(dict.fromkeys(point["metric"] for point in here))
        cells = {
            (point["policy"], point["temperature"], point["metric"]): Estimate(
                point["value"], point["low"], point["high"]
            )
            for point in here
        }
        rows: list[PointRow] = []
        for policy, temperature, is_base in dict.fromkeys(
            (point["policy"], point["temperature"], point["is_base"]) for point in here
        ):
            rows.append(
                PointRow(
                    policy=policy,
                    temperature=temperature,
                    is_base=is_base,
                    is_first=not rows or rows[-1].policy != policy,
                    cells=tuple(cells[policy, temperature, metric] for metric in metrics),
                )
            )
        found.append(Table(name=task, metrics=tuple(metrics), rows=tuple(rows)))
    return found


def write_page(points: Sequence[Row], gains: Sequence[Row], path: Path) -> Path:
    """Write the page of all points and what they say of sharpening; return its path."""
    tables = tables_of(points)
    page = render_page(
        "temperatures.html.j2",
        figures=[curve_figure(table, index) for index, table in enumerate(tables)],
        title="rloop eval: temperatures",
        policies=list(dict.fromkeys(point["policy"] for point in points)),
        temperatures=sorted({point["temperature"] for point in points}),
        tables=tables,
        sentences=[told(gain) for gain in gains],
    )
    write_text(path, page)
    return path


def told(gain: Row) -> str:
    """Return what a row of `sharpening.json` says, as a sentence."""
    low, high = 100 * gain["low"], 100 * gain["high"]
    return (
        f"{gain['policy']} on {gain['task']}, {gain['verdict']}: at temperature "
        f"{gain['temperature']:g} it is {100 * gain['value']:+.1f} points "
        f"[{low:+.1f}, {high:+.1f}] against the base's best with as much pass@{gain['k']}."
    )


def curve_figure(table: Table, index: int) -> Figure:
    """Return avg@n against pass@(largest k), points labelled by temperature, bases dashed."""
    average, passes = (metric_keys.headline(table.metrics) * 2)[:2]
    rows = [
        {
            "series": row.policy,
            "order": row.temperature,
            "label": f"{row.temperature:g}",
            "x": row.cells[table.metrics.index(average)].value,
            "value": row.cells[table.metrics.index(passes)].value,
        }
        for row in table.rows
    ]
    said = ", ".join(
        f"{row['series']} at {row['label']} {row['x']:.1%} and {row['value']:.1%}" for row in rows
    )
    bases = list(dict.fromkeys(row.policy for row in table.rows if row.is_base))
    dashed = f" Dashed: {', '.join(bases)}, which training began with." if bases else ""
    heading = Heading(
        f"temperatures-{index}",
        f"{passes} against {average}: {table.name}",
        "A curve a policy, points labelled by temperature. Above and to the right is better."
        f"{dashed}",
        f"{average} and {passes}: {said}.",
    )
    return tradeoff(heading, rows, (average, passes), "temperature", bases)
