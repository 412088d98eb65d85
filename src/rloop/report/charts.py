"""Charts as Vega-Lite, made with Altair; colours of text and lines of a theme are the page's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

from rloop.report.run_record import Row, RunRecord
from rloop.report.timeline import Span, Timeline

BLUE, ORANGE, GREEN, RED, GREY = "#3f7fd6", "#d67a1f", "#2f9e6b", "#cc5a55", "#8b93a0"
"""At least 3:1 against a white and a near-black page."""

SMALL, LARGE = 190, 320
"""Heights (pixels); the width is the page's."""

MIN_STEPS_TO_SMOOTH = 30
FEW_STEPS = 10
"""Up to here each step has its own tick and dot."""

STEP_AXIS = "RL steps, all iterations"
HEALTH = {
    "groups_all_correct_frac": ("all correct", GREEN),
    "groups_mixed_frac": ("mixed", BLUE),
    "groups_all_wrong_frac": ("all wrong", GREY),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A chart with its heading; `description` is what a screen reader hears.

    Example: Figure(figure_id="reward", title="Training reward", caption="...", description="...",
    spec={"mark": ...}, is_wide=False)
    """

    figure_id: str
    title: str
    caption: str
    description: str
    spec: dict[str, Any]
    is_wide: bool = False


def step_figure(
    timeline: Timeline, key: str, title: str, caption: str, *, unit: str = "~g"
) -> Figure | None:
    """Return a line over all RL steps; `unit` is a d3 number format. None if nothing was logged."""
    rows = [row for row in timeline.explore_rows([key]) if row[key] is not None]
    if not rows:
        return None
    rows = [{"value": row[key], **{k: row[k] for k in ("x", "iteration", "step")}} for row in rows]
    window = _smoothing(timeline.spans)
    base = alt.Chart(_data(rows)).encode(x=_x(timeline), detail="iteration:N")
    y = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(format=unit))
    dots = alt.OverlayMarkDef(size=20, filled=True) if timeline.end <= FEW_STEPS else False
    raw = base.mark_line(color=BLUE, strokeWidth=1, opacity=0.4 if window else 1.0, point=dots)
    layers = [raw.encode(y=y)]
    if window:
        smooth = base.transform_window(
            smooth="mean(value)", frame=[1 - window, 0], groupby=["iteration"]
        )
        layers.append(smooth.mark_line(color=BLUE, strokeWidth=2).encode(y="smooth:Q"))
        caption += f" Strong line: mean of the last {window} steps."
    tooltip = [*_place_tooltip(), alt.Tooltip("value:Q", title=title.lower(), format=".4~g")]
    chart = alt.layer(*_phases(timeline), *layers, _hover(rows, tooltip)).properties(height=SMALL)
    first, last = rows[0]["value"], rows[-1]["value"]
    description = f"{title} over {len(rows)} RL steps, from {first:.4g} to {last:.4g}."
    return _figure(key, title, caption, description, chart)


def health_figure(timeline: Timeline) -> Figure | None:
    """Return the fractions of groups that are all correct, mixed and all wrong, stacked."""
    rows = timeline.explore_rows(list(HEALTH))
    if not rows:
        return None
    bands = [band for row in rows for band in _health_bands(row, timeline.spans)]
    kinds, colors = zip(*HEALTH.values(), strict=True)
    areas = (
        alt.Chart(_data(bands))
        .mark_area(opacity=0.75, interpolate="step-before")
        .encode(
            x=_x(timeline),
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
        *_place_tooltip(),
        *(alt.Tooltip(f"{key}:Q", title=kind, format=".0%") for key, (kind, _) in HEALTH.items()),
    ]
    chart = alt.layer(areas, *_phases(timeline, shaded=False), _hover(rows, tooltip))
    last = rows[-1]["groups_mixed_frac"]
    end = "" if last is None else f", {last:.0%} mixed at the last step"
    return _figure(
        "health",
        "Group health",
        "Only mixed groups carry a learning signal.",
        f"Fractions of groups over {len(rows)} RL steps{end}.",
        chart.properties(height=SMALL),
    )


def held_out_figure(timeline: Timeline, task: str, metrics: Sequence[str], index: int) -> Figure:
    """Return avg@n and pass@k of a task: the policies kept, and the explorations between them."""
    rows = timeline.evaluation_rows(task, metrics)
    color = alt.Color(
        "metric:N",
        scale=alt.Scale(domain=list(metrics), range=[BLUE, ORANGE]),
        legend=alt.Legend(title=None, symbolOpacity=1),
    )
    value = alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(format=".0%"))
    base = alt.Chart(_data(rows)).encode(x=_x(timeline), color=color)
    kept = base.transform_filter("datum.line == 'kept'")
    explored = base.transform_filter("datum.line != 'kept'").encode(detail="line:N")
    measured = base.transform_filter("!datum.is_start")
    start = kept.transform_filter("datum.iteration == 0")
    layers = [
        explored.mark_area(opacity=0.13).encode(y=alt.Y("low:Q", title=None), y2="high:Q"),
        start.mark_rule(strokeDash=[5, 4], opacity=0.9).encode(
            y=value, x=alt.value(0), x2=alt.value("width")
        ),
        explored.mark_line(strokeWidth=1.3).encode(y=value),
        explored.transform_filter("!datum.is_start")
        .mark_point(size=22, filled=True)
        .encode(y=value),
        kept.mark_rule(strokeWidth=1.5).encode(y="low:Q", y2="high:Q"),
        kept.mark_line(strokeWidth=2.6).encode(y=value),
        kept.mark_point(size=75, filled=True, shape="diamond", opacity=1).encode(y=value),
        measured.mark_point(size=260, opacity=0).encode(y=value, tooltip=_measurement_tooltip()),
    ]
    chart = alt.layer(*_phases(timeline), *layers).properties(height=LARGE)
    policies = [row for row in rows if row["line"] == "kept" and row["metric"] == metrics[0]]
    said = ", ".join(f"{row['policy']} {row['value']:.1%}" for row in policies)
    return _figure(
        f"held-out-{index}",
        f"Held-out {' and '.join(metrics)}: {task}",
        "Diamonds: the policies that the loop goes on with, with their intervals. Thin lines with "
        "bands: RL inside an iteration. Dashed: where the loop began.",
        f"{metrics[0]} of the policies kept: {said}.",
        chart,
        is_wide=True,
    )


def tuning_figure(record: RunRecord) -> Figure | None:
    """Return the fine-tuning loss over updates, a line for each phase."""
    rows = [
        {"update": line["step"], "policy": line["policy"], "loss": line[f"{phase}/loss_mean"]}
        for phase in ("coldstart", "finetune")
        for line in record.rows(phase)
        if line.get(f"{phase}/loss_mean") is not None
    ]
    if not rows:
        return None
    chart = (
        alt.Chart(_data(rows))
        .mark_line(strokeWidth=1.6, point=alt.OverlayMarkDef(size=14, filled=True))
        .encode(
            x=alt.X("update:Q", title="updates in the phase", axis=_whole_numbers()),
            y=alt.Y("loss:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(format="~g")),
            color=alt.Color(
                "policy:N",
                title=None,
                sort=None,
                scale=alt.Scale(range=[BLUE, ORANGE, GREEN, GREY]),
            ),
            tooltip=["policy:N", "update:Q", alt.Tooltip("loss:Q", format=".4~g")],
        )
    )
    names = ", ".join(dict.fromkeys(str(row["policy"]) for row in rows))
    return _figure(
        "tuning",
        "Fine-tuning loss",
        "Mean over the tokens of an update.",
        f"Loss of {len(rows)} updates that made {names}.",
        chart.properties(height=SMALL),
    )


def funnel_figure(rows: Sequence[Row]) -> Figure | None:
    """Return trajectories left after each sieve of the selection, by iteration."""
    if not rows:
        return None
    most = max(row["count"] for row in rows)
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    base = alt.Chart(_data(rows)).encode(
        y=alt.Y("stage:N", sort=stages, title=None),
        yOffset=alt.YOffset("iteration:O"),
        x=alt.X(
            "count:Q",
            title="trajectories",
            axis=alt.Axis(format="~s", tickCount=5),
            scale=alt.Scale(domainMax=1.2 * most, nice=False),
        ),
    )
    bars = base.mark_bar(color=BLUE, cornerRadiusEnd=2).encode(
        tooltip=["iteration:O", "stage:N", alt.Tooltip("count:Q", format=",")]
    )
    labels = base.mark_text(align="left", dx=4, fontSize=11).encode(text=alt.Text("label:N"))
    said = "; ".join(f"iteration {row['iteration']}: {row['stage']} {row['count']}" for row in rows)
    return _figure(
        "funnel",
        "From pool to expert set",
        "Trajectories left after each sieve; one bar an iteration, from the first down.",
        f"{said}.",
        alt.layer(bars, labels).properties(height=max(SMALL, 18 * len(rows))),
    )


def _health_bands(row: Row, spans: Sequence[Span]) -> list[Row]:
    """Return a step's fractions on top of each other; the first step also where its span starts."""
    starts = [
        span.start for span in spans if row["step"] == 1 and span.iteration == row["iteration"]
    ]
    bands, low = [], 0.0
    for key, (kind, _) in HEALTH.items():
        high = min(1.0, low + (row[key] or 0.0))
        band = {"iteration": row["iteration"], "kind": kind, "low": low, "high": high}
        bands += [{"x": x, **band} for x in (*starts, row["x"])]
        low = high
    return bands


def _phases(timeline: Timeline, *, shaded: bool = True) -> list[alt.Chart]:
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
    base = alt.Chart(_data(rows)).encode(x=_x(timeline, "start"))
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
    chart: alt.Chart = alt.Chart(_data(rows)).mark_rule(color=GREY)
    chart = chart.encode(
        x="x:Q",
        opacity=alt.when(nearest).then(alt.value(0.8)).otherwise(alt.value(0)),
        tooltip=list(tooltip),
    )
    return chart.add_params(nearest)


def _place_tooltip() -> list[alt.Tooltip]:
    return [alt.Tooltip("iteration:Q"), alt.Tooltip("step:Q")]


def _measurement_tooltip() -> list[alt.Tooltip]:
    return [
        alt.Tooltip("policy:N"),
        alt.Tooltip("x:Q", title="RL steps"),
        alt.Tooltip("metric:N"),
        alt.Tooltip("value:Q", format=".1%"),
        alt.Tooltip("low:Q", format=".1%"),
        alt.Tooltip("high:Q", format=".1%"),
    ]


def _x(timeline: Timeline, field: str = "x") -> alt.X:
    end = max(1, timeline.end)
    scale = alt.Scale(domain=[0, end], nice=False)
    axis = _whole_numbers()
    if end <= FEW_STEPS:
        axis.values = list(range(end + 1))
    return alt.X(f"{field}:Q", title=STEP_AXIS, scale=scale, axis=axis)


def _whole_numbers() -> alt.Axis:
    return alt.Axis(format="d", tickMinStep=1, grid=False, labelOverlap=True, labelSeparation=8)


def _smoothing(spans: Sequence[Span]) -> int:
    """Return the window of the running mean (steps); 0 for runs too short to smooth."""
    longest = max((span.end - span.start for span in spans), default=0)
    return max(5, longest // 20) if longest >= MIN_STEPS_TO_SMOOTH else 0


def _data(rows: Sequence[Row]) -> alt.InlineData:
    return alt.InlineData(values=list(rows))


def _figure(
    figure_id: str,
    title: str,
    caption: str,
    description: str,
    chart: alt.Chart | alt.LayerChart | alt.FacetChart,
    *,
    is_wide: bool = False,
) -> Figure:
    spec = chart.properties(width="container").to_dict()
    for key in ("$schema", "config"):
        spec.pop(key, None)
    return Figure(
        figure_id=figure_id,
        title=title,
        caption=caption,
        description=description,
        spec=spec,
        is_wide=is_wide,
    )
