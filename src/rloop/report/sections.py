"""Which charts a run's page has, by section and in its order: learning and held-out problems here,
exploration, selection and cost in `phase_figures`. A chart without data is left out.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from rloop.evaluation.checkpoints import (
    MAX_CHECKPOINTS,
    Checkpoint,
    default_ks,
    evenly_spaced,
    pass_curve,
    solved_matrix,
    spread_checkpoints,
)
from rloop.evaluation.forgetting import forgetting_matrix, newly_solved_matrix
from rloop.evaluation.intervals import Estimate
from rloop.observe.metric_keys import reward_names
from rloop.report import charts
from rloop.report.charts import BLUE, GREEN, ORANGE, Figure, Heading
from rloop.report.held_out import HeldOut
from rloop.report.phase_figures import (
    curve_figure,
    exploration_figures,
    selection_figures,
    time_figure,
)
from rloop.report.step_charts import checkpoints_by_step, curves_by_step
from rloop.report.tables import TaskTable
from rloop.report.temperatures import after_training, tables_of
from rloop.report.temperatures import curve_figure as temperature_figure
from rloop.run_directory import Row, Run, estimate, estimates
from rloop.store.trajectories import TrajectoryStore

MAX_CURVES = 6
"""Policies whose pass@k is drawn: the first, the last and some between."""
NARROWER = (
    "A curve that starts above another and ends below it: better single answers, less coverage."
)
_TASK_REWARDS = """
    select iteration, step, task as series, sum(reward_sum) / sum(num_rows) as value from groups
    where phase = 'explore' group by all order by all
"""

Others = Mapping[str, Sequence[tuple[str, Checkpoint]]]
"""Checkpoints of other runs by task, with what their curves are called."""
Measures = Callable[[Row], Iterable[tuple[str, Estimate]]]
"""What an evaluate line says, as (series, estimate)."""


def run_figures(
    run: Run,
    store: TrajectoryStore,
    tables: Sequence[TaskTable],
    tasks: Sequence[HeldOut],
    others: Others,
) -> dict[str, list[Figure]]:
    """Return the charts of each section; a section without data has none."""
    found: dict[str, Iterable[Figure | None]] = {
        "learning": () if run.is_evaluation else learning_figures(run, store, tables),
        "pass_curves": [pass_figure(run, held, i, others) for i, held in enumerate(tasks)],
        "temperatures": [
            temperature_figure(*table, index)
            for index, table in enumerate(tables_of(after_training(run).points).items())
        ],
        "forgetting": [
            matrix_figure(held, index, is_forgetting=is_forgetting)
            for index, held in enumerate(tasks)
            for is_forgetting in (True, False)
        ],
        "exploration": [*exploration_figures(run, store, tasks), _drift(run)],
        "selection": selection_figures(run),
        "cost": () if run.is_evaluation else [time_figure(run)],
    }
    return {name: [one for one in some if one is not None] for name, some in found.items()}


# Learning


def learning_figures(
    run: Run, store: TrajectoryStore, tables: Sequence[TaskTable]
) -> list[Figure | None]:
    """Return training reward against held-out metrics, a picture a task; reward alone without.

    Where there are several training tasks, the reward of each comes behind, and where the recipe
    has rewards of its own, each of those; beside held-out metrics stands correctness then.
    """
    rewards = run.explored("correct_frac") or run.explored("reward_mean")
    apart = [named_rewards(run), task_rewards(run, store)]
    if tables or not rewards:
        held = [_held_out(run, table, rewards, index) for index, table in enumerate(tables)]
        return [*held, *apart]
    words = ("reward_mean", "Training reward", "Mean reward of a step's completions.")
    return [curve_figure(run, words, rewards), *apart]


def _held_out(run: Run, table: TaskTable, rewards: Sequence[Row], index: int) -> Figure:
    names = {name: f"held-out {name}" for name in table.headline_metrics}
    rows = checkpoint_rows(
        run,
        lambda line: [
            (names[metric], found)
            for task, metric, found in estimates(line)
            if task == table.task and metric in names
        ],
    )
    reward = "training reward"
    colors = ({reward: GREEN} if rewards else {}) | charts.cycle([*names.values()], (BLUE, ORANGE))
    parts = []
    if rewards:
        ends = f"{rewards[0]['value']:.1%} to {rewards[-1]['value']:.1%}"
        parts.append(f"Training reward from {ends}")
    for name in names.values():
        kept = [row for row in rows if row["line"] == "kept" and row["series"] == name]
        told = ", ".join(f"{row['policy']} {row['value']:.1%}" for row in kept)
        parts.append(f"{name}: {told}")
    heading = Heading(
        f"held-out-{index}",
        table.task,
        "Green line without points: mean reward over all training tasks, the same for every "
        "held-out task. Diamonds: checkpoints that the loop keeps, with their intervals. "
        "Thin lines with bands: RL within an iteration. Dashed: where the loop started.",
        f"{'; '.join(parts)}.",
    )
    shown = [row | {"series": reward} for row in rewards]
    return checkpoints_by_step(heading, run.spans, rows, colors, rewards=shown)


def _drift(run: Run) -> Figure | None:
    """Return the divergence of each measured policy from the base; None where none was logged."""
    name = "KL from the loop's start"

    def drift(line: Row) -> list[tuple[str, Estimate]]:
        found = estimate(line, "evaluate/kl_base_mean")
        return [] if found is None else [(name, found)]

    rows = checkpoint_rows(run, drift)
    if not rows:
        return None
    kept = [row for row in rows if row["line"] == "kept"]
    said = ", ".join(f"{row['policy']} {row['value']:.3g}" for row in kept)
    heading = Heading(
        "kl_base_mean",
        name,
        "Nats per token on completions of the policy the loop started from. Diamonds: "
        "kept checkpoints.",
        f"KL divergence of kept checkpoints from the policy the loop started from: {said}.",
    )
    return checkpoints_by_step(heading, run.spans, rows, {name: BLUE}, unit="")


def checkpoint_rows(run: Run, measures: Measures) -> list[Row]:
    """Return a point per measurement: x, policy, series, value, low, high and `line`.

    `line` names the stroke it belongs to: `kept` for the policies that the loop goes on with, or
    the exploration (`RL 1`), which begins at the policy that its iteration started from; that
    first point has `is_start`.
    """
    kept: list[Row] = []
    explored: list[Row] = []
    lines = run.rows("evaluate")
    last = {str(line.get("policy")): line for line in lines}
    for line in lines:
        policy, is_explored = str(line.get("policy")), run.is_explored(line)
        goes_on = run.goes_on(policy, is_explored=is_explored, is_last=line is last[policy])
        for series, found in measures(line):
            point = {"x": run.position(line), "iteration": line["iteration"], "policy": policy}
            point |= {"series": series, "value": found.value, "low": found.low}
            point |= {"high": found.high, "is_start": False, "is_explored": is_explored}
            explored += [point] if is_explored else []
            kept += [point] if goes_on else []
    rows = [{**point, "line": "kept"} for point in kept]
    for span in run.spans:
        members = [p for p in explored if p["iteration"] == span.iteration]
        if members:
            before = [p for p in kept if p["x"] <= span.start and p["iteration"] < span.iteration]
            start = {p["series"]: p for p in before}.values()
            origin = [{**p, "x": span.start, "is_start": True} for p in start]
            rows += [{**p, "line": f"RL {span.iteration}"} for p in (*origin, *members)]
    return rows


def named_rewards(run: Run) -> Figure | None:
    """Return each of the recipe's rewards and their weighted sum over RL steps; None without."""
    lines = run.rows("explore")
    logged = dict.fromkeys(key.removeprefix("explore/") for line in lines for key in line)
    names = reward_names(logged)
    keys = {f"reward_{name}_mean": name for name in names}
    keys |= {"reward_mean": "weighted sum"} if names else {}
    rows = [row | {"series": name} for key, name in keys.items() for row in run.explored(key)]
    caption = (
        "Mean over a step's completions, before weighting. RL learns from the weighted "
        "sum; selection "
        "and evaluation use correctness."
    )
    return _by_series(run, ("rewards", "Rewards", caption), rows, "reward")


def task_rewards(run: Run, store: TrajectoryStore) -> Figure | None:
    """Return the training reward of each task over RL steps; None for fewer than two tasks."""
    if len(run.config.get("tasks", {}).get("train", ())) < 2:
        return None
    found = store.query(_TASK_REWARDS).to_pylist()
    rows = [row | run.place(row["iteration"], row["step"]) for row in found]
    rows.sort(key=lambda row: str(row["series"]))
    if len({row["series"] for row in rows}) < 2:
        return None
    caption = "Mean reward of a step's completions, one line per task."
    return _by_series(run, ("reward-by-task", "Training reward by task", caption), rows, "task")


def _by_series(
    run: Run, words: tuple[str, str, str], rows: Sequence[Row], by: str
) -> Figure | None:
    if not rows:
        return None
    ends: dict[str, list[float]] = {}
    for row in rows:
        ends.setdefault(row["series"], []).append(row["value"])
    said = ", ".join(f"{name} from {v[0]:.4g} to {v[-1]:.4g}" for name, v in ends.items())
    return curves_by_step(Heading(*words, f"{words[1]}: {said}."), run.spans, rows, by=by)


# Held-out problems


def pass_figure(run: Run, held: HeldOut, index: int, others: Others) -> Figure | None:
    """Return pass@k against k of some of a task's policies, and of other runs."""
    chosen = evenly_spaced(range(len(held.line)), MAX_CURVES)
    curves = [(held.line[i].label, held.line[i]) for i in chosen]
    curves += others.get(held.task, ())
    rows = pass_rows(curves, confidence=run.confidence)
    if not rows:
        return None
    first = str(rows[0]["series"])
    caption = f"{first}, with its interval over problems."
    if len(curves) > 1:
        caption = f"Dashed: {first}. {NARROWER}"
    return draw_pass_curves(
        (f"pass-{index}", held.task, caption), rows, series="policy", dashed=first
    )


def pass_rows(curves: Sequence[tuple[str, Checkpoint]], *, confidence: float) -> list[Row]:
    """Return pass@k of each named checkpoint at powers of two and at n."""
    return [
        {"series": name, "x": k, "value": found.value, "low": found.low, "high": found.high}
        for name, one in curves
        for k, found in pass_curve(one, default_ks(one.num_samples), confidence=confidence).items()
    ]


def draw_pass_curves(
    words: tuple[str, str, str], rows: Sequence[Row], *, series: str, dashed: str
) -> Figure:
    """Return pass@k against k, for a run's policies or for methods."""
    ks = sorted({row["x"] for row in rows})
    ends = [row for row in rows if row["x"] in (ks[0], ks[-1])]
    said = ", ".join(f"{row['series']} {row['value']:.1%} at k={row['x']}" for row in ends)
    columns = {"series": series, "x": "k"} | charts.VALUES | {"value": "pass@k"}
    heading = Heading(*words, f"pass@k against k. {said}.")
    return charts.lines_with_bands(heading, rows, charts.powers_of_two(ks), columns, dashed=dashed)


def matrix_figure(held: HeldOut, index: int, *, is_forgetting: bool) -> Figure | None:
    """Return the forgetting or the newly-solved matrix; None for fewer than two checkpoints."""
    rows = matrix_rows(held, is_forgetting=is_forgetting)
    if not rows:
        return None
    kind, color = ("forgotten", ORANGE) if is_forgetting else ("newly solved", BLUE)
    sides = ("solved by", "not solved by")
    knew, knows = sides if is_forgetting else sides[::-1]
    caption = f"Percent of the problems {knew} the row's policy that are {knows} the column's."
    left_out = len(held.checkpoints) - MAX_CHECKPOINTS
    if left_out > 0:
        caption += f" {left_out} measurements within RL are left out."
    ends = [row for row in rows if row["a"] == held.reference.label][-1:]
    said = "".join(f" {row['a']} to {row['b']}: {row['said']}." for row in ends)
    heading = Heading(
        f"{kind.replace(' ', '-')}-{index}",
        f"{kind.capitalize()}: {held.task}",
        caption,
        f"Matrix of problems {kind}, checkpoint against checkpoint.{said}",
    )
    return charts.heatmap(heading, rows, (knew, knows), color)


def matrix_rows(held: HeldOut, *, is_forgetting: bool) -> list[Row]:
    """Return a matrix over checkpoints as rows: a, b, value (None where it is 0/0), said."""
    if len(held.checkpoints) < 2:
        return []
    chosen = spread_checkpoints(held.checkpoints, MAX_CHECKPOINTS)
    shown = [held.checkpoints[index] for index in chosen]
    solved = solved_matrix(shown)
    matrix = forgetting_matrix(solved) if is_forgetting else newly_solved_matrix(solved)
    knew = solved if is_forgetting else ~solved
    whole, part = knew.sum(axis=1), knew.astype(int) @ ~knew.T
    return [
        {
            "a": a.label,
            "b": b.label,
            "value": float(matrix[i, j]) if whole[i] else None,
            "said": f"{part[i, j]} of {whole[i]}",
        }
        for i, a in enumerate(shown)
        for j, b in enumerate(shown)
    ]
