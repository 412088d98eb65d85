"""The loss of the supervised phases over their updates."""

from collections.abc import Sequence

import altair as alt

from rloop.report.charts.figure import (
    CATEGORIES,
    SMALL,
    Figure,
    inline,
    make_figure,
    numbers,
    value_axis,
    whole_numbers,
)
from rloop.report.run_record import Row


def tuning_figure(rows: Sequence[Row]) -> Figure | None:
    """Return the loss over updates, a line for each policy; rows have update, policy, value."""
    if not rows:
        return None
    names = list(dict.fromkeys(str(row["policy"]) for row in rows))
    chart = (
        alt.Chart(inline(rows))
        .mark_line(strokeWidth=1.6, point=alt.OverlayMarkDef(size=14, filled=True))
        .encode(
            x=alt.X("update:Q", title="updates in the phase", axis=whole_numbers()),
            y=value_axis(),
            color=alt.Color(
                "policy:N", title=None, sort=names, scale=alt.Scale(range=list(CATEGORIES))
            ),
            tooltip=[
                "policy:N",
                "update:Q",
                alt.Tooltip("value:Q", title="loss", format=".4~g"),
            ],
        )
    )
    return make_figure(
        "tuning",
        "Fine-tuning loss",
        "Mean over the tokens of an update.",
        f"Loss of {len(rows)} updates that made {', '.join(names)}.",
        chart.properties(height=SMALL),
        numbers(rows, {"policy": "policy", "update": "update", "value": "loss"}),
    )
