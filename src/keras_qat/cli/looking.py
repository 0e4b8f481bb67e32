"""`keras-qat report`: a run, or several, as one page of HTML, or as Markdown for a pull request.

`keras-qat explain`: where the Q/DQ pairs of a model go, and why, as a table or a picture.

`keras-qat diff-ranges`: how the ranges of two calibrations differ.

`keras-qat doctor`: what is wrong with this machine, or with ONNX files of any tool, and what to do.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.table import Table

from keras_qat import calibration, doctor, models, report, run, targets
from keras_qat.cli.options import AtLeastOne, Json, require_all, require_json_output, require_output_file
from keras_qat.cli.output import show
from keras_qat.errors import GateMissedError, StorageError, UserError
from keras_qat.files import is_folder, read_text, require_model_file, to_json, write_json, write_text
from keras_qat.progress import CONSOLE


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
    for folder in folders:
        run.RunFolder(folder).require_finished()
    require_all((require_output_file, output))

    found = [run.RunFolder(folder).read() for folder in folders]
    written = None
    text = ""
    if form == "html":
        written = report.write_page(found, output or _page([run_files.folder for run_files in found]))
        text = f"{written}\n"
    else:
        text = report.markdown_report(found)
        if output is not None:
            write_text(output, text)
            written, text = output, ""
    sys.stdout.write(to_json(_summary(found, written)) if as_json else text)


def _folders(runs: Sequence[Path]) -> Sequence[Path]:
    """Those that are runs, if several are given: `runs/*` also names the page of all. One alone must be a run."""
    chosen = [path for path in runs if run.RunFolder(path).finished]
    if len(runs) == 1 or not chosen:
        return runs[:1]
    for path in runs:
        if path not in chosen and is_folder(path):
            CONSOLE.print(f"{path} is left out: it holds no results.json.", markup=False, soft_wrap=True)
    return chosen


def _page(folders: Sequence[Path]) -> Path:
    """In the run's folder, or in the one that holds all runs."""
    if len(folders) == 1:
        return run.RunFolder(folders[0]).page_path
    return Path(os.path.commonpath([folder.resolve().parent for folder in folders])) / run.PAGE


def _summary(found: Sequence[Any], written: Path | None) -> dict[str, Any]:
    """What a script wants to know: the sentences and numbers on the page."""
    from dataclasses import asdict

    runs = [
        {
            "folder": str(files.folder),
            "title": report.title(files.record),
            "verdict": list(report.verdict(files.record)),
            "key_figures": [asdict(figure) for figure in report.key_figures(files.record)],
            "table": [{name or "variant": cell(row) for name, cell in report.COLUMNS} for row in files.record.rows],
        }
        for files in found
    ]
    return {"output": None if written is None else str(written), "runs": runs}


def explain_command(
    model: str = "resnet50",
    *,
    target: str = "onnxruntime",
    form: Annotated[Literal["table", "mermaid", "dot"], Parameter(name="--format")] = "table",
    overrides: Path | None = None,
    ranges: Path | None = None,
    output: Path | None = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Say of every edge of a model whether a Q/DQ pair stands there, and why. Needs no weights and no images.

    Examples:
        keras-qat explain resnet50 --target tensorrt

        keras-qat explain mine.keras --target onnxruntime --format dot --output placement.dot

    Args:
        model: Name of a network, such as resnet50 or resnet101v2, or the path of a .keras file.
        target: The engine to deploy to: onnxruntime, openvino or tensorrt.
        form: A Markdown table, a Mermaid flowchart (GitHub draws it), or Graphviz DOT.
        overrides: A JSON file of rules that change the target's placement (docs/overrides.md).
        ranges: The ranges.json of a run of the same model, target and overrides; shows the scales.
        output: The file to write; standard output if not given.
        as_json: Give JSON instead, which `keras-qat verify --placement` reads.
    """
    if as_json and form != "table":
        raise UserError(f"JSON is a format of its own. Received: --json with --format {form}. Drop one of the two.")
    file = Path(model) if Path(model).suffix.lower() == ".keras" else None
    require_all(
        (require_model_file, file),
        (targets.find_target, target),
        (read_text, overrides),
        (read_text, ranges),
        (require_output_file, output),
    )
    from keras_qat.graph import trace
    from keras_qat.placement import Overrides, explain, placement_dict, plan

    wanted = None if overrides is None else Overrides.load(overrides)
    known = None if ranges is None else calibration.Ranges.load(ranges)
    placement = plan(
        trace(_network(model) if file is None else models.load_model_file(file)).graph, target, overrides=wanted
    )
    # It refuses ranges of another model, for JSON too.
    text = explain(placement, format=form, ranges=known) + "\n"
    record = placement_dict(placement)
    if known is not None:
        record["ranges"] = {name: asdict(known[name]) for name in placement.observed}
    if output is None:
        show(lambda: text, record, as_json=as_json)
    elif as_json:
        write_json(output, record)
    else:
        write_text(output, text)


def _network(name: str) -> Any:
    """The network of that name, with random weights."""
    entry = models.find(name)
    return models.build_model(entry, weights=None, num_classes=1000, size=entry.preprocessing.size)


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
        after: That of another run, as with other images or another method.
        worst: How many tensors to show in the table.
        as_json: Print JSON with all tensors instead of the table.
    """
    require_all((read_text, before), (read_text, after))

    found = calibration.Ranges.load(before).diff(calibration.Ranges.load(after))
    show(lambda: found.describe(worst) + "\n", _record(found), as_json=as_json)


def _record(found: "calibration.RangesDiff") -> dict[str, Any]:
    """The difference as JSON can hold it, the largest first."""
    changes = [
        {
            "tensor": change.tensor,
            "before": {"amax": change.before.amax, "method": change.before.method},
            "after": {"amax": change.after.amax, "method": change.after.method},
            "ratio": change.ratio,
        }
        for change in found.changes
    ]
    return {"changes": changes, "only_before": list(found.only_before), "only_after": list(found.only_after)}


def doctor_command(
    *files: Path,
    target: Annotated[tuple[str, ...], Parameter(negative=(), show_default=False)] = (),
    as_json: Annotated[bool, Json] = False,
    output: Path | None = None,
) -> None:
    """Check this machine; or check ONNX files, of whatever tool: what costs speed, size or accuracy, and what to do.

    Files are read, not run. Exit code 3 if a file has an error. The checks are explained in docs/doctor.md.

    Examples:
        keras-qat doctor

        keras-qat doctor qat.onnx --target tensorrt

        keras-qat doctor ours.onnx theirs.onnx --json --output findings.json

    Args:
        files: The .onnx files to check; without one, the machine is checked.
        target: The engine to judge files for: onnxruntime, openvino or tensorrt; repeat it for several. If not given,
            the one that keras-qat wrote the file for, or all.
        as_json: Print JSON instead of the tables.
        output: Write the JSON to this file, too.
    """
    require_all((require_json_output, output))
    table, record, failure = _files(files, target) if files else _machine(target)
    show(lambda: table, record, as_json=as_json)
    if output is not None:
        write_json(output, record)
    if failure is not None:
        raise failure


def _machine(target: tuple[str, ...]) -> tuple[Table, dict[str, Any], Exception | None]:

    targets.find_targets(target)
    machine = doctor.read_machine()
    advice = [
        {"check": name, **asdict(one), "severity": str(one.severity)}
        for name, several in doctor.advise(machine).items()
        for one in several
    ]
    failure = None if machine.usable else GateMissedError("No engine can run on this machine. The table says why.")
    return doctor.machine_table(machine), {"machine": machine.to_dict(), "advice": advice}, failure


def _files(files: tuple[Path, ...], target: tuple[str, ...]) -> tuple[Table, dict[str, Any], Exception | None]:
    """Examine every file, the readable ones too if another is not."""
    whole = Table.grid()
    records: list[dict[str, Any]] = []
    unreadable: list[str] = []
    sick: list[str] = []
    for path in files:
        try:
            found = doctor.examine(path, target)
        except StorageError as error:
            unreadable.append(str(error))
            records.append({"file": str(path), "unreadable": str(error)})
            continue
        whole.add_row(doctor.file_table(found))
        records.append(found.to_dict())
        sick += [str(path)] if found.count(doctor.Severity.ERROR) else []
    failure: Exception | None = None
    if unreadable:
        failure = StorageError("\n".join(unreadable))
    elif sick:
        few = "" if target else " Judge for one engine alone with --target."
        failure = GateMissedError(f"There are errors in {', '.join(sick)}.{few}")
    return whole, {"files": records}, failure
