"""Where the time went: a bar an iteration, cut by phase."""

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
)
from rloop.report.run_record import Row

COLORS = {
    "coldstart": PURPLE,
    "explore": BLUE,
    "select": GREY,
    "finetune": ORANGE,
    "evaluate": GREEN,
}


def time_figure(rows: Sequence[Row]) -> Figure | None:
    """Return the minutes of each phase, stacked by iteration; rows: iteration, phase, seconds."""
    if not rows:
        return None
    found = [name for name in COLORS if any(row["phase"] == name for row in rows)]
    iterations = sorted({row["iteration"] for row in rows})
    shown = [
        row | {"minutes": row["seconds"] / 60, "rank": found.index(row["phase"])} for row in rows
    ]
    chart = (
        alt.Chart(inline(shown))
        .mark_bar()
        .encode(
            x=alt.X("minutes:Q", title="minutes", axis=alt.Axis(tickCount=6)),
            y=alt.Y("iteration:O", title="iteration"),
            order=alt.Order("rank:Q"),
            color=alt.Color(
                "phase:N",
                scale=alt.Scale(domain=found, range=[COLORS[name] for name in found]),
                legend=alt.Legend(title=None, symbolOpacity=1),
            ),
            tooltip=["iteration:O", "phase:N", alt.Tooltip("minutes:Q", format=".2~f")],
        )
    )
    total = sum(row["seconds"] for row in rows)
    return make_figure(
        "time",
        "Time by iteration",
        "Iteration 0: the base's measurement, and the cold start where there is one.",
        f"{total / 60:.1f} minutes in {len(iterations)} iterations.",
        chart.properties(height=max(70, 26 * len(iterations))),
        numbers(shown, {"iteration": "iteration", "phase": "phase", "minutes": "minutes"}),
    )
