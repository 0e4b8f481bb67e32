"""The passes over the emitted graph, one a file, in the order they run."""

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from keras_qat.onnx.passes.embed_normalization import EmbedNormalization
from keras_qat.onnx.passes.fold_affine import FoldAffine, SpellOutBatchNorm
from keras_qat.onnx.passes.half_precision import HalfPrecision, HalfScales
from keras_qat.onnx.passes.pads_and_strides import MergePadding, PoolStrides
from keras_qat.onnx.passes.quantize_dense_bias import QuantizeDenseBias
from keras_qat.targets import Target
from keras_qat.types import IoDtype, Normalization, Precision


def passes_for(
    target: Target | None,
    precision: Precision = "fp32",
    io_dtype: IoDtype = "float32",
    normalization: Normalization | None = None,
) -> tuple[ir.passes.PassBase, ...]:
    """The passes that the target's file goes through; `None` for a float model.

    The int32 bias is left out of FP16 files: its scale s_x · s_w is about 1e-6, which FP16 doesn't hold. The
    normalization is embedded last, when the input has its type.

    Example:
        >>> [type(p).__name__ for p in passes_for(None)]
        ['FoldAffine', 'MergePadding', 'RemoveUnusedNodesPass']
    """
    folds = (FoldAffine(), MergePadding())
    head = () if normalization is None else (EmbedNormalization(normalization),)
    if precision == "fp16":
        return (*folds, SpellOutBatchNorm(), HalfScales(), RemoveUnusedNodesPass(), HalfPrecision(io_dtype), *head)
    bias = (QuantizeDenseBias(),) if target is not None and target.int32_dense_bias else ()
    strides = (PoolStrides(),) if target is not None and target.pools_strides else ()
    return (*folds, *bias, *strides, RemoveUnusedNodesPass(), *head)


__all__ = [
    "EmbedNormalization",
    "FoldAffine",
    "HalfPrecision",
    "HalfScales",
    "MergePadding",
    "PoolStrides",
    "QuantizeDenseBias",
    "SpellOutBatchNorm",
    "passes_for",
]
