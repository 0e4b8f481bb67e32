"""The parts of attention, read as the products that engines compute in integers.

An EinsumDense, which projects tokens for each head, is a Dense between reshapes. `keras.ops.dot_product_attention` is
two products with a softmax between them.
"""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras.src.ops import nn  # the operations behind `keras.ops` calls in a graph

from keras_qat.graph.kinds import register_composite


def _dense_axes(layer: Any) -> tuple[str, str, str] | None:
    """The letters of an EinsumDense that is a Dense: axes that stay, axes that it sums over, new axes.

    Example:
        >>> _dense_axes(keras.layers.EinsumDense("abc,cde->abde", (None, 2, 3)))
        ('ab', 'c', 'de')
        >>> _dense_axes(keras.layers.EinsumDense("abc,acd->abd", (None, 3))) is None
        True
    """
    given, _, made = layer.equation.replace(" ", "").replace("...", "").partition("->")
    x, kernel = given.split(",")
    stays = "".join(c for c in x if c in made and c not in kernel)
    summed, new = (("".join(c for c in kernel if c in term)) for term in (x, made))
    ellipsis_is_left = not layer.equation.replace(" ", "").endswith("...")
    bias_on_new = set(layer.bias_axes or "") <= set(new)
    plain = x == stays + summed and made == stays + new and not set(summed) & set(made)
    return (stays, summed, new) if plain and ellipsis_is_left and bias_on_new and summed and new else None


def _is_dense(layer: Any) -> bool:
    return _dense_axes(layer) is not None


@register_composite(keras.layers.EinsumDense, when=_is_dense)
def expand_einsum_dense(layer: Any, shapes: list[tuple[int | None, ...]]) -> keras.Model:
    """A Dense with the layer's name, between reshapes that join the axes it sums over and part the new ones."""
    _, summed, new = _dense_axes(layer) or ("", "", "")
    kernel, *bias = layer.get_weights()
    letters = layer.equation.replace(" ", "").partition("->")[0].split(",")[1]
    matrix = kernel.transpose([letters.index(c) for c in summed + new])
    made = matrix.shape[len(summed) :]
    units = math.prod(made)
    kept = [-1 if size is None else size for size in shapes[0][1 : len(shapes[0]) - len(summed)]]
    dense = keras.layers.Dense(
        units, activation=layer.activation, use_bias=bool(bias), dtype=layer.dtype_policy, name=layer.name
    )
    inputs = keras.Input(batch_shape=shapes[0])
    x = inputs
    if len(summed) > 1:
        x = keras.layers.Reshape((*kept, math.prod(matrix.shape[: len(summed)])), name=f"{layer.name}_join")(x)
    x = dense(x)
    if len(new) > 1:
        x = keras.layers.Reshape((*kept, *made), name=f"{layer.name}_part")(x)
    weights = [matrix.reshape(-1, units), *(np.broadcast_to(b, made).reshape(units) for b in bias)]
    dense.set_weights(weights)
    return keras.Model(inputs, x, name=f"{layer.name}_composite")


_MASKED = -6e4
"""What stands in place of a masked score: FP16 holds it, and its weight is 0 beside any other score."""


@register_composite(nn.DotProductAttention)
def expand_attention(
    operation: Any, shapes: list[tuple[int | None, ...]], given: Mapping[str, Any]
) -> keras.Model | None:
    """softmax(q kᵀ · scale + bias) v for each head, with masked scores pushed down."""
    lengths = (given["query"].shape[1], given["key"].shape[1])
    if operation.attn_logits_soft_cap is not None or (operation.is_causal and None in lengths):
        return None
    del shapes
    tensors = {name: x for name, x in given.items() if isinstance(x, keras.KerasTensor)}
    inputs = {name: keras.Input(batch_shape=x.shape, dtype=x.dtype) for name, x in tensors.items()}
    of_call = {**given, **inputs}
    q, k, v = (of_call[name] for name in ("query", "key", "value"))
    groups = q.shape[2] // k.shape[2]
    if groups > 1:
        k, v = (keras.ops.repeat(x, groups, axis=2) for x in (k, v))
    scale = 1 / math.sqrt(q.shape[-1]) if given.get("scale") is None else given["scale"]
    scores = keras.ops.einsum("btnh,bsnh->bnts", keras.ops.multiply(q, scale), k)
    if given.get("bias") is not None:
        scores = keras.ops.add(scores, of_call["bias"])
    causal = [np.tri(*lengths, dtype=bool)] if operation.is_causal else []
    for mask in (of_call.get("mask"), *causal):
        if mask is not None:
            scores = keras.ops.where(mask, scores, _MASKED)
    mixed = keras.ops.einsum("bnts,bsnh->btnh", keras.ops.softmax(scores), v)
    return keras.Model(list(inputs.values()), mixed, name=f"{operation.name}_composite")
