"""pass@k against k: where a policy that answers better has become narrower."""

from collections.abc import Sequence

import altair as alt

from rloop.report.charts.figure import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    Figure,
    inline,
    make_figure,
    numbers,
    value_axis,
)
from rloop.report.run_record import Row

HEIGHT = 260
LONG_NAME = 16
"""Characters from which names stand in two columns."""
COLORS = (GREY, BLUE, ORANGE, PURPLE, GREEN)
SHAPES = ("circle", "diamond", "square", "triangle-up", "triangle-down", "cross", "triangle-right")


def pass_figure(task: str, rows: Sequence[Row], index: int) -> Figure | None:
    """Return a line with its band for each policy; None without rows.

    A row has policy, k, value, low and high; the first policy is the reference, drawn dashed.
    """
    if not rows:
        return None
    names = list(dict.fromkeys(row["policy"] for row in rows))
    ks = sorted({row["k"] for row in rows})
    ends = [row for row in rows if row["k"] in (ks[0], ks[-1])]
    said = ", ".join(f"{row['policy']} {row['value']:.1%} at k={row['k']}" for row in ends)
    return make_figure(
        f"pass-{index}",
        task,
        _caption(names),
        f"pass@k against k. {said}.",
        alt.layer(*_layers(rows, names, ks)).properties(height=HEIGHT),
        numbers(
            rows, {"policy": "policy", "k": "k", "value": "pass@k", "low": "low", "high": "high"}
        ),
    )


def _layers(rows: Sequence[Row], names: Sequence[str], ks: Sequence[int]) -> list[alt.Chart]:
    """Return bands, lines, points, and larger unseen points that a pointer finds."""
    legend = alt.Legend(title=None, symbolOpacity=1, symbolStrokeWidth=2)
    if any(len(name) > LONG_NAME for name in names):
        legend.columns = 2
    colors, shapes = (
        alt.Scale(domain=list(names), range=[marks[i % len(marks)] for i in range(len(names))])
        for marks in (COLORS, SHAPES)
    )
    axis = alt.Axis(values=list(ks), format="d", grid=False)
    scale = alt.Scale(type="log", base=2, domain=[ks[0], ks[-1]], nice=False)
    base = alt.Chart(inline(rows)).encode(
        x=alt.X("k:Q", title="k (log scale)", scale=scale, axis=axis),
        color=alt.Color("policy:N", scale=colors, legend=legend),
    )
    is_first = alt.FieldEqualPredicate(field="policy", equal=names[0])
    dash = alt.condition(is_first, alt.value([5, 4]), alt.value([1, 0]))
    value = value_axis(".0%")
    estimate = [alt.Tooltip(f"{key}:Q", format=".1%") for key in ("value", "low", "high")]
    return [
        base.mark_area(opacity=0.1).encode(y=alt.Y("low:Q", title=None), y2="high:Q"),
        base.mark_line(strokeWidth=2).encode(y=value, detail="policy:N", strokeDash=dash),
        base.mark_point(size=45, filled=True, opacity=1).encode(
            y=value, shape=alt.Shape("policy:N", scale=shapes, legend=legend)
        ),
        base.mark_point(size=260, opacity=0).encode(
            y=value, tooltip=["policy:N", "k:Q", *estimate]
        ),
    ]


def _caption(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]}, with its interval over problems."
    return (
        f"Dashed: {names[0]}. A line that begins above another and ends below it answers better "
        "and has become narrower."
    )
