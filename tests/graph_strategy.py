"""Draws small random networks of all layers and operations that keras-qat reads.

The list of layers and operations is taken from the registries, as that of `docs/layers.md` is. Each is applied to
symbolic tensors and to numbers at once, so that a network whose numbers overflow, or depend on the last bit of a sum,
isn't drawn. Operations with jumps, such as `argmax` and `round`, read only numbers that no engine rounds.
"""

import inspect
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
from keras.src.layers.merging.base_merge import Merge

from graph_arguments import NotDrawableError, Site, draw_arguments
from graph_parts import (
    DOMAINS,
    JUMPS,
    LISTS,
    OF_TWO,
    POSITIVE_OPERANDS,
    TENSORS,
    Application,
    Tensor,
    drawable,
    is_good,
    is_steady,
    may_read,
    moves,
    operation_moves,
    parameters_of,
    rank_of,
    spreads,
)
from graph_specials import SPECIAL

layers, ops = keras.layers, keras.ops

BATCH = 6

_CORE = (
    *("Conv2D", "Conv2D", "Conv2D", "Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense"),
    *("BatchNormalization", "BatchNormalization", "ReLU", "ReLU", "MaxPooling2D", "AveragePooling2D", "Add", "Add"),
    *("Concatenate", "UpSampling2D", "Multiply", "Activation", "Conv1D", "Conv3D", "ZeroPadding2D"),
    *("GlobalAveragePooling2D", "Flatten", "LayerNormalization", "add", "multiply", "matmul"),
)
"""What networks are mostly made of."""


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
        if name in SPECIAL:
            return SPECIAL[name](self, name)
        if isinstance(what, type):
            return self._layer(name, what)
        return self.operation(name, what)

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
        rank = rank_of(name)
        x = self.pick(lambda t: may_read(name, t) and rank in {None, len(t.shape)})
        site = self.site(name, x)
        try:
            arguments = draw_arguments(site, parameters_of(kind.__init__))
        except (ValueError, TypeError) as error:
            raise NotDrawableError from error
        if self.channels_first and "data_format" in inspect.signature(kind.__init__).parameters:
            arguments["data_format"] = "channels_first"
        try:
            layer = kind(**arguments)
        except (ValueError, TypeError, NotImplementedError) as error:  # such as strides together with dilation
            raise NotDrawableError from error
        text = f"{name}({_written(arguments)})"
        exact = moves(layer)
        call = list(inspect.signature(kind.call).parameters)
        if "value" in call[1:3] or "query" in call[1:3]:
            y = self.like(x)
            return Application(layer, (x, y), f"{text}({x.name}, {y.name})", layer=layer)
        if merges or name in {"Attention", "AdditiveAttention"}:
            others = [self.like(x) for _ in range(1 if name in OF_TWO else self.rng.randint(1, 2))]
            tensors = (x, *others)
            names = ", ".join(t.name for t in tensors)
            return Application(lambda *ts: layer(list(ts)), tensors, f"{text}([{names}])", exact, layer)
        return Application(layer, (x,), f"{text}({x.name})", exact, layer)

    def operation(self, name: str, function: Callable[..., Any]) -> Application:
        parameters = inspect.signature(function).parameters
        read = [p for p in parameters if p in TENSORS]
        if not read and not LISTS & set(parameters):
            raise NotDrawableError(name)
        rank = rank_of(name)
        x = self.pick(lambda t: may_read(name, t) and rank in {None, len(t.shape)})
        arguments = draw_arguments(self.site(name, x), parameters_of(function, without=TENSORS | LISTS))
        tensors = [x] if read else [x, self.like(x)]
        tensors += [self._second(name, x) for p in read[1:] if parameters[p].default is inspect.Parameter.empty]
        guard, positive = DOMAINS.get(name), POSITIVE_OPERANDS.get(name, ())

        def run(*given: Any) -> Any:
            values = [positive(v) if i in positive else guard(v) if guard else v for i, v in enumerate(given)]
            return function(*values, **arguments) if read else function(values, **arguments)

        names = ", ".join(t.name for t in tensors)
        text = f"ops.{name}({names if read else f'[{names}]'}{', ' if arguments else ''}{_written(arguments)})"
        return Application(run, tuple(tensors), text, name in JUMPS or operation_moves(name))

    def _second(self, name: str, x: Tensor) -> Tensor:
        """The second operand of an operation: a tensor of the same shape and type, or one that spreads over it."""
        fits = [
            t
            for t in self.tensors
            if t.symbol.dtype == x.symbol.dtype and spreads(t.shape, x.shape) and (t.exact or name not in JUMPS)
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
        self.names |= inner.names
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
        if not flat or not all(is_good(s, v, tensors[0]) for s, v in flat):
            return False
        if not exact and not is_steady(application, [v for _, v in flat]):
            return False
        reads = frozenset().union(*(t.inputs for t in tensors))
        first = len(self.tensors)
        new = tuple(Tensor(s, v, f"t{first + i}", exact, reads) for i, (s, v) in enumerate(flat))
        self.tensors += new
        self.applied.append((application, new))
        self.lines.append(f"{', '.join(t.name for t in new)} = {application.text}  # {new[0].shape}")
        self.used |= {t.name for t in tensors}
        self.names.add(application.text.split("(")[0].removeprefix("ops.").split(":")[0])
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
