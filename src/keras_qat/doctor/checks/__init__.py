"""All checks of a file: a table. One function each, one file per theme."""

from collections.abc import Callable, Iterator, Mapping

from keras_qat.doctor.checks.integers import int32_bias, saturation, signed, unsigned, zero_point
from keras_qat.doctor.checks.kernels import (
    float_bias,
    float_file,
    float_kernels,
    float_output,
    float_weights,
    nothing_weighted,
    tensor_wide_weights,
)
from keras_qat.doctor.checks.operators import (
    dynamic_quantization,
    dynamic_shape,
    empty_graph,
    half_scales,
    invalid_model,
    missing_data,
    new_opset,
    not_finite,
    old_opset,
    refused_operator,
    unknown_operator,
)
from keras_qat.doctor.checks.pairs import (
    bad_scale,
    half_pair,
    parted_activation,
    tiny_scale,
    unequal_scales,
    unfused_batch_norm,
    unlike_halves,
)
from keras_qat.doctor.checks.residual import float_add, float_between, quantized_branch, strided_pointwise
from keras_qat.doctor.findings import Symptom
from keras_qat.onnx import OnnxFile
from keras_qat.targets import Engine

Check = Callable[[OnnxFile, Engine], Iterator[Symptom]]
"""What one check sees in a file, for one engine; nothing if all is well."""

CHECKS: Mapping[str, Check] = {
    "empty-graph": empty_graph,
    "missing-data": missing_data,
    "invalid-model": invalid_model,
    "not-finite": not_finite,
    "old-opset": old_opset,
    "new-opset": new_opset,
    "unknown-operator": unknown_operator,
    "refused-operator": refused_operator,
    "int32-bias": int32_bias,
    "zero-point": zero_point,
    "uint8-activations": unsigned,
    "bad-scale": bad_scale,
    "float-file": float_file,
    "float-kernels": float_kernels,
    "float-output": float_output,
    "float-bias": float_bias,
    "float-add": float_add,
    "quantized-branch": quantized_branch,
    "strided-pointwise": strided_pointwise,
    "parted-activation": parted_activation,
    "unfused-batch-norm": unfused_batch_norm,
    "half-pair": half_pair,
    "unlike-halves": unlike_halves,
    "unequal-scales": unequal_scales,
    "tiny-scale": tiny_scale,
    "per-tensor-weights": tensor_wide_weights,
    "shared-int8": signed,
    "fp16-scales": half_scales,
    "dynamic-quantization": dynamic_quantization,
    "dynamic-shape": dynamic_shape,
    "float-between": float_between,
    "float-weights": float_weights,
    "saturation": saturation,
    "nothing-weighted": nothing_weighted,
}
"""By name; findings of one severity come in this order."""

__all__ = ["CHECKS", "Check"]
