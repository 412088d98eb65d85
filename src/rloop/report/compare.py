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
from rloop.report import compare_charts as charts
from rloop.report.charts.figure import Figure
from rloop.report.compare_curves import held_out_rows, reward_rows
from rloop.report.compare_fairness import fairness_warnings
from rloop.report.compare_groups import MethodGroup, choose_reference, group_runs, recipe_rows
from rloop.report.compare_loss import LossRow, loss_rows
from rloop.report.compare_results import TaskResult, TaskValues, pass_rows, task_result
from rloop.report.compare_runs import ComparedRun, find_runs, read_compared
from rloop.report.html import render_page, resource
from rloop.report.results import verdict
from rloop.report.words import percent, percent_interval, points, points_interval
from rloop.text import visible

MAX_NAMED = 6
"""Runs named in a sentence; of more, how many."""
COLUMNS = ("task", "metric", "method", "seeds", "mean, interval", "difference", "change")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Everything that a comparison says.

    Example: Comparison(groups=(...), reference="Plain RL", tasks=(...), losses={"sums": [...]},
    figures=(...), warnings=("Budgets differ: ...",), confidence=0.95)
    """

    groups: tuple[MethodGroup, ...]
    reference: str
    tasks: tuple[TaskResult, ...]
    losses: dict[str, list[LossRow]]
    figures: tuple[Figure, ...]
    warnings: tuple[str, ...]
    confidence: float

    @property
    def covers(self) -> str:
        """Return what the intervals cover, in a sentence."""
        level = f"{100 * self.confidence:g} % intervals"
        paired = "Differences are paired on the problems, and on the seeds where they are the same."
        single = [group.label for group in self.groups if len(group.runs) == 1]
        if not single:
            return f"{level} cover seeds and problems. {paired}"
        if len(single) == len(self.groups):
            return (
                f"{level} cover problems only: with one seed of each method they do not say what "
                "another seed would give. Differences are paired on the problems."
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
    confidence = min(run.record.confidence for run in runs)
    configs = [run.record.config["evaluate"] for run in runs]
    ks = [int(k) for config in configs for k in config["k"]]
    taus = [float(tau) for config in configs for tau in config.get("cover", ())]
    tasks, losses = [], {}
    figures: list[Figure | None] = []
    for index, name in enumerate(_common_tasks(runs)):
        values = TaskValues(name, runs)
        metrics = values.metrics(ks, taus)
        result = task_result(values, groups, against, metrics, confidence=confidence)
        tasks.append(result)
        losses[name] = loss_rows(values, groups, confidence=confidence)
        figures += _task_figures(values, groups, result, index, confidence)
    figures.append(charts.reward_figure(reward_rows(groups)))
    return Comparison(
        groups=tuple(groups),
        reference=against.label,
        tasks=tuple(tasks),
        losses=losses,
        figures=tuple(figure for figure in figures if figure is not None),
        warnings=(*warnings, *others, *fairness_warnings(groups)),
        confidence=confidence,
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
    ]


def page_path(paths: Sequence[Path], out: Path | None) -> Path:
    """Return where the page goes: as given, else into the one folder of runs, else here."""
    if out is not None and (out.suffix != ".html" or out.is_dir()):
        raise ConfigError(f"--out names the page, a file that ends in .html; got {out}.")
    if out is not None:
        return out
    is_folder = len(paths) == 1 and find_runs(paths) != [paths[0]]
    return paths[0] / "compare.html" if is_folder else Path("compare.html")


def write_comparison(found: Comparison, path: Path) -> Path:
    """Write the page of a comparison and return its path."""
    page = render_page(
        "compare.html.j2",
        specs={figure.figure_id: figure.spec for figure in found.figures},
        title="rloop compare",
        found=found,
        compare_style=resource("compare.css"),
        recipe_rows=recipe_rows(found.groups),
        sentence=difference_sentence,
        links={run.directory: _report_link(run, path) for g in found.groups for run in g.runs},
    )
    path.write_text(page, encoding="utf-8", errors="replace")
    return path


def difference_sentence(result: TaskResult, label: str, metric: str) -> str:
    """Return how a method differs from the reference in a metric, in a sentence."""
    methods = {method.group.label: method for method in result.methods}
    ours, theirs = methods[label].metrics[metric], methods[result.reference].metrics[metric]
    assert ours.difference is not None, "asked of a method that was compared"
    said = {
        "gain": ", clear of zero",
        "loss": ", clear of zero",
        "unclear": "",
    }[verdict(ours.difference)]
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
        raise StoreError(f"There is nothing to compare: {'; '.join(left_out)}.")
    names = [run.name for run in runs]
    runs = [
        replace(run, name=visible(str(run.directory))) if names.count(run.name) > 1 else run
        for run in runs
    ]
    warnings = [
        f"Left out: {reason}. A method whose failed runs are left out looks better than it is."
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
            f"The runs have no held-out problem in common, so nothing can be compared: {told}. "
            "Measure their policies on one task with `rloop eval`, then compare those folders."
        )
    kept = [run for run in runs if shared in _problems(run)]
    others = [run for run in runs if shared not in _problems(run)]
    if not others:
        return kept, []
    named = [f"{run.name} ({', '.join(run.tasks)})" for run in others[:MAX_NAMED]]
    more = f" and {len(others) - MAX_NAMED} more" if len(others) > MAX_NAMED else ""
    return kept, [
        f"Compared are the {len(kept)} of {len(runs)} runs that were measured on {shared[0]}. Left "
        f"out, with no problem of it: {', '.join(named)}{more}. Name runs to choose others."
    ]


def _problems(run: ComparedRun) -> set[tuple[str, str]]:
    """Return the (task, problem id) that every policy of a run's path was measured on."""
    return {
        (name, problem)
        for name, task in run.tasks.items()
        for problem in set.intersection(*(set(c.counts) for c in task.path))
    }


def _common_tasks(runs: Sequence[ComparedRun]) -> list[str]:
    """Return the tasks that all runs have, with at least one problem in common."""
    common = [task for task in runs[0].tasks if all(task in run.tasks for run in runs)]
    return [task for task in common if TaskValues(task, runs).problems]


def _task_figures(
    values: TaskValues,
    groups: Sequence[MethodGroup],
    result: TaskResult,
    index: int,
    confidence: float,
) -> list[Figure | None]:
    curves = pass_rows(values, groups, confidence=confidence)
    found = [charts.difference_figure(result, index)]
    if len({row["k"] for row in curves}) > 1:
        found.append(charts.pass_figure(values.task, curves, index))
    for number, name in enumerate(result.headline):
        rows = held_out_rows(values, groups, name, confidence=confidence)
        if any(row["x"] for row in rows):
            place = 10 * index + number
            found.append(charts.held_out_figure(values.task, name, rows, place))
    return found


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
