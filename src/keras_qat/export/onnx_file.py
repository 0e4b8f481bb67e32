"""An ONNX model to disk, one tensor at a time: protobuf's own serialization holds the whole file in memory three times.

The wire format (https://protobuf.dev/programming-guides/encoding/): a field is its tag, for messages and bytes the
length as a varint, then the content; a message is its fields in any order. So the graph is written as its fields
without tensors and then, for each tensor, as one more `initializer` field whose last field is `raw_data`.

Keras model → a checked ONNX file on disk.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir

from keras_qat.files import atomic_path
from keras_qat.onnx import emit
from keras_qat.targets import Target, find_target
from keras_qat.types import IoDtype, Normalization, Precision

_LENGTH_DELIMITED = 2


def save_and_release(file: ir.Model, path: Path) -> None:
    """Write a model, and free each tensor as soon as it is written: the model is of no use afterwards.

    Args:
        file: the model. All its initializers hold a tensor.
        path: where to write.
    """
    initializers = list(file.graph.initializers.values())
    file.graph.initializers.clear()
    proto = ir.to_proto(file)
    heads = [_head(value) for value in initializers]
    graph = proto.graph.SerializeToString()
    proto.ClearField("graph")
    initializer = _tag(onnx.GraphProto, "initializer")
    sizes = [len(head) + _bytes_of(value) for head, value in zip(heads, initializers, strict=True)]
    length = len(graph) + sum(len(initializer) + len(_varint(size)) + size for size in sizes)
    with path.open("wb") as stream:
        stream.write(proto.SerializeToString())
        stream.write(_tag(onnx.ModelProto, "graph") + _varint(length) + graph)
        for head, size, value in zip(heads, sizes, initializers, strict=True):
            stream.write(initializer + _varint(size) + head)
            stream.write(_tensor(value).tobytes())
            # The nodes still hold the value, and each other, until Python collects the cycle.
            value.const_value = None


def _head(value: ir.Value) -> bytes:
    """A TensorProto up to the content of its `raw_data`."""
    tensor = _tensor(value)
    proto = onnx.TensorProto(dims=list(tensor.shape.numpy()), data_type=tensor.dtype, name=value.name)
    return bytes(proto.SerializeToString()) + _tag(onnx.TensorProto, "raw_data") + _varint(_bytes_of(value))


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    if value.const_value is None:
        raise ValueError(f"Every initializer needs a tensor. Received: {value.name!r} without one.")
    return value.const_value


def _bytes_of(value: ir.Value) -> int:
    return _tensor(value).nbytes


def _tag(message: type, field: str) -> bytes:
    number = message.DESCRIPTOR.fields_by_name[field].number  # type: ignore[attr-defined]
    return _varint(number << 3 | _LENGTH_DELIMITED)


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth bit says that more follow.

    Example:
        >>> _varint(300).hex()
        'ac02'
    """
    parts = []
    while number > 0x7F:  # noqa: PLR2004
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*parts, number])


def export_onnx(
    model: Any,
    path: str | Path,
    *,
    target: str | Target | None = None,
    opset: int | None = None,
    precision: Precision = "fp32",
    io_dtype: IoDtype = "float32",
    metadata: Mapping[str, str] | None = None,
    normalization: Normalization | None = None,
) -> Path:
    """Write a Keras model, float or quantized, as an ONNX file.

    The file passes ONNX's own checker and strict shape inference before it gets its name.

    Args:
        model: a Functional or Sequential `keras.Model`; FakeQuantize layers become Q/DQ pairs, quantized kernels int8.
        path: where to write.
        target: the engine whose preferences the file follows; `None` for a float model.
        opset: ONNX operator set, 13 to 21; 17 if not given. FP16 needs 19 or later, and takes 19.
        precision: "fp16" for a strongly typed file: what isn't quantized and all scales are float16. ONNX Runtime's CPU
            optimizer computes such a file wrongly; run it there with optimizations off.
        io_dtype: element type of inputs and outputs: "float32", or "float16" with FP16.
        metadata: texts for the file's `metadata_props`, by keys that begin with "keras_qat.".
        normalization: let the file read uint8 pixels, (batch, height, width, 3) of RGB or (batch, height, width, 1) of
            gray, and normalize them itself, in the type that its input would have; such as
            `Preprocessing.normalization`.

    Returns:
        The path.

    Raises:
        UnsupportedModelError: a layer has no converter, or numbers that FP16 doesn't hold.
        UserError: target, precision or opset is unknown, or they don't go together; `metadata` has another key;
            the model has not exactly one image input to normalize.
        StorageError: the file can't be written.

    Example:
        >>> import keras, tempfile
        >>> x = keras.Input((8, 8, 3), name="image")
        >>> model = keras.Model(x, keras.layers.Conv2D(4, 3, name="conv")(x))
        >>> export_onnx(model, Path(tempfile.mkdtemp()) / "model.onnx").stat().st_size > 0
        True
    """
    file = emit(
        model,
        target=None if target is None else find_target(target),
        opset=opset,
        precision=precision,
        io_dtype=io_dtype,
        metadata=metadata,
        normalization=normalization,
    )
    path = Path(path)
    with atomic_path(path) as temporary:
        save_and_release(file, temporary)
        onnx.checker.check_model(str(temporary), full_check=True)
    return path
