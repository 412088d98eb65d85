"""Charts as Vega-Lite, made with Altair: one function a kind, tidy rows in, figures out.

A row has `series` and its numbers: x, value, and low and high where it has an interval. Knows no
files and no runs. Colours of text and lines of a theme are the page's. Charts over RL steps are in
`step_charts`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import altair as alt

from rloop.run_directory import Row

BLUE, ORANGE, GREEN, PURPLE, GREY = "#3f7fd6", "#d67a1f", "#2f9e6b", "#a968c9", "#8b93a0"
"""At least 3:1 against a white and a near-black page. Neighbours differ in lightness or hue for the
colour-blind too, and never differ by colour alone: strokes, shapes or words say the same."""
COLORS = (BLUE, ORANGE, PURPLE, GREEN, "#c9527f", "#1f9aa3", "#9c7c23")
"""Of methods, policies, runs, in order; grey is left for what they started from."""
SHAPES = ("circle", "diamond", "square", "triangle-up", "cross", "triangle-down", "triangle-right")
SMALL, MEDIUM, LARGE = 150, 260, 320
"""Heights (pixels); the width is the page's."""
DASHES = [5, 4]

MAX_NUMBERS = 40
"""Rows of the table below a chart; longer ones are thinned evenly."""
MAX_BANDS = 3
"""Series whose bands can be told apart; of more, the one chosen in the legend has its band."""
MAX_SHORT_NAME = 16
"""Characters up to which names of a legend fit beside each other."""
CELL_VALUES = 9
"""Rows of a matrix up to which a cell on a phone has room for its value."""
DARK_FROM = 0.55
"""Part of the full color from which a cell's text is white in both themes."""

VALUES = {"value": "value", "low": "low", "high": "high"}
"""Columns of an estimate in a table of numbers."""


class Heading(NamedTuple):
    """The words of a chart; `description` is what a screen reader hears.

    Example: Heading("entropy_mean", "Entropy", "Nats per token.", "Entropy at 40 RL steps, ...")
    """

    figure_id: str
    title: str
    caption: str
    description: str


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
    """A chart with its words and numbers.

    Example: Figure(heading=Heading("reward", ...), spec={"mark": ...}, numbers=Numbers(...))
    """

    heading: Heading
    spec: dict[str, Any]
    numbers: Numbers
    is_wide: bool = False


def make_figure(
    heading: Heading,
    chart: alt.Chart | alt.LayerChart | alt.FacetChart,
    rows: Sequence[Row],
    columns: Mapping[str, str],
    *,
    is_wide: bool = False,
) -> Figure:
    """Return the figure of a chart; its table has `columns` (key of a row -> heading) of `rows`."""
    # The description is the name that Vega gives to what it draws.
    said = f"{heading.title}. {heading.description}"
    spec = chart.properties(width="container", description=said).to_dict()
    for key in ("$schema", "config"):
        spec.pop(key, None)
    return Figure(heading=heading, spec=spec, numbers=numbers(rows, columns), is_wide=is_wide)


def numbers(rows: Sequence[Row], columns: Mapping[str, str]) -> Numbers:
    """Return rows as a table; more than MAX_NUMBERS are thinned evenly, the last one stays."""
    every = -(-len(rows) // MAX_NUMBERS)
    shown = rows if every <= 1 else rows[len(rows) - 1 :: -every][::-1]
    note = f"{len(shown)} of {len(rows)} rows, spread evenly." if len(shown) < len(rows) else ""
    return Numbers(
        columns=tuple(columns.values()),
        rows=tuple(tuple(_text(row.get(key)) for key in columns) for row in shown),
        note=note,
    )


def lines_with_bands(
    heading: Heading,
    rows: Sequence[Row],
    x: alt.X,
    columns: Mapping[str, str],
    *,
    dashed: str = "",
    has_dots: bool = True,
    unit: str = ".0%",
) -> Figure:
    """Return a line with its band for each series; the one named `dashed` is grey, as a start.

    A name chosen in the legend stands out; bands that would only tint the chart are left out.
    """
    is_percent = unit.endswith("%")
    names = list(dict.fromkeys(row["series"] for row in rows))
    others = [name for name in names if name != dashed]
    key = legend(symbolStrokeWidth=2, labelLimit=220)
    key.columns = 2 if len(names) > 3 or any(len(n) > MAX_SHORT_NAME for n in names) else 3
    colors = cycle(others, COLORS) | {dashed: GREY}
    shapes = cycle(others, SHAPES) | {dashed: "stroke" if len(names) > 1 else "circle"}
    color = alt.Color("series:N", scale=scale(names, colors), legend=key)
    shape = alt.Shape("series:N", scale=scale(names, shapes), legend=key)
    upright = alt.Scale(domain=_domain(rows), nice=False)
    value = alt.Y("value:Q", title=None, scale=upright, axis=value_axis(unit))
    base = data(rows).encode(x=x, color=color)
    chosen = alt.selection_point(fields=["series"], bind="legend")
    lines = base.encode(opacity=alt.when(chosen).then(alt.value(1)).otherwise(alt.value(0.12)))
    has_bands = alt.when(chosen, empty=len(others) <= MAX_BANDS)
    layers = [
        data(_with_bands(rows))
        .encode(x=x, color=color, y=alt.Y("low:Q", title=None, scale=upright), y2="high:Q")
        .mark_area(clip=True)
        .encode(opacity=has_bands.then(alt.value(0.12)).otherwise(alt.value(0))),
        lines.mark_line(strokeWidth=2).encode(y=value, strokeDash=dash(dashed), detail="series:N"),
    ]
    if has_dots:
        layers.append(lines.mark_point(size=50, filled=True).encode(y=value, shape=shape))
    place = alt.Tooltip("x:Q", title=columns["x"], format=",")
    tooltip = ["series:N", place, *estimate_tooltip(".1%" if is_percent else ".4~g")]
    layers.append(touch(base.encode(y=value), tooltip))
    chart = alt.layer(*layers).add_params(chosen)
    height = MEDIUM if is_percent else SMALL
    return make_figure(heading, chart.properties(height=height), rows, columns)


def heatmap(
    heading: Heading, rows: Sequence[Row], axes: tuple[str, str], color: str, most: float = 1.0
) -> Figure:
    """Return a square matrix; a row has a, b, value in [0, most] (None: undefined) and `said`.

    `axes` name row and column. Zero is as light as the page, `most` the full color.
    """
    names = list(dict.fromkeys(row["a"] for row in rows))
    axis = alt.Axis(labelOverlap=True, labelLimit=110, grid=False)
    shown = [
        row | {"cell": "\u2013" if row["value"] is None else f"{100 * row['value']:.0f}"}
        for row in rows
    ]
    base = data(shown).encode(
        x=alt.X("b:N", title=axes[1], sort=names, axis=axis),
        y=alt.Y("a:N", title=axes[0], sort=names, axis=axis),
        tooltip=[
            alt.Tooltip("a:N", title=axes[0]),
            alt.Tooltip("b:N", title=axes[1]),
            alt.Tooltip("said:N", title="value"),
        ],
    )
    shades = alt.Scale(domain=[0, most], range=[0.06, 1])
    opacity = alt.Opacity("value:Q", scale=shades, legend=None)
    layers = [base.mark_rect(color=color).encode(opacity=opacity)]
    if len(names) <= CELL_VALUES:
        text = base.encode(text="cell:N")
        dark = f"isValid(datum.value) && datum.value >= {DARK_FROM * most}"
        layers.append(text.transform_filter(f"!({dark})").mark_text(fontSize=11, style="value"))
        layers.append(text.transform_filter(dark).mark_text(fontSize=11, color="white"))
    chart = alt.layer(*layers).properties(height=min(300, max(130, 28 * len(names))))
    return make_figure(heading, chart, rows, {"a": axes[0], "b": axes[1], "said": "value"})


def stacked_bars(
    heading: Heading,
    rows: Sequence[Row],
    encoding: Mapping[str, Any],
    colors: Mapping[str, str],
    columns: Mapping[str, str],
    *,
    height: int = SMALL,
    rule: float | None = None,
) -> Figure:
    """Return bars cut by series, in the order of `colors`; `encoding` has the axes and tooltip.

    An upright dashed rule stands at `rule`.
    """
    names = [name for name in colors if any(row["series"] == name for row in rows)]
    shown = [row | {"rank": names.index(row["series"])} for row in rows]
    color = alt.Color("series:N", scale=scale(names, colors), legend=legend())
    layers = [data(shown).mark_bar(binSpacing=1).encode(**encoding, order="rank:Q", color=color)]
    if rule is not None:
        line = data([{"x": rule}]).mark_rule(strokeDash=DASHES, color=GREY, strokeWidth=2)
        layers.append(line.encode(x="x:Q"))
    return make_figure(heading, alt.layer(*layers).properties(height=height), rows, columns)


def labelled_bars(heading: Heading, rows: Sequence[Row], columns: Mapping[str, str]) -> Figure:
    """Return a bar with its label for each stage and iteration; a row has those and a count."""
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    base = data(rows).encode(
        y=alt.Y("stage:N", sort=stages, title=None),
        yOffset=alt.YOffset("iteration:O"),
        x=alt.X(
            "count:Q",
            title="trajectories",
            axis=alt.Axis(format="~s", tickCount=5),
            scale=alt.Scale(domainMax=1.2 * max(row["count"] for row in rows), nice=False),
        ),
    )
    bars = base.mark_bar(color=BLUE, cornerRadiusEnd=2).encode(
        tooltip=["iteration:O", "stage:N", alt.Tooltip("count:Q", format=",")]
    )
    labels = base.mark_text(align="left", dx=4, fontSize=11).encode(text="label:N")
    chart = alt.layer(bars, labels).properties(height=max(SMALL, 18 * len(rows)))
    return make_figure(heading, chart, rows, columns)


def intervals(heading: Heading, rows: Sequence[Row], metrics: Sequence[str], title: str) -> Figure:
    """Return differences with their intervals around a line at zero, two marks a series at most.

    A row has series, metric, value, low, high in points, and `said`.
    """
    names = list(dict.fromkeys(row["series"] for row in rows))
    most = max(1.0, *(max(abs(row["low"]), abs(row["high"])) for row in rows))
    axis = alt.Scale(domain=[-1.06 * most, 1.06 * most], nice=False)
    marks = alt.Scale(domain=list(metrics), range=["circle", "diamond"][: len(metrics)])
    base = data(rows).encode(
        y=alt.Y("series:N", sort=names, title=None, axis=alt.Axis(labelLimit=190)),
        yOffset=alt.YOffset("metric:N", sort=list(metrics)),
        color=alt.Color(
            "metric:N", scale=scale(metrics, cycle(metrics, (BLUE, ORANGE))), legend=legend()
        ),
        tooltip=["series:N", "metric:N", alt.Tooltip("said:N", title="points")],
    )
    value = alt.X("value:Q", title=title, scale=axis, axis=alt.Axis(format="+d", tickCount=7))
    chart = alt.layer(
        data([{"x": 0}]).mark_rule(color=GREY, strokeDash=DASHES).encode(x="x:Q"),
        base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q", scale=axis), x2="high:Q"),
        base.mark_point(size=90, filled=True, opacity=1).encode(
            x=value, shape=alt.Shape("metric:N", scale=marks, legend=legend())
        ),
    ).properties(height=max(MEDIUM // 2, 56 * len(names)))
    return make_figure(
        heading, chart, rows, {"series": "method", "metric": "metric", "said": "points"}
    )


def tradeoff(
    heading: Heading, rows: Sequence[Row], axes: tuple[str, str], label: str, starts: Sequence[str]
) -> Figure:
    """Return one fraction against another, a line a series through points with a label.

    A row has series, x, value, `order` along the line and the label's text; `starts` are dashed.
    """
    names = list(dict.fromkeys(str(row["series"]) for row in rows))
    colors = cycle([n for n in names if n not in starts], COLORS) | dict.fromkeys(starts, GREY)
    free = alt.Scale(zero=False, nice=True, padding=24)
    base = data(rows).encode(
        x=alt.X("x:Q", title=axes[0], scale=free, axis=alt.Axis(format=".1~%", grid=False)),
        y=alt.Y("value:Q", title=axes[1], scale=free, axis=alt.Axis(format=".1~%")),
        color=alt.Color("series:N", scale=scale(names, colors), legend=legend()),
    )
    tooltip = [
        "series:N",
        alt.Tooltip("label:N", title=label),
        *(
            alt.Tooltip(f"{k}:Q", title=t, format=".1%")
            for k, t in zip(("x", "value"), axes, strict=True)
        ),
    ]
    layers = [
        base.mark_line(strokeWidth=2).encode(
            order="order:Q", detail="series:N", strokeDash=dash(*starts)
        ),
        base.mark_point(size=60, filled=True, opacity=1),
        base.mark_text(dy=-11, fontSize=11).encode(text="label:N"),
        touch(base, tooltip),
    ]
    columns = {"series": "policy", "label": label, "x": axes[0], "value": axes[1]}
    chart = alt.layer(*layers).properties(height=380)
    return make_figure(heading, chart, rows, columns, is_wide=True)


def data(rows: Sequence[Row]) -> alt.Chart:
    """Return a chart of rows, inline; Altair does not check them one by one in this form."""
    return alt.Chart({"values": list(rows)})


def touch(chart: alt.Chart, tooltip: Sequence[Any], size: int = 260) -> alt.Chart:
    """Return larger unseen points that a pointer finds."""
    found: alt.Chart = chart.mark_point(size=size, opacity=0).encode(tooltip=list(tooltip))
    return found


def legend(**options: Any) -> alt.Legend:  # noqa: ANN401 (Altair's own)
    """Return a legend without a title."""
    return alt.Legend(title=None, symbolOpacity=1, **options)


def scale(names: Sequence[str], marks: Mapping[str, str]) -> alt.Scale:
    """Return the colour or shape of each name."""
    return alt.Scale(domain=list(names), range=[marks[name] for name in names])


def cycle(names: Sequence[str], marks: Sequence[str]) -> dict[str, str]:
    """Return a mark for each name, again from the first where there are too few."""
    return {name: marks[index % len(marks)] for index, name in enumerate(names)}


def dash(*starts: str) -> Any:  # noqa: ANN401 (Altair's own)
    """Return the condition that dashes the series that others started from."""
    chosen = alt.FieldOneOfPredicate(field="series", oneOf=list(starts))
    return alt.condition(chosen, alt.value(DASHES), alt.value([1, 0]))


def whole_numbers() -> alt.Axis:
    """Return an axis with ticks at whole numbers only."""
    return alt.Axis(format="d", tickMinStep=1, grid=False, labelOverlap=True, labelSeparation=8)


def powers_of_two(ks: Sequence[int]) -> alt.X:
    """Return the axis of k of pass@k."""
    return alt.X(
        "x:Q",
        title="k (log scale)",
        scale=alt.Scale(type="log", base=2, domain=[ks[0], ks[-1]], nice=False),
        axis=alt.Axis(values=list(ks), format="d", grid=False),
    )


def token_axis(rows: Sequence[Row]) -> alt.X:
    """Return the axis of tokens sampled in RL."""
    end = max(row["x"] for row in rows) or 1
    return alt.X(
        "x:Q",
        title="tokens sampled in RL",
        scale=alt.Scale(domain=[0, end], nice=False),
        axis=alt.Axis(format="~s", grid=False, tickCount=5, labelOverlap=True),
    )


def value_axis(unit: str) -> alt.Axis:
    """Return an upright axis; `unit` is a d3 number format, empty for plain numbers."""
    return alt.Axis(format=unit) if unit else alt.Axis()


def estimate_tooltip(form: str) -> list[alt.Tooltip]:
    """Return a value and the ends of its interval for a tooltip."""
    return [alt.Tooltip(f"{key}:Q", format=form) for key in VALUES]


def _domain(rows: Sequence[Row]) -> list[float]:
    """Return the upright axis: every line whole, its bands as far as they leave lines apart."""
    lowest, highest = _room(rows)
    low = max(min(row["low"] for row in rows), lowest)
    high = min(max(row["high"] for row in rows), highest)
    margin = 0.01 * (highest - lowest)
    return [low - margin, high + margin]


def _with_bands(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the series whose bands say something: that do not fill the chart.

    A band that leaves the chart above and below at more than half of its points, as those of two
    seeds do, would only tint it. Its ends are in the numbers.
    """
    low, high = _room(rows)
    fills: dict[str, list[bool]] = {}
    for row in rows:
        is_wide = row["low"] <= max(low, 0.0) and row["high"] >= min(high, 1.0)
        fills.setdefault(row["series"], []).append(is_wide)
    return [row for row in rows if 2 * sum(fills[row["series"]]) <= len(fills[row["series"]])]


def _room(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the ends of the upright axis that bands cannot push out: all lines and half again."""
    values = [row["value"] for row in rows]
    room = max(0.05, max(values) - min(values))
    return min(values) - room / 2, max(values) + room / 2


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
