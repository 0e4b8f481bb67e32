"""The passes over the emitted graph, one a file, in the order they run."""

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from keras_qat.export.onnx.passes.fold_affine import FoldAffine
from keras_qat.export.onnx.passes.merge_padding import MergePadding
from keras_qat.export.onnx.passes.pool_strides import PoolStrides
from keras_qat.export.onnx.passes.quantize_dense_bias import QuantizeDenseBias
from keras_qat.targets import Target


def passes_for(target: Target | None) -> tuple[ir.passes.PassBase, ...]:
    """The passes that the target's file goes through; `None` for a float model.

    Example:
        >>> [type(p).__name__ for p in passes_for(None)]
        ['FoldAffine', 'MergePadding', 'RemoveUnusedNodesPass']
    """
    bias = (QuantizeDenseBias(),) if target is not None and target.int32_dense_bias else ()
    strides = (PoolStrides(),) if target is not None and target.pools_strides else ()
    return (FoldAffine(), MergePadding(), *bias, *strides, RemoveUnusedNodesPass())


__all__ = ["FoldAffine", "MergePadding", "PoolStrides", "QuantizeDenseBias", "passes_for"]
