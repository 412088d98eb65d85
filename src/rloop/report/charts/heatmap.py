"""A square matrix over checkpoints or steps as a heat map; values in cells where they fit."""

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from rloop.report.charts.figure import Figure, inline, make_figure, numbers
from rloop.report.run_record import Row

MOST_WITH_VALUES = 9
"""Rows of a matrix up to which a cell on a phone has room for its value."""

CELL, LEAST, MOST = 28, 130, 300
"""Heights (pixels) of a row, and of a whole matrix."""
DARK_FROM = 0.55
"""Part of the full color from which a cell's text is white in both themes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axes:
    """What the sides of a matrix are. Example: Axes(row="solved by", column="not solved by")."""

    row: str
    column: str


def heatmap_figure(
    figure_id: str,
    words: tuple[str, str, str],
    rows: Sequence[Row],
    axes: Axes,
    color: str,
    most: float = 1.0,
) -> Figure | None:
    """Return the heat map of rows with a, b, value in [0, most] (None: undefined) and `said`.

    `words` are title, caption and description. Zero is as light as the page, `most` the full color.
    """
    if not rows:
        return None
    names = list(dict.fromkeys(row["a"] for row in rows))
    axis = alt.Axis(labelOverlap=True, labelLimit=110, grid=False)
    shown = [row | {"cell": _cell(row["value"])} for row in rows]
    base = alt.Chart(inline(shown)).encode(
        x=alt.X("b:N", title=axes.column, sort=names, axis=axis),
        y=alt.Y("a:N", title=axes.row, sort=names, axis=axis),
    )
    tooltip = [
        alt.Tooltip("a:N", title=axes.row),
        alt.Tooltip("b:N", title=axes.column),
        alt.Tooltip("said:N", title="value"),
    ]
    cells = base.mark_rect(color=color).encode(
        opacity=alt.Opacity(
            "value:Q", scale=alt.Scale(domain=[0, most], range=[0.06, 1]), legend=None
        ),
        tooltip=tooltip,
    )
    layers = [cells]
    if len(names) <= MOST_WITH_VALUES:
        text = base.encode(text="cell:N", tooltip=tooltip)
        dark = f"isValid(datum.value) && datum.value >= {DARK_FROM * most}"
        layers.append(text.transform_filter(f"!({dark})").mark_text(fontSize=11, style="value"))
        layers.append(text.transform_filter(dark).mark_text(fontSize=11, color="white"))
    title, caption, description = words
    chart = alt.layer(*layers).properties(height=min(MOST, max(LEAST, CELL * len(names))))
    table = numbers(rows, {"a": axes.row, "b": axes.column, "said": "value"})
    return make_figure(figure_id, title, caption, description, chart, table)


def _cell(value: float | None) -> str:
    return "\u2013" if value is None else f"{100 * value:.0f}"
