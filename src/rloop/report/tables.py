"""The final numbers: each policy's last measurement on each held-out task, for every page."""

from collections.abc import Callable
from dataclasses import dataclass

from rloop.evaluation.intervals import Estimate
from rloop.observe import metric_keys
from rloop.report.formatting import count, percent
from rloop.run_directory import Row, Run, estimate, estimates

MEASURES: dict[str, tuple[str, Callable[[float | None], str]]] = {
    "tokens": ("completion_tokens_mean", count),
    "truncated": ("truncated_frac", percent),
}
"""Columns behind the metrics: title -> key of the log and format. A new column is one line here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One metric of one policy, and its paired difference from the reference policy."""

    value: Estimate | None
    difference: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow:
    """The measurements of one policy on one task.

    Example: PolicyRow(policy="iter-001", note="", is_kept=True, cells={"avg@8": Cell(...)},
    measures={"tokens": 31.4, "truncated": 0.02})
    """

    policy: str
    note: str
    is_kept: bool
    """False for RL's weights where fine-tuning follows."""
    cells: dict[str, Cell]
    measures: dict[str, float | None]
    """By the titles of `MEASURES`."""

    @property
    def shown(self) -> dict[str, str]:
        """Return the measures as text, by title."""
        return {title: show(self.measures[title]) for title, (_, show) in MEASURES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTable:
    """All policies on one held-out task; the first row is the base."""

    task: str
    num_problems: int | None
    num_samples: int | None
    """Per problem."""
    metrics: tuple[str, ...]
    """avg@n, then pass@k by rising k; pass@1 is left out beside avg@n, which it equals."""
    reference: str
    """The policy that differences are taken from: `base`, or `coldstart` where there is one."""
    rows: tuple[PolicyRow, ...]

    @property
    def headline_metrics(self) -> tuple[str, ...]:
        """Return avg@n and pass@(largest k)."""
        return tuple(metric_keys.headline(self.metrics))

    @property
    def has_differences(self) -> bool:
        """Whether any policy was compared with the reference."""
        return any(cell.difference for row in self.rows for cell in row.cells.values())

    def row(self, policy: str) -> PolicyRow | None:
        """Return the row of a policy."""
        return next((row for row in self.rows if row.policy == policy), None)

    @property
    def outcome(self) -> PolicyRow | None:
        """Return the last policy kept that is not the reference; None where there is none yet."""
        kept = [row for row in self.rows if row.is_kept and row.policy not in ("base", "coldstart")]
        return kept[-1] if kept else None


def task_tables(run: Run) -> list[TaskTable]:
    """Return the final table of each held-out task, in the order of the log."""
    return [_table(run, task) for task in run.tasks]


def verdict(difference: Estimate | None) -> str:
    """Return `gain`, `loss` or `unclear`: whether the interval of a difference excludes zero."""
    if difference is None or not difference.is_clear_of_zero:
        return "unclear"
    return "gain" if difference.low > 0 else "loss"


def _table(run: Run, task: str) -> TaskTable:
    found = {
        str(line.get("policy")): (line, {m: value for t, m, value in estimates(line) if t == task})
        for line in run.rows("evaluate")
        if any(t == task for t, _, _ in estimates(line))
    }
    metrics = metric_keys.in_order({metric for _, values in found.values() for metric in values})
    first, _ = next(iter(found.values()))
    problems, samples = (first.get(f"evaluate/{task}/{n}_count") for n in ("problems", "samples"))
    return TaskTable(
        task=task,
        num_problems=problems,
        num_samples=round(samples / problems) if samples and problems else None,
        metrics=tuple(metrics),
        reference=run.reference,
        rows=tuple(_row(run, task, line, values, metrics) for line, values in found.values()),
    )


def _row(
    run: Run, task: str, line: Row, values: dict[str, Estimate], metrics: list[str]
) -> PolicyRow:
    is_explored, finetune = run.is_explored(line), run.config.get("finetune")
    note = f"after {line.get('step')} RL steps" if is_explored else ""
    if is_explored and finetune is not None and finetune.get("init") != "explored":
        note += ", discarded"
    key = f"evaluate/{task}"
    return PolicyRow(
        policy=str(line.get("policy")),
        note=note,
        is_kept=run.is_plain_rl or not is_explored,
        cells={
            name: Cell(value=values.get(name), difference=estimate(line, f"{key}/{name}_diff"))
            for name in metrics
        },
        measures={title: line.get(f"{key}/{name}") for title, (name, _) in MEASURES.items()},
    )
