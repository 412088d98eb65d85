"""From request to reply: which run is meant, numbers in an address, pages that did not change."""

import hashlib
import time
from collections.abc import Callable, Iterable
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from rloop.store.index import StepFile
from rloop.view.folder import Folder, ViewedRun
from rloop.view.html import environment

COUNT_S = 0.25
"""Seconds that a page may spend on counting files that are new."""
STARTED = str(time.time_ns())
"""No page of an earlier server is taken for one of this."""


def folder_of(request: Request) -> Folder:
    """Return the folder that this server shows."""
    folder: Folder = request.app.state.folder
    return folder


def run_of(request: Request, *, count_s: float = COUNT_S) -> ViewedRun:
    """Return the run that the address names, after looking for new files; else a 404."""
    name = request.query_params.get("run", "")
    found = folder_of(request).runs().get(name)
    if found is None:
        raise HTTPException(404, f"There is no run {name!r} in {folder_of(request).root.name}.")
    found.index.refresh(count_s)
    return found


def file_of(request: Request, run: ViewedRun) -> StepFile:
    """Return the step that the address names; else a 404."""
    place = request.query_params.get("place", "")
    if place not in run.index.files:
        raise HTTPException(
            404, f"{run.name} has no step {place!r}; a resumed run may have set it aside."
        )
    return run.index.files[place]


def number_of(request: Request, name: str, default: int = 0) -> int:
    """Return a whole number from 0 out of the address; a 400 for anything else."""
    given = request.query_params.get(name, "")
    if not given:
        return default
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise HTTPException(400, f"{name} takes a whole number from 0, not {given!r:.50}.")
    return int(given)


def reply(
    request: Request, template: str, changes: Iterable[str], values: Callable[[], dict[str, Any]]
) -> Response:
    """Return a page, or 304 where the browser has it: `changes` is all that the page depends on."""
    text = "\n".join((STARTED, str(request.url), *changes))
    tag = f'"{hashlib.blake2b(text.encode(), digest_size=12).hexdigest()}"'
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers={"ETag": tag})
    page = environment().get_template(template).render(values())
    return Response(
        page.encode(errors="replace"),
        media_type="text/html; charset=utf-8",
        headers={"ETag": tag},
    )
