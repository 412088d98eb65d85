"""The pages: of a folder, of a run, of its steps, problems and completions, and the search."""

from typing import Any

import pyarrow.compute as pc
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response

from rloop.errors import StoreError
from rloop.recipe.methods import method_title
from rloop.report.html import content_policy, page_script, specs_of, vega_library
from rloop.report.summary import describe_run
from rloop.report.tables import task_tables
from rloop.run_directory import Run
from rloop.store.index import StepFile, read_step
from rloop.view import problem as problems_of
from rloop.view.html import file_of, folder_of, link, number_of, page, run_of
from rloop.view.progress import last_numbers, run_phases, run_state, where
from rloop.view.runs import ViewedRun
from rloop.view.tokens import tokens_of
from rloop.view.trajectories import (
    CARDS_A_PAGE,
    COLUMNS,
    Filters,
    group_lines,
    group_view,
    search,
    shown_row,
    step_label,
)

STEPS_A_PAGE = 500
GROUPS_A_PAGE = 100
DETAILS = (
    *("temperature", "top_p", "top_k", "seed", "policy_version"),
    *("verifier_version", "template_version", "group_id"),
)


def folder(request: Request) -> Response:
    """Show the runs of the folder; a folder that is a run itself leads to that run."""
    viewed = folder_of(request)
    runs = list(viewed.runs().values())
    if viewed.is_run and runs:
        return RedirectResponse(link("/run", run=runs[0].name))
    return page(
        "folder.html.j2",
        title=f"{viewed.root.name}: rloop view",
        folder=viewed.root,
        runs=[_summary(run) for run in runs],
    )


def run(request: Request) -> Response:
    """Show one run: state, phases, latest measurements; its charts come as a page of their own."""
    viewed = run_of(request)
    found, problem = viewed.read()
    state = run_state(found, viewed.changed_s)
    phases = run_phases(found, is_running=state.name == "running")
    return page(
        "run.html.j2",
        **_frame(viewed, "run"),
        record=found,
        problem=problem,
        state=state,
        method=describe_run(found),
        phases=phases,
        steps=where(phases)[1:],
        tables=task_tables(found),
        has_report=(viewed.path / "report.html").exists(),
    )


def report(request: Request) -> Response:
    """Return the run's report.html as it is; only the scripts that rloop itself puts there run."""
    viewed = run_of(request)
    path = viewed.path / "report.html"
    if path.is_symlink() or not path.is_file():
        raise HTTPException(
            404, f"{viewed.name} has no report.html yet; run `rloop report` to write it."
        )
    policy = content_policy(vega_library(), page_script())
    return FileResponse(
        path,
        media_type="text/html; charset=utf-8",
        headers={"Content-Security-Policy": f"{policy}; frame-ancestors 'none'"},
    )


def charts(request: Request) -> Response:
    """Return the charts of a run, as the report has them."""
    sections, problem = run_of(request).charts()
    figures = [figure for _, some in sections for figure in some]
    return page("charts.html.j2", sections=sections, specs=specs_of(figures), problem=problem)


def steps(request: Request) -> Response:
    """List the steps of an iteration and what was measured in it; the latest one by default."""
    viewed = run_of(request)
    iterations = sorted({file.iteration for file in viewed.index.files.values()})
    iteration = number_of(request, "iteration", iterations[-1] if iterations else 0)
    number = number_of(request, "page")
    explored = problems_of.step_lines(viewed.index, iteration, "explore")
    return page(
        "steps.html.j2",
        **_frame(viewed, "steps"),
        iterations=iterations,
        iteration=iteration,
        explored=explored[number * STEPS_A_PAGE : (number + 1) * STEPS_A_PAGE],
        num_explored=len(explored),
        page=number,
        page_size=STEPS_A_PAGE,
        measured=problems_of.step_lines(viewed.index, iteration, "evaluate"),
    )


def step(request: Request) -> Response:
    """Show a step: its groups as a list, and the completions of one of them side by side."""
    viewed = run_of(request)
    file, filters = file_of(request, viewed), _filters(request)
    shown: dict[str, Any] = {"label": step_label(file), "group": None, "problem": ""}
    try:
        shown |= _groups(request, viewed, file, filters)
    except StoreError as error:
        shown["problem"] = str(error)
    # The problems of RL steps differ; those of evaluations are the same ones again.
    is_followed = shown["group"] and file.phase == "evaluate"
    followed = shown["group"]["problem_id"] if is_followed else ""
    before, after = problems_of.neighbours(viewed.index, file, followed)
    shown |= {"followed": followed, "before": before, "after": after}
    return page("step.html.j2", **_frame(viewed, "steps"), file=file, filters=filters, **shown)


def _groups(
    request: Request, viewed: ViewedRun, file: StepFile, filters: Filters
) -> dict[str, Any]:
    rows = read_step(file, COLUMNS)
    matches = filters.mask(rows)
    lines = group_lines(rows, matches)
    names = [line["problem_id"] for line in lines]
    wanted = request.query_params.get("group") or (names[0] if names else "")
    first = number_of(request, "first")
    group = group_view(rows, matches, wanted, first) if wanted else None
    if wanted and group is None:
        raise HTTPException(404, f"{step_label(file)} of {viewed.name} has no problem {wanted!r}.")
    place = names.index(wanted) if wanted in names else None
    number = number_of(request, "page", (place or 0) // GROUPS_A_PAGE)
    return {
        "lines": lines[number * GROUPS_A_PAGE : (number + 1) * GROUPS_A_PAGE],
        "num_lines": len(lines),
        "num_groups": len(set(rows["problem_id"].to_pylist())),
        "num_rows": rows.num_rows,
        "num_matches": int(matches.sum()),
        "label": step_label(file, group["policy"] if group else ""),
        "task": group["task"] if group and file.phase == "evaluate" else "",
        "page": number,
        "page_size": GROUPS_A_PAGE,
        "group": group,
        "first": first,
        "cards_a_page": CARDS_A_PAGE,
        "previous": names[place - 1] if place else "",
        "next": names[place + 1] if place is not None and place + 1 < len(names) else "",
    }


def completion(request: Request) -> Response:
    """Show one completion whole, token by token where the run has its tokenizer."""
    viewed = run_of(request)
    file = file_of(request, viewed)
    problem_id, member = request.query_params.get("group", ""), number_of(request, "member")
    rows = read_step(file, [*COLUMNS, "completion_ids", "behavior_logprobs", *DETAILS])
    is_meant = pc.and_(pc.equal(rows["problem_id"], problem_id), pc.equal(rows["member"], member))
    rows = rows.filter(is_meant)
    if not rows.num_rows:
        raise HTTPException(
            404,
            f"{step_label(file)} of {viewed.name} has no completion {member} of {problem_id!r}.",
        )
    (row,) = rows.slice(0, 1).to_pylist()
    ids, logprobs = row["completion_ids"], row["behavior_logprobs"]
    return page(
        "completion.html.j2",
        **_frame(viewed, "steps"),
        file=file,
        label=step_label(file, row["policy"]),
        row=shown_row(row),
        problem_id=problem_id,
        details={name: row[name] for name in DETAILS},
        tokens=tokens_of(viewed.path, ids, logprobs, row["completion_text"]),
    )


def problems(request: Request) -> Response:
    """List the problems of a run with how often they were solved."""
    viewed = run_of(request)
    text, number = request.query_params.get("problem", ""), number_of(request, "page")
    order = request.query_params.get("order", "hardest")
    rows = problems_of.problem_lines(viewed.index, text, order, number)
    size = problems_of.PROBLEMS_A_PAGE
    return page(
        "problems.html.j2",
        **_frame(viewed, "problems"),
        rows=rows[:size],
        has_more=len(rows) > size,
        text=text,
        page=number,
        order=order,
        orders=list(problems_of.ORDERS),
    )


def problem(request: Request) -> Response:
    """Show one problem over the whole run, and in the other runs of the folder."""
    viewed = run_of(request)
    problem_id = request.query_params.get("problem", "")
    wanted = request.query_params.getlist("with")
    every = [other for other in folder_of(request).runs().values() if other is not viewed]
    others, left_out = problems_of.runs_with(problem_id, viewed, every)
    if wanted:
        others = [other for other in every if other.name in wanted]
        sharing = problems_of.sharing_tasks(viewed, every)
        left_out = [other for other in sharing if other not in others]
    for other in others:
        other.index.refresh()
    here = problems_of.problem_in_run(viewed, problem_id)
    if not here.groups and not viewed.index.num_waiting:
        raise HTTPException(404, f"{viewed.name} has no problem {problem_id!r}.")
    found = [problems_of.problem_in_run(other, problem_id) for other in others]
    same = [here, *(other for other in found if not here.difference(other))]
    longest = max((one.read()[0] for one in (viewed, *others)), key=lambda run: run.num_steps)
    figure = problems_of.success_figure(longest.spans, same)
    frame = _frame(viewed, "problems")
    for other in others:
        frame["num_waiting"] += other.index.num_waiting
        frame["num_files"] += len(other.index.files)
    return page(
        "problem.html.j2",
        **frame,
        problem_id=problem_id,
        here=here,
        same=same,
        labels=problems_of.labels(same),
        different=[(other.run, said) for other in found if (said := here.difference(other))],
        left_out=[other.name for other in left_out],
        figure=figure,
        specs=specs_of([figure]),
    )


def search_page(request: Request) -> Response:
    """Search the texts of a run, the newest step first, some steps at a time."""
    viewed, filters = run_of(request), _filters(request)
    phase = request.query_params.get("phase", "")
    after = request.query_params.get("after", "")
    found = search(viewed.index, filters, phase=phase, after=after) if filters.given else None
    return page(
        "search.html.j2", **_frame(viewed, "search"), filters=filters, phase=phase, found=found
    )


def _filters(request: Request) -> Filters:
    names = ("verdict", "finish", "text", "problem")
    return Filters(**{name: request.query_params.get(name, "") for name in names})


def _frame(viewed: ViewedRun, tab: str) -> dict[str, Any]:
    """Return what every page of a run shows around its own."""
    return {
        "title": f"{viewed.name}: rloop view",
        "run": viewed.name,
        "tab": tab,
        "before_rl": "measured" if viewed.read()[0].is_evaluation else "before RL",
        "num_waiting": viewed.index.num_waiting,
        "num_files": len(viewed.index.files),
        "damaged": viewed.index.damaged,
    }


def _summary(viewed: ViewedRun) -> dict[str, Any]:
    found, problem = viewed.read()
    place, done, total = where(run_phases(found, is_running=True))
    return {
        "name": viewed.name,
        "problem": problem,
        "method": _method(found),
        "seed": found.config.get("seed"),
        "state": run_state(found, viewed.changed_s),
        "where": place,
        "done": done,
        "total": total,
        "numbers": last_numbers(task_tables(found)),
    }


def _method(found: Run) -> str:
    if found.is_evaluation:
        return "Evaluation"
    return method_title(found.config) if found.config.get("explore") else ""
