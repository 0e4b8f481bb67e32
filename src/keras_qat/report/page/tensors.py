"""Each quantized tensor by itself: range, scale, what its numbers look like, what quantizing it costs."""

from collections.abc import Mapping
from typing import Any

from keras_qat.evaluation import TensorDiagnosis
from keras_qat.evaluation.diagnosis import percent
from keras_qat.placement.describe import describe_spec
from keras_qat.report.page.numbers import db_text, drawable
from keras_qat.report.run_files import RunFiles
from keras_qat.types import QuantizedTensor, TensorRange


def tensor_views(files: RunFiles) -> list[dict[str, Any]]:
    """What the explorer shows of each tensor, in the order of the graph; nothing without ranges."""
    if files.ranges is None:
        return []
    diagnosed = {
        variant: {one.name: one for one in found.diagnosis.tensors} for variant, found in files.diagnoses.items()
    }
    if files.placement is None:
        return [_view(name, None, found, diagnosed) for name, found in files.ranges.items()]
    known = [tensor for tensor in files.placement.tensors if tensor.range_of in files.ranges]
    return [_view(tensor.tensor, tensor, files.ranges[tensor.range_of], diagnosed) for tensor in known]


def _view(
    name: str,
    tensor: QuantizedTensor | None,
    found: TensorRange,
    diagnosed: Mapping[str, Mapping[str, TensorDiagnosis]],
) -> dict[str, Any]:
    facts = [("Range", f"{found.amax:.4g}, by {found.method} on {found.images} images")]
    if tensor is not None:
        facts += [("Scale", f"{found.amax / tensor.spec.q_max:.4g}"), ("Integers", describe_spec(tensor.spec))]
        if tensor.range_of != tensor.tensor:
            facts.append(("Shares the range of", tensor.range_of))
    facts += [(f"Magnitude, {key}", f"{value:.4g}") for key, value in (found.summary or {}).items()]
    for variant, tensors in diagnosed.items():
        if name in tensors:
            facts += _figures(variant, tensors[name], found.amax)
    largest = (found.summary or {}).get("max")
    histogram = found.histogram if largest and found.histogram else None
    clip = f"clip {found.amax:.4g}"
    shown = f"largest magnitude {largest:.4g}, {clip}" if largest else clip
    return {
        "name": name,
        "facts": facts,
        "clip": drawable(found.amax),
        "clip_label": clip,
        "largest": largest,
        "histogram": histogram,
        "alt": f"Histogram of the magnitudes of {name}, shares on a logarithmic axis: {shown}.",
    }


def _figures(variant: str, found: TensorDiagnosis, calibrated: float) -> list[tuple[str, str]]:
    figures = [
        (f"SQNR alone, {variant}", db_text(found.alone)),
        (f"SQNR cumulative, {variant}", db_text(found.cumulative)),
        (f"Saturated, {variant}", percent(found.saturated)),
    ]
    text = f"{found.amax:.4g}"
    return figures if text == f"{calibrated:.4g}" else [(f"Range, {variant}", text), *figures]
