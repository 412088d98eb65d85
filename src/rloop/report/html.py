"""Self-contained pages: one file with its style, its charts and what draws them; no network.

Templates extend `layout.html.j2`. Text is escaped; a content policy lets only these very scripts
run, so nothing that a model wrote can.
"""

import base64
import hashlib
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from rloop.report import formatting
from rloop.report.charts import Figure
from rloop.report.tables import verdict
from rloop.text import visible

NUMBERS: dict[str, Callable[..., str]] = {
    show.__name__: show
    for show in (
        *(formatting.percent, formatting.percent_interval, formatting.points),
        *(formatting.points_interval, formatting.count, formatting.duration),
    )
}
"""Filters of templates by name."""


def render_page(template: str, *, figures: Sequence[Figure], title: str, **values: Any) -> str:  # noqa: ANN401 (a template's own)
    """Return a page of `rloop/report` as HTML; the template places the figures."""
    library, script = vega_library(), page_script()
    page = template_environment().get_template(template)
    return page.render(
        title=title,
        specs=specs_of(figures),
        figures=figures,
        content_policy=content_policy(library, script),
        library=library,
        script=script,
        style=resource("page.css"),
        **values,
    )


def specs_of(figures: Sequence[Figure]) -> dict[str, Any]:
    """Return the Vega-Lite of figures by element id."""
    return {figure.heading.figure_id: figure.spec for figure in figures}


def content_policy(*scripts: str) -> str:
    """Return the Content-Security-Policy: nothing is loaded, only these very scripts run."""
    hashes = " ".join(
        f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
        for script in scripts
    )
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


@cache
def vega_library() -> Markup:
    """Return Vega, Vega-Lite and Vega-Embed as one script that needs no network."""
    return Markup(vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;"))


@cache
def page_script() -> Markup:
    """Return what a self-contained page runs beside Vega."""
    return resource("charts.js") + resource("page.js")


def resource(name: str) -> Markup:
    """Return a file of this package as it is."""
    return Markup((files("rloop.report") / name).read_text(encoding="utf-8"))


def template_environment() -> Environment:
    """Return the environment of the package's templates: escaping on, missing names are errors."""
    environment = Environment(
        loader=PackageLoader("rloop.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= NUMBERS | {"visible": visible, "verdict": verdict}
    return environment
