"""Numbers that are stored in a file: as initializers, in Constant nodes, and beside it as external data."""

from pathlib import Path

import numpy as np
import onnx_ir as ir

from keras_qat.doctor.node_inputs import input_at


def stored_tensor(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor behind a value, `None` for one that is computed or read.

    Example:
        >>> stored_tensor(ir.Value(const_value=ir.tensor([1, 2]))).shape.numpy()
        (2,)
    """
    while value is not None and value.const_value is None:
        node = value.producer()
        if node is None:
            return None
        if node.op_type == "Constant" and "value" in node.attributes:
            return node.attributes["value"].as_tensor()
        value = input_at(node, 0) if node.op_type == "Identity" else None
    return None if value is None else value.const_value


def present(tensor: ir.TensorProtocol) -> bool:
    """Whether the numbers can be read: external data may be missing or cut short.

    Example:
        >>> present(ir.tensor([1, 2]))
        True
    """
    if not isinstance(tensor, ir.ExternalTensor):
        return True
    path = Path(tensor.path)
    return path.is_file() and path.stat().st_size >= (tensor.offset or 0) + tensor.nbytes


def numbers(value: ir.Value | None) -> np.ndarray | None:
    """The stored numbers, `None` for a value that isn't stored, or whose data are missing.

    Example:
        >>> numbers(ir.Value(const_value=ir.tensor([1, 2])))
        array([1, 2])
    """
    tensor = stored_tensor(value)
    return tensor.numpy() if tensor is not None and present(tensor) else None
