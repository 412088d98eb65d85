"""Templates and static files of the viewer; text of a model is escaped and made visible."""

import hashlib
import re
from functools import cache
from importlib.metadata import version
from importlib.resources import files
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader
from markupsafe import Markup, escape

from rloop.report.html import resource, template_environment, vega_library
from rloop.text import visible

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Only this server's own files run and style; nothing that a model wrote can."""

HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}

STATIC_TYPES = {
    "page.css": "text/css",
    "view.css": "text/css",
    "charts.js": "text/javascript",
    "view.js": "text/javascript",
    "vega.js": "text/javascript",
}


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
    """Return the environment of the viewer's templates, with the report's filters."""
    found = template_environment()
    found.loader = PackageLoader("rloop.view")
    found.filters |= {"highlight": highlight, "visible": visible}
    found.globals |= {"link": link, "static_url": static_url}
    return found
