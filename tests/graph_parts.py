"""What is known of layers, operations and numbers, for drawing random networks."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import keras
import numpy as np
from keras.src.ops import core, image, linalg, math, nn, numpy

from keras_qat import onnx, placement
from keras_qat.graph import kind_of, kinds
from keras_qat.types import OpKind

layers, ops = keras.layers, keras.ops


@dataclass(frozen=True, eq=False)
class Tensor:
    """A symbolic tensor and numbers of it.

    Args:
        symbol: the symbolic tensor.
        value: its numbers for the graph's inputs.
        name: what the text of the graph calls it.
        exact: whether every engine has the same numbers to the last bit.
        inputs: the indices of the inputs that it is computed from.
    """

    symbol: Any
    value: Any
    name: str
    exact: bool
    inputs: frozenset[int]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.value.shape)

    @property
    def is_float(self) -> bool:
        return str(self.symbol.dtype) == "float32"


@dataclass(frozen=True, eq=False)
class Application:
    """One operation on tensors.

    Args:
        run: computes the result from the tensors, symbolic ones or numbers.
        tensors: what it reads.
        text: how it is written.
        exact: whether its result has the same numbers in every engine if the tensors have.
        layer: the layer, if it is one.
    """

    run: Callable[..., Any]
    tensors: tuple[Tensor, ...]
    text: str
    exact: bool = False
    layer: Any = None


_READ = (
    *(layers.AdditiveAttention, layers.Attention, layers.GroupQueryAttention, layers.MultiHeadAttention),
    *(layers.Lambda, layers.Pipeline, layers.SpectralNormalization),
)
"""Layers of Keras that are read through."""

_OTHER_NAMES: Mapping[str, str] = {
    "BatchNorm": "batch_normalization",
    "LayerNorm": "layer_normalization",
    "RMSNorm": "rms_normalization",
}

LEFT_OUT: Mapping[str, str] = {
    "AugMix": "takes seconds to make",
    "InputLayer": "is drawn as an input",
    "RandAugment": "takes seconds to make",
    "bitwise_and": "is exported of truth values only, which are never both operands here",
    "bitwise_or": "as bitwise_and",
    "bitwise_xor": "as bitwise_and",
}
"""What isn't drawn, and why."""

JUMPS = frozenset(
    {
        *("all", "any", "argmax", "argmin", "argsort", "bitwise_and", "bitwise_or", "bitwise_xor", "ceil", "cast"),
        *("count_nonzero", "equal", "floor", "floor_divide", "greater", "greater_equal", "hard_shrink", "isfinite"),
        *("isinf", "isnan", "less", "less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "mod"),
        *("not_equal", "one_hot", "round", "saturate_cast", "sign", "take_along_axis", "threshold", "top_k"),
        *("trunc", "where", "divide_no_nan", "Embedding", "sparsemax"),
    }
)
"""Operations whose result jumps where a number moves by its last bit, or that read integers."""


def positive(x: Any) -> Any:
    return ops.abs(x) + 0.5


def _inside_one(x: Any) -> Any:
    return ops.tanh(x) * 0.9


DOMAINS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("log", "log10", "log2", "log1p", "sqrt", "rsqrt", "reciprocal"), positive),
    **dict.fromkeys(("arcsin", "arccos", "arctanh", "tan", "prod", "exp", "exp2", "expm1"), _inside_one),
    **dict.fromkeys(("cosh", "sinh", "cumsum"), _inside_one),
    "arccosh": lambda x: ops.abs(x) + 1.5,
}
"""What brings numbers into the domain of an operation."""

POSITIVE_OPERANDS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("divide", "true_divide", "mod", "floor_divide", "divide_no_nan"), (1,)),
    "power": (0,),
    "norm": (0,),
    "normalize": (0,),
}

TENSORS = frozenset({"x", "x1", "x2", "y", "inputs", "images", "query", "key", "value", "variable", "condition"})
LISTS = frozenset({"xs"})


def _is_own_name(name: str, kind: type) -> bool:
    """Whether a layer type isn't listed under its class's name, too; `AvgPool2D` is a second name."""
    return name == kind.__name__ or not hasattr(layers, kind.__name__)


@cache
def drawable() -> Mapping[str, Any]:
    """Layer types and functions of `keras.ops` by their names, of all that keras-qat reads."""
    found: dict[str, Any] = {"x[…]": None}
    for name in sorted(dir(layers)):
        kind = getattr(layers, name)
        is_layer = isinstance(kind, type) and issubclass(kind, layers.Layer) and _is_own_name(name, kind)
        if is_layer and (onnx.has_converter(kind) or kind in kinds._EXPANSIONS or kind in _READ):
            found[name] = kind
    for module in (numpy, nn, core, math, linalg, image):
        plain = {name.replace("_", "").lower(): name for name in dir(ops.image if module is image else ops)}
        for name, kind in vars(module).items():
            if isinstance(kind, type) and kind.__module__ == module.__name__ and onnx.has_converter(kind):
                function = _OTHER_NAMES.get(name) or plain.get(name.lower())
                if function is not None:
                    found[function] = getattr(ops.image if module is image else ops, function)
    return {name: what for name, what in found.items() if name not in LEFT_OUT}


_OF_IMAGES = frozenset(
    {
        *("AugMix", "CenterCrop", "CutMix", "MixUp", "RandAugment", "Resizing", "crop_images", "extract_patches"),
        *("pad_images", "resize", "rgb_to_grayscale"),
    }
)
"""Layers and operations that take another rank for a single image."""

OF_TWO = frozenset({"Subtract", "Dot", "Attention", "AdditiveAttention"})


def parameters_of(function: Any, without: frozenset[str] = frozenset()) -> dict[str, bool]:
    """The parameters of a function, and whether each must be given."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(function).parameters.values()
    return {p.name: p.default is p.empty for p in found if p.kind not in kinds and p.name not in {"self", *without}}


def rank_of(name: str) -> int | None:
    """The rank of the tensors that a layer with windows reads."""
    if name in {"LSTM", "GRU", "SimpleRNN", "Bidirectional", "MultiHeadAttention", "GroupQueryAttention"}:
        return 3
    if name == "RepeatVector":
        return 2
    if name in _OF_IMAGES or name.startswith("Random"):
        return 4
    digit = next((int(c) for c in name if c.isdigit() and name[name.index(c) + 1 :].startswith("D")), None)
    return None if digit is None else digit + 2 + name.startswith("ConvLSTM")


def may_read(name: str, tensor: Tensor) -> bool:
    """Whether an operation gives every engine the same numbers of a tensor."""
    if name == "Embedding":
        return str(tensor.symbol.dtype) == "int32" and float(ops.max(ops.abs(tensor.value))) < 10
    if name in JUMPS:
        return tensor.exact
    return tensor.is_float


def moves(layer: Any) -> bool:
    kind = kind_of(layer)
    return kind in placement.MOVES_NUMBERS or kind is OpKind.IDENTITY


_EXACT = frozenset(
    {
        *("reshape", "transpose", "squeeze", "expand_dims", "flip", "swapaxes", "moveaxis", "ravel", "split"),
        *("unstack", "depth_to_space", "space_to_depth", "stack", "tile", "roll", "copy", "negative", "abs", "sort"),
        *("concatenate", "slice", "broadcast_to", "maximum", "minimum", "max", "min", "amax", "amin"),
    }
)


def operation_moves(name: str) -> bool:
    return name in _EXACT


def spreads(shape: tuple[int, ...], over: tuple[int, ...]) -> bool:
    if len(shape) > len(over):
        return False
    return all(a in {1, b} for a, b in zip(reversed(shape), reversed(over), strict=False)) and shape[0] == over[0]


def is_good(symbol: Any, value: Any, first: Tensor) -> bool:
    """Whether a result has the batch in front, a moderate size and finite numbers of a moderate magnitude."""
    shape = tuple(value.shape)
    if len(shape) != len(symbol.shape) or not shape or shape[0] != first.shape[0] or np.prod(shape[1:]) > 6000:
        return False
    if symbol.shape[0] != first.symbol.shape[0] or 0 in shape or len(shape) > 6:
        return False
    if any(s not in {None, n} for s, n in zip(symbol.shape, shape, strict=True)):
        return False
    if str(symbol.dtype) != keras.backend.standardize_dtype(value.dtype):
        return False
    if not keras.backend.is_float_dtype(symbol.dtype):
        return True
    numbers = np.asarray(ops.convert_to_numpy(value))
    return bool(np.isfinite(numbers).all()) and 1e-2 < float(np.abs(numbers).max()) < 200


def is_steady(application: Application, values: list[Any]) -> bool:
    """Whether numbers that differ in the last bits give results that differ as little."""
    rng = np.random.default_rng(0)

    def moved(tensor: Tensor) -> Any:
        if not tensor.is_float or tensor.exact:
            return tensor.value
        x = ops.convert_to_numpy(tensor.value)
        return ops.convert_to_tensor(x + (rng.normal(size=x.shape) * 1e-5 * np.abs(x).max()).astype("float32"))

    others = keras.tree.flatten(application.run(*(moved(t) for t in application.tensors)))
    pairs = [(np.asarray(a, "f8"), np.asarray(b, "f8")) for a, b in zip(values, others, strict=True)]
    return all(np.abs(a - b).max() <= 1e-3 * np.abs(a).max() for a, b in pairs)
