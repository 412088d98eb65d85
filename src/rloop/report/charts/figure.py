"""A chart with its words and its numbers; colours of text and lines of a theme are the page's."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from rloop.report.run_record import Row

BLUE, ORANGE, GREEN, PURPLE, GREY = "#3f7fd6", "#d67a1f", "#2f9e6b", "#a968c9", "#8b93a0"
"""At least 3:1 against a white and a near-black page. Neighbours differ in lightness or hue for the
colour-blind too, and never differ by colour alone: strokes, shapes or words say the same."""

CATEGORIES = (BLUE, ORANGE, GREEN, PURPLE, GREY)
COLORS = (BLUE, ORANGE, PURPLE, GREEN, "#c9527f", "#1f9aa3", "#9c7c23")
"""Of methods or policies, in order; grey is left for what they started from."""
SMALL, LARGE = 150, 320
"""Heights (pixels); the width is the page's."""

MAX_NUMBERS = 40
"""Rows of the table below a chart; longer ones are thinned evenly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbers:
    """What a chart shows, as a table for those who do not see it.

    Example: Numbers(columns=("step", "reward"), rows=(("1", "0.25"),), note="")
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str
    """Says that rows were left out; empty where none was."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart with its heading; `description` is what a screen reader hears.

    Example: Figure(figure_id="reward", title="Training reward", caption="...", description="...",
    spec={"mark": ...}, numbers=Numbers(...), is_wide=False)
    """

    figure_id: str
    title: str
    caption: str
    description: str
    spec: dict[str, Any]
    numbers: Numbers
    is_wide: bool = False


def make_figure(
    figure_id: str,
    title: str,
    caption: str,
    description: str,
    chart: alt.Chart | alt.LayerChart | alt.FacetChart,
    numbers: Numbers,
    *,
    is_wide: bool = False,
) -> Figure:
    """Return the figure of a chart, as wide as the page lets it."""
    # The description is the name that Vega gives to what it draws.
    spec = chart.properties(width="container", description=f"{title}. {description}").to_dict()
    for key in ("$schema", "config"):
        spec.pop(key, None)
    return Figure(
        figure_id=figure_id,
        title=title,
        caption=caption,
        description=description,
        spec=spec,
        numbers=numbers,
        is_wide=is_wide,
    )


def numbers(rows: Sequence[Row], columns: Mapping[str, str]) -> Numbers:
    """Return rows as a table: `columns` maps a key of a row to its heading.

    More than MAX_NUMBERS rows are thinned evenly; the last one stays.
    """
    every = -(-len(rows) // MAX_NUMBERS)
    shown = rows if every <= 1 else rows[len(rows) - 1 :: -every][::-1]
    note = f"{len(shown)} of {len(rows)} rows, spread evenly." if len(shown) < len(rows) else ""
    return Numbers(
        columns=tuple(columns.values()),
        rows=tuple(tuple(_text(row.get(key)) for key in columns) for row in shown),
        note=note,
    )


def inline(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Return rows as the data of a chart; Altair does not check them one by one in this form."""
    return {"values": list(rows)}


def whole_numbers() -> alt.Axis:
    """Return an axis with ticks at whole numbers only."""
    return alt.Axis(format="d", tickMinStep=1, grid=False, labelOverlap=True, labelSeparation=8)


def value_axis(unit: str = "") -> alt.Y:
    """Return the upright axis of `value`; `unit` is a d3 number format; empty for plain."""
    axis = alt.Axis(format=unit) if unit else alt.Axis()
    return alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=axis)


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
