"""Charts over the axis of RL steps, counted on through all iterations."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from rloop.report.charts import (
    BLUE,
    COLORS,
    DASHES,
    GREY,
    LARGE,
    SMALL,
    VALUES,
    Figure,
    Heading,
    cycle,
    data,
    estimate_tooltip,
    legend,
    make_figure,
    scale,
    touch,
    value_axis,
    whole_numbers,
)
from rloop.run_directory import Row, Span

FEW_STEPS = 10
"""Up to here each RL step has its own tick and dot."""
MIN_STEPS_TO_SMOOTH = 30
STEP = {"iteration": "iteration", "step": "step"}


def curves_by_step(
    heading: Heading, spans: Sequence[Span], rows: Sequence[Row], unit: str = "", by: str = ""
) -> Figure:
    """Return a line over RL steps, one a series where `by` says what a series is.

    A row has x, iteration, step and value; `unit` is a d3 number format. Long runs are smoothed,
    rows of some steps only are not.
    """
    names = list(dict.fromkeys(row["series"] for row in rows)) if by else []
    num_points = len(rows) / max(1, len(names))
    window = _smoothing(spans) if 2 * num_points > _end(spans) else 0
    base = data(rows).encode(x=_step_axis(spans), detail="iteration:N")
    color: Any = alt.value(BLUE)
    if by:
        color = alt.Color("series:N", scale=scale(names, cycle(names, COLORS)), legend=legend())
    dots = alt.OverlayMarkDef(size=20, filled=True) if num_points <= 2 * FEW_STEPS else False
    raw = base.mark_line(strokeWidth=1.3, opacity=0.4 if window else 1.0, point=dots)
    layers = [raw.encode(y=_upright(unit), color=color)]
    caption = heading.caption
    if window:
        smooth = _smoothed(base, window, *(["series"] if by else []))
        layers.append(smooth.mark_line(strokeWidth=2).encode(y="smooth:Q", color=color))
        caption += f" Strong line: mean of the last {window} steps."
    name = "value" if by else heading.title.lower()
    tooltip = [*_steps_tooltip(), alt.Tooltip("value:Q", title=name, format=".4~g")]
    if by:
        layers.append(touch(base.encode(y="value:Q"), [*tooltip, alt.Tooltip("series:N")]))
    else:
        layers.append(_hover(rows, tooltip))
    return make_figure(
        heading._replace(caption=caption),
        alt.layer(*_phases(spans), *layers).properties(height=SMALL),
        rows,
        STEP | ({"series": by} if by else {}) | {"value": name},
        is_wide=bool(by),
    )


def checkpoints_by_step(
    heading: Heading,
    spans: Sequence[Span],
    rows: Sequence[Row],
    colors: Mapping[str, str],
    *,
    rewards: Sequence[Row] = (),
    unit: str = ".0%",
    domain: Sequence[float] | None = None,
) -> Figure:
    """Return measured policies over RL steps: those kept as a line of diamonds, RL inside thin.

    A row has series, x, policy, value, low, high, iteration and `line` (`kept`, or what joins it);
    `is_start` marks where an exploration begins, `rewards` are one more series, a point a step.
    """
    color = alt.Color(
        "series:N",
        scale=scale(list(colors), colors),
        legend=legend(symbolType="stroke") if unit and (len(colors) > 1 or not domain) else None,
    )
    layers = _strokes(spans, rows, color, _upright(unit, domain))
    if rewards:
        window = _smoothing(spans)
        base = data(rewards).encode(x=_step_axis(spans), detail="iteration:N", color=color)
        raw = base.mark_line(strokeWidth=1.6, opacity=0.35 if window else 0.9)
        lines = [raw.encode(y=alt.Y("value:Q", title=None))]
        if window:
            smooth = _smoothed(base, window).mark_line(strokeWidth=2)
            lines.append(smooth.encode(y=alt.Y("smooth:Q", title=None)))
        tooltip = [*_steps_tooltip(), "series:N", alt.Tooltip("value:Q", format=".1%")]
        layers = [*lines, touch(base.encode(y="value:Q"), tooltip, size=120), *layers]
    shown = [row for row in rows if not row["is_start"]]
    shown += [row for row in rewards if row["x"] in {point["x"] for point in shown}]
    return make_figure(
        heading,
        alt.layer(*_phases(spans), *layers).properties(height=LARGE if unit else SMALL),
        sorted(shown, key=lambda row: float(row["x"])),
        {"x": "RL steps", "policy": "policy", "series": "measure", **VALUES},
        is_wide=bool(unit),
    )


def _strokes(
    spans: Sequence[Span], rows: Sequence[Row], color: alt.Color, value: alt.Y
) -> list[alt.Chart]:
    base = data(rows).encode(x=_step_axis(spans), color=color)
    kept = base.transform_filter("datum.line == 'kept'").encode(detail="series:N")
    explored = base.transform_filter("datum.line != 'kept'").encode(detail=["series:N", "line:N"])
    start = (
        kept.transform_filter("datum.iteration == 0")
        .mark_rule(strokeDash=DASHES, opacity=0.9)
        .encode(y=value, x=alt.value(0), x2=alt.value("width"))
    )
    inside = explored.transform_filter("!datum.is_start")
    # In plain RL the policies kept are ends of explorations, which the thin lines join already.
    is_joined = any(row["iteration"] and not row["is_explored"] for row in rows)
    steps = kept.mark_line(strokeWidth=2.6 if is_joined else 0)
    place = alt.Tooltip("x:Q", title="RL steps")
    tooltip = ["policy:N", place, "series:N", *estimate_tooltip(".3~g")]
    return [
        explored.mark_area(opacity=0.13).encode(y=alt.Y("low:Q", title=None), y2="high:Q"),
        *([start] if any(not row["iteration"] for row in rows) else []),
        explored.mark_line(strokeWidth=1.3).encode(y=value),
        inside.mark_point(size=22, filled=True).encode(y=value),
        kept.mark_rule(strokeWidth=1.5).encode(y="low:Q", y2="high:Q"),
        steps.encode(y=value),
        kept.mark_point(size=75, filled=True, shape="diamond", opacity=1).encode(y=value),
        touch(base.transform_filter("!datum.is_start").encode(y=value), tooltip),
    ]


def stacked_areas(
    heading: Heading, spans: Sequence[Span], rows: Sequence[Row], colors: Mapping[str, str]
) -> Figure:
    """Return fractions that add up to one over RL steps, the first series on top.

    A row has x, iteration, step and a fraction (or None) for each key of `colors`.
    """
    bands = [band for row in rows for band in _stack(row, spans, list(colors)[::-1])]
    areas = (
        data(bands)
        .mark_area(opacity=0.75, interpolate="step-before")
        .encode(
            x=_step_axis(spans),
            y=alt.Y(
                "low:Q", title=None, axis=alt.Axis(format=".0%"), scale=alt.Scale(domain=[0, 1])
            ),
            y2="high:Q",
            detail="iteration:N",
            color=alt.Color("series:N", scale=scale(list(colors), colors), legend=legend()),
        )
    )
    tooltip = [*_steps_tooltip(), *(alt.Tooltip(f"{name}:Q", format=".0%") for name in colors)]
    chart = alt.layer(areas, *_phases(spans, shaded=False), _hover(rows, tooltip))
    columns = STEP | {name: name for name in colors}
    return make_figure(heading, chart.properties(height=SMALL), rows, columns)


def _step_axis(spans: Sequence[Span], field: str = "x") -> alt.X:
    end = max(1, _end(spans))
    axis = whole_numbers()
    if end <= FEW_STEPS:
        axis.values = list(range(end + 1))
    domain = alt.Scale(domain=[0, end], nice=False)
    return alt.X(f"{field}:Q", title="RL steps, all iterations", scale=domain, axis=axis)


def _end(spans: Sequence[Span]) -> int:
    return spans[-1].end if spans else 0


def _upright(unit: str, domain: Sequence[float] | None = None) -> alt.Y:
    scale = alt.Scale(domain=list(domain)) if domain else alt.Scale(zero=False)
    return alt.Y("value:Q", title=None, scale=scale, axis=value_axis(unit))


def _phases(spans: Sequence[Span], *, shaded: bool = True) -> list[alt.Chart]:
    """Return the explorations as shades and labels behind a chart."""
    rows = [
        {
            "start": span.start,
            "end": span.end,
            "label": f"iteration {span.iteration}" if len(spans) < 4 else span.iteration,
            "shade": 0.11 if span.iteration % 2 else 0.0,
        }
        for span in spans
    ]
    base = data(rows).encode(x=_step_axis(spans, "start"))
    labels = base.mark_text(align="left", baseline="bottom", dx=2, fontSize=11).encode(
        y=alt.value(-4), text="label:N"
    )
    if not shaded:
        return [labels]
    shades = base.mark_rect(color=GREY).encode(
        x2="end:Q", opacity=alt.Opacity("shade:Q", scale=None, legend=None)
    )
    return [shades, labels]


def _hover(rows: Sequence[Row], tooltip: Sequence[alt.Tooltip]) -> alt.Chart:
    """Return an upright line that follows the pointer and shows the values of the nearest step."""
    nearest = alt.selection_point(
        nearest=True, on="pointerover", clear="pointerout", fields=["x"], empty=False
    )
    opacity = alt.when(nearest).then(alt.value(0.8)).otherwise(alt.value(0))
    rule = data(rows).mark_rule(color=GREY)
    chart: alt.Chart = rule.encode(x="x:Q", opacity=opacity, tooltip=list(tooltip))
    return chart.add_params(nearest)


def _steps_tooltip() -> list[alt.Tooltip]:
    return [alt.Tooltip("iteration:Q"), alt.Tooltip("step:Q")]


def _smoothing(spans: Sequence[Span]) -> int:
    """Return the window of the running mean (steps); 0 for runs too short to smooth."""
    longest = max((span.end - span.start for span in spans), default=0)
    return max(5, longest // 20) if longest >= MIN_STEPS_TO_SMOOTH else 0


def _smoothed(chart: alt.Chart, window: int, *fields: str) -> alt.Chart:
    """Return the chart with `smooth`, the mean of the last `window` values of an iteration."""
    found: alt.Chart = chart.transform_window(
        smooth="mean(value)", frame=[1 - window, 0], groupby=["iteration", *fields]
    )
    return found


def _stack(row: Row, spans: Sequence[Span], names: Sequence[str]) -> list[Row]:
    """Return a step's fractions on top of each other; the first step also where its span starts."""
    starts = [
        span.start for span in spans if row["step"] == 1 and span.iteration == row["iteration"]
    ]
    bands, low = [], 0.0
    for name in names:
        high = min(1.0, low + (row[name] or 0.0))
        band = {"iteration": row["iteration"], "series": name, "low": low, "high": high}
        bands += [{"x": x, **band} for x in (*starts, row["x"])]
        low = high
    return bands
