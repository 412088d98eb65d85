"""The page of `rloop eval --temperatures`: avg@n against pass@k, a curve a policy."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import altair as alt

from rloop.disk import write_text
from rloop.evaluation.intervals import Estimate
from rloop.observe import metric_keys
from rloop.report.charts.figure import (
    COLORS,
    GREY,
    Figure,
    inline,
    make_figure,
    numbers,
)
from rloop.report.html import render_page
from rloop.report.run_record import Row

HEIGHT = 380


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


def write_page(points: Sequence[Row], path: Path) -> Path:
    """Write the page of all points and return its path."""
    tables = tables_of(points)
    figures = [curve_figure(table, index) for index, table in enumerate(tables)]
    page = render_page(
        "temperatures.html.j2",
        specs={figure.figure_id: figure.spec for figure in figures},
        title="rloop eval: temperatures",
        policies=list(dict.fromkeys(point["policy"] for point in points)),
        temperatures=sorted({point["temperature"] for point in points}),
        figures=figures,
        tables=tables,
    )
    write_text(path, page)
    return path


def curve_figure(table: Table, index: int) -> Figure:
    """Return avg@n against pass@(largest k), points labelled by temperature, bases dashed."""
    average, passes = (metric_keys.headline(table.metrics) * 2)[:2]
    rows = [
        {
            "policy": row.policy,
            "temperature": row.temperature,
            "label": f"{row.temperature:g}",
            "is_base": row.is_base,
            "x": row.cells[table.metrics.index(average)].value,
            "y": row.cells[table.metrics.index(passes)].value,
        }
        for row in table.rows
    ]
    said = ", ".join(
        f"{row['policy']} at {row['label']} {row['x']:.1%} and {row['y']:.1%}" for row in rows
    )
    bases = list(dict.fromkeys(row.policy for row in table.rows if row.is_base))
    dashed = f" Dashed: {', '.join(bases)}, which training began with." if bases else ""
    return make_figure(
        f"temperatures-{index}",
        f"{passes} against {average}: {table.name}",
        "A curve a policy, points labelled by temperature. Above and to the right is better."
        f"{dashed}",
        f"{average} and {passes}: {said}.",
        alt.layer(*_layers(rows, average, passes)).properties(height=HEIGHT),
        numbers(
            rows, {"policy": "policy", "temperature": "temperature", "x": average, "y": passes}
        ),
        is_wide=True,
    )


def _layers(rows: Sequence[Row], average: str, passes: str) -> list[alt.Chart]:
    """Return lines in the order of temperature, points, and the temperatures beside them."""
    names = list(dict.fromkeys(str(row["policy"]) for row in rows))
    bases = {str(row["policy"]) for row in rows if row["is_base"]}
    trained = [name for name in names if name not in bases]
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(trained)}
    scale = alt.Scale(domain=names, range=[colors.get(name, GREY) for name in names])
    dash = alt.condition("datum.is_base", alt.value([5, 4]), alt.value([1, 0]))
    free = alt.Scale(zero=False, nice=True, padding=24)
    base = alt.Chart(inline(rows)).encode(
        x=alt.X("x:Q", title=average, scale=free, axis=alt.Axis(format=".0%", grid=False)),
        y=alt.Y("y:Q", title=passes, scale=free, axis=alt.Axis(format=".0%")),
        color=alt.Color("policy:N", scale=scale, legend=alt.Legend(title=None, symbolOpacity=1)),
    )
    tooltip = [
        "policy:N",
        alt.Tooltip("temperature:Q"),
        alt.Tooltip("x:Q", title=average, format=".1%"),
        alt.Tooltip("y:Q", title=passes, format=".1%"),
    ]
    return [
        base.mark_line(strokeWidth=2).encode(
            order="temperature:Q", detail="policy:N", strokeDash=dash
        ),
        base.mark_point(size=60, filled=True, opacity=1),
        base.mark_text(dy=-11, fontSize=11).encode(text="label:N"),
        base.mark_point(size=260, opacity=0).encode(tooltip=tooltip),
    ]
