"""The page as one text of HTML: no file beside it, no network."""

from collections.abc import Sequence

from jinja2 import Environment, PackageLoader, StrictUndefined

from keras_qat._version import __version__
from keras_qat.report.page.layers import HEADER
from keras_qat.report.page.networks import networks
from keras_qat.report.page.scripts import policy, read_part, scripts
from keras_qat.report.page.view import rule_text, run_view
from keras_qat.report.run_files import RunFiles
from keras_qat.report.table import COLUMNS


def render(runs: Sequence[RunFiles]) -> str:
    """The page of one run, or of several with a table of all and a choice of one.

    Args:
        runs: at least one.

    Returns:
        HTML.
    """
    views = [run_view(files, f"run{i}") for i, files in enumerate(runs)]
    template = _templates().get_template("page.html.jinja")
    return template.render(
        runs=views,
        networks=networks([files.record for files in runs]),
        columns=[name for name, _ in COLUMNS],
        layer_columns=HEADER,
        data=[view.data for view in views],
        rule_text=rule_text,
        style=read_part("report.css"),
        scripts=scripts(),
        policy=policy(),
        version=__version__,
    )


def _templates() -> Environment:
    """With escaping everywhere, and no name that isn't given."""
    templates = Environment(
        loader=PackageLoader("keras_qat.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.policies["json.dumps_kwargs"] = {"allow_nan": False}
    return templates
