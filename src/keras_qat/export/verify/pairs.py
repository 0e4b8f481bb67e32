"""One Q/DQ pair against the spec of its tensor: integer type, zero-point, scale."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir

from keras_qat.export.verify.deployed import constant
from keras_qat.types import QuantSpec


def pair_problems(dequantize: ir.Node, spec: QuantSpec, scale: np.floating | None) -> Iterator[str]:
    """What is wrong with a pair.

    Args:
        dequantize: its second node.
        spec: how the placement quantizes the tensor.
        scale: the simulated scale, as the file should store it; `None` if it isn't known.
    """
    above = dequantize.inputs[0]
    quantize = None if above is None else above.producer()
    if quantize is None or quantize.op_type != "QuantizeLinear":
        yield "a DequantizeLinear stands there without its QuantizeLinear"
        return
    stored = [_scale_and_zero_point(node) for node in (quantize, dequantize)]
    if None in stored:
        yield "its pair has a scale or a zero-point that is not stored in the file"
        return
    (s, z), (s_again, z_again) = (one for one in stored if one is not None)
    if not (_same(s, s_again) and _same(z, z_again)):
        yield "QuantizeLinear and DequantizeLinear of its pair differ in scale or zero-point"
    if (str(z.dtype), z.shape) != (spec.storage, ()) or int(z) != spec.zero_point:
        yield (
            f"its zero-point should be {spec.zero_point} in {spec.storage}, of shape (); the file has "
            f"{z.tolist()} in {z.dtype}, of shape {z.shape}"
        )
    yield from _scale_problems(s, scale)


def not_positive(s: np.ndarray) -> bool:
    """Whether any scale is zero, negative, infinite or NaN."""
    return not np.all(np.isfinite(s) & (s > 0))


def _scale_problems(s: np.ndarray, simulated: np.floating | None) -> Iterator[str]:
    if s.shape != ():
        yield f"its scale should be one number, of shape (); the file has shape {s.shape}"
    elif not_positive(s):
        yield f"its scale should be positive and finite; the file has {float(s):.6g}"
    elif simulated is not None and np.float32(s) != np.float32(simulated):
        yield f"its scale should be the simulated {float(simulated):.8g}; the file has {float(s):.8g}"


def _scale_and_zero_point(node: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    found = [value for value in node.inputs[1:3] if value is not None and constant(value)]
    arrays = [value.const_value.numpy() for value in found if value.const_value is not None]
    return (arrays[0], arrays[1]) if len(arrays) == 2 else None  # noqa: PLR2004


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
