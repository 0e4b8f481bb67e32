"""A placement as a JSON file: what verification and the report read back, without the float model."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from keras_qat.errors import UserError
from keras_qat.files import from_json_value, read_json, to_json_value, write_json
from keras_qat.types import Placement, QuantizedTensor

PLACEMENT_FILE = "placement.json"
"""The name of the file in the folder of a run."""

_HEAD = {"format": "keras-qat placement", "version": 1}


def save_placement(placement: Placement, path: str | Path) -> None:
    """Write a placement; `load_placement` gives back an equal one.

    Raises:
        StorageError: If `path` can't be written.
    """
    write_json(Path(path), placement_dict(placement))


def placement_dict(placement: Placement) -> dict[str, Any]:
    """The content of a file that `save_placement` writes."""
    return {**_HEAD, **to_json_value(placement)}


def load_placement(path: str | Path) -> Placement:
    """Read a file that `save_placement` or `keras-qat run` wrote.

    Raises:
        StorageError: If `path` can't be read.
        UserError: If the file isn't JSON, doesn't hold a placement, holds one of another version of the format, or
            its parts contradict each other.

    Example:
        >>> import tempfile
        >>> from keras_qat.types import EdgeDecision
        >>> path = Path(tempfile.mkdtemp()) / "placement.json"
        >>> edge = EdgeDecision("image", "conv", 0, quantized=False, reason="the first layer")
        >>> save_placement(Placement("tensorrt", (), (edge,), ()), path)
        >>> load_placement(path).edges == (edge,)
        True
    """
    value = read_json(Path(path))
    problem = f"{path} doesn't hold a placement"
    remedy = "Give the placement.json that `keras-qat run` of this version wrote."
    head = {key: value.get(key) for key in _HEAD} if isinstance(value, dict) else type(value).__name__
    if head != _HEAD:
        raise UserError(f"{problem}: it must begin with {_HEAD}. Received: {head}. {remedy}")
    content = {key: part for key, part in value.items() if key not in _HEAD}
    tensors = content.get("tensors")
    for kind, part in (
        (Placement, content),
        *((QuantizedTensor, tensor) for tensor in (tensors if isinstance(tensors, list) else ())),
    ):
        absent = [field.name for field in fields(kind) if isinstance(part, dict) and field.name not in part]
        if absent:
            raise UserError(f"{problem}: `{absent[0]}` is missing. Received: {sorted(part)}. {remedy}")
    placement = from_json_value(Placement, content, problem=problem, remedy=remedy)
    contradiction = _contradiction(placement)
    if contradiction is not None:
        raise UserError(f"{problem}: {contradiction}. {remedy}")
    return placement


def _contradiction(placement: Placement) -> str | None:
    """What in a placement can't be together, as in a file that was edited by hand; `None` for every plan."""
    names = [tensor.tensor for tensor in placement.tensors]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        return f"`tensors` has two entries for one tensor. Received: {doubled!r}"
    for i, edge in enumerate(placement.edges):
        if edge.quantized and edge.tensor not in names:
            return f"`edges[{i}]` is quantized, and `tensors` has no entry for it. Received: {edge.tensor!r}"
    for i, kernel in enumerate(placement.kernels):
        if not kernel.nodes or len(kernel.nodes) != len(kernel.kinds):
            return f"`kernels[{i}]` must have one of `kinds` for each of `nodes`. Received: {to_json_value(kernel)}"
    known = {edge.tensor for edge in placement.edges}
    missing = next((tensor.range_of for tensor in placement.tensors if tensor.range_of not in known), None)
    return None if missing is None else f"`range_of` must be the name of a tensor. Received: {missing!r}"
