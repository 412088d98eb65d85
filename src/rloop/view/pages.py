"""The pages of a folder and of a run: what runs, how far it is, how it learns, where to look."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from rloop.recipe.methods import method_title
from rloop.report.html import content_policy, page_script, specs_of, vega_library
from rloop.report.summary import describe_run
from rloop.report.tables import task_tables
from rloop.run_directory import Run
from rloop.view.charts import ChartCache
from rloop.view.folder import Reading, ViewedRun
from rloop.view.html import link
from rloop.view.problem import ORDERS, PROBLEMS_A_PAGE, problem_lines
from rloop.view.progress import State, last_numbers, phases, run_state, summary
from rloop.view.reply import folder_of, number_of, reply, run_of
from rloop.view.steps import step_lines

STEPS_A_PAGE = 500
QUESTIONS_S = 0.4
"""Seconds that the list of problems may spend on reading what they ask."""


def folder(request: Request) -> Response:
    """Show the runs of the folder; a folder that is a run itself leads to that run."""
    viewed = folder_of(request)
    runs = list(viewed.runs().values())
    if viewed.is_run and runs:
        return RedirectResponse(link("/run", run=runs[0].name))
    states = {run.name: _state(run, run.read()).name for run in runs}
    changes = [f"{run.name} {run.signature} {states[run.name]}" for run in runs]
    return reply(
        request,
        "folder.html.j2",
        changes,
        lambda: {
            "title": f"{viewed.root.name}: rloop view",
            "folder": viewed.root,
            "runs": [_summary(run) for run in runs],
        },
    )


def run(request: Request) -> Response:
    """Show one run: state, phases, latest measurements; its charts come as a page of their own."""
    viewed = run_of(request)
    reading = viewed.read()
    state = _state(viewed, reading)

    def values() -> dict[str, Any]:
        record = reading.record
        return {
            **frame(viewed, "run"),
            "record": record,
            "reading": reading,
            "state": state,
            "method": describe_run(record),
            "phases": phases(record, is_running=state.name == "running"),
            "tables": task_tables(record),
            "steps": summary(record)[1:],
        }

    return reply(request, "run.html.j2", [viewed.content, state.name], values)


def report(request: Request) -> Response:
    """Return the run's report.html as it is; only the scripts that rloop itself puts there run."""
    viewed = run_of(request, count_s=0)
    path = viewed.path / "report.html"
    if path.is_symlink() or not path.is_file():
        raise HTTPException(404, f"{viewed.name} has no report.html; rloop report writes it.")
    policy = content_policy(vega_library(), page_script())
    return FileResponse(
        path,
        media_type="text/html; charset=utf-8",
        headers={"Content-Security-Policy": f"{policy}; frame-ancestors 'none'"},
    )


def charts(request: Request) -> Response:
    """Return the charts of a run, as the report has them."""
    cache: ChartCache = request.app.state.charts
    drawn = cache.of(run_of(request, count_s=0))
    return reply(
        request,
        "charts.html.j2",
        [drawn.signature, drawn.problem],
        lambda: {
            "sections": drawn.sections,
            "specs": specs_of([one for _, figures in drawn.sections for one in figures]),
            "problem": drawn.problem,
        },
    )


def steps(request: Request) -> Response:
    """List the steps of an iteration and what was measured in it; the latest one by default."""
    viewed = run_of(request)
    index = viewed.index
    iterations = sorted({file.iteration for file in index.files.values()})
    iteration = number_of(request, "iteration", iterations[-1] if iterations else 0)
    page = number_of(request, "page")

    def values() -> dict[str, Any]:
        explored = step_lines(index, iteration, "explore")
        begin = page * STEPS_A_PAGE
        return {
            **frame(viewed, "steps"),
            "iterations": iterations,
            "iteration": iteration,
            "explored": explored[begin : begin + STEPS_A_PAGE],
            "num_explored": len(explored),
            "page": page,
            "page_size": STEPS_A_PAGE,
            "measured": step_lines(index, iteration, "evaluate"),
        }

    return reply(request, "steps.html.j2", [viewed.content], values)


def problems(request: Request) -> Response:
    """List the problems of a run with how often they were solved."""
    viewed = run_of(request)
    text, page = request.query_params.get("problem", ""), number_of(request, "page")
    order = request.query_params.get("order", "hardest")
    num_unread = viewed.questions.read(viewed.index, QUESTIONS_S)

    def values() -> dict[str, Any]:
        rows = problem_lines(viewed.index, viewed.questions, text, order, page)
        return {
            **frame(viewed, "problems"),
            "rows": rows[:PROBLEMS_A_PAGE],
            "questions": viewed.questions,
            "num_unread": num_unread,
            "has_more": len(rows) > PROBLEMS_A_PAGE,
            "text": text,
            "page": page,
            "order": order,
            "orders": list(ORDERS),
        }

    changes = [viewed.content, str(num_unread)]
    return reply(request, "problems.html.j2", changes, values)


def frame(viewed: ViewedRun, tab: str) -> dict[str, Any]:
    """Return what every page of a run shows around its own."""
    return {
        "title": f"{viewed.name}: rloop view",
        "run": viewed.name,
        "tab": tab,
        "before_rl": "measured" if viewed.read().record.is_evaluation else "before RL",
        "num_waiting": viewed.index.num_waiting,
        "num_files": len(viewed.index.files),
        "damaged": viewed.index.damaged,
    }


def _state(viewed: ViewedRun, reading: Reading) -> State:
    return run_state(viewed.path, reading.record, viewed.changed_s)


def _summary(viewed: ViewedRun) -> dict[str, Any]:
    reading = viewed.read()
    record = reading.record
    where, done, total = summary(record)
    return {
        "name": viewed.name,
        "problem": reading.problem,
        "method": _method(record),
        "seed": record.config.get("seed"),
        "state": _state(viewed, reading),
        "where": where,
        "done": done,
        "total": total,
        "numbers": last_numbers(task_tables(record)),
        "changed_s": viewed.changed_s,
    }


def _method(record: Run) -> str:
    if record.is_evaluation:
        return "Evaluation"
    return method_title(record.config) if record.config.get("explore") else ""
