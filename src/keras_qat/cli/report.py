"""`keras-qat report`: a run, or several, as one page of HTML, or as Markdown for a pull request."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from keras_qat.cli.options import Json, require_all, require_output_file
from keras_qat.errors import UserError
from keras_qat.file_system import is_file, is_folder
from keras_qat.paths import RESULTS_FILE, require_finished_run
from keras_qat.progress import CONSOLE
from keras_qat.storage import to_json, write_text


def report_command(
    *runs: Path,
    output: Path | None = None,
    form: Annotated[Literal["html", "markdown"], Parameter(name="--format")] = "html",
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Make a page of a run's results: one file that needs no network. Or print Markdown for a pull request.

    The page is report.html in the folder of the run; of several runs, in the folder that holds them, with one table of
    all. Both are made from the run's JSON files alone, and neither needs its models or its images.

    Examples:
        keras-qat report runs/resnet50-digits-onnxruntime

        keras-qat report runs/*

        keras-qat report runs/resnet50-digits-onnxruntime --format markdown >> "$GITHUB_STEP_SUMMARY"

    Args:
        runs: The folder of a run, as `keras-qat run` names it at its end; or of several. Of several, those that aren't
            runs are left out.
        output: The file to write. If not given, a page goes beside the results, Markdown to standard output.
        form: html, or markdown.
        as_json: Print the verdict, the key figures and the table as JSON, and with html where the page is.
    """
    if not runs:
        raise UserError("A report needs a run. Received: none. Give the folder that `keras-qat run` named at its end.")
    folders = _folders(runs)
    require_all(*((require_finished_run, folder) for folder in folders), (require_output_file, output))
    from keras_qat.report import markdown_report, write_page
    from keras_qat.report.run_files import read_run

    found = [read_run(folder) for folder in folders]
    written = None
    text = ""
    if form == "html":
        written = write_page(found, output or _page([files.folder for files in found]))
        text = f"{written}\n"
    else:
        text = markdown_report(found)
        if output is not None:
            write_text(output, text)
            written, text = output, ""
    sys.stdout.write(to_json(_summary(found, written)) if as_json else text)


def _folders(runs: Sequence[Path]) -> Sequence[Path]:
    """Those that are runs, if several are given: `runs/*` also names the page of all. One alone must be a run."""
    chosen = [path for path in runs if is_file(path / RESULTS_FILE)]
    if len(runs) == 1 or not chosen:
        return runs[:1]
    for path in runs:
        if path not in chosen and is_folder(path):
            CONSOLE.print(f"{path} is left out: it holds no results.json.", markup=False, soft_wrap=True)
    return chosen


def _page(folders: Sequence[Path]) -> Path:
    """In the run's folder, or in the one that holds all runs."""
    if len(folders) == 1:
        return folders[0] / "report.html"
    return Path(os.path.commonpath([folder.resolve().parent for folder in folders])) / "report.html"


def _summary(found: Sequence[Any], written: Path | None) -> dict[str, Any]:
    """What a script wants to know: the sentences and numbers on the page."""
    from dataclasses import asdict

    from keras_qat.report.table import COLUMNS, title
    from keras_qat.report.verdict import key_figures, verdict

    runs = [
        {
            "folder": str(files.folder),
            "title": title(files.record),
            "verdict": list(verdict(files.record)),
            "key_figures": [asdict(figure) for figure in key_figures(files.record)],
            "table": [{name or "variant": cell(row) for name, cell in COLUMNS} for row in files.record.rows],
        }
        for files in found
    ]
    return {"output": None if written is None else str(written), "runs": runs}
