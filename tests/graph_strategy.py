"""Draws small random networks of all layers and operations that keras-qat reads.

The list of layers and operations is taken from the registries, as that of `docs/layers.md` is. Each is applied to
symbolic tensors and to numbers at once, so that a network whose numbers overflow, or depend on the last bit of a sum,
isn't drawn. Operations with jumps, such as `argmax` and `round`, read only numbers that no engine rounds.
"""

import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import keras
import numpy as np
from hypothesis import strategies
from keras.src.layers.merging.base_merge import Merge
from keras.src.ops import core, image, linalg, math, nn, numpy

from graph_arguments import NotDrawableError, Site, draw_arguments
from keras_qat import onnx, placement
from keras_qat.graph import kind_of, kinds
from keras_qat.types import OpKind

layers, ops = keras.layers, keras.ops

BATCH = 6


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


@dataclass(frozen=True, eq=False)
class Graph:
    """A random network.

    Args:
        model: the network.
        inputs: numbers for its inputs.
        lines: how it was made, a line for each operation.
        names: the layers and operations in it.
    """

    model: keras.Model
    inputs: tuple[np.ndarray, ...]
    lines: tuple[str, ...] = field(repr=False)
    names: frozenset[str] = frozenset()

    def __repr__(self) -> str:
        return "\n" + "\n".join(self.lines)


# --- what can be drawn

_CORE = (
    *("Conv2D", "Conv2D", "Conv2D", "Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense"),
    *("BatchNormalization", "BatchNormalization", "ReLU", "ReLU", "MaxPooling2D", "AveragePooling2D", "Add", "Add"),
    *("Concatenate", "UpSampling2D", "Multiply", "Activation", "Conv1D", "Conv3D", "ZeroPadding2D"),
    *("GlobalAveragePooling2D", "Flatten", "LayerNormalization", "add", "multiply", "matmul"),
)
"""What networks are mostly made of."""

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
    "RandomCrop": "crops at a random place in training only, but has no inverse at inference for small images",
    "arange": "reads no tensor",
}
"""What isn't drawn, and why."""

_JUMPS = frozenset(
    {
        *("all", "any", "argmax", "argmin", "argsort", "bitwise_and", "bitwise_or", "bitwise_xor", "ceil", "cast"),
        *("count_nonzero", "equal", "floor", "floor_divide", "greater", "greater_equal", "hard_shrink", "isfinite"),
        *("isinf", "isnan", "less", "less_equal", "logical_and", "logical_not", "logical_or", "logical_xor", "mod"),
        *("not_equal", "one_hot", "round", "saturate_cast", "sign", "take_along_axis", "threshold", "top_k"),
        *("trunc", "where", "divide_no_nan", "Embedding", "sparsemax"),
    }
)
"""Operations whose result jumps where a number moves by its last bit, or that read integers."""


def _positive(x: Any) -> Any:
    return ops.abs(x) + 0.5


def _inside_one(x: Any) -> Any:
    return ops.tanh(x) * 0.9


_DOMAINS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("log", "log10", "log2", "log1p", "sqrt", "rsqrt", "reciprocal"), _positive),
    **dict.fromkeys(("arcsin", "arccos", "arctanh", "tan", "prod", "exp", "exp2", "expm1"), _inside_one),
    **dict.fromkeys(("cosh", "sinh", "cumsum"), _inside_one),
    "arccosh": lambda x: ops.abs(x) + 1.5,
}
"""What brings numbers into the domain of an operation."""

_POSITIVE_OPERANDS: Mapping[str, tuple[int, ...]] = {
    **dict.fromkeys(("divide", "true_divide", "mod", "floor_divide", "divide_no_nan"), (1,)),
    "power": (0,),
    "norm": (0,),
    "normalize": (0,),
}

_TENSORS = frozenset({"x", "x1", "x2", "y", "inputs", "images", "query", "key", "value", "variable", "condition"})
_LISTS = frozenset({"xs"})


@cache
def drawable() -> Mapping[str, Any]:
    """Layer types and functions of `keras.ops` by their names, of all that keras-qat reads."""
    found: dict[str, Any] = {"x[…]": None}
    for name in sorted(dir(layers)):
        kind = getattr(layers, name)
        if isinstance(kind, type) and issubclass(kind, layers.Layer) and kind.__name__ == name:
            if onnx.has_converter(kind) or kind in kinds._EXPANSIONS or kind in _READ:
                found[name] = kind
    for module in (numpy, nn, core, math, linalg, image):
        plain = {name.replace("_", "").lower(): name for name in dir(ops.image if module is image else ops)}
        for name, kind in vars(module).items():
            if isinstance(kind, type) and kind.__module__ == module.__name__ and onnx.has_converter(kind):
                function = _OTHER_NAMES.get(name) or plain.get(name.lower())
                if function is not None:
                    found[function] = getattr(ops.image if module is image else ops, function)
    return {name: what for name, what in found.items() if name not in LEFT_OUT}


# --- drawing


class _Drawing:
    """The tensors of a network, or of one nested in it, while it is drawn."""

    def __init__(self, rng: random.Random, *, channels_first: bool = False, depth: int = 0) -> None:
        self.rng = rng
        self.channels_first = channels_first
        self.depth = depth
        self.tensors: list[Tensor] = []
        self.lines: list[str] = []
        self.names: set[str] = set()
        self.used: set[str] = set()
        self.layers: list[tuple[Any, Tensor]] = []
        self.applied: list[tuple[Application, tuple[Tensor, ...]]] = []

    def add_input(self, shape: tuple[int | None, ...], value: np.ndarray, *, exact: bool = True) -> Any:
        """An input with these numbers."""
        name = f"x{len(self.tensors)}"
        symbol = keras.Input(batch_shape=shape, dtype=value.dtype.name, name=f"{name}_{self.depth}")
        self.tensors.append(Tensor(symbol, ops.convert_to_tensor(value), name, exact, frozenset({len(self.tensors)})))
        self.lines.append(f"{name} = Input({shape}, {value.dtype.name})")
        return symbol

    def extend(self, steps: int) -> None:
        """Apply that many operations."""
        for _ in range(steps):
            for _ in range(12):
                try:
                    if self._apply(self._choose()):
                        break
                except NotDrawableError:
                    continue

    def _choose(self) -> Application:
        chance = self.rng.random()
        if chance < 0.06 and self.layers:
            return self._again()
        if chance < 0.14 and self.depth < 2:
            return self._nested()
        name = self.rng.choice(_CORE) if chance < 0.6 else self.rng.choice(list(drawable()))
        return self.draw(name)

    def draw(self, name: str) -> Application:
        """An application of a layer or operation to tensors that there are."""
        what = drawable()[name]
        if name in _SPECIAL:
            return _SPECIAL[name](self, name)
        if isinstance(what, type):
            return self._layer(name, what)
        return self._operation(name, what)

    def pick(self, fits: Callable[[Tensor], bool] = lambda _: True) -> Tensor:
        """One of the tensors, rather a late one."""
        found = [t for t in self.tensors if fits(t)]
        if not found:
            raise NotDrawableError
        return found[-1] if self.rng.random() < 0.5 else self.rng.choice(found)

    def pick_float(self, rank: int | None = None) -> Tensor:
        return self.pick(lambda t: t.is_float and rank in {None, len(t.shape)})

    def site(self, name: str, tensor: Tensor) -> Site:
        return Site(self.rng, name, tensor.shape, self.channels_first)

    def like(self, x: Tensor) -> Tensor:
        """Another tensor of that shape; a branch from it if there is none."""
        others = [t for t in self.tensors if t is not x and t.shape == x.shape and t.is_float]
        if others and self.rng.random() < 0.8:
            return self.rng.choice(others)
        branch = layers.Dense(x.shape[-1]) if self.rng.random() < 0.7 else layers.Activation("tanh")
        text = f"{type(branch).__name__}(…)({x.name})"
        self._apply(Application(branch, (x,), text, layer=branch))
        return self.tensors[-1] if self.tensors[-1].shape == x.shape else x

    def _layer(self, name: str, kind: type) -> Application:
        merges = issubclass(kind, Merge)
        rank = _rank(name)
        x = self.pick(lambda t: _may_read(name, t) and rank in {None, len(t.shape)})
        site = self.site(name, x)
        try:
            arguments = draw_arguments(site, _parameters(kind.__init__))
        except (ValueError, TypeError) as error:
            raise NotDrawableError from error
        if self.channels_first and "data_format" in inspect.signature(kind.__init__).parameters:
            arguments["data_format"] = "channels_first"
        try:
            layer = kind(**arguments)
        except (ValueError, TypeError, NotImplementedError) as error:  # such as strides together with dilation
            raise NotDrawableError from error
        text = f"{name}({_written(arguments)})"
        exact = _moves(layer)
        call = list(inspect.signature(kind.call).parameters)
        if "value" in call[1:3] or "query" in call[1:3]:
            y = self.like(x)
            return Application(layer, (x, y), f"{text}({x.name}, {y.name})", layer=layer)
        if merges or name in {"Attention", "AdditiveAttention"}:
            others = [self.like(x) for _ in range(1 if name in _OF_TWO else self.rng.randint(1, 2))]
            tensors = (x, *others)
            names = ", ".join(t.name for t in tensors)
            return Application(lambda *ts: layer(list(ts)), tensors, f"{text}([{names}])", exact, layer)
        return Application(layer, (x,), f"{text}({x.name})", exact, layer)

    def _operation(self, name: str, function: Callable[..., Any]) -> Application:
        parameters = inspect.signature(function).parameters
        read = [p for p in parameters if p in _TENSORS]
        if not read and not _LISTS & set(parameters):
            raise NotDrawableError(name)
        rank = _rank(name)
        x = self.pick(lambda t: _may_read(name, t) and rank in {None, len(t.shape)})
        arguments = draw_arguments(self.site(name, x), _parameters(function, without=_TENSORS | _LISTS))
        tensors = [x] if read else [x, self.like(x)]
        tensors += [self._second(name, x) for p in read[1:] if parameters[p].default is inspect.Parameter.empty]
        guard, positive = _DOMAINS.get(name), _POSITIVE_OPERANDS.get(name, ())

        def run(*given: Any) -> Any:
            values = [_positive(v) if i in positive else guard(v) if guard else v for i, v in enumerate(given)]
            return function(*values, **arguments) if read else function(values, **arguments)

        names = ", ".join(t.name for t in tensors)
        text = f"ops.{name}({names if read else f'[{names}]'}{', ' if arguments else ''}{_written(arguments)})"
        return Application(run, tuple(tensors), text, name in _JUMPS or _operation_moves(name))

    def _second(self, name: str, x: Tensor) -> Tensor:
        """The second operand of an operation: a tensor of the same shape and type, or one that spreads over it."""
        fits = [
            t
            for t in self.tensors
            if t.symbol.dtype == x.symbol.dtype and _spreads(t.shape, x.shape) and (t.exact or name not in _JUMPS)
        ]
        return self.rng.choice(fits)

    def _again(self) -> Application:
        """A layer that was used before, on another tensor."""
        layer, before = self.rng.choice(self.layers)
        x = self.pick(lambda t: t.is_float and t.shape[1:] == before.shape[1:])
        return Application(layer, (x,), f"the {type(layer).__name__} of {before.name}, again, ({x.name})", layer=layer)

    def _nested(self) -> Application:
        """A model, a Sequential or a layer with a `call` of its own, drawn likewise."""
        x = self.pick_float()
        inner = _Drawing(self.rng, channels_first=self.channels_first, depth=self.depth + 1)
        fixed = self.rng.random() < 0.5
        batch = x.symbol.shape[0]
        shape = (batch, *(x.shape[1:] if fixed else x.symbol.shape[1:]))
        entry = inner.add_input(shape, np.asarray(x.value), exact=x.exact)
        inner.extend(self.rng.randint(1, 4))
        last = inner.tensors[-1]
        if last.symbol is entry:
            raise NotDrawableError
        kind = self.rng.choice(("Model", "Model", "Layer"))
        if kind == "Model":
            layer: Any = keras.Model(entry, last.symbol)
        else:
            steps = [(a.run, [inner.tensors.index(t) for t in a.tensors], len(made)) for a, made in inner.applied]
            layer = _Drawn(steps, [a.layer for a, _ in inner.applied if a.layer is not None], inner.tensors.index(last))
        text = f"{kind}:\n" + "\n".join(f"    {line}" for line in inner.lines) + f"\n    ({x.name})"
        self.used |= inner.names
        return Application(layer, (x,), text, layer=layer)

    def _apply(self, application: Application) -> bool:
        """Add the results of an application; False if they aren't good numbers."""
        tensors = application.tensors
        try:
            made = application.run(*(t.symbol for t in tensors))
            _randomize(application.layer, self.rng)
            values = application.run(*(t.value for t in tensors))
        except NotDrawableError:
            raise
        except Exception:  # noqa: BLE001 - Keras refuses arguments in many ways
            return False
        exact = application.exact and all(t.exact for t in tensors)
        flat = list(zip(keras.tree.flatten(made), keras.tree.flatten(values), strict=True))
        if not flat or not all(_is_good(s, v, tensors[0]) for s, v in flat):
            return False
        if not exact and not _is_steady(application, [v for _, v in flat]):
            return False
        reads = frozenset().union(*(t.inputs for t in tensors))
        first = len(self.tensors)
        new = tuple(Tensor(s, v, f"t{first + i}", exact, reads) for i, (s, v) in enumerate(flat))
        self.tensors += new
        self.applied.append((application, new))
        self.lines.append(f"{', '.join(t.name for t in new)} = {application.text}  # {new[0].shape}")
        self.used |= {t.name for t in tensors}
        self.names.add(application.text.split("(")[0])
        layer = application.layer
        if layer is not None and layer.weights and len(tensors) == 1 and len(flat) == 1:
            self.layers.append((layer, tensors[0]))
        return True


class _Drawn(layers.Layer):
    """A layer whose `call` makes calls that were drawn."""

    def __init__(self, steps: Sequence[tuple[Any, list[int], int]], parts: list[Any], last: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.steps = tuple(steps)
        self.parts = parts
        self.last = last

    def call(self, x: Any) -> Any:
        tensors = [x]
        for run, read, _ in self.steps:
            tensors += keras.tree.flatten(run(*(tensors[i] for i in read)))
        return tensors[self.last]


# --- operations whose arguments are tensors of other shapes


def _special(draw: Callable[[_Drawing, str, Tensor, Site], tuple[Callable[..., Any], str]], rank: Any = None) -> Any:
    """An operation on one tensor of a rank, with constants that are drawn for it."""

    def application(drawing: _Drawing, name: str) -> Application:
        x = drawing.pick_float(rank)
        run, text = draw(drawing, name, x, drawing.site(name, x))
        return Application(run, (x,), f"{name}({x.name}, {text})", name in {"x[…]", "take", "pad", "repeat"})

    return application


def _conv(_: _Drawing, name: str, __: Tensor, site: Site) -> tuple[Callable[..., Any], str]:
    window = [site.rng.randint(1, min(3, n)) for n in site.sizes]
    kernel = site.numbers(*window, site.shape[-1], site.rng.randint(1, 4)) / 2
    strides, padding = site.rng.randint(1, 2), site.any_of("valid", "same")
    function = getattr(ops, name)
    return lambda x: function(x, kernel, strides=strides, padding=padding), f"{kernel.shape}, {strides}, {padding!r}"


def _product(_: _Drawing, name: str, __: Tensor, site: Site) -> tuple[Callable[..., Any], str]:
    kernel = site.numbers(site.shape[-1], site.rng.randint(1, 6))
    function = {"tensordot": lambda x: ops.tensordot(x, kernel, axes=1)}.get(name)
    return function or (lambda x: getattr(ops, name)(x, kernel)), f"constant {kernel.shape}"


def _clip(_: _Drawing, __: str, ___: Tensor, site: Site) -> tuple[Callable[..., Any], str]:
    least, most = round(site.rng.uniform(-2, 0), 2), round(site.rng.uniform(0.1, 2), 2)
    return lambda x: ops.clip(x, least, most), f"{least}, {most}"


def _pad(_: _Drawing, __: str, x: Tensor, site: Site) -> tuple[Callable[..., Any], str]:
    mode = site.any_of("constant", "reflect", "symmetric")
    width = [(0, 0), *((site.rng.randint(0, min(2, n - 1)), site.rng.randint(0, min(2, n - 1))) for n in x.shape[1:])]
    named = {"constant_values": 0.5} if mode == "constant" and site.rng.random() < 0.5 else {}
    return lambda x: ops.pad(x, width, mode=mode, **named), f"{width}, {mode!r}, {named}"


def _index(_: _Drawing, __: str, x: Tensor, site: Site) -> tuple[Callable[..., Any], str]:
    def one(n: int) -> Any:
        start = site.rng.randrange(n)
        return site.any_of(
            slice(None), slice(None), slice(None, None, 2), slice(None, None, -1), slice(start, None), start, start - n
        )

    index: tuple[Any, ...] = (slice(None), *(one(n) for n in x.shape[1:]))
    if site.rng.random() < 0.2:
        index = (*index[:2], None, *index[2:])
    if site.rng.random() < 0.2:
        index = (..., *index[-1:])
    return lambda x: x[index], repr(index)


def _take(_: _Drawing, __: str, ___: Tensor, site: Site) -> tuple[Callable[..., Any], str]:
    axis = site.axis()
    indices = [site.rng.randrange(site.shape[axis]) for _ in range(site.rng.randint(1, 4))]
    return lambda x: ops.take(x, indices, axis=axis), f"{indices}, {axis}"


def _repeat(_: _Drawing, __: str, ___: Tensor, site: Site) -> tuple[Callable[..., Any], str]:
    axis, times = site.axis(), site.rng.randint(1, 3)
    return lambda x: ops.repeat(x, times, axis=axis), f"{times}, {axis}"


def _batch_norm(_: _Drawing, __: str, ___: Tensor, site: Site) -> tuple[Callable[..., Any], str]:
    mean, offset, scale = (site.numbers(site.shape[-1]) for _ in range(3))
    variance = np.abs(site.numbers(site.shape[-1])) + 0.3
    return lambda x: ops.batch_normalization(x, mean, variance, -1, offset=offset, scale=scale), "constants"


def _einsum_of_two(drawing: _Drawing, name: str) -> Application:
    x = drawing.pick_float(3)
    y = drawing.like(x)
    equation = drawing.rng.choice(("abc,adc->abd", "abc,abd->acd", "abc,abc->ac", "abc,adc->adb"))
    return Application(lambda a, b: ops.einsum(equation, a, b), (x, y), f"{name}({equation!r}, {x.name}, {y.name})")


def _matmul(drawing: _Drawing, name: str) -> Application:
    if drawing.rng.random() < 0.5:
        return _special(_product)(drawing, name)
    x = drawing.pick(lambda t: t.is_float and len(t.shape) in {3, 4})
    y = drawing.like(x)
    text = f"matmul({x.name}, swapaxes({y.name}, -1, -2)) / {x.shape[-1]}"
    return Application(lambda a, b: ops.matmul(a, ops.swapaxes(b, -1, -2)) / x.shape[-1], (x, y), text)


def _attention(drawing: _Drawing, name: str) -> Application:
    x = drawing.pick_float(4)
    y = drawing.like(x)
    causal = drawing.rng.random() < 0.3
    text = f"{name}({x.name}, {y.name}, {x.name}, is_causal={causal})"
    return Application(lambda a, b: ops.dot_product_attention(a, b, a, is_causal=causal), (x, y), text)


def _with_a_number(drawing: _Drawing, name: str) -> Application:
    """A binary operation, half of the time with a constant."""
    function = drawable()[name]
    if drawing.rng.random() < 0.5:
        return drawing._operation(name, function)
    x = drawing.pick(lambda t: t.is_float and _may_read(name, t))
    number: Any = round(drawing.rng.uniform(0.3, 2), 2)
    if drawing.rng.random() < 0.5:
        number = np.abs(drawing.site(name, x).numbers(*x.shape[-drawing.rng.randint(1, 2) :])) + 0.3
    left = drawing.rng.random() < 0.3
    positive = _POSITIVE_OPERANDS.get(name, ())

    def run(v: Any) -> Any:
        v = _positive(v) if (1 if left else 0) in positive else v
        return function(number, v) if left else function(v, number)

    shown = number if isinstance(number, float) else f"constant {number.shape}"
    text = f"ops.{name}({shown}, {x.name})" if left else f"ops.{name}({x.name}, {shown})"
    return Application(run, (x,), text, name in _JUMPS)


def _where(drawing: _Drawing, _: str) -> Application:
    x = drawing.pick(lambda t: t.is_float and t.exact)
    y = drawing.like(x)
    limit = round(drawing.rng.uniform(-0.5, 0.5), 2)
    text = f"where({x.name} > {limit}, {x.name}, {y.name})"
    return Application(lambda a, b: ops.where(a > limit, a, b), (x, y), text)


_BINARY = (
    *("add", "subtract", "multiply", "divide", "true_divide", "maximum", "minimum", "power", "greater", "less"),
    *("equal", "not_equal", "greater_equal", "less_equal", "floor_divide", "mod", "divide_no_nan", "logaddexp"),
)

_SPECIAL: Mapping[str, Callable[[_Drawing, str], Application]] = {
    **dict.fromkeys(_BINARY, _with_a_number),
    "conv": _special(_conv, 4),
    "depthwise_conv": _special(_conv, 4),
    "tensordot": _special(_product),
    "dot": _special(_product),
    "matmul": _matmul,
    "clip": _special(_clip),
    "pad": _special(_pad),
    "x[…]": _special(_index),
    "take": _special(_take),
    "repeat": _special(_repeat),
    "batch_normalization": _special(_batch_norm),
    "einsum": _einsum_of_two,
    "dot_product_attention": _attention,
    "where": _where,
}

_OF_IMAGES = frozenset(
    {
        *("AugMix", "CenterCrop", "CutMix", "MixUp", "RandAugment", "Resizing", "crop_images", "extract_patches"),
        *("pad_images", "resize", "rgb_to_grayscale"),
    }
)
"""Layers and operations that take another rank for a single image."""

_OF_TWO = frozenset({"Subtract", "Dot", "Attention", "AdditiveAttention"})


# --- what is known of layers, operations and numbers


def _parameters(function: Any, without: frozenset[str] = frozenset()) -> dict[str, bool]:
    """The parameters of a function, and whether each must be given."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    found = inspect.signature(function).parameters.values()
    return {p.name: p.default is p.empty for p in found if p.kind not in kinds and p.name not in {"self", *without}}


def _rank(name: str) -> int | None:
    """The rank of the tensors that a layer with windows reads."""
    if name in {"LSTM", "GRU", "SimpleRNN", "Bidirectional", "MultiHeadAttention", "GroupQueryAttention"}:
        return 3
    if name == "RepeatVector":
        return 2
    if name in _OF_IMAGES or name.startswith("Random"):
        return 4
    digit = next((int(c) for c in name if c.isdigit() and name[name.index(c) + 1 :].startswith("D")), None)
    return None if digit is None else digit + 2 + name.startswith("ConvLSTM")


def _may_read(name: str, tensor: Tensor) -> bool:
    """Whether an operation gives every engine the same numbers of a tensor."""
    if name == "Embedding":
        return str(tensor.symbol.dtype) == "int32" and float(ops.max(ops.abs(tensor.value))) < 10
    if name in _JUMPS:
        return tensor.exact
    return tensor.is_float


def _moves(layer: Any) -> bool:
    kind = kind_of(layer)
    return kind in placement.MOVES_NUMBERS or kind is OpKind.IDENTITY


_EXACT = frozenset(
    {
        *("reshape", "transpose", "squeeze", "expand_dims", "flip", "swapaxes", "moveaxis", "ravel", "split"),
        *("unstack", "depth_to_space", "space_to_depth", "stack", "tile", "roll", "copy", "negative", "abs", "sort"),
        *("concatenate", "slice", "broadcast_to", "maximum", "minimum", "max", "min", "amax", "amin"),
    }
)


def _operation_moves(name: str) -> bool:
    return name in _EXACT


def _spreads(shape: tuple[int, ...], over: tuple[int, ...]) -> bool:
    if len(shape) > len(over):
        return False
    return all(a in {1, b} for a, b in zip(reversed(shape), reversed(over), strict=False)) and shape[0] == over[0]


def _is_good(symbol: Any, value: Any, first: Tensor) -> bool:
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
    return bool(np.isfinite(numbers).all()) and 1e-2 < float(np.abs(numbers).max()) < 200  # noqa: PLR2004


def _is_steady(application: Application, values: list[Any]) -> bool:
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


def _randomize(layer: Any, rng: random.Random) -> None:
    """Give what starts as zeros or ones other numbers, once."""
    if layer is None or getattr(layer, "_drawn", False):
        return
    object.__setattr__(layer, "_drawn", True)
    generator = np.random.default_rng(rng.randrange(2**32))
    for weight in layer.weights:
        name, shape = weight.path.rsplit("/", 1)[-1], weight.shape
        if "variance" in name:
            weight.assign(generator.uniform(0.3, 2, shape))
        elif name in {"gamma", "scale"}:
            weight.assign(generator.normal(1, 0.3, shape))
        elif name in {"beta", "bias", "moving_mean", "alpha"}:
            weight.assign(generator.normal(0, 0.2, shape))


def _written(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())


# --- networks


def _draw_inputs(drawing: _Drawing) -> Iterator[Any]:
    rng = drawing.rng
    batch = None if rng.random() < 0.7 else BATCH
    first = rng.choice(("image", "image", "image", "image", "series", "volume", "vector", "tokens"))
    for kind in (first, *rng.choices(("image", "series", "vector", "tokens", "pixels"), k=rng.choice((0, 0, 0, 1, 2)))):
        channels = rng.randint(1, 4)
        sizes = {"image": 2, "pixels": 2, "series": 1, "volume": 3, "vector": 0, "tokens": 0}[kind]
        shape = [rng.randint(4, 11 if sizes < 3 else 7) for _ in range(sizes)]
        shape = [channels, *shape] if drawing.channels_first else [*shape, channels]
        if kind in {"vector", "tokens"}:
            shape = [rng.randint(3, 12)]
        declared: list[int | None] = list(shape)
        if kind in {"image", "series"} and rng.random() < 0.12:
            for axis in range(sizes):
                declared[axis + drawing.channels_first] = None
        numbers = np.random.default_rng(rng.randrange(2**32))
        value = numbers.normal(size=(BATCH, *shape)).astype("float32")
        if kind == "tokens":
            value = numbers.integers(0, 10, value.shape).astype("int32")
        if kind == "pixels":
            value = numbers.integers(0, 256, value.shape).astype("uint8")
        symbol = drawing.add_input((batch, *declared), value)
        yield symbol
        if kind == "pixels":
            layer = layers.Rescaling(1 / 127.5, offset=-1)
            drawing._apply(Application(layer, (drawing.tensors[-1],), f"Rescaling({drawing.tensors[-1].name})"))


def draw_graph(rng: random.Random) -> Graph | None:
    """A random network; `None` if nothing came of the choices.

    Args:
        rng: makes all choices, those of weights and inputs too.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(rng.randrange(2**31))
    drawing = _Drawing(rng, channels_first=rng.random() < 0.04)
    inputs = list(_draw_inputs(drawing))
    drawing.extend(rng.randint(2, 9))
    ends = [t for t in drawing.tensors[len(inputs) :] if t.name not in drawing.used and t.inputs]
    ends = [t for t in ends if not any(t.symbol is x for x in inputs)][-4:]
    if not any(t.is_float for t in ends):
        return None
    used = sorted(frozenset().union(*(t.inputs for t in ends)))
    by_index = [t for t in drawing.tensors if any(t.symbol is x for x in inputs)]
    read = [by_index[i] for i in range(len(by_index)) if i in {_position(by_index, drawing, j) for j in used}]
    structure: Any = [t.symbol for t in ends] if len(ends) > 1 or rng.random() < 0.5 else ends[0].symbol
    if rng.random() < 0.1:
        structure = {f"out_{i}": t.symbol for i, t in enumerate(ends)}
    model = keras.Model([t.symbol for t in read] if len(read) > 1 else read[0].symbol, structure)
    lines = (*drawing.lines, f"outputs: {', '.join(t.name for t in ends)}")
    values = tuple(np.asarray(ops.convert_to_numpy(t.value)) for t in read)
    return Graph(model, values, lines, frozenset(drawing.names))


def _position(inputs: list[Tensor], drawing: _Drawing, index: int) -> int:
    return next(i for i, t in enumerate(inputs) if t is drawing.tensors[index])


def graphs() -> strategies.SearchStrategy[Graph]:
    """Random networks."""
    return strategies.randoms(use_true_random=False).map(draw_graph).filter(lambda graph: graph is not None)
