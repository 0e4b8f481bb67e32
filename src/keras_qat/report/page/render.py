"""The page as one text of HTML: no file beside it, no network.

Names of layers are whatever their author liked. They are escaped wherever they stand; should one slip through, the
Content-Security-Policy (https://www.w3.org/TR/CSP3/) still runs no script but those whose hash it names, and loads
nothing from anywhere.
"""

import base64
import hashlib
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from itertools import groupby

from jinja2 import Environment, PackageLoader, StrictUndefined

from keras_qat._version import __version__
from keras_qat.report.diagnosis_text import HEADER, rule_text
from keras_qat.report.page.view import RunView, run_view
from keras_qat.report.record import RunFiles
from keras_qat.report.task_tables import ResultTable

_LIBRARIES = {
    "d3": "vendor/d3/d3.min.js",
    "plot": "vendor/plot/plot.umd.min.js",
    "dagre": "vendor/dagre/dagre.min.js",
}
_OWN = ("chart", "variants", "layers", "tensors", "training", "layout", "graph", "panel", "runs")
"""The scripts of this package, each after those that it needs."""


def render(runs: Sequence[RunFiles]) -> str:
    """Render the page of one run, or of several with a table of all and a choice of one.

    Args:
        runs: at least one.

    Returns:
        HTML.
    """
    views = [run_view(files, f"run{i}") for i, files in enumerate(runs)]
    template = _templates().get_template("page.html.jinja")
    return template.render(
        runs=views,
        overview=_overview(views),
        layer_columns=HEADER,
        data=[view.data for view in views],
        rule_text=rule_text,
        style=read_part("report.css"),
        scripts=scripts(),
        policy=policy(),
        version=__version__,
    )


def _overview(views: Sequence[RunView]) -> list[tuple[tuple[str, ...], list[tuple[RunView, ResultTable]]]]:
    """The tables of all runs in order: (headings, (run, table) of each); neighbours with the same headings together."""
    tables = ((view, table) for view in views for table in view.tables)
    return [(columns, list(alike)) for columns, alike in groupby(tables, lambda pair: pair[1].columns)]


def _templates() -> Environment:
    """The templates, which escape every text and refuse unknown names."""
    templates = Environment(
        loader=PackageLoader("keras_qat.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return templates


@cache
def read_part(name: str) -> str:
    """The text of a file of the page, without the reference to its source map, which isn't shipped."""
    text = (files("keras_qat.report.page") / name).read_text(encoding="utf-8")
    return re.sub(r"^//# sourceMappingURL=.*$", "", text, flags=re.MULTILINE).strip()


def scripts() -> dict[str, str]:
    """{name: text} of every script, in order."""
    paths = _LIBRARIES | {name: f"js/{name}.js" for name in _OWN}
    return {name: read_part(path) for name, path in paths.items()}


def policy() -> str:
    """The Content-Security-Policy of the page."""
    hashes = " ".join(f"'sha256-{_digest(text)}'" for text in scripts().values())
    return (
        f"default-src 'none'; script-src {hashes}; worker-src blob:; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
