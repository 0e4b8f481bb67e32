"""The passes over the emitted graph, and the order in which they run."""

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from keras_qat.onnx.passes import (
    bias_range,
    brevity,
    embed_normalization,
    float_kernel,
    float_softmax,
    fold_affine,
    half_precision,
    pads_and_strides,
    pin_scales,
    quantize_dense_bias,
    share_constants,
    subpixel,
)
from keras_qat.targets import Target
from keras_qat.types import IoDtype, Normalization, Precision


def passes_for(
    target: Target | None,
    precision: Precision = "fp32",
    io_dtype: IoDtype = "float32",
    normalization: Normalization | None = None,
) -> tuple[ir.passes.PassBase, ...]:
    """The passes for a file, in order.

    FP16 files get no int32 bias, since its scale s_x · s_w is about 1e-6, which FP16 can't represent. The normalization
    is embedded when the input has its final type. What the file can do without is left out last.

    Args:
        target: the engine of the file; `None` for a float model.
        precision: the floating-point type of the file.
        io_dtype: the element type of inputs and outputs.
        normalization: what the file does to the pixels that it reads; `None` for an input in float.

    Example:
        >>> [type(one_pass).__name__ for one_pass in passes_for(None)]
        ['FoldAffine', 'MergePadding', 'FitBias', 'RemoveUnusedNodesPass', 'ShareConstants', 'LeaveOut']
    """
    folds = (fold_affine.FoldAffine(), pads_and_strides.MergePadding(), bias_range.FitBias())
    head = () if normalization is None else (embed_normalization.EmbedNormalization(normalization),)
    pins = (pin_scales.PinScales(precision),) if target is not None and target.pins_scales else ()
    softmax = (float_softmax.FloatSoftmax(),) if target is not None and target.rounds_softmax else ()
    if precision == "fp16":
        return (
            *folds,
            *pins,
            fold_affine.SpellOutBatchNorm(),
            half_precision.HalfScales(),
            RemoveUnusedNodesPass(),
            half_precision.HalfPrecision(io_dtype),
            share_constants.ShareConstants(),
            *head,
            brevity.LeaveOut(),
        )
    bias = (quantize_dense_bias.QuantizeDenseBias(),) if target is not None and target.int32_dense_bias else ()
    kernels = (float_kernel.KeepFloatKernel(),) if target is not None and target.rounds_float_kernels else ()
    strides = (pads_and_strides.PoolStrides(),) if target is not None and target.pools_strides else ()
    phases = (subpixel.SubPixel(),) if target is not None and target.convolves_transposed else ()
    return (
        *folds,
        *pins,
        *softmax,
        *phases,
        *bias,
        *kernels,
        *strides,
        RemoveUnusedNodesPass(),
        share_constants.ShareConstants(),
        *head,
        brevity.LeaveOut(),
    )
