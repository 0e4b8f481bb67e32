"""The commands that show what a run, a model, its ranges or a file is like, and run no model.

`keras-qat report` shows one or several runs as a page or as Markdown, `explain` the placement of a model, `diff-ranges`
the differences between two calibrations, and `doctor` the problems of this machine or of ONNX files of any tool.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table

from keras_qat import calibration, doctor, graph, models, onnx, placement, report, run, targets
from keras_qat.cli.shared import AtLeastOne, Json, require_all, show
from keras_qat.cli.written import JSON, Output
from keras_qat.errors import GateMissedError, StorageError, UserError
from keras_qat.files import (
    is_file,
    is_folder,
    is_model_path,
    read_text,
    require_model_file,
    to_json,
    write_json,
    write_text,
)
from keras_qat.progress import CONSOLE
from keras_qat.text import printable


def report_command(
    *runs: Path,
    output: Annotated[Path | None, Output((".html", ".htm", ".md", ".txt"), of_run=(run.PAGE,))] = None,
    form: Annotated[Literal["html", "markdown"], Parameter(name="--format")] = "html",
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Make a page of a run's results: one file that needs no network. Or print Markdown for a pull request.

    The page is report.html in the folder of the run. Of several runs, it is in the folder that holds them, with one
    table of all. Both are made from the run's JSON files alone, without its models and images.

    Examples:
        keras-qat report runs/resnet50-digits-onnxruntime

        keras-qat report runs/*

        keras-qat report runs/resnet50-digits-onnxruntime --format markdown >> "$GITHUB_STEP_SUMMARY"

    Args:
        runs: The folder of a run, as `keras-qat run` names it at its end, or those of several runs. If several are
            given, those that are not folders of runs are left out.
        output: The file to write. If not given, a page goes beside the results, Markdown to standard output.
        form: The format: html or markdown.
        as_json: Print the verdict, the key figures and the table as JSON, and with html the path of the page.
    """
    if not runs:
        raise UserError("A report needs a run. Received: none. Give the folder that `keras-qat run` named at its end.")
    folders = _run_folders(runs)
    for folder in folders:
        run.RunFolder(folder).require_finished()

    files = [run.RunFolder(folder).read() for folder in folders]
    written, text = output, ""
    if form == "html":
        written = report.write_page(files, output or _own_page(_page_path(folders)))
        text = f"{written}\n"
    elif output is None:
        text = report.markdown_report(files)
    else:
        write_text(output, report.markdown_report(files))
    sys.stdout.write(to_json(_summary(files, written)) if as_json else printable(text))


def _run_folders(paths: Sequence[Path]) -> Sequence[Path]:
    """The paths that are folders of runs, since `runs/*` also names the page of all. A single path must be one."""
    folders = [path for path in paths if run.RunFolder(path).finished]
    if len(paths) == 1 or not folders:
        return paths[:1]
    for path in paths:
        if path not in folders and is_folder(path):
            note = f"{printable(str(path))} is left out: it holds no results.json."
            CONSOLE.print(note, markup=False, soft_wrap=True)
    return folders


def _page_path(folders: Sequence[Path]) -> Path:
    """The page in the run's folder, or in the one that holds all runs."""
    if len(folders) == 1:
        return run.RunFolder(folders[0]).page_path
    return Path(os.path.commonpath([folder.resolve().parent for folder in folders])) / run.PAGE


def _own_page(path: Path) -> Path:
    """The path, unless it names a page that keras-qat did not write."""
    # A page that is empty was lost in a power cut.
    if is_file(path) and (text := read_text(path)) and 'name="generator" content="keras-qat' not in text[:2000]:
        raise StorageError(
            f"A page of another tool would be replaced. Received: {str(path)!r}. Name another file with --output."
        )
    return path


def _summary(files: "Sequence[report.RunFiles]", written: Path | None) -> dict[str, Any]:
    """The sentences and numbers of the page, for scripts."""
    runs = [
        {
            "folder": str(run_files.folder),
            "title": report.title(run_files.record),
            "verdict": list(report.verdict(run_files.record)),
            "key_figures": [asdict(figure) for figure in report.key_figures(run_files.record)],
            "table": [
                {name or "variant": cell for name, cell in zip(table.columns, row, strict=True)}
                for table in report.result_tables(run_files.record)
                for row in table.rows
            ],
        }
        for run_files in files
    ]
    return {"output": None if written is None else str(written), "runs": runs}


def explain_command(
    model: str = "resnet50",
    *,
    target: str = "onnxruntime",
    form: Annotated[Literal["table", "mermaid", "dot"], Parameter(name="--format")] = "table",
    overrides: Path | None = None,
    ranges: Path | None = None,
    output: Annotated[Path | None, Output((".md", ".txt", ".mmd", ".mermaid", ".dot", ".gv", ".json"))] = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Show for every edge of a model whether it has a Q/DQ pair, and why. Needs no weights and no images.

    Examples:
        keras-qat explain resnet50 --target tensorrt

        keras-qat explain mine.keras --target onnxruntime --format dot --output placement.dot

    Args:
        model: Name of a network, such as resnet50 or resnet101v2, or the path of a .keras or .h5 file.
        target: The engine to deploy to: onnxruntime, openvino or tensorrt.
        form: The format: a Markdown table, a Mermaid flowchart, which GitHub draws, or Graphviz DOT.
        overrides: A JSON file of rules that change the target's placement (docs/overrides.md).
        ranges: The ranges.json of a run of the same model, target and overrides, which adds the scales.
        output: The file to write. If not given, standard output.
        as_json: Print or write JSON instead, which `keras-qat verify --placement` reads.
    """
    if as_json and form != "table":
        raise UserError(f"JSON is a format of its own. Received: --json with --format {form}. Drop one of the two.")
    file = Path(model) if is_model_path(Path(model)) else None
    require_all(
        (require_model_file, file),
        (targets.find_target, target),
        (read_text, overrides),
        (read_text, ranges),
    )

    rules = None if overrides is None else placement.Overrides.load(overrides)
    known = None if ranges is None else calibration.Ranges.load(ranges)
    network = _network(model) if file is None else models.load_model_file(file)
    onnx.require_exportable(network)
    planned = placement.plan(graph.trace(network).graph, target, overrides=rules)
    # This also refuses the ranges of another model, so the text is made for JSON, too.
    text = placement.explain(planned, format=form, ranges=known) + "\n"
    record = placement.placement_dict(planned)
    if known is not None:
        record["ranges"] = {name: asdict(known[name]) for name in planned.observed}
    if output is None:
        show(lambda: text, record, as_json=as_json)
    elif as_json:
        write_json(output, record)
    else:
        write_text(output, text)


def _network(name: str) -> Any:
    """The network of that name, with random weights."""
    entry = models.find(name)
    return models.build_model(entry, weights=None, num_classes=1000, size=entry.preprocessing.height)


def diff_ranges_command(
    before: Path,
    after: Path,
    /,
    *,
    worst: Annotated[int, AtLeastOne] = 20,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Compare two files of ranges tensor by tensor; print a table, the largest ratio first.

    Examples:
        keras-qat diff-ranges runs/mse/ranges.json runs/percentile/ranges.json --worst 5

    Args:
        before: The ranges.json of a run.
        after: The ranges.json of another run, such as one with other images or another method.
        worst: Number of tensors in the table.
        as_json: Print JSON with all tensors instead of the table.
    """
    require_all((read_text, before), (read_text, after))

    difference = calibration.Ranges.load(before).diff(calibration.Ranges.load(after))
    show(lambda: difference.describe(worst) + "\n", _difference_record(difference), as_json=as_json)


def _difference_record(difference: "calibration.RangesDiff") -> dict[str, Any]:
    """The difference as JSON can hold it, the largest first."""
    changes = [
        {
            "tensor": change.tensor,
            "before": {"amax": change.before.amax, "method": change.before.method},
            "after": {"amax": change.after.amax, "method": change.after.method},
            "ratio": change.ratio,
        }
        for change in difference.changes
    ]
    only = {"only_before": list(difference.only_before), "only_after": list(difference.only_after)}
    return {"changes": changes, **only}


def doctor_command(
    *files: Path,
    target: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    as_json: Annotated[bool, Json] = False,
    output: Annotated[Path | None, JSON] = None,
) -> None:
    """Check this machine; or check ONNX files of any tool: what costs speed, size or accuracy, and what to do.

    Files are read, not run. The exit code is 3 if a file has an error. The checks are explained in docs/doctor.md.

    Examples:
        keras-qat doctor

        keras-qat doctor qat.onnx --target tensorrt

        keras-qat doctor ours.onnx theirs.onnx --json --output findings.json

    Args:
        files: The .onnx files to check. If none is given, the machine is checked.
        target: The engine to check files for: onnxruntime, openvino or tensorrt. Repeat the option for several. If not
            given, the engine that keras-qat wrote the file for, or all.
        as_json: Print JSON instead of the tables.
        output: Write the JSON to this file, too.
    """
    table, record, failure = _examine_files(files, target) if files else _examine_machine(target)
    show(lambda: table, record, as_json=as_json)
    if output is not None:
        write_json(output, record)
    if failure is not None:
        raise failure


def _examine_files(files: tuple[Path, ...], target: tuple[str, ...]) -> tuple[Table, dict[str, Any], Exception | None]:
    """Examine every file, also those that come after one that can't be read."""
    table = Table.grid()
    records: list[dict[str, Any]] = []
    unreadable: list[str] = []
    wrong: list[str] = []
    for path in files:
        try:
            examination = doctor.examine(path, target)
        except StorageError as error:
            unreadable.append(str(error))
            records.append({"file": str(path), "unreadable": str(error)})
            continue
        table.add_row(doctor.file_table(examination))
        records.append(examination.to_dict())
        if examination.count(doctor.Severity.ERROR):
            wrong.append(str(path))
    failure: Exception | None = None
    if unreadable:
        failure = StorageError("\n".join(unreadable))
    elif wrong:
        advice = "" if target else " Judge for one engine alone with --target."
        failure = GateMissedError(f"There are errors in {', '.join(wrong)}.{advice}")
    return table, {"files": records}, failure


def _examine_machine(target: tuple[str, ...]) -> tuple[Table, dict[str, Any], Exception | None]:
    targets.find_targets(target)
    machine = doctor.read_machine()
    advice = [
        {"check": check, **asdict(item), "severity": str(item.severity)}
        for check, items in doctor.advise(machine).items()
        for item in items
    ]
    failure = None if machine.usable else GateMissedError("No engine can run on this machine. The table says why.")
    return doctor.machine_table(machine), {"machine": machine.to_dict(), "advice": advice}, failure
