"""How an expert set came about: the sieves, and the problems by how often they were solved."""

from collections.abc import Sequence

import altair as alt

from rloop.report.charts.figure import (
    BLUE,
    GREY,
    ORANGE,
    SMALL,
    Figure,
    inline,
    make_figure,
    numbers,
)
from rloop.report.run_record import Row

OUTCOMES = {"not solved": GREY, "kept": BLUE, "too easy": ORANGE}
"""By the words of `report.selection`."""


def funnel_figure(rows: Sequence[Row]) -> Figure | None:
    """Return trajectories left after each sieve of the selection, by iteration."""
    if not rows:
        return None
    most = max(row["count"] for row in rows)
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    base = alt.Chart(inline(rows)).encode(
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
    return make_figure(
        "funnel",
        "From pool to expert set",
        "Trajectories left after each sieve; one bar an iteration, from the first down.",
        f"{said}.",
        alt.layer(bars, labels).properties(height=max(SMALL, 18 * len(rows))),
        numbers(rows, {"iteration": "iteration", "stage": "sieve", "count": "trajectories"}),
    )


def success_rate_figure(
    iteration: int, rows: Sequence[Row], max_success_rate: float | None
) -> Figure | None:
    """Return the histogram of an iteration's problems by success rate, colored by outcome.

    A row has low, high (the bin), outcome and count. The rule is the hardness threshold.
    """
    if not rows:
        return None
    totals = {
        name: sum(row["count"] for row in rows if row["outcome"] == name) for name in OUTCOMES
    }
    layers, caption = [_bars(rows)], "Problems of the pool by how often they were solved."
    if max_success_rate is not None and max_success_rate < 1:
        rule = alt.Chart(inline([{"threshold": max_success_rate}])).mark_rule(
            strokeDash=[5, 4], color=GREY, strokeWidth=2
        )
        layers.append(rule.encode(x="threshold:Q"))
        caption += f" Dashed: the hardness threshold, {100 * max_success_rate:g} %."
    if any(row["outcome"] == "not solved" and row["low"] > 0 for row in rows):
        caption += (
            " Grey above 0 %: answered right, but only by completions cut at the length limit, "
            "which are not learned from."
        )
    said = ", ".join(f"{number} {name}" for name, number in totals.items())
    return make_figure(
        f"success-rate-{iteration}",
        f"How often problems were solved, iteration {iteration}",
        caption,
        f"Problems by success rate: {said}.",
        alt.layer(*layers).properties(height=SMALL),
        numbers(rows, {"rate": "success rate", "outcome": "outcome", "count": "problems"}),
    )


def _bars(rows: Sequence[Row]) -> alt.Chart:
    outcomes = [name for name in OUTCOMES if any(row["outcome"] == name for row in rows)]
    colors = alt.Scale(domain=outcomes, range=[OUTCOMES[name] for name in outcomes])
    bars: alt.Chart = alt.Chart(inline(rows)).mark_bar(binSpacing=1)
    return bars.encode(
        x=alt.X(
            "low:Q",
            bin="binned",
            title="success rate of a problem in the exploration",
            axis=alt.Axis(format=".0%", grid=False, tickCount=5),
            scale=alt.Scale(domain=[0, 1], nice=False),
        ),
        x2="high:Q",
        y=alt.Y("count:Q", title="problems", stack=True, axis=alt.Axis(tickMinStep=1)),
        order=alt.Order("rank:Q"),
        color=alt.Color("outcome:N", scale=colors, legend=alt.Legend(title=None, symbolOpacity=1)),
        tooltip=[
            alt.Tooltip("rate:N", title="success rate"),
            "outcome:N",
            alt.Tooltip("count:Q", title="problems"),
        ],
    )
