"""The final numbers: each policy's last measurement on each held-out task, and what they say."""

from collections.abc import Iterator
from dataclasses import dataclass

from rloop.evaluation.intervals import Estimate
from rloop.observe import metric_keys
from rloop.report.run_record import Row, RunRecord
from rloop.report.words import percent, percent_interval, points, points_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One metric of one policy, and its paired difference from the reference policy."""

    value: Estimate | None
    difference: Estimate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow:
    """The measurements of one policy on one task.

    Example: PolicyRow(policy="iter-001", note="", is_kept=True, cells={"avg@8": Cell(...)},
    truncated_frac=0.02, tokens_mean=31.4)
    """

    policy: str
    note: str
    is_kept: bool
    """False for RL's weights where fine-tuning follows."""
    cells: dict[str, Cell]
    truncated_frac: float | None
    tokens_mean: float | None


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


def task_tables(record: RunRecord) -> list[TaskTable]:
    """Return the final table of each held-out task, in the order of the log."""
    return [_table(record, task) for task in logged_tasks(record)]


def logged_tasks(record: RunRecord) -> list[str]:
    """Return the held-out tasks in the order of the log."""
    evaluations = record.rows("evaluate")
    return list(dict.fromkeys(task for row in evaluations for task, _, _ in task_metrics(row)))


def task_metrics(row: Row) -> Iterator[tuple[str, str, Estimate]]:
    """Yield (task, metric, estimate) of an evaluate line; a task's name may hold slashes."""
    for key, value in row.items():
        found = metric_keys.split_key(key.removeprefix("evaluate/"))
        if found is not None and value is not None:
            yield *found, _estimate(row, key, value)


def reference_policy(record: RunRecord) -> str:
    """Return which policy the loop pairs its iterations with: the cold start, else the base."""
    policies = {row.get("policy") for row in record.rows("evaluate")}
    return "coldstart" if "coldstart" in policies else "base"


def headline(table: TaskTable, confidence: float) -> list[str]:
    """Return a sentence for each headline metric: from the reference to the last kept policy."""
    before, after = table.row(table.reference), table.outcome
    if before is None or after is None:
        return []
    return [
        _change(name, before.cells[name], after.cells[name], confidence)
        for name in table.headline_metrics
        if name in before.cells and name in after.cells
    ]


def verdict(difference: Estimate | None) -> str:
    """Return `gain`, `loss` or `unclear`: whether the interval of a difference excludes zero."""
    if difference is None or not difference.is_clear_of_zero:
        return "unclear"
    return "gain" if difference.low > 0 else "loss"


def _change(name: str, before: Cell, after: Cell, confidence: float) -> str:
    old, new, difference = before.value, after.value, after.difference
    if old is None or new is None:
        return f"{name} was not measured."
    verb = "rose" if new.value > old.value else "fell" if new.value < old.value else "stayed"
    text = (
        f"{name} {verb} from {percent(old.value)} {percent_interval(old)} "
        f"to {percent(new.value)} {percent_interval(new)}"
    )
    if difference is None:
        return f"{text}; no paired difference was recorded."
    said = {
        "gain": f"a gain clear of its {100 * confidence:g} % interval",
        "loss": f"a loss clear of its {100 * confidence:g} % interval",
        "unclear": f"not clear of its {100 * confidence:g} % interval",
    }[verdict(difference)]
    return f"{text}: {points(difference)} points {points_interval(difference)}, {said}."


def _table(record: RunRecord, task: str) -> TaskTable:
    latest = {str(row.get("policy")): row for row in record.rows("evaluate") if _has(row, task)}
    found = {metric for row in latest.values() for t, metric, _ in task_metrics(row) if t == task}
    metrics = metric_keys.in_order(found)
    any_row = next(iter(latest.values()))
    problems = any_row.get(f"evaluate/{task}/problems_count")
    samples = any_row.get(f"evaluate/{task}/samples_count")
    per_problem = round(samples / problems) if samples and problems else None
    return TaskTable(
        task=task,
        num_problems=problems,
        num_samples=per_problem,
        metrics=tuple(metrics),
        reference=reference_policy(record),
        rows=tuple(_policy_row(record, row, task, metrics) for row in latest.values()),
    )


def _policy_row(record: RunRecord, row: Row, task: str, metrics: list[str]) -> PolicyRow:
    policy = str(row.get("policy"))
    is_explored = policy.startswith("explored-") and not record.is_evaluation
    finetune = record.config.get("finetune")
    is_passing = is_explored and not record.is_plain_rl
    note = f"after {row.get('step')} RL steps" if is_explored else ""
    if finetune is not None and is_explored and finetune.get("init") != "explored":
        note += ", thrown away"
    estimates = {metric: value for t, metric, value in task_metrics(row) if t == task}
    return PolicyRow(
        policy=policy,
        note=note,
        is_kept=not is_passing,
        cells={
            name: Cell(
                value=estimates.get(name),
                difference=optional_estimate(row, f"evaluate/{task}/{name}_diff"),
            )
            for name in metrics
        },
        truncated_frac=row.get(f"evaluate/{task}/truncated_frac"),
        tokens_mean=row.get(f"evaluate/{task}/completion_tokens_mean"),
    )


def _has(row: Row, task: str) -> bool:
    return any(found == task for found, _, _ in task_metrics(row))


def optional_estimate(row: Row, key: str) -> Estimate | None:
    """Return the estimate that a line has at a key; None where it has none."""
    value = row.get(key)
    return None if value is None else _estimate(row, key, value)


def _estimate(row: Row, key: str, value: float) -> Estimate:
    """Return the estimate at a key; ends that were not recorded count as the value itself."""
    ends = [row.get(f"{key}_low"), row.get(f"{key}_high")]
    low, high = (value if end is None else end for end in ends)
    return Estimate(value=value, low=low, high=high)
