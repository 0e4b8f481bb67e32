"""From the folders of runs to the page, or to Markdown."""

from collections.abc import Sequence
from pathlib import Path

from keras_qat.report.page import render
from keras_qat.report.pull_request import pull_request
from keras_qat.report.run_files import RunFiles, read_run
from keras_qat.storage import write_text

PAGE = "report.html"


def write_report(folder: Path) -> Path:
    """Write the page of a run into its folder.

    Args:
        folder: of a run, with its JSON files.

    Returns:
        The path of the page, `report.html`.

    Raises:
        StorageError: it isn't the folder of a run, or can't be written.
        UserError: `results.json` doesn't hold a record.
    """
    return write_page([read_run(folder)], folder / PAGE)


def write_page(runs: Sequence[RunFiles], path: Path) -> Path:
    """Write the page of one run, or of several.

    Args:
        runs: at least one, from `read_run`.
        path: the file.

    Returns:
        `path`.

    Raises:
        StorageError: it can't be written.
    """
    write_text(path, render(runs))
    return path


def markdown_report(runs: Sequence[RunFiles]) -> str:
    """One run or several as Markdown for a pull request."""
    return "\n".join(map(pull_request, runs))
