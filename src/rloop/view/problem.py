"""What the group index says of a run's steps and problems, and of one problem in several runs."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rloop.report.charts import COLORS, Figure, Heading, cycle
from rloop.report.step_charts import checkpoints_by_step
from rloop.run_directory import Run, Span
from rloop.store.index import GroupIndex, StepFile, read_step
from rloop.types import policy_kind
from rloop.view.runs import ViewedRun
from rloop.view.trajectories import step_label

_STEPS = """
    select file, any_value(policy) as policy, string_agg(distinct task, ', ' order by task) as task,
        count(*) as num_groups, sum(size)::bigint as size, sum(num_correct)::bigint as num_correct,
        sum(num_error)::bigint as num_error, sum(num_truncated)::bigint as num_truncated,
        sum(tokens)::bigint as tokens, sum(reward) as reward,
        count(*) filter (is_mixed) as num_mixed,
        count(*) filter (num_correct = size) as num_all_correct,
        count(*) filter (num_correct > 0) as num_solved,
        greatest(0, num_groups - num_mixed - num_all_correct) as num_all_wrong
    from groups where iteration = ? group by file
"""
_GROUPS = """
    select file, iteration, moment, phase, step, policy, task, size, num_correct, num_error,
        num_truncated, tokens
    from groups where problem_id = ? order by iteration, moment, phase desc, file
"""
_PROBLEMS = """
    select problem_id, any_value(task) as task, any_value(question) as question,
        count(*) as num_groups, sum(size)::bigint as size, sum(num_correct)::bigint as num_correct,
        coalesce(sum(num_correct)::double / nullif(sum(size - num_error), 0), 0) as success_rate
    from groups
    where contains(lower(problem_id), lower($1)) or contains(lower(question), lower($1))
    group by problem_id
    order by {order}, problem_id limit $2 offset $3
"""
ORDERS = {"hardest": "success_rate", "easiest": "success_rate desc", "name": "task"}
PROBLEMS_A_PAGE = 100
MAX_OTHERS = 4
"""Runs that a problem's page shows beside its own."""
MARKS = (
    "The strong line with diamonds joins the checkpoints that the loop keeps; the thin line is RL "
    "within an iteration."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemInRun:
    """A problem's groups in one run, as far as it is counted.

    Example: ProblemInRun(run="demo", groups=[{"file": "1/explore/4", "x": 4, ...}],
    prompt="1+1=", reference="2", note="")
    """

    run: str
    groups: list[dict[str, Any]]
    """In the order of training; `x` counts RL steps over all iterations."""
    prompt: str
    reference: str
    note: str
    """Why it is not compared; empty where it is."""

    @property
    def by_label(self) -> dict[str, tuple[int, int, str]]:
        """Return (correct, samples, last file) by checkpoint, RL steps of an iteration together."""
        found: dict[str, tuple[int, int, str]] = {}
        for group in self.groups:
            label = checkpoint_label(group)
            correct, size, _ = found.get(label, (0, 0, ""))
            found[label] = (correct + group["num_correct"], size + group["size"], group["file"])
        return found

    def difference(self, other: "ProblemInRun") -> str:
        """Return why the problem of the other run is not this one; empty where it is the same."""
        if other.note:
            return other.note
        if other.reference != self.reference:
            return "has a problem of this name with a different reference answer"
        return "" if other.prompt == self.prompt else "asks it with a different prompt"


def step_lines(index: GroupIndex, iteration: int, phase: str) -> list[dict[str, Any]]:
    """Return the steps of a phase in an iteration, in the order of training.

    Keys: file, label, counts (None until it is counted) and damage. A large evaluation is several
    files; from the second on they are numbered.
    """
    counts = {row["file"]: row for row in index.query(_STEPS, [iteration])}
    lines = []
    parts: Counter[tuple[str, str]] = Counter()
    for key, file in index.files.items():
        if (file.iteration, file.phase) == (iteration, phase):
            found = counts.get(key)
            label = step_label(file, found["policy"] if found else "")
            name = label, found["task"] if found else ""
            parts[name] += 1
            label += f", part {parts[name]}" if parts[name] > 1 else ""
            damage = index.damaged.get(key, "")
            lines.append({"file": file, "label": label, "counts": found, "damage": damage})
    return lines


def neighbours(
    index: GroupIndex, file: StepFile, problem_id: str = ""
) -> tuple[StepFile | None, StepFile | None]:
    """Return the files of the same phase before and after this one, over all iterations.

    With a problem, those that have it, so that one problem can be followed from policy to policy.
    """
    keys = [key for key, other in index.files.items() if other.phase == file.phase]
    if problem_id:
        rows = index.query("select distinct file from groups where problem_id = ?", [problem_id])
        having = {row["file"] for row in rows} | {file.key}
        keys = [key for key in keys if key in having]
    place = keys.index(file.key)
    before = index.files[keys[place - 1]] if place else None
    after = index.files[keys[place + 1]] if place + 1 < len(keys) else None
    return before, after


def problem_lines(index: GroupIndex, text: str, order: str, page: int) -> list[dict[str, Any]]:
    """Return a page of the run's problems, and one more, with how often they are solved.

    Those whose id or question has the text.
    """
    sql = _PROBLEMS.format(order=ORDERS.get(order, ORDERS["hardest"]))
    return index.query(sql, [text, PROBLEMS_A_PAGE + 1, page * PROBLEMS_A_PAGE])


def problem_in_run(viewed: ViewedRun, problem_id: str) -> ProblemInRun:
    """Return a problem's groups as far as the run is counted, and what was asked."""
    run, _ = viewed.read()
    index, prompt, reference = viewed.index, "", ""
    groups = [row | {"x": _position(run, row)} for row in index.query(_GROUPS, [problem_id])]
    if groups:
        file = index.files[groups[-1]["file"]]
        rows = read_step(file, ["problem_id", "prompt_text", "reference"])
        place = rows["problem_id"].to_pylist().index(problem_id)
        (first,) = rows.slice(place, 1).to_pylist()
        prompt, reference = first["prompt_text"], first["reference"] or ""
    note = "" if groups else "does not have this problem"
    if not groups and index.num_waiting:
        note = "is still being counted"
    return ProblemInRun(
        run=viewed.name, groups=groups, prompt=prompt, reference=reference, note=note
    )


def runs_with(
    problem_id: str, viewed: ViewedRun, others: Sequence[ViewedRun]
) -> tuple[list[ViewedRun], list[ViewedRun]]:
    """Return some of the runs that share a task with this one, and the rest of them.

    Those that have the problem come first.
    """
    candidates = sharing_tasks(viewed, others)
    found: list[ViewedRun] = []
    missed: list[ViewedRun] = []
    for run in candidates:
        if len(found) == MAX_OTHERS:
            break
        run.index.refresh()
        has = run.index.query("select 1 from groups where problem_id = ? limit 1", [problem_id])
        (found if has else missed).append(run)
    shown = [*found, *missed][:MAX_OTHERS]
    return shown, [run for run in candidates if run not in shown]


def sharing_tasks(viewed: ViewedRun, others: Sequence[ViewedRun]) -> list[ViewedRun]:
    """Return the runs whose recipe takes problems from a source of this one's, or is not known."""
    here = _sources(viewed)
    return [run for run in others if not (here and (there := _sources(run))) or here & there]


def labels(problems: Sequence[ProblemInRun]) -> list[str]:
    """Return the checkpoints of all runs, each once, in the order of training."""
    places = {
        checkpoint_label(group): (group["iteration"], group["phase"] != "explore", group["moment"])
        for found in problems
        for group in found.groups
    }
    return sorted(places, key=lambda label: places[label])


def checkpoint_label(group: Mapping[str, Any]) -> str:
    """Return what a group's completions were sampled from: `iter-001`, `explored-002@40`, ..."""
    if group["phase"] == "explore":
        return f"RL of iteration {group['iteration']}"
    return f"{group['policy']}@{group['step']}" if group["step"] else str(group["policy"])


def success_figure(spans: Sequence[Span], problems: Sequence[ProblemInRun]) -> Figure:
    """Return success rate over RL steps, a color for each run; `spans` are the longest run's."""
    rows = [success_row(problem.run, group) for problem in problems for group in problem.groups]
    marks = f" {MARKS}" if any(row["is_explored"] for row in rows) else ""
    runs = len(problems)
    heading = Heading(
        "success",
        "Success rate",
        f"Each point is a group: the fraction of its completions that are correct"
        f"{', one color per run' if runs > 1 else ''}.{marks}",
        f"Of this problem over RL steps in {runs} run{'s' if runs > 1 else ''}",
    )
    colors = cycle([problem.run for problem in problems], COLORS)
    return checkpoints_by_step(heading, spans, rows, colors, domain=[0, 1])


def success_row(run: str, group: Mapping[str, Any]) -> dict[str, Any]:
    """Return a group as a point of `checkpoints_by_step`, with its rate as value."""
    rate = group["num_correct"] / group["size"]
    is_explored = group["phase"] == "explore" or policy_kind(group["policy"]) == "explored"
    step = f", step {group['step']}" if group["phase"] == "explore" else ""
    return {
        "series": run,
        "x": group["x"],
        "policy": f"{checkpoint_label(group)}{step}, {group['num_correct']} of {group['size']}",
        **dict.fromkeys(("value", "low", "high"), rate),
        "iteration": group["iteration"],
        "line": f"{group['phase']} {group['iteration']}" if is_explored else "kept",
        "is_start": False,
        "is_explored": is_explored,
    }


def _position(run: Run, group: Mapping[str, Any]) -> int:
    if group["step"]:
        return int(run.place(group["iteration"], group["step"])["x"])
    return int(run.position(group))


def _sources(viewed: ViewedRun) -> set[str]:
    tasks = viewed.read()[0].config.get("tasks", {})
    groups = [tasks.get(name) or () for name in ("train", "evaluate")]
    return {str(task["source"]) for group in groups for task in group}
