"""The charts that a run has data for, by section of the page, in its order."""

from collections.abc import Mapping, Sequence
from statistics import fmean

from rloop.evaluation.checkpoints import Checkpoint
from rloop.evaluation.exploration import step_diversity, survey_exploration
from rloop.observe.metric_keys import reward_names
from rloop.report import held_out, selection
from rloop.report.budget import iteration_seconds
from rloop.report.charts.budget import time_figure
from rloop.report.charts.figure import BLUE, ORANGE, Figure
from rloop.report.charts.heatmap import Axes, heatmap_figure
from rloop.report.charts.held_out import drift_figure, overfitting_figure
from rloop.report.charts.pass_curves import pass_figure
from rloop.report.charts.selection import funnel_figure, success_rate_figure
from rloop.report.charts.steps import (
    health_figure,
    named_reward_figure,
    step_figure,
    task_reward_figure,
)
from rloop.report.charts.tuning import tuning_figure
from rloop.report.diversity import diversity_rows, similarity_rows
from rloop.report.held_out import HeldOut
from rloop.report.results import TaskTable
from rloop.report.run_record import Row, RunRecord
from rloop.report.timeline import Timeline
from rloop.store.trajectories import TrajectoryStore

CURVES = (
    ("entropy_mean", "Entropy", "Of the policy, nats per sampled token.", ""),
    ("grad_norm", "Gradient norm", "Before clipping.", ""),
    (
        "gap_mean",
        "Sampler-learner gap",
        "Mean absolute difference of a token's log-probability.",
        "",
    ),
    ("completion_tokens_mean", "Completion length", "Mean tokens of a completion.", ""),
    ("truncated_frac", "Truncated completions", "Cut at the length limit.", ".0%"),
)
DIVERSITY = "1 - mean similarity (token 4-grams, Jaccard) of a problem's completions in a step."
ANSWERS = "Different final answers to a problem in a step, a mean over problems."
MAX_HISTOGRAMS = 6
_TASK_REWARDS = """
    select iteration, step, task, avg(reward) as value from trajectories
    where phase = 'explore' group by all order by all
"""

Others = Mapping[str, Sequence[tuple[str, Checkpoint]]]
"""Checkpoints of other runs by task, with what their curves are called."""


def run_figures(
    record: RunRecord,
    store: TrajectoryStore,
    tables: Sequence[TaskTable],
    tasks: Sequence[HeldOut],
    others: Others,
) -> dict[str, list[Figure]]:
    """Return the charts of each section; a section without data has none."""
    timeline = Timeline(record)
    return {
        "learning": (
            [] if record.is_evaluation else learning_figures(record, timeline, store, tables)
        ),
        "pass_curves": pass_figures(record, tasks, others),
        "forgetting": forgetting_figures(tasks),
        "exploration": [
            *diversity_figures(timeline, store, tasks),
            *exploration_figures(timeline),
        ],
        "selection": selection_figures(record),
        "cost": [] if record.is_evaluation else cost_figures(record),
    }


def learning_figures(
    record: RunRecord, timeline: Timeline, store: TrajectoryStore, tables: Sequence[TaskTable]
) -> list[Figure]:
    """Return training reward against held-out metrics, a picture a task; reward alone without.

    Where there are several training tasks, the reward of each comes behind, and where the recipe
    has rewards of its own, each of those; beside held-out metrics stands correctness then.
    """
    rewards = timeline.value_rows("correct_frac") or timeline.value_rows("reward_mean")
    by_task: list[Figure] = _there(named_reward_figure(timeline, _named_rewards(timeline)))
    if len(record.config.get("tasks", {}).get("train", ())) > 1:
        by_task += _there(task_reward_figure(timeline, _task_rewards(timeline, store)))
    found = [
        overfitting_figure(timeline, table.task, table.headline_metrics, rewards, index)
        for index, table in enumerate(tables)
    ]
    if found or not rewards:
        return [*found, *by_task]
    title, caption = "Training reward", "Mean reward of a step's completions."
    return _there(step_figure(timeline, "reward_mean", title, caption, rewards), *by_task)


def _named_rewards(timeline: Timeline) -> list[Row]:
    """Return the weighted sum and the mean of each reward in each RL step; none without any."""
    names = reward_names(timeline.explore_keys())
    keys = {f"reward_{name}_mean": name for name in names}
    keys |= {"reward_mean": "weighted sum"} if names else {}
    return [
        row | {"reward": name} for key, name in keys.items() for row in timeline.value_rows(key)
    ]


def _task_rewards(timeline: Timeline, store: TrajectoryStore) -> list[Row]:
    """Return the mean reward of each task in each RL step: x, iteration, step, task, value."""
    found = store.query(_TASK_REWARDS).to_pylist()
    return [row | timeline.place(row["iteration"], row["step"]) for row in found]


def pass_figures(record: RunRecord, tasks: Sequence[HeldOut], others: Others) -> list[Figure]:
    """Return pass@k against k of each task."""
    found = []
    for index, held in enumerate(tasks):
        rows = held_out.pass_rows(
            [*held_out.shown_curves(held), *others.get(held.task, ())],
            confidence=record.confidence,
        )
        found.append(pass_figure(held.task, rows, index))
    return _there(*found)


def forgetting_figures(tasks: Sequence[HeldOut]) -> list[Figure]:
    """Return the forgetting and the newly-solved matrix of each task."""
    return [
        figure
        for index, held in enumerate(tasks)
        for is_forgetting in (True, False)
        if (figure := _matrix(held, index, is_forgetting=is_forgetting))
    ]


def diversity_figures(
    timeline: Timeline, store: TrajectoryStore, tasks: Sequence[HeldOut]
) -> list[Figure]:
    """Return how different the completions of a step are, and how alike stretches of steps are."""
    survey = survey_exploration(store)
    steps = step_diversity(store, survey)
    measures = (
        ("diversity", "Diversity", DIVERSITY, lambda step: step.diversity),
        ("distinct_answers", "Distinct answers", ANSWERS, lambda step: step.distinct_answers_mean),
    )
    curves = [
        step_figure(timeline, name, title, caption, diversity_rows(timeline, steps, measure))
        for name, title, caption, measure in measures
    ]
    return _there(*curves, _similarity(*similarity_rows(store, survey, tasks)))


def exploration_figures(timeline: Timeline) -> list[Figure]:
    """Return what RL was like, step by step."""
    curves = [
        step_figure(timeline, key, title, caption, timeline.value_rows(key), unit)
        for key, title, caption, unit in CURVES
    ]
    return _there(health_figure(timeline), *curves, drift_figure(timeline))


def selection_figures(record: RunRecord) -> list[Figure]:
    """Return how the expert sets came about, and how they were learned."""
    limit = (record.config.get("expert") or {}).get("max_success_rate")
    iterations = selection.selected_iterations(record)
    histograms = [
        success_rate_figure(i, selection.success_rate_rows(record.directory, i), limit)
        for i in iterations[-MAX_HISTOGRAMS:]
    ]
    return _there(
        funnel_figure(selection.funnel_rows(record)),
        *histograms,
        tuning_figure(selection.tuning_rows(record)),
    )


def cost_figures(record: RunRecord) -> list[Figure]:
    """Return where the time went."""
    return _there(time_figure(iteration_seconds(record.events)))


def _matrix(held: HeldOut, index: int, *, is_forgetting: bool) -> Figure | None:
    kind, color = ("forgotten", ORANGE) if is_forgetting else ("newly solved", BLUE)
    sides = ("solved by", "not solved by")
    knew, knows = sides if is_forgetting else sides[::-1]
    rows = held_out.matrix_rows(held, is_forgetting=is_forgetting)
    caption = f"Percent of the problems {knew} the row's policy that are {knows} the column's."
    if left_out := held_out.num_left_out(held):
        caption += f" {left_out} measurements inside RL are left out."
    ends = [row for row in rows if row["a"] == held.reference.label][-1:]
    said = "".join(f" {row['a']} to {row['b']}: {row['said']}." for row in ends)
    words = (
        f"{kind.capitalize()}: {held.task}",
        caption,
        f"Matrix of problems {kind}, checkpoint against checkpoint.{said}",
    )
    figure_id = f"{kind.replace(' ', '-')}-{index}"
    return heatmap_figure(figure_id, words, rows, Axes(row=knew, column=knows), color)


def _similarity(rows: Sequence[Row], of: str) -> Figure | None:
    if not rows:
        return None
    most = max(row["value"] or 0.0 for row in rows)
    apart = [row["value"] for row in rows if row["a"] != row["b"] and row["value"] is not None]
    words = (
        f"Similarity of {of}",
        "Percent of token 4-grams that two completions of one problem share. Paler away from the "
        "diagonal: the policies differ.",
        f"Mean similarity between different {of}: {fmean(apart):.3f}.",
    )
    side = "iteration: RL steps" if of == "RL steps" else "policy"
    return heatmap_figure("similarity", words, rows, Axes(row=side, column=side), BLUE, most or 1.0)


def _there(*figures: Figure | None) -> list[Figure]:
    return [figure for figure in figures if figure is not None]
