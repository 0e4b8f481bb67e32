"""The scripts and the style that the page carries within itself, and the policy that lets nothing else run.

Names of layers are whatever their author liked. They are escaped wherever they stand; should one slip through, the
Content-Security-Policy (https://www.w3.org/TR/CSP3/) still runs no script but those whose hash it names, and loads
nothing from anywhere.
"""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files

_LIBRARIES = {
    "d3": "vendor/d3/d3.min.js",
    "plot": "vendor/plot/plot.umd.min.js",
    "dagre": "vendor/dagre/dagre.min.js",
}
_OWN = ("chart", "variants", "layers", "tensors", "training", "layout", "graph", "panel", "runs")
"""In the order in which they need each other."""


@cache
def read_part(name: str) -> str:
    """A file of the page, without a pointer to the map of its source, which isn't here."""
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
