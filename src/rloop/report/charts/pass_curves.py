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
    legend = alt.Legend(title=None, symbolOpacity=1, symbolStrokeWidth=2)
    if any(len(name) > LONG_NAME for name in names):
        legend.columns = 2
    colors = [COLORS[i % len(COLORS)] for i in range(len(names))]
    shapes = [SHAPES[i % len(SHAPES)] for i in range(len(names))]
    color = alt.Color("policy:N", scale=alt.Scale(domain=names, range=colors), legend=legend)
    shape = alt.Shape("policy:N", scale=alt.Scale(domain=names, range=shapes), legend=legend)
    value = value_axis(".0%")
    base = alt.Chart(inline(rows)).encode(
        x=alt.X(
            "k:Q",
            title="k (log scale)",
            scale=alt.Scale(type="log", base=2, domain=[ks[0], ks[-1]], nice=False),
            axis=alt.Axis(values=ks, format="d", grid=False),
        ),
        color=color,
    )
    lines = base.encode(
        strokeDash=alt.condition(
            alt.FieldEqualPredicate(field="policy", equal=names[0]),
            alt.value([5, 4]),
            alt.value([1, 0]),
        )
    )
    layers = [
        base.mark_area(opacity=0.1).encode(y=alt.Y("low:Q", title=None), y2="high:Q"),
        lines.mark_line(strokeWidth=2).encode(y=value, detail="policy:N"),
        base.mark_point(size=45, filled=True, opacity=1).encode(y=value, shape=shape),
        base.mark_point(size=260, opacity=0).encode(
            y=value,
            tooltip=[
                "policy:N",
                "k:Q",
                *(alt.Tooltip(f"{key}:Q", format=".1%") for key in ("value", "low", "high")),
            ],
        ),
    ]
    ends = [row for row in rows if row["k"] in (ks[0], ks[-1])]
    said = ", ".join(f"{row['policy']} {row['value']:.1%} at k={row['k']}" for row in ends)
    return make_figure(
        f"pass-{index}",
        task,
        _caption(names),
        f"pass@k against k. {said}.",
        alt.layer(*layers).properties(height=HEIGHT),
        numbers(
            rows, {"policy": "policy", "k": "k", "value": "pass@k", "low": "low", "high": "high"}
        ),
    )


def _caption(names: Sequence[str]) -> str:
    if len(names) == 1:
        return f"{names[0]}, with its interval over problems."
    return (
        f"Dashed: {names[0]}. A line that begins above another and ends below it answers better "
        "and has become narrower."
    )
