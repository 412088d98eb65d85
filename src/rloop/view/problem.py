"""One problem over a whole run, and the same problem in the other runs of the folder."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rloop.report.charts.figure import CATEGORIES
from rloop.store.index import GroupIndex, read_step
from rloop.view.folder import ViewedRun

_GROUPS = """
    select file, iteration, moment, phase, step, policy, task, size, num_correct, num_error,
        num_truncated, tokens
    from groups where problem_id = ? order by iteration, moment, phase desc, file
"""
_PROBLEMS = """
    select problem_id, any_value(task) as task, count(*) as num_groups, sum(size)::bigint as size,
        sum(num_correct)::bigint as num_correct,
        sum(num_correct)::double / sum(size) as success_rate
    from groups where contains(lower(problem_id), lower(?)) group by problem_id
    order by {order}, problem_id limit ? offset ?
"""
ORDERS = {
    "hardest": "success_rate",
    "easiest": "success_rate desc",
    "name": "task",
}
PROBLEMS_A_PAGE = 100


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


def problem_lines(index: GroupIndex, text: str, order: str, page: int) -> list[dict[str, Any]]:
    """Return a page of the run's problems whose id has the text, with how often they are solved."""
    sql = _PROBLEMS.format(order=ORDERS.get(order, ORDERS["hardest"]))
    return index.query(sql, [text, PROBLEMS_A_PAGE + 1, page * PROBLEMS_A_PAGE])


def success_rows(problem: ProblemInRun) -> list[dict[str, Any]]:
    """Return a point for each group: run, x, rate, and what a reader is told of it."""
    return [
        {
            "run": problem.run,
            "x": group["x"],
            "rate": group["num_correct"] / group["size"],
            "label": checkpoint_label(group)
            + (f", step {group['step']}" if group["phase"] == "explore" else ""),
            "solved": f"{group['num_correct']} of {group['size']}",
        }
        for group in problem.groups
    ]


def success_chart(problems: Sequence[ProblemInRun]) -> dict[str, Any]:
    """Return success rate over RL steps as Vega-Lite, a line for each run."""
    color: dict[str, Any] = {"value": CATEGORIES[0]}
    if len(problems) > 1:
        scale = {"domain": [problem.run for problem in problems], "range": list(CATEGORIES)}
        color = {"field": "run", "type": "nominal", "scale": scale, "legend": {"title": None}}
    x = {"title": "RL steps, all iterations", "axis": {"grid": False, "tickMinStep": 1}}
    y = {"title": None, "scale": {"domain": [0, 1]}, "axis": {"format": ".0%"}}
    told = {"run": "run", "label": "sampled from", "solved": "correct"}
    return {
        "$schema": "https://vega.github.io/schema/vega-lite/v6.json",
        "width": "container",
        "height": 220,
        "data": {"values": [row for problem in problems for row in success_rows(problem)]},
        "mark": {"type": "line", "point": {"size": 45, "filled": True}, "strokeWidth": 1.5},
        "encoding": {
            "x": {"field": "x", "type": "quantitative", **x},
            "y": {"field": "rate", "type": "quantitative", **y},
            "color": color,
            "tooltip": [{"field": field, "title": title} for field, title in told.items()],
        },
    }
