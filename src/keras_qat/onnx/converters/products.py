"""Products of matrices, and whatever is one: einsum, dot products and attention.

A product of two tensors becomes one MatMul between transposes and reshapes, since engines multiply integers in a MatMul
and not in an Einsum. All is computed in Keras's layout.
"""

import string
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras.src.ops import nn
from keras.src.ops import numpy as operations

from keras_qat.graph import TensorRef
from keras_qat.onnx.emission import Emission, Step, register_converter
from keras_qat.onnx.layout import Shape

Operand = tuple[ir.Value, Shape]
"""A value in Keras's layout and its shape."""


def _operand(emission: Emission, step: Step, x: Any) -> Operand:
    """A tensor or constant of the call."""
    if isinstance(x, TensorRef):
        value, shape = step.operand(x)
        value = emission.cast(value, step.dtype, step.name, shape)
        return emission.to_keras_layout(value, shape, step.name), shape
    array = np.asarray(keras.ops.convert_to_numpy(x)).astype(step.dtype.numpy())
    return emission.constant(f"{step.name}/constant", array), array.shape


def _finish(emission: Emission, step: Step, value: ir.Value) -> ir.Value:
    return emission.to_file_layout(value, step.output_shape, step.name)


@register_converter(operations.Matmul)
def convert_matmul(emission: Emission, step: Step) -> ir.Value:
    """MatMul, which broadcasts as in Keras."""
    values = [_operand(emission, step, x)[0] for x in step.arguments.values()]
    return _finish(emission, step, emission.op("MatMul", values, step.name))


@register_converter(operations.Einsum)
def convert_einsum(emission: Emission, step: Step) -> ir.Value:
    """The contraction that the subscripts say."""
    operands = [_operand(emission, step, x) for x in step.args]
    terms, made = _terms(step.layer.subscripts, [len(shape) for _, shape in operands], len(step.output_shape))
    if len(operands) > 2 or any(len(set(term)) < len(term) for term in terms):  # noqa: PLR2004
        equation = f"{','.join(terms)}->{made}"
        value = emission.op("Einsum", [value for value, _ in operands], step.name, equation=equation)
        return _finish(emission, step, value)
    return _finish(emission, step, contract(emission, step.name, operands, terms, made))


def _terms(subscripts: str, ranks: list[int], made_rank: int) -> tuple[list[str], str]:
    """The letters of the axes of each operand and of the result, with letters in place of `...`.

    Example:
        >>> _terms("...ij,jk->...ik", [4, 2], 4)
        (['ABij', 'jk'], 'ABik')
    """
    left, _, right = subscripts.replace(" ", "").partition("->")
    terms = left.split(",")
    if "->" not in subscripts:
        letters = sorted({c for c in left if c.isalpha() and left.count(c) == 1})
        right = ("..." if "..." in left else "") + "".join(letters)
    free = [c for c in string.ascii_uppercase if c not in subscripts]
    most = max(
        (rank - len(t.replace("...", "")) for t, rank in zip(terms, ranks, strict=True) if "..." in t), default=0
    )

    def spelled(term: str, rank: int) -> str:
        count = rank - len(term.replace("...", ""))
        return term.replace("...", "".join(free[most - count : most]))

    return [spelled(t, rank) for t, rank in zip(terms, ranks, strict=True)], spelled(right, made_rank)


def contract(emission: Emission, name: str, operands: Sequence[Operand], terms: Sequence[str], made: str) -> ir.Value:
    """The sum over products that an einsum of one or two operands says, in which no letter stands twice in one operand.

    Args:
        emission: where the nodes are added.
        name: the name of the MatMul.
        operands: one or two values in Keras's layout with their shapes.
        terms: the letters of the axes of each.
        made: the letters of the axes of the result.
    """
    others = [{*made, *(c for other in terms if other is not term for c in other)} for term in terms]
    summed = [_sum_out(emission, name, x, t, keep) for x, t, keep in zip(operands, terms, others, strict=True)]
    if len(summed) == 1:
        (value, _), term = summed[0]
        return _permute(emission, name, value, term, made)
    ((x, x_shape), a), ((y, y_shape), b) = summed
    batch = [c for c in made if c in a and c in b]
    inner = [c for c in a if c in b and c not in made]
    rows, columns = ([c for c in made if c in term and c not in other] for term, other in ((a, b), (b, a)))
    if rows and columns and made.index(columns[0]) < made.index(rows[0]):
        # The result has the columns first, so the operands change places, which saves a transpose.
        return contract(emission, name, [(y, y_shape), (x, x_shape)], [b, a], made)
    sizes = {c: n for term, shape in ((a, x_shape), (b, y_shape)) for c, n in zip(term, shape, strict=True)}
    left = _as_matrix(emission, f"{name}/left", x, a, [batch, rows, inner], sizes)
    right = _as_matrix(emission, f"{name}/right", y, b, [batch, inner, columns], sizes)
    value = emission.op("MatMul", [left, right], name)
    order = [*batch, *rows, *columns]
    if len(rows) != 1 or len(columns) != 1:
        target = [_size(sizes[c], batch=i < len(batch)) for i, c in enumerate(order)]
        value = emission.op("Reshape", [value, emission.constant(f"{name}/shape", target, np.int64)], f"{name}/reshape")
    return _permute(emission, name, value, "".join(order), made)


def _sum_out(emission: Emission, name: str, x: Operand, term: str, keep: set[str]) -> tuple[Operand, str]:
    """The operand without the axes that nothing else has, which are summed up."""
    value, shape = x
    axes = tuple(i for i, c in enumerate(term) if c not in keep)
    if axes:
        value = emission.reduce("ReduceSum", value, axes, f"{name}/sum", None, keepdims=False)
    left = [i for i in range(len(term)) if i not in axes]
    return (value, tuple(shape[i] for i in left)), "".join(term[i] for i in left)


def _permute(emission: Emission, name: str, value: ir.Value, term: str, wanted: str) -> ir.Value:
    if term == wanted:
        return value
    return emission.op("Transpose", [value], f"{name}/transpose", perm=[term.index(c) for c in wanted])


def _as_matrix(
    emission: Emission, name: str, value: ir.Value, term: str, groups: list[list[str]], sizes: dict[str, int | None]
) -> ir.Value:
    """The operand with each axis of the first group, then one axis for each other group."""
    batch, *matrix = groups
    value = _permute(emission, name, value, term, "".join(c for group in groups for c in group))
    if all(len(group) == 1 for group in matrix):
        return value
    target = [_size(sizes[c], batch=True) for c in batch]
    for group in matrix:
        known = [sizes[c] for c in group]
        target.append(-1 if None in known else int(np.prod([n or 1 for n in known], dtype=np.int64)))
    return emission.op("Reshape", [value, emission.constant(f"{name}/shape", target, np.int64)], f"{name}/reshape")


def _size(size: int | None, *, batch: bool) -> int:
    """A size in the target of a Reshape: 0 copies that of the same axis, -1 stands for what is left."""
    return size if size is not None else 0 if batch else -1


@register_converter(operations.Dot, operations.Inner, operations.Outer, operations.Tensordot)
def convert_dot(emission: Emission, step: Step) -> ir.Value:
    """The contraction of fixed axes."""
    kind, (x, y) = type(step.layer), (_operand(emission, step, x) for x in step.arguments.values())
    n, m = len(x[1]), len(y[1])
    letters = string.ascii_lowercase
    a, b = letters[:n], letters[n : n + m]
    if kind is operations.Tensordot:
        axes = step.layer.axes
        pairs = list(zip(range(n - axes, n), range(axes), strict=True)) if isinstance(axes, int) else _pairs(axes, n, m)
    else:
        last = {operations.Dot: max(m - 2, 0), operations.Inner: m - 1, operations.Outer: None}[kind]
        pairs = [] if last is None or 0 in (n, m) else [(n - 1, last)]
    for i, j in pairs:
        b = b[:j] + a[i] + b[j + 1 :]
    made = "".join(c for c in a + b if not (c in a and c in b))
    value = contract(emission, step.name, [x, y], [a, b], made)
    if kind is operations.Outer and n + m > 2:  # noqa: PLR2004
        step.refuse(f"tensors of shapes {x[1]} and {y[1]}", "Give vectors to `keras.ops.outer`.")
    return _finish(emission, step, value)


def _pairs(axes: Any, n: int, m: int) -> list[tuple[int, int]]:
    """The axes that are contracted, counted from 0."""
    first, second = ([a] if isinstance(a, int) else list(a) for a in axes)
    return [(i % n, j % m) for i, j in zip(first, second, strict=True)]


@register_converter(keras.layers.Dot)
def convert_dot_layer(emission: Emission, step: Step) -> ir.Value:
    """The contraction of one axis of two tensors of each image, after their normalization if it is asked for."""
    operands = []
    axes = [step.layer.axes] * 2 if isinstance(step.layer.axes, int) else list(step.layer.axes)
    for value, shape, axis in zip(step.inputs, step.input_shapes, axes, strict=True):
        x = emission.to_keras_layout(value, shape, step.name)
        if step.layer.normalize:
            norm = emission.reduce("ReduceL2", x, (axis % len(shape),), f"{step.name}/norm", None, keepdims=True)
            least = emission.constant(f"{step.name}/least", keras.backend.epsilon(), np.float32)
            x = emission.op("Div", [x, emission.op("Max", [norm, least], f"{step.name}/max")], f"{step.name}/unit")
        operands.append((x, shape))
    ranks = [len(shape) for shape in step.input_shapes]
    a, b = string.ascii_lowercase[: ranks[0]], string.ascii_uppercase[: ranks[1]]
    b = "".join("a" if j == 0 else a[axes[0] % ranks[0]] if j == axes[1] % ranks[1] else c for j, c in enumerate(b))
    made = "".join(dict.fromkeys(c for c in a + b if c == "a" or not (c in a and c in b)))
    value = contract(emission, step.name, operands, [a, b], made)
    if len(made) == 1:
        value = emission.op(
            "Unsqueeze", [value, emission.constant(f"{step.name}/axes", [1], np.int64)], f"{step.name}/column"
        )
    return _finish(emission, step, value)


_MASKED = -6e4
"""What stands in place of a masked score: FP16 holds it, and its weight is 0 beside any other score."""


@register_converter(nn.DotProductAttention, integers=True)
def convert_attention(emission: Emission, step: Step) -> ir.Value:
    """softmax(q kᵀ · scale + bias) v for each head, with masked scores pushed down."""
    given, layer, name = step.arguments, step.layer, step.name
    if layer.attn_logits_soft_cap is not None:
        step.refuse("attn_logits_soft_cap", "Leave it out.")
    q, k, v = (_operand(emission, step, given[x]) for x in ("query", "key", "value"))
    k, v = (_of_each_head(emission, step, x, q[1][2]) for x in (k, v))
    scale = given.get("scale")
    scale = 1 / np.sqrt(q[1][-1] or 1) if scale is None else float(np.asarray(keras.ops.convert_to_numpy(scale)))
    scores = contract(emission, f"{name}/scores", [q, k], ["btnh", "bsnh"], "bnts")
    scores = emission.op("Mul", [scores, emission.constant(f"{name}/scale", scale, np.float32)], f"{name}/scaled")
    if given.get("bias") is not None:
        scores = emission.op("Add", [scores, _operand(emission, step, given["bias"])[0]], f"{name}/biased")
    masked = emission.constant(f"{name}/masked_score", _MASKED, np.float32)
    for mask in _masks(emission, step, (q[1][1], k[1][1])):
        scores = emission.op("Where", [mask, scores, masked], f"{name}/masked")
    weights = emission.op("Softmax", [scores], f"{name}/softmax", axis=-1)
    shape = (q[1][0], q[1][2], q[1][1], k[1][1])
    return _finish(emission, step, contract(emission, name, [(weights, shape), v], ["bnts", "bsnh"], "btnh"))


def _of_each_head(emission: Emission, step: Step, x: Operand, heads: int | None) -> Operand:
    """Keys or values with one entry for each head of the queries, where several share one."""
    value, shape = x
    groups = (heads or 1) // (shape[2] or 1)
    if groups <= 1 or shape[2] == 1:
        return x
    indices = emission.constant(f"{step.name}/heads", np.repeat(np.arange(shape[2] or 1), groups), np.int64)
    value = emission.op("Gather", [value, indices], f"{step.name}/grouped", axis=2)
    return value, (*shape[:2], heads, shape[3])


def _masks(emission: Emission, step: Step, lengths: tuple[int | None, int | None]) -> list[ir.Value]:
    """Where a score counts: by the mask of the call, and by position if the attention is causal."""
    masks = []
    mask = step.arguments.get("mask")
    if isinstance(mask, TensorRef):
        value, shape = step.operand(mask)
        value = emission.to_keras_layout(emission.cast(value, ir.DataType.BOOL, step.name), shape, step.name)
        masks.append(value)
    elif mask is not None:
        masks.append(emission.constant(f"{step.name}/mask", keras.ops.convert_to_numpy(mask), np.bool_))
    if step.layer.is_causal:
        if None in lengths:
            step.refuse("is_causal=True on a sequence of unknown length", "Give the model a fixed input shape.")
        masks.append(emission.constant(f"{step.name}/causal", np.tri(lengths[0] or 0, lengths[1] or 0), np.bool_))
    return masks
