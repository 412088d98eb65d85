"""One problem over a whole run, and the same problem in the other runs of the folder."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rloop.report.charts import COLORS
from rloop.store.index import GroupIndex, read_step
from rloop.types import policy_kind
from rloop.view.folder import ViewedRun
from rloop.view.questions import Questions

_GROUPS = """
    select file, iteration, moment, phase, step, policy, task, size, num_correct, num_error,
        num_truncated, tokens
    from groups where problem_id = ? order by iteration, moment, phase desc, file
"""
_PROBLEMS = """
    select problem_id, any_value(task) as task, count(*) as num_groups, sum(size)::bigint as size,
        sum(num_correct)::bigint as num_correct,
        coalesce(sum(num_correct)::double / nullif(sum(size - num_error), 0), 0) as success_rate
    from groups where contains(lower(problem_id), lower(?)) or problem_id in (select unnest(?))
    group by problem_id
    order by {order}, problem_id limit ? offset ?
"""
ORDERS = {
    "hardest": "success_rate",
    "easiest": "success_rate desc",
    "name": "task",
}
PROBLEMS_A_PAGE = 100
MAX_OTHERS = 4
"""Runs that a problem's page shows beside its own."""
LOOK_S = 0.5
"""Seconds that a page may spend on looking for them."""
LOOK_EACH_S = 0.1
MARKS = (
    "The strong line with diamonds joins the policies that the loop goes on with; the thin line is "
    "RL inside an iteration."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProblemInRun:
    """A problem's groups in one run.

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


def checkpoint_label(group: Mapping[str, Any]) -> str:
    """Return what a group's completions were sampled from: `iter-001`, `explored-002@40`, ..."""
    if group["phase"] == "explore":
        return f"RL of iteration {group['iteration']}"
    return f"{group['policy']}@{group['step']}" if group["step"] else str(group["policy"])


def problem_in_run(run: ViewedRun, problem_id: str) -> ProblemInRun:
    """Return a problem's groups as far as the run is counted, and what was asked."""
    ends = iteration_ends(run.index)
    groups = [row | {"x": _position(row, ends)} for row in run.index.query(_GROUPS, [problem_id])]
    prompt = reference = ""
    if groups:
        file = run.index.files[groups[-1]["file"]]
        rows = read_step(file, ["problem_id", "prompt_text", "reference"])
        place = rows["problem_id"].to_pylist().index(problem_id)
        first = rows.slice(place, 1).to_pylist()[0]
        prompt, reference = first["prompt_text"], first["reference"] or ""
    note = "" if groups else "does not have this problem"
    if not groups and run.index.num_waiting:
        note = "is not counted to the end yet"
    return ProblemInRun(run=run.name, groups=groups, prompt=prompt, reference=reference, note=note)


def sharing_tasks(viewed: ViewedRun, others: Sequence[ViewedRun]) -> list[ViewedRun]:
    """Return the runs whose recipe takes problems from a source of this one's, or is not known."""
    here = _sources(viewed)
    return [run for run in others if not (here and (there := _sources(run))) or here & there]


def runs_with(
    problem_id: str, viewed: ViewedRun, others: Sequence[ViewedRun]
) -> tuple[list[ViewedRun], list[ViewedRun]]:
    """Return the runs that have the problem, as far as there is time to look, and those left out.

    Runs that share no task are neither. Behind those that have it come some that do not.
    """
    found: list[ViewedRun] = []
    missed: list[ViewedRun] = []
    candidates = sharing_tasks(viewed, others)
    deadline = time.monotonic() + LOOK_S
    for run in candidates:
        if len(found) == MAX_OTHERS or (missed and time.monotonic() > deadline):
            break
        run.index.refresh(LOOK_EACH_S)
        has = run.index.query("select 1 from groups where problem_id = ? limit 1", [problem_id])
        (found if has else missed).append(run)
    shown = [*found, *missed][:MAX_OTHERS]
    return shown, [run for run in candidates if run not in shown]


def _sources(run: ViewedRun) -> set[str]:
    tasks = run.read().record.config.get("tasks", {})
    groups = [tasks.get(name) or () for name in ("train", "evaluate")]
    return {str(task["source"]) for group in groups for task in group}


def iteration_ends(index: GroupIndex) -> dict[int, tuple[int, int]]:
    """Return where each iteration's RL begins and ends, in RL steps over all iterations.

    Example: two iterations of 20 steps give {0: (0, 0), 1: (0, 20), 2: (20, 40)}.
    """
    lengths: dict[int, int] = {}
    for file in index.files.values():
        lengths[file.iteration] = max(lengths.get(file.iteration, 0), file.step)
    ends, end = {}, 0
    for iteration, length in sorted(lengths.items()):
        ends[iteration] = (end, end + length)
        end += length
    return ends


def _position(group: Mapping[str, Any], ends: Mapping[int, tuple[int, int]]) -> int:
    begin, end = ends.get(group["iteration"], (0, 0))
    return begin + group["step"] if group["step"] else end


def difference(here: ProblemInRun, other: ProblemInRun) -> str:
    """Return why the problem of the other run is not this one; empty where it is the same."""
    if other.note:
        return other.note
    if other.reference != here.reference:
        return "has a problem of this name with another reference answer"
    return "" if other.prompt == here.prompt else "asks it with another prompt"


def problem_lines(
    index: GroupIndex, questions: Questions, text: str, order: str, page: int
) -> list[dict[str, Any]]:
    """Return a page of the run's problems with how often they are solved.

    Those whose id or question has the text, as far as questions were read.
    """
    sql = _PROBLEMS.format(order=ORDERS.get(order, ORDERS["hardest"]))
    asked = questions.find(text) if text else []
    return index.query(sql, [text, asked, PROBLEMS_A_PAGE + 1, page * PROBLEMS_A_PAGE])


def success_rows(problem: ProblemInRun) -> list[dict[str, Any]]:
    """Return a point for each group: run, x, rate, and what a reader is told of it.

    `line` is the stroke that joins it: the policies kept, or RL of one iteration.
    """
    return [
        {
            "run": problem.run,
            "x": group["x"],
            "rate": group["num_correct"] / group["size"],
            "is_kept": is_kept(group),
            "line": "kept" if is_kept(group) else f"{group['phase']} {group['iteration']}",
            "label": checkpoint_label(group)
            + (f", step {group['step']}" if group["phase"] == "explore" else ""),
            "solved": f"{group['num_correct']} of {group['size']}",
        }
        for group in problem.groups
    ]


def is_kept(group: Mapping[str, Any]) -> bool:
    """Whether a group was sampled to measure a policy that the loop goes on with."""
    is_inside = group["phase"] == "explore" or policy_kind(str(group["policy"])) == "explored"
    return not is_inside


def success_chart(problems: Sequence[ProblemInRun]) -> dict[str, Any]:
    """Return success rate over RL steps as Vega-Lite, a color for each run, marks as the report's.

    Policies kept are diamonds on a strong line; RL inside an iteration is a thin line with dots.
    """
    color: dict[str, Any] = {"value": COLORS[0]}
    if len(problems) > 1:
        scale = {"domain": [problem.run for problem in problems], "range": list(COLORS)}
        color = {"field": "run", "type": "nominal", "scale": scale, "legend": {"title": None}}
    x = {"title": "RL steps, all iterations", "axis": {"grid": False, "tickMinStep": 1}}
    y = {"title": None, "scale": {"domain": [0, 1]}, "axis": {"format": ".0%"}}
    told = {"run": "run", "label": "sampled from", "solved": "correct"}
    dots = {"size": 45, "filled": True, "opacity": 1}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": 220,
        "data": {"values": [row for problem in problems for row in success_rows(problem)]},
        "encoding": {
            "x": {"field": "x", "type": "quantitative", **x},
            "y": {"field": "rate", "type": "quantitative", **y},
            "color": color,
            "detail": [{"field": "run"}, {"field": "line"}],
            "tooltip": [{"field": field, "title": title} for field, title in told.items()],
        },
        "layer": [
            _stroke("!datum.is_kept", 1.2, dots),
            _stroke("datum.is_kept", 2.6, dots | {"size": 80, "shape": "diamond"}),
        ],
    }


def _stroke(which: str, width: float, point: Mapping[str, Any]) -> dict[str, Any]:
    mark = {"type": "line", "strokeWidth": width, "point": dict(point)}
    return {"transform": [{"filter": which}], "mark": mark}
