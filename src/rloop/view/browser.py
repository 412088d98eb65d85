"""The trajectory browser: a step's groups side by side, one completion, one problem, a search."""

from typing import Any

import pyarrow.compute as pc
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from rloop.errors import StoreError
from rloop.store.index import StepFile, read_step
from rloop.text import visible
from rloop.view.folder import ViewedRun
from rloop.view.groups import (
    CARDS_A_PAGE,
    COLUMNS,
    Filters,
    GroupLine,
    group_lines,
    group_view,
    logprob_mean,
    named_rewards,
)
from rloop.view.pages import frame
from rloop.view.problem import (
    MARKS,
    ProblemInRun,
    checkpoint_label,
    difference,
    problem_in_run,
    runs_with,
    sharing_tasks,
    success_chart,
    success_rows,
)
from rloop.view.reply import file_of, folder_of, number_of, reply, run_of
from rloop.view.search import search as search_run
from rloop.view.steps import neighbours, step_label
from rloop.view.tokens import tokens_of

GROUPS_A_PAGE = 100
OTHERS_S = 0.15
"""Seconds that a page may spend on counting each run that its address names beside its own."""
DETAILS = (
    *("temperature", "top_p", "top_k", "seed", "policy_version"),
    *("verifier_version", "template_version", "group_id"),
)


def step(request: Request) -> Response:
    """Show a step: its groups as a list, and the completions of one of them side by side."""
    viewed = run_of(request)
    file = file_of(request, viewed)
    filters = filters_of(request)

    def values() -> dict[str, Any]:
        shown = {
            **frame(viewed, "steps"),
            "file": file,
            "label": step_label(file),
            "filters": filters,
            "before": None,
            "after": None,
            "group": None,
            "problem": "",
        }
        try:
            shown |= _groups(request, viewed, file, filters)
        except StoreError as error:
            shown |= {"problem": str(error)}
        # The problems of RL steps differ; those of evaluations are the same ones again.
        followed = shown["followed"] = (
            shown["group"].problem_id if shown["group"] and file.phase == "evaluate" else ""
        )
        shown["before"], shown["after"] = neighbours(viewed.index, file, followed)
        return shown

    identity = f"{file.mtime_ns} {file.size}"
    return reply(request, "step.html.j2", [viewed.content, identity], values)


def _groups(
    request: Request, viewed: ViewedRun, file: StepFile, filters: Filters
) -> dict[str, Any]:
    rows = read_step(file, COLUMNS)
    matches = filters.mask(rows)
    lines = group_lines(rows, matches)
    names = [line.problem_id for line in lines]
    wanted = request.query_params.get("group") or (names[0] if names else "")
    first = number_of(request, "first")
    group = group_view(rows, matches, wanted, first) if wanted else None
    if wanted and group is None:
        raise HTTPException(404, f"{step_label(file)} of {viewed.name} has no problem {wanted!r}.")
    place = names.index(wanted) if wanted in names else None
    page = number_of(request, "page", (place or 0) // GROUPS_A_PAGE)
    return {
        "lines": lines[page * GROUPS_A_PAGE : (page + 1) * GROUPS_A_PAGE],
        "num_lines": len(lines),
        "num_groups": len(set(rows["problem_id"].to_pylist())),
        "num_rows": rows.num_rows,
        "num_matches": int(matches.sum()),
        "label": step_label(file, group.policy if group else ""),
        "task": group.task if group and file.phase == "evaluate" else "",
        "page": page,
        "page_size": GROUPS_A_PAGE,
        "group": group,
        "first": first,
        "cards_a_page": CARDS_A_PAGE,
        "previous": _neighbour(lines, place, -1),
        "next": _neighbour(lines, place, +1),
    }


def _neighbour(lines: list[GroupLine], place: int | None, by: int) -> str:
    """Return the problem of the group before or after; empty at the ends."""
    if place is None or not 0 <= place + by < len(lines):
        return ""
    return lines[place + by].problem_id


def completion(request: Request) -> Response:
    """Show one completion whole, token by token where the run has its tokenizer."""
    viewed = run_of(request)
    file = file_of(request, viewed)
    problem_id = request.query_params.get("group", "")
    member = number_of(request, "member")
    columns = [*COLUMNS, "completion_ids", "behavior_logprobs", *DETAILS]
    rows = read_step(file, columns)
    rows = rows.filter(
        pc.and_(pc.equal(rows["problem_id"], problem_id), pc.equal(rows["member"], member))
    )
    if not rows.num_rows:
        raise HTTPException(
            404,
            f"{step_label(file)} of {viewed.name} has no completion {member} of {problem_id!r}.",
        )
    row = rows.slice(0, 1).to_pylist()[0]
    ids, logprobs, text = (row["completion_ids"], row["behavior_logprobs"], row["completion_text"])
    return reply(
        request,
        "completion.html.j2",
        [f"{file.mtime_ns} {file.size}"],
        lambda: {
            **frame(viewed, "steps"),
            "file": file,
            "label": step_label(file, row["policy"]),
            "row": {k: visible(v) if isinstance(v, str) else v for k, v in row.items()},
            "problem_id": problem_id,
            "logprob_mean": logprob_mean(row),
            "rewards": named_rewards(row),
            "details": {name: row[name] for name in DETAILS},
            "tokens": tokens_of(viewed.path, ids, logprobs, text),
        },
    )


def problem(request: Request) -> Response:
    """Show one problem over the whole run, and in the other runs of the folder."""
    viewed = run_of(request)
    problem_id = request.query_params.get("problem", "")
    wanted = request.query_params.getlist("with")
    every = [other for other in folder_of(request).runs().values() if other is not viewed]
    named = [other for other in every if other.name in wanted]
    others, left_out = (named, []) if wanted else runs_with(problem_id, viewed, every)
    for other in named:
        other.index.refresh(OTHERS_S)
    if wanted:
        left_out = [other for other in sharing_tasks(viewed, every) if other not in named]

    def values() -> dict[str, Any]:
        here = problem_in_run(viewed, problem_id)
        if not here.groups and not viewed.index.num_waiting:
            raise HTTPException(404, f"{viewed.name} has no problem {problem_id!r}.")
        found = [problem_in_run(other, problem_id) for other in others]
        same = [here, *(other for other in found if not difference(here, other))]
        return {
            **frame(viewed, "problems"),
            "problem_id": problem_id,
            "here": here,
            "prompt": visible(here.prompt),
            "reference": visible(here.reference),
            "same": same,
            "labels": _labels(same),
            "different": [
                (other.run, said) for other in found if (said := difference(here, other))
            ],
            "left_out": [other.name for other in left_out],
            "num_waiting": sum(run.index.num_waiting for run in (viewed, *others)),
            "num_files": sum(len(run.index.files) for run in (viewed, *others)),
            "marks": MARKS if any(not row["is_kept"] for row in success_rows(here)) else "",
            "specs": {"success": success_chart(same)},
        }

    changes = [run.content for run in (viewed, *others)]
    return reply(request, "problem.html.j2", changes, values)


def _labels(problems: list[ProblemInRun]) -> list[str]:
    """Return the checkpoints of all runs, each once, in the order of training."""
    places = {
        checkpoint_label(group): (group["iteration"], group["phase"] != "explore", group["moment"])
        for found in problems
        for group in found.groups
    }
    return sorted(places, key=lambda label: places[label])


def search(request: Request) -> Response:
    """Search the texts of a run, the newest step first, for a bounded time."""
    viewed = run_of(request)
    filters = filters_of(request)
    phase = request.query_params.get("phase", "")
    after = request.query_params.get("after", "")

    def values() -> dict[str, Any]:
        found = None
        if filters.given:
            found = search_run(viewed.index, filters, phase=phase, after=after)
        return {
            **frame(viewed, "search"),
            "filters": filters,
            "phase": phase,
            "found": found,
        }

    return reply(request, "search.html.j2", [viewed.content], values)


def filters_of(request: Request) -> Filters:
    """Return the filters in the address."""
    given = request.query_params
    return Filters(
        verdict=given.get("verdict", ""),
        finish=given.get("finish", ""),
        text=given.get("text", ""),
        problem=given.get("problem", ""),
    )
