"""`keras-qat doctor`: what is wrong with this machine, or with ONNX files of any tool, and what to do."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.table import Table

from keras_qat.cli.options import Json, require_all, require_json_output
from keras_qat.cli.show import show
from keras_qat.errors import GateMissedError, StorageError
from keras_qat.storage import write_json


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
    from keras_qat.doctor import advise, machine_table, read_machine
    from keras_qat.doctor.engines import find_engines

    find_engines(target)
    machine = read_machine()
    advice = [
        {"check": name, **asdict(one), "severity": str(one.severity)}
        for name, several in advise(machine).items()
        for one in several
    ]
    failure = None if machine.usable else GateMissedError("No engine can run on this machine. The table says why.")
    return machine_table(machine), {"machine": machine.to_dict(), "advice": advice}, failure


def _files(files: tuple[Path, ...], target: tuple[str, ...]) -> tuple[Table, dict[str, Any], Exception | None]:
    """Examine every file, the readable ones too if another is not."""
    from keras_qat.doctor import Severity, examine, file_table

    whole = Table.grid()
    records: list[dict[str, Any]] = []
    unreadable: list[str] = []
    sick: list[str] = []
    for path in files:
        try:
            found = examine(path, target)
        except StorageError as error:
            unreadable.append(str(error))
            records.append({"file": str(path), "unreadable": str(error)})
            continue
        whole.add_row(file_table(found))
        records.append(found.to_dict())
        sick += [str(path)] if found.count(Severity.ERROR) else []
    failure: Exception | None = None
    if unreadable:
        failure = StorageError("\n".join(unreadable))
    elif sick:
        few = "" if target else " Judge for one engine alone with --target."
        failure = GateMissedError(f"There are errors in {', '.join(sick)}.{few}")
    return whole, {"files": records}, failure
