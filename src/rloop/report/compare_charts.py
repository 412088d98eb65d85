"""Charts of a comparison: lines with bands by method, and differences from the reference method."""

from collections.abc import Sequence

import altair as alt

from rloop.report.charts.figure import (
    BLUE,
    COLORS,
    GREY,
    ORANGE,
    Figure,
    inline,
    make_figure,
    numbers,
)
from rloop.report.compare_results import TaskResult
from rloop.report.run_record import Row
from rloop.report.words import points, points_interval

SHAPES = ("circle", "diamond", "square", "triangle-up", "cross", "triangle-down", "triangle-right")
HEIGHT = 260
MAX_BANDS = 3
"""Methods whose bands can be told apart; of more, the one chosen in the legend has its band."""
BEFORE = "before training"
"""The name under which rows stand for what the runs started with; drawn grey and dashed."""


def pass_figure(task: str, rows: Sequence[Row], index: int) -> Figure:
    """Return pass@k against k, a line and a band for each method."""
    ks = sorted({row["k"] for row in rows})
    x = alt.X(
        "k:Q",
        title="k (log scale)",
        scale=alt.Scale(type="log", base=2, domain=[ks[0], ks[-1]], nice=False),
        axis=alt.Axis(values=ks, format="d", grid=False),
    )
    ends = [row for row in rows if row["k"] in (ks[0], ks[-1])]
    said = ", ".join(f"{row['policy']} {row['value']:.1%} at k={row['k']}" for row in ends)
    return make_figure(
        f"pass-{index}",
        f"pass@k: {task}",
        "Mean over seeds of the last policies. A line that begins above another and ends below it "
        "answers better and has become narrower.",
        f"pass@k against k. {said}.",
        _lines(rows, x, "k:Q"),
        numbers(rows, {"policy": "method", "k": "k", **_VALUES}),
    )


def held_out_figure(task: str, metric: str, rows: Sequence[Row], index: int) -> Figure:
    """Return a held-out metric over the tokens sampled in RL."""
    last = {row["policy"]: row for row in rows}.values()
    said = ", ".join(f"{row['policy']} {row['value']:.1%}" for row in last)
    return make_figure(
        f"held-out-{index}",
        f"{metric}: {task}",
        "The policies that a method would hand over at that cost.",
        f"{metric} over tokens sampled in RL; at the end {said}.",
        _lines(rows, _tokens(rows), "x:Q"),
        numbers(rows, {"policy": "method", "label": "checkpoint", "x": "tokens", **_VALUES}),
    )


def reward_figure(rows: Sequence[Row]) -> Figure | None:
    """Return the training reward over the tokens sampled in RL; None where none was logged."""
    if not rows:
        return None
    last = {row["policy"]: row for row in rows}.values()
    said = ", ".join(f"{row['policy']} {row['value']:.1%}" for row in last)
    return make_figure(
        "reward",
        "Training reward",
        "Mean over seeds; the band is from the lowest to the highest seed. It says how well the "
        "training problems are answered, not whether that generalises.",
        f"Training reward over tokens sampled in RL; at the end {said}.",
        _lines(rows, _tokens(rows), "x:Q", has_dots=False),
        numbers(rows, {"policy": "method", "x": "tokens", **_VALUES}),
    )


def difference_figure(result: TaskResult, index: int) -> Figure | None:
    """Return each method's differences from the reference, with their intervals."""
    rows = []
    for method in result.methods:
        for name in result.headline:
            found = method.metrics[name].difference
            if found is None:
                continue
            ends = {key: 100 * getattr(found, key) for key in ("value", "low", "high")}
            said = f"{points(found)} {points_interval(found)}"
            rows.append({"policy": method.group.label, "metric": name, **ends, "said": said})
    if not rows:
        return None
    names = list(dict.fromkeys(row["policy"] for row in rows))
    metrics = list(result.headline)
    most = max(1.0, *(max(abs(row["low"]), abs(row["high"])) for row in rows))
    scale = alt.Scale(domain=[-1.06 * most, 1.06 * most], nice=False)
    legend = alt.Legend(title=None, symbolOpacity=1)
    marks = alt.Scale(domain=metrics, range=["circle", "diamond"][: len(metrics)])
    base = alt.Chart(inline(rows)).encode(
        y=alt.Y("policy:N", sort=names, title=None, axis=alt.Axis(labelLimit=190)),
        yOffset=alt.YOffset("metric:N", sort=metrics),
        color=alt.Color(
            "metric:N",
            scale=alt.Scale(domain=metrics, range=[BLUE, ORANGE][: len(metrics)]),
            legend=legend,
        ),
        tooltip=["policy:N", "metric:N", alt.Tooltip("said:N", title="points")],
    )
    title = f"points against {result.reference}"
    value = alt.X("value:Q", title=title, scale=scale, axis=alt.Axis(format="+d", tickCount=7))
    zero = alt.Chart(inline([{"x": 0}])).mark_rule(color=GREY, strokeDash=[5, 4]).encode(x="x:Q")
    chart = alt.layer(
        zero,
        base.mark_rule(strokeWidth=2.5).encode(x=alt.X("low:Q", scale=scale), x2="high:Q"),
        base.mark_point(size=90, filled=True, opacity=1).encode(
            x=value, shape=alt.Shape("metric:N", scale=marks, legend=legend)
        ),
    )
    return make_figure(
        f"difference-{index}",
        f"Difference from {result.reference}: {result.task}",
        "Paired on the same problems. An interval that crosses the dashed line leaves open which "
        "is better.",
        "; ".join(f"{row['policy']} {row['metric']} {row['said']} points" for row in rows) + ".",
        chart.properties(height=max(HEIGHT // 2, 56 * len(names))),
        numbers(rows, {"policy": "method", "metric": "metric", "said": "points"}),
    )


_VALUES = {"value": "value", "low": "low", "high": "high"}


def _lines(
    rows: Sequence[Row], x: alt.X, field: str, *, has_dots: bool = True
) -> alt.LayerChart | alt.FacetChart:
    """Return a line with its band for each method, and dots of a shape of its own."""
    names = list(dict.fromkeys(row["policy"] for row in rows))
    methods = [name for name in names if name != BEFORE]
    color, shape = _marks(names)
    scale = alt.Scale(domain=_domain(rows), nice=False)
    value = alt.Y("value:Q", title=None, scale=scale, axis=alt.Axis(format=".0%"))
    base = alt.Chart(inline(rows)).encode(x=x, color=color)
    bands = alt.Chart(inline(_with_bands(rows))).encode(x=x, color=color)
    chosen = alt.selection_point(fields=["policy"], bind="legend")
    lines = base.encode(opacity=alt.when(chosen).then(alt.value(1)).otherwise(alt.value(0.12)))
    dashed = alt.condition(
        alt.FieldEqualPredicate(field="policy", equal=BEFORE), alt.value([5, 4]), alt.value([1, 0])
    )
    tooltip = [
        "policy:N",
        alt.Tooltip(field, format=","),
        *(alt.Tooltip(f"{key}:Q", format=".1%") for key in _VALUES),
    ]
    layers = [
        bands.mark_area(clip=True).encode(
            y=alt.Y("low:Q", title=None, scale=scale),
            y2="high:Q",
            opacity=alt.when(chosen, empty=len(methods) <= MAX_BANDS)
            .then(alt.value(0.12))
            .otherwise(alt.value(0)),
        ),
        lines.mark_line(strokeWidth=2).encode(y=value, strokeDash=dashed, detail="policy:N"),
    ]
    if has_dots:
        layers.append(lines.mark_point(size=50, filled=True).encode(y=value, shape=shape))
    layers.append(base.mark_point(size=260, opacity=0).encode(y=value, tooltip=tooltip))
    return alt.layer(*layers).add_params(chosen).properties(height=HEIGHT)


def _marks(names: Sequence[str]) -> tuple[alt.Color, alt.Shape]:
    """Return each method's colour and shape, in one legend."""
    methods = [name for name in names if name != BEFORE]
    colors = {name: COLORS[i % len(COLORS)] for i, name in enumerate(methods)} | {BEFORE: GREY}
    shapes = {name: SHAPES[i % len(SHAPES)] for i, name in enumerate(methods)} | {BEFORE: "stroke"}
    legend = alt.Legend(
        title=None,
        symbolOpacity=1,
        symbolStrokeWidth=2,
        columns=3 if len(names) < 4 else 2,
        labelLimit=220,
    )
    return (
        alt.Color(
            "policy:N",
            scale=alt.Scale(domain=names, range=[colors[name] for name in names]),
            legend=legend,
        ),
        alt.Shape(
            "policy:N",
            scale=alt.Scale(domain=names, range=[shapes[name] for name in names]),
            legend=legend,
        ),
    )


def _domain(rows: Sequence[Row]) -> list[float]:
    """Return the upright axis: every line whole, its bands as far as they leave lines apart."""
    lowest, highest = _room(rows)
    low = max(min(row["low"] for row in rows), lowest)
    high = min(max(row["high"] for row in rows), highest)
    margin = 0.01 * (highest - lowest)
    return [low - margin, high + margin]


def _with_bands(rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the methods whose bands say something: that do not fill the chart.

    A band that leaves the chart above and below at more than half of its points, as those of two
    seeds do, would only tint it. Its ends are in the numbers.
    """
    low, high = _room(rows)
    fills: dict[str, list[bool]] = {}
    for row in rows:
        is_wide = row["low"] <= max(low, 0.0) and row["high"] >= min(high, 1.0)
        fills.setdefault(row["policy"], []).append(is_wide)
    return [row for row in rows if 2 * sum(fills[row["policy"]]) <= len(fills[row["policy"]])]


def _room(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the ends of the upright axis that bands cannot push out: all lines and half again."""
    values = [row["value"] for row in rows]
    room = max(0.05, max(values) - min(values))
    return min(values) - room / 2, max(values) + room / 2


def _tokens(rows: Sequence[Row]) -> alt.X:
    end = max(row["x"] for row in rows) or 1
    return alt.X(
        "x:Q",
        title="tokens sampled in RL",
        scale=alt.Scale(domain=[0, end], nice=False),
        axis=alt.Axis(format="~s", grid=False, tickCount=5, labelOverlap=True),
    )
