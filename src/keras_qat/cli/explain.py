"""`keras-qat explain`: where the Q/DQ pairs of a model go, and why, as a table or a picture."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from keras_qat.cli.options import Json, require_all, require_output_file
from keras_qat.cli.show import show
from keras_qat.errors import UserError
from keras_qat.model_file import load_model_file
from keras_qat.paths import require_model_file
from keras_qat.storage import read_text, write_json, write_text
from keras_qat.targets import find_target


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
        (find_target, target),
        (read_text, overrides),
        (read_text, ranges),
        (require_output_file, output),
    )
    from keras_qat.calibration.ranges import Ranges
    from keras_qat.graph import trace
    from keras_qat.placement import Overrides, explain, placement_dict, plan

    wanted = None if overrides is None else Overrides.load(overrides)
    known = None if ranges is None else Ranges.load(ranges)
    placement = plan(trace(_network(model) if file is None else load_model_file(file)).graph, target, overrides=wanted)
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
    from keras_qat.zoo import build_model, find

    entry = find(name)
    return build_model(entry, weights=None, num_classes=1000, size=entry.preprocessing.size)
