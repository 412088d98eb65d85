"""Runs compared: methods and seeds side by side, as a table, as JSON, and as one page."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rloop.errors import ConfigError, StoreError
from rloop.evaluation.intervals import Estimate
from rloop.report import charts
from rloop.report.charts import Figure, Heading
from rloop.report.compare_checks import fairness_warnings
from rloop.report.compare_curves import CurveResult, compare_curves
from rloop.report.compare_results import (
    BEFORE,
    TaskResult,
    TaskValues,
    held_out_rows,
    pass_rows,
    reward_rows,
    task_result,
)
from rloop.report.compare_runs import (
    ComparedRun,
    MethodGroup,
    choose_reference,
    find_runs,
    group_runs,
    read_compared,
    recipe_rows,
)
from rloop.report.formatting import percent, percent_interval, points, points_interval
from rloop.report.html import render_page, resource
from rloop.report.sections import NARROWER, draw_pass_curves
from rloop.report.tables import verdict
from rloop.run_directory import Row, phase_seconds
from rloop.text import visible

MAX_NAMED = 6
"""Runs named in a sentence; of more, how many."""
COLUMNS = ("task", "metric", "method", "seeds", "mean, interval", "difference", "change")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything that a comparison says.

    Example: Comparison(groups=(...), reference="Plain RL", tasks=(...), figures=(...),
    warnings=("Budgets differ: ...",), confidence=0.95)
    """

    groups: tuple[MethodGroup, ...]
    reference: str
    tasks: tuple[TaskResult, ...]
    figures: tuple[Figure, ...]
    warnings: tuple[str, ...]
    confidence: float
    curves: tuple[CurveResult, ...] = ()
    """Methods against the base and the reference over temperatures; empty where not measured."""

    @property
    def covers(self) -> str:
        """Return what the intervals cover, in a sentence."""
        level = f"{100 * self.confidence:g} % intervals"
        paired = "Differences are paired by problem, and by seed where the seeds are the same."
        single = [group.label for group in self.groups if len(group.runs) == 1]
        if not single:
            return f"{level} cover seeds and problems. {paired}"
        if len(single) == len(self.groups):
            return (
                f"{level} cover problems only: with one seed per method they do not show what "
                "another seed would give. Differences are paired by problem."
            )
        return (
            f"{level} cover seeds and problems; those of {', '.join(single)}, with one seed, and "
            f"differences with it, problems only. {paired}"
        )


def compare_runs(paths: Sequence[Path], reference: str | None = None) -> Comparison:
    """Read runs, or folders of runs, and compare their methods.

    Runs that are not complete are left out, with a warning. StoreError where nothing is left.
    """
    runs, warnings = _read(find_runs(paths))
    runs, others = _with_common_problems(runs)
    groups = group_runs(runs)
    against = choose_reference(groups, reference)
    confidence = min(run.run.confidence for run in runs)
    configs = [run.run.config["evaluate"] for run in runs]
    ks = [int(k) for config in configs for k in config["k"]]
    taus = [float(tau) for config in configs for tau in config.get("cover", ())]
    tasks: list[TaskResult] = []
    figures: list[Figure | None] = []
    for values in _common_tasks(runs, confidence):
        tasks.append(task_result(values, groups, against, values.metrics(ks, taus)))
        figures += _task_figures(values, groups, tasks[-1], len(tasks) - 1)
    curves, drawn = compare_curves(groups, against, confidence)
    figures += drawn
    figures.append(_reward_figure(reward_rows(groups)))
    return Comparison(
        groups=tuple(groups),
        reference=against.label,
        tasks=tuple(tasks),
        figures=tuple(figure for figure in figures if figure is not None),
        warnings=(*warnings, *others, *fairness_warnings(groups)),
        confidence=confidence,
        curves=tuple(curves),
    )


def table_rows(found: Comparison) -> list[tuple[object, ...]]:
    """Return the comparison as rows under `COLUMNS`; fractions, not percent."""
    return [
        (
            task.task,
            metric,
            method.group.label,
            len(method.group.runs),
            _fraction(method.metrics[metric].mean),
            "n differs"
            if method.not_compared
            else _fraction(method.metrics[metric].difference, sign="+"),
            _fraction(method.metrics[metric].change, sign="+"),
        )
        for task in found.tasks
        for metric in task.metrics
        for method in task.methods
    ]


def comparison_json(found: Comparison) -> list[dict[str, Any]]:
    """Return the same for programs: every number in full, with the value of each run."""
    return [
        {
            "task": task.task,
            "metric": metric,
            "method": method.group.label,
            "seeds": list(method.group.seeds),
            "runs": {
                str(run.directory): value
                for run, value in zip(method.group.runs, method.metrics[metric].by_run, strict=True)
            },
            **_ends("mean", method.metrics[metric].mean),
            **_ends("difference", method.metrics[metric].difference),
            **_ends("change", method.metrics[metric].change),
            "reference": task.reference,
            "not_compared": method.not_compared or None,
            "num_problems": task.num_problems,
        }
        for task in found.tasks
        for metric in task.metrics
        for method in task.methods
    ] + [
        {
            "task": result.task,
            "metric": f"avg_at_equal_pass@{result.gap.k}",
            "method": result.method,
            "reference": result.against,
            "passes": list(result.gap.passes),
            "difference": result.gap.value,
            "difference_low": result.gap.low,
            "difference_high": result.gap.high,
            "at_base": result.at_base,
        }
        for result in found.curves
    ]


def page_path(paths: Sequence[Path], out: Path | None) -> Path:
    """Return where the page goes: as given, else into the one folder of runs, else here."""
    if out is not None and (out.suffix != ".html" or out.is_dir()):
        raise ConfigError(f"--out must be a file name that ends in .html; got {out}.")
    if out is not None:
        return out
    is_folder = len(paths) == 1 and find_runs(paths) != [paths[0]]
    return paths[0] / "compare.html" if is_folder else Path("compare.html")


def write_comparison(found: Comparison, path: Path) -> Path:
    """Write the page of a comparison and return its path."""
    page = render_page(
        "compare.html.j2",
        figures=found.figures,
        title="rloop compare",
        found=found,
        compare_style=resource("compare.css"),
        recipe_rows=recipe_rows(found.groups),
        sentence=difference_sentence,
        budgets={run.directory: run_budget(run) for group in found.groups for run in group.runs},
        links={run.directory: _report_link(run, path) for g in found.groups for run in g.runs},
    )
    path.write_text(page, encoding="utf-8", errors="replace")
    return path


def difference_sentence(result: TaskResult, label: str, metric: str) -> str:
    """Return how a method differs from the reference in a metric, in a sentence."""
    methods = {method.group.label: method for method in result.methods}
    ours, theirs = methods[label].metrics[metric], methods[result.reference].metrics[metric]
    assert ours.difference is not None, "asked of a method that was compared"
    said = "" if verdict(ours.difference) == "unclear" else ", which excludes zero"
    return (
        f"{percent(ours.mean.value)} {percent_interval(ours.mean)} against "
        f"{percent(theirs.mean.value)} {percent_interval(theirs.mean)}: "
        f"{points(ours.difference)} points {points_interval(ours.difference)}{said}."
    )


def _read(paths: Sequence[Path]) -> tuple[list[ComparedRun], list[str]]:
    """Return the runs under names of their own, and what was left out."""
    found = [read_compared(path) for path in paths]
    runs = [run for run, _ in found if run is not None]
    left_out = [reason for run, reason in found if run is None]
    if not runs:
        raise StoreError(f"Nothing to compare: {'; '.join(left_out)}.")
    names = [run.name for run in runs]
    runs = [
        replace(run, name=visible(str(run.directory))) if names.count(run.name) > 1 else run
        for run in runs
    ]
    warnings = [
        f"Left out: {reason}. A method looks better than it is when its failed runs are left out."
        for reason in left_out
    ]
    return runs, warnings


def _with_common_problems(
    runs: Sequence[ComparedRun],
) -> tuple[list[ComparedRun], list[str]]:
    """Return the largest set of runs that share a held-out problem, and who is left out, said.

    Of equally large sets the one of the first run. StoreError where no two runs share one.
    """
    found = Counter((name, problem) for run in runs for name, problem in sorted(_problems(run)))
    shared, times = found.most_common(1)[0]
    if times == 1 and len(runs) > 1:
        told = "; ".join(f"{run.name} has {', '.join(run.tasks)}" for run in runs[:MAX_NAMED])
        raise StoreError(
            f"The runs share no held-out problem, so they cannot be compared: {told}. "
            "Evaluate their policies on one task with `rloop eval`, then compare those folders."
        )
    kept = [run for run in runs if shared in _problems(run)]
    others = [run for run in runs if shared not in _problems(run)]
    if not others:
        return kept, []
    named = [f"{run.name} ({', '.join(run.tasks)})" for run in others[:MAX_NAMED]]
    more = f" and {len(others) - MAX_NAMED} more" if len(others) > MAX_NAMED else ""
    return kept, [
        f"Only the {len(kept)} of {len(runs)} runs evaluated on {shared[0]} are compared. Left "
        f"out: {', '.join(named)}{more}. Name the runs to compare others."
    ]


def _problems(run: ComparedRun) -> set[tuple[str, str]]:
    """Return the (task, problem id) that every policy of a run's path was measured on."""
    return {
        (name, problem)
        for name, task in run.tasks.items()
        for problem in set.intersection(*(set(c.counts) for c in task.path))
    }


def _common_tasks(runs: Sequence[ComparedRun], confidence: float) -> list[TaskValues]:
    """Return the tasks that all runs have, with at least one problem in common."""
    common = [task for task in runs[0].tasks if all(task in run.tasks for run in runs)]
    found = [TaskValues(task, runs, confidence) for task in common]
    return [values for values in found if values.problems]


def _task_figures(
    values: TaskValues, groups: Sequence[MethodGroup], result: TaskResult, index: int
) -> list[Figure | None]:
    curves = pass_rows(values, groups)
    found = [_difference_figure(result, index)]
    if len({row["x"] for row in curves}) > 1:
        caption = f"Mean over seeds of the last policies. {NARROWER}"
        words = (f"pass-{index}", f"pass@k: {values.task}", caption)
        found.append(draw_pass_curves(words, curves, series="method", dashed=BEFORE))
    for number, name in enumerate(result.headline):
        rows = held_out_rows(values, groups, name)
        if any(row["x"] for row in rows):
            found.append(_held_out_figure(values.task, name, rows, 10 * index + number))
    return found


def _held_out_figure(task: str, metric: str, rows: Sequence[Row], index: int) -> Figure:
    """Return a held-out metric over the tokens sampled in RL."""
    heading = Heading(
        f"held-out-{index}",
        f"{metric}: {task}",
        "The checkpoints that a method would return at that cost.",
        f"{metric} over tokens sampled in RL; {_at_the_end(rows)}",
    )
    columns = {"series": "method", "label": "checkpoint", "x": "tokens", **charts.VALUES}
    return charts.lines_with_bands(heading, rows, charts.token_axis(rows), columns)


def _reward_figure(rows: Sequence[Row]) -> Figure | None:
    """Return the training reward over the tokens sampled in RL; None where none was logged."""
    if not rows:
        return None
    heading = Heading(
        "reward",
        "Training reward",
        "Mean over seeds; the band spans the lowest and the highest seed. Training reward does "
        "not show whether a method generalises.",
        f"Training reward over tokens sampled in RL; {_at_the_end(rows)}",
    )
    columns = {"series": "method", "x": "tokens", **charts.VALUES}
    axis = charts.token_axis(rows)
    return charts.lines_with_bands(heading, rows, axis, columns, has_dots=False)


def _at_the_end(rows: Sequence[Row]) -> str:
    last = {row["series"]: row["value"] for row in rows}
    return f"at the end {', '.join(f'{name} {value:.1%}' for name, value in last.items())}."


def _difference_figure(result: TaskResult, index: int) -> Figure | None:
    """Return each method's differences from the reference, with their intervals."""
    rows: list[Row] = []
    for method in result.methods:
        for name in result.headline:
            found = method.metrics[name].difference
            if found is not None:
                ends = {key: 100 * getattr(found, key) for key in charts.VALUES}
                said = f"{points(found)} {points_interval(found)}"
                rows.append({"series": method.group.label, "metric": name, **ends, "said": said})
    if not rows:
        return None
    heading = Heading(
        f"difference-{index}",
        f"Difference from {result.reference}: {result.task}",
        "Paired on the same problems. If an interval crosses the dashed line, either method may be "
        "better.",
        "; ".join(f"{row['series']} {row['metric']} {row['said']} points" for row in rows) + ".",
    )
    return charts.intervals(heading, rows, result.headline, f"points against {result.reference}")


def run_budget(run: ComparedRun) -> dict[str, Any]:
    """Return what a run sampled, learned from and how long it took; None where not recorded."""
    explored, seconds = run.run.sampled_tokens("explore"), phase_seconds(run.run.events)
    measured = run.run.sampled_tokens("evaluate") or 0
    phases = ("coldstart", "explore", "finetune")
    trained = [run.run.total(phase, "loss_tokens_count") for phase in phases]
    known = [tokens for tokens in trained if tokens is not None]
    return {
        "rl_completions": run.run.total("explore", "trajectories_count"),
        "rl_tokens": explored,
        "all_tokens": (explored or 0) + measured if explored or measured else None,
        "trained_tokens": sum(known) if known else None,
        "seconds": seconds,
    }


def _report_link(run: ComparedRun, page: Path) -> str:
    """Return the relative address of a run's own report; empty where it has none."""
    report = run.directory / "report.html"
    if not report.exists():
        return ""
    return quote(os.path.relpath(report.resolve(), page.resolve().parent))


def _fraction(estimate: Estimate | None, sign: str = "") -> str:
    if estimate is None:
        return ""
    numbers = (estimate.value, estimate.low, estimate.high)
    value, low, high = (f"{number:{sign}.3f}" for number in numbers)
    return f"{value} [{low}, {high}]"


def _ends(name: str, estimate: Estimate | None) -> dict[str, float | None]:
    keys = (name, f"{name}_low", f"{name}_high")
    if estimate is None:
        return dict.fromkeys(keys)
    return dict(zip(keys, (estimate.value, estimate.low, estimate.high), strict=True))
