"""The checks of an ONNX file: a table of functions, grouped by theme into modules."""

from collections.abc import Callable, Iterator, Mapping

from keras_qat.doctor.checks import integers, kernels, operators, pairs, residual
from keras_qat.doctor.findings import Symptom
from keras_qat.onnx import OnnxFile
from keras_qat.targets import Target

Check = Callable[[OnnxFile, Target], Iterator[Symptom]]
"""Yields what one check sees in a file for one target, nothing if all is well."""

CHECKS: Mapping[str, Check] = {
    "empty-graph": operators.empty_graph,
    "missing-data": operators.missing_data,
    "invalid-model": operators.invalid_model,
    "not-finite": operators.not_finite,
    "old-opset": operators.old_opset,
    "new-opset": operators.new_opset,
    "unknown-operator": operators.unknown_operator,
    "refused-operator": operators.refused_operator,
    "int32-bias": integers.int32_bias,
    "bias-overflow": integers.bias_overflow,
    "zero-point": integers.zero_point,
    "uint8-activations": integers.unsigned,
    "bad-scale": pairs.bad_scale,
    "float-file": kernels.float_file,
    "float-kernels": kernels.float_kernels,
    "float-output": kernels.float_output,
    "float-bias": kernels.float_bias,
    "float-add": residual.float_add,
    "quantized-branch": residual.quantized_branch,
    "strided-pointwise": residual.strided_pointwise,
    "parted-activation": pairs.parted_activation,
    "unfused-batch-norm": pairs.unfused_batch_norm,
    "half-pair": pairs.half_pair,
    "unlike-halves": pairs.unlike_halves,
    "unequal-scales": pairs.unequal_scales,
    "tiny-scale": pairs.tiny_scale,
    "per-tensor-weights": kernels.per_tensor_weights,
    "shared-int8": integers.shared_int8,
    "fp16-scales": operators.half_scales,
    "dynamic-quantization": operators.dynamic_quantization,
    "dynamic-shape": operators.dynamic_shape,
    "float-between": residual.float_between,
    "float-weights": kernels.float_weights,
    "saturation": integers.saturation,
    "nothing-weighted": kernels.nothing_weighted,
}
"""The checks by name. Findings of one severity are listed in this order."""

__all__ = ["CHECKS", "Check"]
