"""Lines of the console: steps in fixed columns with the same digits in every line, at most 80 wide
(except with the recipe's own rewards); evaluations; and the table at the end of a run.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rloop.observe.metric_keys import headline, in_order, reward_names, split_key
from rloop.types import Place

Metrics = Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One number of a step line; negative digits mean scientific notation with that many.

    Example: Column(title="reward", key="reward_mean", width=6, digits=3) shows 0.4375 as ` 0.438`
    """

    title: str
    key: str
    width: int
    digits: int


EXPLORE = (
    Column(title="reward", key="reward_mean", width=6, digits=3),
    Column(title="solved", key="groups_all_correct_frac", width=6, digits=2),
    Column(title="mixed", key="groups_mixed_frac", width=5, digits=2),
    Column(title="wrong", key="groups_all_wrong_frac", width=5, digits=2),
    Column(title="trunc", key="truncated_frac", width=5, digits=2),
    Column(title="tokens", key="completion_tokens_mean", width=6, digits=0),
    Column(title="entropy", key="entropy_mean", width=7, digits=3),
    Column(title="grad", key="grad_norm", width=7, digits=3),
    Column(title="gap", key="gap_mean", width=6, digits=4),
    Column(title="tok/s", key="tokens_per_s", width=6, digits=0),
    Column(title="s", key="step_s", width=5, digits=1),
)
"""solved, mixed, wrong: fractions of groups with all, some or no completion correct."""

FINETUNE = (
    Column(title="loss", key="loss_mean", width=7, digits=4),
    Column(title="grad", key="grad_norm", width=7, digits=3),
    Column(title="rate", key="learning_rate", width=7, digits=-2),
)

HEADINGS = ("task", "policy", "value [interval]", "difference [interval]")
"""Headings of the final table."""
_STEP_WIDTH = {"explore": 4, "finetune": 11, "coldstart": 11}


def columns_of(phase: str, metrics: Metrics) -> tuple[Column, ...]:
    """Return the columns of a learning phase's step lines; none for other phases.

    Columns of the recipe's rewards come last, and may exceed 80 characters.
    """
    if phase != "explore":
        return FINETUNE if phase in _STEP_WIDTH else ()
    names = reward_names(metrics)
    own = [
        Column(title=name, key=f"reward_{name}_mean", width=max(5, len(name)), digits=3)
        for name in names
    ]
    return (*EXPLORE, *own)


def title_line(phase: str, metrics: Metrics) -> str:
    """Return the line that names the columns."""
    titles = [f"{column.title:>{column.width}}" for column in columns_of(phase, metrics)]
    return " ".join([f"{'step':>{_STEP_WIDTH[phase]}}", *titles])


def step_line(place: Place, metrics: Metrics, *, num_steps: int | None) -> str:
    """Return the numbers under `title_line`; `-` for a missing one, `nan` as it is."""
    step = str(place.step)
    if place.phase != "explore" and num_steps is not None:
        step = f"{place.step}/{num_steps}"
    cells = [_cell(column, metrics.get(column.key)) for column in columns_of(place.phase, metrics)]
    return " ".join([f"{step:>{_STEP_WIDTH[place.phase]}}", *cells])


def evaluation_lines(place: Place, metrics: Metrics) -> list[str]:
    """Return a line with the policy and its KL from the start, then one per task: avg@n, pass@k."""
    step = f", step {place.step}" if place.step else ""
    tasks: dict[str, list[str]] = {}
    for key in metrics:
        if (found := split_key(key)) is not None:
            tasks.setdefault(found[0], []).append(found[1])
    width = max(map(len, tasks), default=0)
    lines = [f"  {place.policy}{step}"]
    if "kl_base_mean" in metrics:
        lines[0] += f"  KL from the loop's start {interval(metrics, 'kl_base_mean')}"
    for task, names in tasks.items():
        shown = headline(in_order(names))
        cells = [f"{name} {interval(metrics, f'{task}/{name}')}" for name in shown]
        lines.append(f"  {task:<{width}}  {'  '.join(cells)}")
    return lines


def interval(metrics: Metrics, key: str, sign: str = "") -> str:
    """Return a value with its interval, `0.412 [0.351, 0.470]`; empty if it is missing."""
    value, low, high = (metrics.get(key + end) for end in ("", "_low", "_high"))
    if value is None:
        return ""
    if low is None or high is None:
        return f"{value:{sign}.3f}"
    return f"{value:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"


def _cell(column: Column, value: float | None) -> str:
    """Return a number in the column's width; in scientific notation if the digits cannot show
    it."""
    if value is None or not math.isfinite(value):
        text = "-" if value is None else f"{value}"
    elif column.digits < 0:
        text = f"{value:.{-column.digits}e}"
    else:
        text = f"{value:.{column.digits}f}"
        is_lost = value != 0 and float(text) == 0 and column.digits > 0
        if len(text) > column.width or is_lost:
            text = f"{value:.0e}"
    return f"{text:>{column.width}}"


def final_table(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Return cells under `HEADINGS`; `rows` are evaluate lines of metrics.jsonl.

    A line for each task, then avg@n, maj@n and pass@k by k (without pass@1, which equals avg@n),
    each with the policies in the order of the run, so that comparable values are below each other.
    cover@tau is only in the report, because it would double the length here.
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
    """Return a row for each policy with the metric; only the first row names it."""
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
    """Return the policy that differences are taken from: the cold start if there is one, else the
    base."""
    return "coldstart" if any(row["policy"] == "coldstart" for row in rows) else "base"
