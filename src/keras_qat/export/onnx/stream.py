"""An ONNX model to disk, one tensor at a time: protobuf's own serialization holds the whole file in memory three times.

The wire format (https://protobuf.dev/programming-guides/encoding/): a field is its tag, for messages and bytes the
length as a varint, then the content; a message is its fields in any order. So the graph is written as its fields
without tensors and then, for each tensor, as one more `initializer` field whose last field is `raw_data`.
"""

from pathlib import Path

import onnx
import onnx_ir as ir

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
