"""`keras-qat explain`: where the Q/DQ pairs of a model go, and why, as a table or a picture."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from keras_qat.cli.options import Json
from keras_qat.cli.show import show
from keras_qat.errors import UserError


def explain_command(
    *,
    model: str = "resnet50",
    target: str = "onnxruntime",
    form: Annotated[Literal["table", "mermaid", "dot"], Parameter(name="--format")] = "table",
    overrides: Path | None = None,
    ranges: Path | None = None,
    output: Path | None = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Say of every edge of a model whether a Q/DQ pair stands there, and why. Needs no weights and no images.

    Examples:
        keras-qat explain --model resnet50 --target tensorrt

        keras-qat explain --model mine.keras --target onnxruntime --format dot --output placement.dot

    Args:
        model: Name of a network, such as resnet50 or resnet101v2, or the path of a .keras file.
        target: The engine to deploy to: onnxruntime, openvino or tensorrt.
        form: A Markdown table, a Mermaid flowchart (GitHub draws it), or Graphviz DOT.
        overrides: A JSON file of rules that change the target's placement (docs/overrides.md).
        ranges: The ranges.json of a run of the same model, target and overrides; shows the scales.
        output: Write to this file; to standard output if not given.
        as_json: Give JSON instead, which `keras-qat verify --placement` reads.
    """
    from keras_qat.calibration.ranges import Ranges
    from keras_qat.graph import trace
    from keras_qat.placement import Overrides, explain, placement_dict, plan
    from keras_qat.storage import write_json, write_text
    from keras_qat.targets import find_target

    if as_json and form != "table":
        raise UserError(f"JSON is a format of its own. Received: --json with --format {form}. Drop one of the two.")
    find_target(target)
    wanted = None if overrides is None else Overrides.load(overrides)
    known = None if ranges is None else Ranges.load(ranges)
    placement = plan(trace(_model(model)).graph, target, overrides=wanted)
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


def _model(name: str) -> Any:
    """The network of that name with random weights, or the model of that file."""
    from keras_qat.model_file import load_model_file
    from keras_qat.zoo import build_model, find

    if Path(name).suffix.lower() == ".keras":
        return load_model_file(Path(name))
    entry = find(name)
    return build_model(entry, weights=None, num_classes=1000, size=entry.preprocessing.size)
