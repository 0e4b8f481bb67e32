"""The tensors that an ONNX file stores, checked as protobuf messages, before anything computes with them.

A damaged or hostile file may give a tensor other data than its shape needs, or name a file of another folder as its
external data (https://onnx.ai/onnx/repo-docs/ExternalData.html), which an engine would read. Both are refused here.

The data may be links: a model hub's cache has `model.onnx` → `../blobs/a` and `model.onnx_data` → `../blobs/b`. As in
ONNX Runtime, the files that the links lead to must lie in the folder of the model as it was given, or in the folder of
the file that the model itself is a link to.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

import onnx
from onnx import numpy_helper

from keras_qat.errors import StorageError
from keras_qat.text import shortened

_LARGEST = 2**48
"""The largest number of elements that a tensor may have; no machine has memory for as many."""


@dataclass(frozen=True)
class ExternalData:
    """The external data of one tensor.

    Args:
        tensor: name of the tensor.
        path: the file that holds the data.
        end: number of bytes that the file must have at least.
        whole: whether the data are as many as the tensor's shape needs.
    """

    tensor: str
    path: Path
    end: int
    whole: bool

    @property
    def present(self) -> bool:
        """Whether the data can be read; they may be missing, cut short, or no regular file."""
        return self.whole and self.path.is_file() and self.path.stat().st_size >= self.end


def check_stored(model: onnx.ModelProto, path: Path) -> tuple[Path, tuple[ExternalData, ...]]:
    """Check every tensor that a model stores, those of subgraphs, functions and attributes included.

    Args:
        model: the model, read without its external data. Locations of external data that are links to other names are
            replaced by the names of the files that they lead to.
        path: the file that it was read from.

    Returns:
        The folder that the locations of the external data are relative to, and these data, which may be missing.

    Raises:
        StorageError: If a tensor's shape is negative or absurd, its data aren't those of its shape and type, or its
            external data are outside the folder of the model; or a name is not UTF-8.
    """
    external = []
    for tensor in _tensors(model, path):
        sizes = tuple(tensor.dims)
        if any(size < 0 for size in sizes) or math.prod(sizes) > _LARGEST:
            raise _refused(path, tensor, f"has the shape {sizes}", "Export the model again.")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            external.append(tensor)
            continue
        try:
            numpy_helper.to_array(tensor)
        except Exception as error:  # NumPy, protobuf and ml_dtypes each fail in their own way.
            remedy = "Export the model again; if it was copied, compare the sizes."
            raise _refused(path, tensor, f"can't be read ({shortened(error)})", remedy) from error
    folder = _relocate(path, external)
    return folder, tuple(_data_of(path, folder, tensor) for tensor in external)


def _tensors(model: onnx.ModelProto, path: Path) -> Iterator[onnx.TensorProto]:
    """The tensors of a model. Without recursion, since functions and subgraphs may be nested deeply.

    Raises:
        StorageError: If a text is not UTF-8; protobuf gives it as bytes, and engines' own messages fail on it.
    """
    pending: list[Any] = [model]
    while pending:
        message = pending.pop()
        if isinstance(message, onnx.TensorProto):
            yield message
        for field, value in message.ListFields():
            items = [value] if isinstance(value, str | bytes) or hasattr(value, "ListFields") else value
            if field.type == field.TYPE_MESSAGE:
                pending.extend(items)
            elif field.type == field.TYPE_STRING and any(isinstance(item, bytes) for item in items):
                raise StorageError(
                    f"The file holds a name that is not UTF-8. Received: {str(path)!r}, with {field.name} "
                    f"{items[0]!r}. Export the model again; if it was copied, compare the sizes."
                )


def _relocate(path: Path, tensors: Sequence[onnx.TensorProto]) -> Path:
    """The folder of the external data: the one of the path as given, or of the file that the path is a link to."""
    folder, real_folder = path.absolute().parent.resolve(), path.resolve().parent
    found = {}
    for tensor in tensors:
        # Of several locations, one engine would take the first and another the last.
        locations = [entry.value for entry in tensor.external_data if entry.key == "location"] or [""]
        if len(locations) > 1 or not _names_file_below(locations[0]):
            raise _outside(path, tensor, ", ".join(locations))
        try:
            found[locations[0]] = (folder / locations[0]).resolve()
        except (OSError, RuntimeError) as error:  # a loop of links
            raise _outside(path, tensor, locations[0]) from error
    if not all(_within(file, folder) for file in found.values()):
        folder = real_folder
    for tensor in tensors:
        for entry in tensor.external_data:
            if entry.key == "location":
                file = found[entry.value]
                if not _within(file, folder):
                    raise _outside(path, tensor, entry.value)
                entry.value = str(file.relative_to(folder))
    return folder


def _names_file_below(location: str) -> bool:
    """Whether a location names something below a folder, on every system that the file may be read on."""
    parts = PureWindowsPath(location)
    return bool(parts.parts) and not parts.anchor and ".." not in parts.parts and "\0" not in location


def _within(file: Path, folder: Path) -> bool:
    return file != folder and file.is_relative_to(folder)


def _data_of(path: Path, folder: Path, tensor: onnx.TensorProto) -> ExternalData:
    entries = _entries(tensor)
    try:
        needed = -(-math.prod(tensor.dims) * _bits(tensor) // 8)
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", needed))
    except (KeyError, ValueError, TypeError) as error:
        raise _refused(path, tensor, f"has external data {entries}", "Export the model again.") from error
    if offset < 0 or length < 0:
        raise _refused(path, tensor, f"has external data {entries}", "Export the model again.")
    return ExternalData(tensor.name, folder / entries["location"], offset + needed, length >= needed)


def _bits(tensor: onnx.TensorProto) -> int:
    """The number of bits that one element of a tensor has in a file."""
    name = onnx.TensorProto.DataType.Name(tensor.data_type)
    # The types of less than a byte are packed, and their names end with their bits, as in INT4 and FLOAT4E2M1.
    packed = next((bits for bits in (2, 4) if name in {f"INT{bits}", f"UINT{bits}", f"FLOAT{bits}E2M1"}), None)
    return packed or 8 * int(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)


def _entries(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def without_external_data(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with an input in place of every initializer whose data are external, in place.

    ONNX's checker wants to open the data itself, and refuses links to them.

    Args:
        model: the model, read without its external data.
    """
    graph = model.graph
    inputs = {value.name for value in graph.input}
    for i, tensor in reversed(list(enumerate(graph.initializer))):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            if tensor.name not in inputs:
                graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
            del graph.initializer[i]
    return model


def _outside(path: Path, tensor: onnx.TensorProto, location: str) -> StorageError:
    return _refused(
        path,
        tensor,
        f"has its external data at {location!r}, which is no file in the folder of the model",
        "Don't trust the file, unless you wrote it; then save it again: onnx.save_model(model, path, "
        "save_as_external_data=True, location='model.data').",
    )


def _refused(path: Path, tensor: onnx.TensorProto, what: str, remedy: str) -> StorageError:
    return StorageError(
        f"The file stores a tensor that can't be used. Received: {str(path)!r}, in which {tensor.name!r} {what}. "
        f"{remedy}"
    )
