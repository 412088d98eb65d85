"""The viewer as a web application: addresses, headers, errors as pages; it reads and never writes.

Only GET and HEAD are answered, only under the names of this machine. A run, a step and a problem
are looked up by name among what the folder holds; no path is ever made from an address.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from rloop.errors import StoreError
from rloop.view import pages
from rloop.view.html import HEADERS, STATIC_TYPES, page, static_file
from rloop.view.runs import Folder

HOSTS = ["127.0.0.1", "localhost"]

ROUTES = {
    "/": pages.folder,
    "/run": pages.run,
    "/report": pages.report,
    "/charts": pages.charts,
    "/steps": pages.steps,
    "/step": pages.step,
    "/completion": pages.completion,
    "/problems": pages.problems,
    "/problem": pages.problem,
    "/search": pages.search_page,
}


def build_app(folder: Path) -> Starlette:
    """Return the application that shows the runs of a folder; StoreError where there is none."""
    app = Starlette(
        routes=[
            *(Route(path, page, methods=["GET"]) for path, page in ROUTES.items()),
            Route("/static/{name}", static, methods=["GET"]),
        ],
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=add_headers),
            Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False),
            Middleware(GZipMiddleware, minimum_size=2000),
        ],
        exception_handlers={HTTPException: error_page, StoreError: error_page},
    )
    app.state.folder = Folder(folder)
    return app


def static(request: Request) -> Response:
    """Return a style or a script; its address names its content, so it may be kept for ever."""
    name = request.path_params["name"]
    if name not in STATIC_TYPES:
        raise HTTPException(404, "File not found.")
    return PlainTextResponse(
        static_file(name),
        media_type=STATIC_TYPES[name],
        headers={"Cache-Control": "public, max-age=31536000, immutable"},
    )


async def error_page(request: Request, error: Exception) -> Response:
    """Return what is wrong in a sentence, with the way back."""
    status = error.status_code if isinstance(error, HTTPException) else 500
    said = error.detail if isinstance(error, HTTPException) else str(error)
    if status == 405:
        said = "This viewer is read-only and accepts GET requests only."
    if status == 404 and said == "Not Found":
        said = "Page not found."
    name = request.query_params.get("run", "")
    back = name if name in request.app.state.folder.runs() else ""
    return page("error.html.j2", status, title="rloop view", sentence=said, code=status, back=back)


async def add_headers(
    request: Request, call_next: Callable[[Request], Awaitable[Response]]
) -> Response:
    """Add what keeps a browser from running or sharing what is on a page."""
    response = await call_next(request)
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    return response
