"""The table at the end of a run: each policy on each held-out task, beside what it began with."""

from collections.abc import Mapping, Sequence
from typing import Any

from rloop.observe.columns import interval
from rloop.observe.metric_keys import in_order, split_key

HEADINGS = ("task", "policy", "value [interval]", "difference [interval]")


def final_table(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return cells under `HEADINGS`; `rows` are evaluate lines of metrics.jsonl.

    A line for each task, under it avg@n, maj@n, then pass@k by k (pass@1 left out: avg@n equals
    it), each with the policies in the order of the run, so that what is to be compared stands one
    below the other. cover@tau is for the report: here it would double the length.
    """
    keys = (split_key(key.removeprefix("evaluate/")) for row in rows for key in row)
    found = dict.fromkeys(key for key in keys if key is not None)
    cells: list[tuple[str, ...]] = []
    for task in dict.fromkeys(task for task, _ in found):
        cells.append((task, "", "", ""))
        metrics = in_order(metric for name, metric in found if name == task)
        for metric in (metric for metric in metrics if not metric.startswith("cover@")):
            cells += _block(rows, task, metric)
    return cells


def _block(rows: Sequence[Mapping[str, Any]], task: str, metric: str) -> list[tuple[str, ...]]:
    """Return a row for each policy that has the metric; only the first names it."""
    key = f"evaluate/{task}/{metric}"
    measured = [row for row in rows if row.get(key) is not None]
    return [
        (
            "" if number else f"  {metric}",
            str(row["policy"]),
            interval(row, key),
            interval(row, f"{key}_diff", sign="+"),
        )
        for number, row in enumerate(measured)
    ]


def reference(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what differences are taken from: the cold start where there is one, else the base."""
    return "coldstart" if any(row["policy"] == "coldstart" for row in rows) else "base"
