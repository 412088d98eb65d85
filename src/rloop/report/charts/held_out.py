"""Held-out measurements over RL steps: of the policies kept, and of the explorations between."""

from collections.abc import Mapping, Sequence

import altair as alt

from rloop.report.charts.figure import (
    BLUE,
    GREEN,
    LARGE,
    ORANGE,
    SMALL,
    Figure,
    inline,
    make_figure,
    numbers,
    value_axis,
)
from rloop.report.charts.steps import phases, smoothed, smoothing, step_axis
from rloop.report.run_record import Row
from rloop.report.timeline import Timeline

REWARD = "training reward"


def overfitting_figure(
    timeline: Timeline, task: str, metrics: Sequence[str], rewards: Sequence[Row], index: int
) -> Figure:
    """Return training reward against a task's avg@n and pass@k, in one picture.

    `metrics` are one or two; `rewards` have x, iteration, step and value.
    """
    rows = timeline.evaluation_rows(task, metrics)
    names = [f"held-out {name}" for name in metrics]
    rows = [row | {"metric": f"held-out {row['metric']}"} for row in rows]
    reward_rows = [row | {"metric": REWARD} for row in rewards]
    colors = dict(zip([REWARD, *names], [GREEN, BLUE, ORANGE], strict=False))
    if not reward_rows:
        del colors[REWARD]
    layers = [
        *(_reward_lines(timeline, reward_rows, colors) if reward_rows else []),
        *_strokes(timeline, rows, colors, ".0%"),
    ]
    chart = alt.layer(*phases(timeline), *layers).properties(height=LARGE)
    shown = [row for row in rows if not row["is_start"]]
    shown += [row for row in reward_rows if row["x"] in {point["x"] for point in shown}]
    return make_figure(
        f"held-out-{index}",
        task,
        "Green, without points: mean reward over all training tasks, the same line for every "
        "held-out task. Diamonds: the policies that the "
        "loop goes on with, with their intervals. Thin lines with bands: RL inside an iteration. "
        "Dashed: where the loop began.",
        _said(rows, reward_rows, names),
        chart,
        numbers(sorted(shown, key=lambda row: row["x"]), _COLUMNS),
        is_wide=True,
    )


def drift_figure(timeline: Timeline) -> Figure | None:
    """Return the divergence of each measured policy from the base; None where none was logged."""
    rows = timeline.drift_rows()
    if not rows:
        return None
    chart = alt.layer(
        *phases(timeline), *_strokes(timeline, rows, {rows[0]["metric"]: BLUE}, "", legend=False)
    )
    kept = [row for row in rows if row["line"] == "kept"]
    said = ", ".join(f"{row['policy']} {row['value']:.3g}" for row in kept)
    return make_figure(
        "kl_base_mean",
        "KL from the loop's start",
        "Nats per token on completions of the policy that entered the loop. Diamonds: those kept.",
        f"KL divergence of the policies kept from the one that entered the loop: {said}.",
        chart.properties(height=SMALL),
        numbers([row for row in rows if not row["is_start"]], _COLUMNS),
    )


_COLUMNS = {
    "x": "RL steps",
    "policy": "policy",
    "metric": "measure",
    "value": "value",
    "low": "low",
    "high": "high",
}


def _reward_lines(
    timeline: Timeline, rows: Sequence[Row], colors: Mapping[str, str]
) -> list[alt.Chart]:
    window = smoothing(timeline.spans)
    base = alt.Chart(inline(rows)).encode(
        x=step_axis(timeline), detail="iteration:N", color=_color(colors)
    )
    raw = base.mark_line(strokeWidth=1.6, opacity=0.35 if window else 0.9)
    lines = [raw.encode(y=alt.Y("value:Q", title=None))]
    if window:
        smooth = smoothed(base, window).mark_line(strokeWidth=2)
        lines.append(smooth.encode(y=alt.Y("smooth:Q", title=None)))
    tooltip = ["iteration:Q", "step:Q", alt.Tooltip("value:Q", title=REWARD, format=".1%")]
    touch = base.mark_point(size=120, opacity=0).encode(y="value:Q", tooltip=tooltip)
    return [*lines, touch]


def _strokes(
    timeline: Timeline,
    rows: Sequence[Row],
    colors: Mapping[str, str],
    unit: str,
    *,
    legend: bool = True,
) -> list[alt.Chart]:
    """Return kept policies as a line of diamonds, explorations as thin lines with bands."""
    value = value_axis(unit)
    base = alt.Chart(inline(rows)).encode(
        x=step_axis(timeline), color=_color(colors, legend=legend)
    )
    kept = base.transform_filter("datum.line == 'kept'")
    explored = base.transform_filter("datum.line != 'kept'").encode(detail="line:N")
    start = (
        kept.transform_filter("datum.iteration == 0")
        .mark_rule(strokeDash=[5, 4], opacity=0.9)
        .encode(y=value, x=alt.value(0), x2=alt.value("width"))
    )
    inside = explored.transform_filter("!datum.is_start")
    # In plain RL the policies kept are ends of explorations, which the thin lines join already.
    is_joined = any(row["iteration"] and not row["is_explored"] for row in rows)
    steps = kept.mark_line(strokeWidth=2.6 if is_joined else 0)
    return [
        explored.mark_area(opacity=0.13).encode(y=alt.Y("low:Q", title=None), y2="high:Q"),
        *([start] if any(not row["iteration"] for row in rows) else []),
        explored.mark_line(strokeWidth=1.3).encode(y=value),
        inside.mark_point(size=22, filled=True).encode(y=value),
        kept.mark_rule(strokeWidth=1.5).encode(y="low:Q", y2="high:Q"),
        steps.encode(y=value),
        kept.mark_point(size=75, filled=True, shape="diamond", opacity=1).encode(y=value),
        base.transform_filter("!datum.is_start")
        .mark_point(size=260, opacity=0)
        .encode(y=value, tooltip=_tooltip(unit)),
    ]


def _color(colors: Mapping[str, str], *, legend: bool = True) -> alt.Color:
    return alt.Color(
        "metric:N",
        scale=alt.Scale(domain=list(colors), range=list(colors.values())),
        legend=alt.Legend(title=None, symbolOpacity=1, symbolType="stroke") if legend else None,
    )


def _tooltip(unit: str) -> list[alt.Tooltip]:
    form = ".1%" if unit.endswith("%") else ".3~g"
    return [
        alt.Tooltip("policy:N"),
        alt.Tooltip("x:Q", title="RL steps"),
        alt.Tooltip("metric:N"),
        *(alt.Tooltip(f"{key}:Q", format=form) for key in ("value", "low", "high")),
    ]


def _said(rows: Sequence[Row], rewards: Sequence[Row], names: Sequence[str]) -> str:
    """Return the picture in words: where the reward went, and each measure of the policies kept."""
    parts = []
    if rewards:
        first, last = rewards[0]["value"], rewards[-1]["value"]
        parts.append(f"Training reward from {first:.1%} to {last:.1%}")
    for name in names:
        kept = [row for row in rows if row["line"] == "kept" and row["metric"] == name]
        values = ", ".join(f"{row['policy']} {row['value']:.1%}" for row in kept)
        parts.append(f"{name}: {values}")
    return f"{'; '.join(parts)}."
