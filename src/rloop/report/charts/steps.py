"""The axis of RL steps through all iterations, and small curves over it."""

from collections.abc import Sequence

import altair as alt

from rloop.report.charts.figure import (
    BLUE,
    GREEN,
    GREY,
    SMALL,
    Figure,
    inline,
    make_figure,
    numbers,
    value_axis,
    whole_numbers,
)
from rloop.report.run_record import Row
from rloop.report.timeline import Span, Timeline

MIN_STEPS_TO_SMOOTH = 30
FEW_STEPS = 10
"""Up to here each step has its own tick and dot."""

STEP_AXIS = "RL steps, all iterations"
PLACE = {"iteration": "iteration", "step": "step"}
HEALTH = {
    "groups_all_correct_frac": ("all correct", GREEN),
    "groups_mixed_frac": ("mixed", BLUE),
    "groups_all_wrong_frac": ("all wrong", GREY),
}


def step_figure(
    timeline: Timeline,
    figure_id: str,
    title: str,
    caption: str,
    rows: Sequence[Row],
    unit: str = "",
) -> Figure | None:
    """Return a line over RL steps; `unit` is a d3 number format. None without rows.

    A row has x, iteration, step and value. Rows of some steps only are not smoothed.
    """
    if not rows:
        return None
    window = smoothing(timeline.spans) if 2 * len(rows) > timeline.end else 0
    base = alt.Chart(inline(rows)).encode(x=step_axis(timeline), detail="iteration:N")
    dots = alt.OverlayMarkDef(size=20, filled=True) if len(rows) <= 2 * FEW_STEPS else False
    raw = base.mark_line(color=BLUE, strokeWidth=1.3, opacity=0.4 if window else 1.0, point=dots)
    layers = [raw.encode(y=value_axis(unit))]
    if window:
        smooth = smoothed(base, window).mark_line(color=BLUE, strokeWidth=2)
        layers.append(smooth.encode(y="smooth:Q"))
        caption += f" Strong line: mean of the last {window} steps."
    tooltip = [*place_tooltip(), alt.Tooltip("value:Q", title=title.lower(), format=".4~g")]
    chart = alt.layer(*phases(timeline), *layers, hover(rows, tooltip)).properties(height=SMALL)
    first, last = rows[0]["value"], rows[-1]["value"]
    description = f"{title} at {len(rows)} RL steps, from {first:.4g} to {last:.4g}."
    table = numbers(rows, PLACE | {"value": title.lower()})
    return make_figure(figure_id, title, caption, description, chart, table)


def task_reward_figure(timeline: Timeline, rows: Sequence[Row]) -> Figure | None:
    """Return the training reward of each task over RL steps; None for fewer than two tasks.

    A row has x, iteration, step, task and value.
    """
    tasks = sorted({row["task"] for row in rows})
    if len(tasks) < 2:
        return None
    caption = "Mean reward of a step's completions, a line a task."
    return _lines_figure(
        timeline, "reward-by-task", "Training reward by task", caption, rows, "task"
    )


def named_reward_figure(timeline: Timeline, rows: Sequence[Row]) -> Figure | None:
    """Return each of the recipe's rewards and their weighted sum over RL steps; None without rows.

    A row has x, iteration, step, reward (its name) and value.
    """
    if not rows:
        return None
    caption = (
        "Mean over a step's completions before weights; RL learns from the weighted sum, selection "
        "and evaluation go by correctness."
    )
    return _lines_figure(timeline, "rewards", "Rewards", caption, rows, "reward")


def _lines_figure(
    timeline: Timeline, figure_id: str, title: str, caption: str, rows: Sequence[Row], by: str
) -> Figure:
    """Return a line for each value of `by`, in the order in which they come."""
    names = list(dict.fromkeys(row[by] for row in rows))
    names, value = (sorted(names), "reward") if by == "task" else (names, "mean")
    window = smoothing(timeline.spans)
    base = alt.Chart(inline(rows)).encode(
        x=step_axis(timeline),
        color=alt.Color(f"{by}:N", sort=names, legend=alt.Legend(title=None, symbolOpacity=1)),
        detail="iteration:N",
        tooltip=[
            *place_tooltip(),
            alt.Tooltip(f"{by}:N"),
            alt.Tooltip("value:Q", title=value, format=".4~g"),
        ],
    )
    raw = base.mark_line(strokeWidth=1.4, opacity=0.4 if window else 1.0, point=not window)
    layers = [raw.encode(y=value_axis(""))]
    if window:
        smooth = smoothed(base, window, by).mark_line(strokeWidth=2)
        layers.append(smooth.encode(y="smooth:Q"))
        caption += f" Strong line: mean of the last {window} steps."
    ends = [(name, [row["value"] for row in rows if row[by] == name]) for name in names]
    said = ", ".join(f"{name} from {values[0]:.4g} to {values[-1]:.4g}" for name, values in ends)
    return make_figure(
        figure_id,
        title,
        caption,
        f"{title}: {said}.",
        alt.layer(*phases(timeline), *layers).properties(height=SMALL),
        numbers(rows, PLACE | {by: by, "value": value}),
        is_wide=True,
    )


def health_figure(timeline: Timeline) -> Figure | None:
    """Return the fractions of groups that are all correct, mixed and all wrong, stacked."""
    rows = timeline.explore_rows(list(HEALTH))
    if not rows:
        return None
    bands = [band for row in rows for band in _health_bands(row, timeline.spans)]
    kinds, colors = zip(*HEALTH.values(), strict=True)
    areas = (
        alt.Chart(inline(bands))
        .mark_area(opacity=0.75, interpolate="step-before")
        .encode(
            x=step_axis(timeline),
            y=alt.Y(
                "low:Q", title=None, axis=alt.Axis(format=".0%"), scale=alt.Scale(domain=[0, 1])
            ),
            y2="high:Q",
            detail="iteration:N",
            color=alt.Color(
                "kind:N",
                scale=alt.Scale(domain=list(kinds), range=list(colors)),
                legend=alt.Legend(title=None, symbolOpacity=1),
            ),
        )
    )
    tooltip = [
        *place_tooltip(),
        *(alt.Tooltip(f"{key}:Q", title=kind, format=".0%") for key, (kind, _) in HEALTH.items()),
    ]
    chart = alt.layer(areas, *phases(timeline, shaded=False), hover(rows, tooltip))
    last = rows[-1]["groups_mixed_frac"]
    end = "" if last is None else f", {last:.0%} mixed at the last step"
    return make_figure(
        "health",
        "Group health",
        "Only mixed groups carry a learning signal. All correct above, all wrong below.",
        f"Fractions of groups over {len(rows)} RL steps{end}.",
        chart.properties(height=SMALL),
        numbers(rows, PLACE | {key: kind for key, (kind, _) in HEALTH.items()}),
    )


def step_axis(timeline: Timeline, field: str = "x") -> alt.X:
    """Return the axis of RL steps, counted on from iteration to iteration."""
    end = max(1, timeline.end)
    axis = whole_numbers()
    if end <= FEW_STEPS:
        axis.values = list(range(end + 1))
    scale = alt.Scale(domain=[0, end], nice=False)
    return alt.X(f"{field}:Q", title=STEP_AXIS, scale=scale, axis=axis)


def phases(timeline: Timeline, *, shaded: bool = True) -> list[alt.Chart]:
    """Return the explorations as shades and labels behind a chart over the step axis."""
    rows = [
        {
            "start": span.start,
            "end": span.end,
            "label": f"iteration {span.iteration}" if len(timeline.spans) < 4 else span.iteration,
            "shade": 0.11 if span.iteration % 2 else 0.0,
        }
        for span in timeline.spans
    ]
    base = alt.Chart(inline(rows)).encode(x=step_axis(timeline, "start"))
    labels = base.mark_text(align="left", baseline="bottom", dx=2, fontSize=11).encode(
        y=alt.value(-4), text="label:N"
    )
    if not shaded:
        return [labels]
    shades = base.mark_rect(color=GREY).encode(
        x2="end:Q", opacity=alt.Opacity("shade:Q", scale=None, legend=None)
    )
    return [shades, labels]


def hover(rows: Sequence[Row], tooltip: Sequence[alt.Tooltip]) -> alt.Chart:
    """Return an upright line that follows the pointer and shows the values of the nearest step."""
    nearest = alt.selection_point(
        nearest=True, on="pointerover", clear="pointerout", fields=["x"], empty=False
    )
    chart: alt.Chart = alt.Chart(inline(rows)).mark_rule(color=GREY)
    chart = chart.encode(
        x="x:Q",
        opacity=alt.when(nearest).then(alt.value(0.8)).otherwise(alt.value(0)),
        tooltip=list(tooltip),
    )
    return chart.add_params(nearest)


def place_tooltip() -> list[alt.Tooltip]:
    """Return what every tooltip over the step axis begins with."""
    return [alt.Tooltip("iteration:Q"), alt.Tooltip("step:Q")]


def smoothing(spans: Sequence[Span]) -> int:
    """Return the window of the running mean (steps); 0 for runs too short to smooth."""
    longest = max((span.end - span.start for span in spans), default=0)
    return max(5, longest // 20) if longest >= MIN_STEPS_TO_SMOOTH else 0


def smoothed(chart: alt.Chart, window: int, *fields: str) -> alt.Chart:
    """Return the chart with `smooth`, the mean of the last `window` values of an iteration."""
    found: alt.Chart = chart.transform_window(
        smooth="mean(value)", frame=[1 - window, 0], groupby=["iteration", *fields]
    )
    return found


def _health_bands(row: Row, spans: Sequence[Span]) -> list[Row]:
    """Return a step's fractions on top of each other; the first step also where its span starts."""
    starts = [
        span.start for span in spans if row["step"] == 1 and span.iteration == row["iteration"]
    ]
    bands, low = [], 0.0
    for key, (kind, _) in reversed(HEALTH.items()):
        high = min(1.0, low + (row[key] or 0.0))
        band = {"iteration": row["iteration"], "kind": kind, "low": low, "high": high}
        bands += [{"x": x, **band} for x in (*starts, row["x"])]
        low = high
    return bands
