"""From an address to a page: templates, static files, parameters; text of a model is escaped."""

import hashlib
import re
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from jinja2 import ChoiceLoader, Environment, PackageLoader
from markupsafe import Markup, escape
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from rloop.report.html import resource, template_environment, vega_library
from rloop.store.index import StepFile
from rloop.view.runs import Folder, ViewedRun

HEADERS = {
    # Only this server's own files run and style; nothing that a model wrote can.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
STATIC_TYPES = {
    "page.css": "text/css",
    "view.css": "text/css",
    "charts.js": "text/javascript",
    "view.js": "text/javascript",
    "vega.js": "text/javascript",
}


def page(template: str, status: int = 200, **values: Any) -> Response:  # noqa: ANN401 (a template's own)
    """Return a page from a template."""
    text = environment().get_template(template).render(values)
    return Response(text.encode(errors="replace"), status, media_type="text/html; charset=utf-8")


def folder_of(request: Request) -> Folder:
    """Return the folder that this server shows."""
    folder: Folder = request.app.state.folder
    return folder


def run_of(request: Request) -> ViewedRun:
    """Return the run that the address names, after looking for new files; else a 404."""
    name = request.query_params.get("run", "")
    found = folder_of(request).runs().get(name)
    if found is None:
        raise HTTPException(404, f"No run {name!r} in {folder_of(request).root.name}.")
    found.index.refresh()
    return found


def file_of(request: Request, run: ViewedRun) -> StepFile:
    """Return the step that the address names; else a 404."""
    place = request.query_params.get("place", "")
    if place not in run.index.files:
        raise HTTPException(
            404, f"{run.name} has no step {place!r}; a resumed run may have replaced it."
        )
    return run.index.files[place]


def number_of(request: Request, name: str, default: int = 0) -> int:
    """Return a whole number from 0 out of the address; a 400 for anything else."""
    given = request.query_params.get(name, "")
    if not given:
        return default
    if not (given.isascii() and given.isdigit() and len(given) < 10):
        raise HTTPException(400, f"{name} must be a whole number from 0, not {given!r:.50}.")
    return int(given)


@cache
def static_file(name: str) -> str:
    """Return a style or a script; some are the report's own, `vega.js` takes a second or two the
    first time.
    """
    if name == "vega.js":
        return str(vega_library())
    if name in ("page.css", "charts.js"):
        return str(resource(name))
    return (files("rloop.view") / name).read_text("utf-8")


@cache
def static_url(name: str) -> str:
    """Return where a static file is served; the address changes with its content."""
    content = (
        f"vl-convert {version('vl-convert-python')}" if name == "vega.js" else static_file(name)
    )
    digest = hashlib.blake2b(content.encode(), digest_size=6).hexdigest()
    return f"/static/{name}?v={digest}"


def link(path: str, **parameters: object) -> str:
    """Return an address of this server; empty parameters are left out.

    Example: link("/step", run="demo", place="1/explore/4", verdict="") ->
    "/step?run=demo&place=1%2Fexplore%2F4"
    """
    given = {name: value for name, value in parameters.items() if value not in (None, "")}
    return f"{path}?{urlencode(given)}" if given else path


def highlight(text: str, query: str) -> Markup:
    """Return text, escaped, with what was searched for marked; case does not matter."""
    if not query:
        return escape(text)
    parts = re.split(f"({re.escape(query)})", text, flags=re.IGNORECASE)
    marked = (
        Markup("<mark>{}</mark>").format(part) if number % 2 else escape(part)
        for number, part in enumerate(parts)
    )
    return Markup("").join(marked)


@cache
def environment() -> Environment:
    """Return the environment of the viewer's templates, with the report's macros and filters."""
    found = template_environment()
    assert found.loader is not None, "the report's templates are found"
    found.loader = ChoiceLoader([PackageLoader("rloop.view"), found.loader])
    found.filters |= {"highlight": highlight}
    found.globals |= {"link": link, "static_url": static_url}
    return found
