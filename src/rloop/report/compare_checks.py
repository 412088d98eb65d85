"""What makes a comparison unfair, in sentences: budgets, and anything measured differently."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from rloop.observe.metric_keys import flatten
from rloop.report.compare_runs import ComparedRun, MethodGroup, recipe_keys
from rloop.report.formatting import count

TWO_SEEDS = (
    "two seeds say almost nothing about how much seeds vary, so the intervals are very wide. Run "
    "three or more."
)
"""Said of methods that have two."""
MAX_SPREAD = 0.05
"""Budgets that differ by more are warned of."""


def fairness_warnings(groups: Sequence[MethodGroup]) -> list[str]:
    """Return why the methods may not be comparable; empty where nothing was found."""
    runs = [run for group in groups for run in group.runs]
    return [*budget_warnings(groups), *_seed_warnings(groups), *measurement_warnings(runs)]


def budget_warnings(groups: Sequence[MethodGroup]) -> list[str]:
    """Return where methods differ by more than 5 % in what they sampled in RL."""
    found = []
    for key, noun in (("sampled_tokens", "tokens"), ("trajectories", "completions")):
        spent: dict[str, float] = {}
        for group in groups:
            values = [run.run.total("explore", f"{key}_count") for run in group.runs]
            known = [value for value in values if value is not None]
            if known and len(known) == len(values):
                spent[group.label] = fmean(known)
        if len(spent) < 2:
            continue
        least, most = (choose(spent, key=spent.__getitem__) for choose in (min, max))
        if spent[most] > (1 + MAX_SPREAD) * spent[least]:
            more = (
                f"{100 * spent[most] / spent[least] - 100:.0f} % more" if spent[least] else "more"
            )
            found.append(
                f"Budgets differ: {most} sampled {more} {noun} in RL than {least} "
                f"({count(spent[most])} against {count(spent[least])} a run)."
            )
    return found


def measurement_warnings(runs: Sequence[ComparedRun]) -> list[str]:
    """Return what the runs were measured with, or trained from, that is not the same for all."""
    trained = [run for run in runs if not run.run.is_evaluation]
    checks: tuple[tuple[str, Sequence[ComparedRun], Callable[[ComparedRun], Any]], ...] = (
        ("Held-out tasks", runs, lambda run: sorted(run.tasks)),
        ("Training tasks", trained, lambda run: _task_names(run, "train")),
        ("Samples per problem (n)", runs, lambda run: _of(run, "evaluate.samples")),
        ("Values of k", runs, lambda run: _of(run, "evaluate.k")),
        ("Sampling at evaluation", runs, lambda run: _of(run, "evaluate.sampling")),
        ("Sampling in RL", trained, lambda run: _of(run, "explore.sampling")),
        ("Prompt templates", runs, lambda run: sorted(run.versions["template_version"])),
        ("Verifier versions", runs, lambda run: sorted(run.versions["verifier_version"])),
        ("Base policies", trained, lambda run: _of(run, "policy.path")),
        ("Cold starts", trained, lambda run: _of(run, "coldstart")),
        ("Machines", runs, _hardware),
    )
    found = [_difference(what, those, value) for what, those, value in checks]
    return [sentence for sentence in (*found, *_problem_warnings(runs)) if sentence]


def _difference(what: str, runs: Sequence[ComparedRun], value: Callable[[ComparedRun], Any]) -> str:
    """Return a sentence that names both kinds and one run of each; empty where all agree."""
    kinds: dict[str, list[str]] = {}
    for run in runs:
        kinds.setdefault(_said(value(run)), []).append(run.name)
    if len(kinds) < 2:
        return ""
    told = [f"{said} in {_names(names)}" for said, names in list(kinds.items())[:3]]
    more = f"; {len(kinds) - 3} more kinds" if len(kinds) > 3 else ""
    return f"{what} differ: {'; '.join(told)}{more}."


def _problem_warnings(runs: Sequence[ComparedRun]) -> list[str]:
    """Return which tasks were not measured on the same problems everywhere."""
    found = []
    for task in sorted({task for run in runs for task in run.tasks}):
        sets = [frozenset(run.tasks[task].final.counts) for run in runs if task in run.tasks]
        common = frozenset.intersection(*sets)
        if any(problems != common for problems in sets):
            sizes = sorted({len(problems) for problems in sets})
            found.append(
                f"Problems of {task} differ: runs have {', '.join(map(str, sizes))}; "
                f"the {len(common)} that all share are compared."
            )
    return found


def _seed_warnings(groups: Sequence[MethodGroup]) -> list[str]:
    """Return where seeds are missing, or stand twice and are not independent runs."""
    found = []
    for group in groups:
        twice = sorted({seed for seed in group.seeds if group.seeds.count(seed) > 1})
        if twice:
            found.append(
                f"{group.label} has seed {twice[0]} more than once: those runs are not "
                "independent, and its intervals are too narrow."
            )
    pairs = [group.label for group in groups if len(set(group.seeds)) == 2]
    if pairs:
        found.append(f"{', '.join(pairs)}: {TWO_SEEDS}")
    if len({tuple(sorted(set(group.seeds))) for group in groups}) > 1:
        told = "; ".join(f"{g.label}: {', '.join(map(str, g.seeds))}" for g in groups)
        found.append(f"Seeds differ: {told}.")
    return found


def _of(run: ComparedRun, key: str) -> Any:  # noqa: ANN401 (JSON values)
    """Return a dotted key of what the run was measured with; None where it is not there."""
    found: Any = run.run.config
    for part in key.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def _task_names(run: ComparedRun, which: str) -> list[str]:
    """Return a task's name, size and seed as `sums (64, seed 1)`."""
    tasks = _of(run, f"tasks.{which}") or []
    return [
        f"{task.get('name') or task.get('source')} ({task.get('size') or 'all'}, seed "
        f"{task.get('seed', 0)})"
        for task in tasks
    ]


def _hardware(run: ComparedRun) -> str:
    environment = flatten(run.run.environment)
    keys = ("engine.device", "engine.precision", "machine", "cores")
    return ", ".join(str(environment[key]) for key in keys if key in environment)


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        value = ", ".join(f"{key}={text}" for key, text in recipe_keys(value).items())
    elif isinstance(value, list | tuple):
        value = ", ".join(map(str, value))
    text = "none" if value in (None, "") else str(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _names(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
