"""How a quantized tensor reads in a table or a picture."""

from collections.abc import Mapping

from keras_qat.errors import UserError
from keras_qat.types import Placement, QuantizedTensor, QuantSpec, TensorRange

_NAMED = 3
"""So many names are enough to see what is amiss."""


def describe_spec(spec: QuantSpec) -> str:
    """The integers of a spec.

    Example:
        >>> describe_spec(QuantSpec(storage="uint8", signed=False)), describe_spec(QuantSpec(bits=4, axis=3))
        ('uint8 zero-point 0', 'int8 zero-point 0 in 4 bits per channel (axis 3)')
    """
    channel = "" if spec.axis is None else f" per channel (axis {spec.axis})"
    width = "" if spec.bits == 8 else f" in {spec.bits} bits"  # noqa: PLR2004
    return f"{spec.storage} zero-point {spec.zero_point}{width}{channel}"


def describe_scale(tensor: QuantizedTensor, ranges: Mapping[str, TensorRange]) -> str:
    """The scale s = amax / q_max, to four digits.

    Example:
        >>> tensor = QuantizedTensor("relu", QuantSpec(), range_of="relu")
        >>> describe_scale(tensor, {"relu": TensorRange(amax=6.35, method="mse", images=256)})
        '0.05'
    """
    return f"{ranges[tensor.range_of].amax / tensor.spec.q_max:.4g}"


def require_ranges(placement: Placement, ranges: Mapping[str, TensorRange]) -> None:
    """Refuse ranges of another placement.

    Raises:
        UserError: a quantized tensor has none; the first few are named.
    """
    missing = [name for name in placement.observed if name not in ranges]
    if missing:
        more = " …" if len(missing) > _NAMED else ""
        raise UserError(
            f"{len(missing)} quantized tensors have no range. Received: ranges of {len(ranges)} tensors, none of "
            f"{', '.join(map(repr, missing[:_NAMED]))}{more}. "
            "Calibrate the same model with the same target and overrides."
        )
