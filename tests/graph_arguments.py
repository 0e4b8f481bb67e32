"""Draws the arguments of Keras's layers and operations by the names of their parameters.

A layer or operation joins by itself if each of its parameters without a default has a row here.
"""

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np


class NotDrawableError(Exception):
    """No argument fits the tensor, or nothing is known of a parameter."""


@dataclass(frozen=True)
class Site:
    """Where an argument is drawn.

    Args:
        rng: makes the choices.
        name: the name of the layer's class or of the function of `keras.ops`.
        shape: the shape of the tensor that is read first, with the batch.
        channels_first: whether the layers of the graph have their channels in front.
    """

    rng: random.Random
    name: str
    shape: tuple[int, ...]
    channels_first: bool = False

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def channels(self) -> int:
        return self.shape[1 if self.channels_first else -1]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes of the axes that windows move over."""
        first = 2 if self.channels_first else 1
        sizes = self.shape[first : first + self.rank - 2]
        return sizes[1:] if self.name.startswith("ConvLSTM") else sizes

    def any_of(self, *choices: Any) -> Any:
        return self.rng.choice(choices)

    def per_axis(self, least: int, most: int) -> int | tuple[int, ...]:
        """A number for all spatial axes, or one for each."""
        if self.rng.random() < 0.5:
            return self.rng.randint(least, most)
        return tuple(self.rng.randint(least, most) for _ in self.sizes)

    def axis(self) -> int:
        """An axis other than that of the batch, counted from either end."""
        if self.rank < 2:
            raise NotDrawableError
        axis = self.rng.randrange(1, self.rank)
        return self.any_of(axis, axis - self.rank)

    def axes(self) -> tuple[int, ...]:
        """Several of them."""
        if self.rank < 2:
            raise NotDrawableError
        every = range(1, self.rank)
        return tuple(sorted(self.rng.sample(every, self.rng.randint(1, self.rank - 1))))

    def divisor(self, number: int) -> int:
        return self.rng.choice([n for n in range(1, number + 1) if number % n == 0])

    def numbers(self, *shape: int) -> np.ndarray:
        generator = np.random.default_rng(self.rng.randrange(2**32))
        return generator.normal(size=shape).astype("float32")


def _activation(site: Site) -> Any:
    usual = (None, "relu", "relu6", "swish", "gelu", "tanh", "sigmoid", "hard_swish", "leaky_relu")
    return site.any_of(*usual) if site.rng.random() < 0.6 else site.any_of(*_ACTIVATIONS)


_ACTIVATIONS = tuple(
    name
    for name in sorted(dir(keras.activations))
    if not name.startswith("_") and name not in {"deserialize", "get", "serialize", "glu"}
)


def _axis(site: Site) -> Any:
    if site.name in _OF_SEVERAL_AXES and site.rng.random() < 0.5:
        return site.axes()
    return site.axis()


_OF_SEVERAL_AXES = frozenset(
    {
        *("all", "amax", "amin", "any", "count_nonzero", "flip", "logsumexp", "max", "mean", "min", "moments", "prod"),
        *("std", "sum", "var", "LayerNormalization", "UnitNormalization", "Softmax", "softmax", "log_softmax"),
        *("rms_normalization", "layer_normalization"),
    }
)


def _fill(site: Site, rest: int) -> tuple[int, ...]:
    """Up to three sizes whose product is `rest`."""
    sizes = []
    for _ in range(site.rng.randint(0, 2)):
        sizes.append(site.divisor(rest))
        rest //= sizes[-1]
    return (*sizes, rest)


def _target_shape(site: Site) -> tuple[int, ...]:
    sizes = list(_fill(site, math.prod(site.shape[1:])))
    if site.rng.random() < 0.4:
        sizes[site.rng.randrange(len(sizes))] = -1
    return tuple(sizes)


def _new_shape(site: Site) -> tuple[int, ...]:
    if site.rng.random() < 0.5:
        return (-1, *_fill(site, math.prod(site.shape[1:])))
    return (site.shape[0], *_target_shape(site))


def _shuffled(site: Site) -> tuple[int, ...]:
    return tuple(site.rng.sample(range(1, site.rank), site.rank - 1))


def _single_axis(site: Site) -> int:
    ones = [axis for axis in range(1, site.rank) if site.shape[axis] == 1]
    if not ones:
        raise NotDrawableError
    return site.rng.choice(ones)


def _sides(site: Site) -> Any:
    """A padding or cropping of each side, which leaves at least one number."""
    most = max((min(site.sizes, default=0) - 1) // 2, 0)
    if len(site.sizes) == 1 or site.rng.random() < 0.4:
        pair = (site.rng.randint(0, min(2, most)), site.rng.randint(0, min(2, most)))
        return pair if len(site.sizes) == 1 else pair[0]
    return tuple((site.rng.randint(0, min(2, most)), site.rng.randint(0, min(2, most))) for _ in site.sizes)


def _padding(site: Site) -> Any:
    if site.name.startswith("ZeroPadding"):
        return _sides(site)
    causal = ("causal",) if site.name in {"Conv1D", "SeparableConv1D"} else ()
    return site.any_of("valid", "same", *causal)


def _window(site: Site) -> Any:
    most = min(3, *site.sizes) if site.sizes else 3
    return site.per_axis(1, max(most, 1))


def _output_size(site: Site) -> tuple[int, ...]:
    """Of an adaptive pooling: not larger than the input, for which TensorFlow ends the process."""
    return tuple(site.rng.randint(1, min(5, size)) for size in site.sizes)


def _einsum(site: Site) -> tuple[str, Any]:
    """An equation of EinsumDense and its output shape."""
    units = site.rng.randint(1, 6)
    every: dict[int, list[tuple[str, Any]]] = {
        2: [("ab,bc->ac", units), ("ab,bcd->acd", (2, units))],
        3: [("abc,cd->abd", (None, units)), ("abc,cde->abde", (None, 2, units)), ("abc,bcd->ad", units)],
        4: [("abcd,cde->abe", (None, units)), ("abcd,de->abce", (None, None, units)), ("...x,xy->...y", units)],
    }
    if site.rank not in every:
        raise NotDrawableError
    return site.rng.choice(every[site.rank])


def _weighted(site: Site, rank: int) -> keras.layers.Layer:
    """A layer with a kernel for a tensor of that rank."""
    units = site.rng.randint(1, 6)
    if rank == 4 and site.rng.random() < 0.6:
        return keras.layers.Conv2D(units, site.rng.randint(1, 3), padding="same")
    if rank == 3 and site.rng.random() < 0.6:
        return keras.layers.Conv1D(units, site.rng.randint(1, 3), padding="same")
    return keras.layers.Dense(units, activation=site.any_of(None, "relu"))


def _wrapped(site: Site) -> keras.layers.Layer:
    if site.name == "Bidirectional":
        kind = site.any_of(keras.layers.LSTM, keras.layers.GRU, keras.layers.SimpleRNN)
        return kind(site.rng.randint(1, 5), return_sequences=site.any_of(True, False))
    return _weighted(site, site.rank - (site.name == "TimeDistributed"))


def _divisor_of_channels(site: Site) -> int:
    return site.divisor(site.channels)


def _bool(site: Site) -> bool:
    return site.any_of(True, False)


def _few(least: int, most: int) -> Callable[[Site], int]:
    return lambda site: site.rng.randint(least, most)


def _between(least: float, most: float) -> Callable[[Site], float]:
    return lambda site: round(site.rng.uniform(least, most), 2)


def _fixed(value: Any) -> Callable[[Site], Any]:
    return lambda _: value


def _one_of(*values: Any) -> Callable[[Site], Any]:
    return lambda site: site.any_of(*values)


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "half": lambda x: x / 2,
    "swish": lambda x: x * keras.ops.sigmoid(x),
    "leaky": lambda x: keras.ops.maximum(x, 0.1 * x),
    "normalized": lambda x: x - keras.ops.mean(x, axis=-1, keepdims=True),
}

ARGUMENTS: Mapping[str, Callable[[Site], Any]] = {
    **dict.fromkeys(("activation",), _activation),
    **dict.fromkeys(("use_bias", "center", "scale", "use_scale", "keepdims", "normalize", "antialias"), _bool),
    **dict.fromkeys(("go_backwards", "unroll", "reset_after", "return_sequences", "return_state"), _bool),
    **dict.fromkeys(("unit_forget_bias", "use_gate", "invert", "crop_to_aspect_ratio", "approximate"), _bool),
    **dict.fromkeys(("is_causal", "pad_to_aspect_ratio"), _bool),
    **dict.fromkeys(("filters", "units"), _few(1, 8)),
    **dict.fromkeys(("kernel_size", "pool_size"), _window),
    **dict.fromkeys(("rate", "stddev", "factor", "x_factor", "y_factor"), _fixed(0.3)),
    **dict.fromkeys(("height_factor", "width_factor", "l1", "l2"), _fixed(0.1)),
    **dict.fromkeys(("height", "width"), _few(1, 12)),
    **dict.fromkeys(("num_heads", "num_key_value_heads"), _few(1, 2)),
    **dict.fromkeys(("key_dim", "value_dim", "head_dim"), _few(2, 4)),
    **dict.fromkeys(("axis", "source", "destination", "axis1", "axis2"), _axis),
    "activation_of_state": _one_of("tanh", "relu", "sigmoid"),
    "recurrent_activation": _one_of("sigmoid", "hard_sigmoid"),
    "strides": lambda site: site.per_axis(1, 3),
    "dilation_rate": lambda site: site.per_axis(1, 2),
    "padding": _padding,
    "cropping": _sides,
    "groups": _divisor_of_channels,
    "depth_multiplier": _few(1, 3),
    "output_size": _output_size,
    "size": lambda site: site.per_axis(1, 3),
    "interpolation": _one_of("nearest", "bilinear", "bicubic", "lanczos3"),
    "n": _few(1, 4),
    "dims": _shuffled,
    "target_shape": _target_shape,
    "newshape": _new_shape,
    "layer": _wrapped,
    "layers": lambda site: [_weighted(site, site.rank), keras.layers.Activation(_activation(site))],
    "function": lambda site: site.any_of(*_FUNCTIONS.values()),
    "merge_mode": _one_of("concat", "sum", "mul", "ave"),
    "negative_slope": _between(0, 0.5),
    "threshold": _between(0.1, 0.6),
    "max_value": _between(0.7, 3),
    "alpha": _between(0.2, 1.5),
    "shared_axes": lambda site: list(site.axes()),
    "offset": _between(-1, 1),
    "num_query_heads": _fixed(2),
    "num_ops": _few(1, 2),
    "score_mode": _one_of("dot", "concat"),
    "epsilon": _between(0.01, 0.1),
    "axes": lambda site: list(site.axes()),
    "num_classes": _few(2, 6),
    "x_min": _between(-1, 0),
    "x_max": _between(0.1, 1),
    "shift": _few(-3, 3),
    "repeats": _few(1, 3),
    "indices_or_sections": lambda site: site.divisor(site.shape[site.axis()]),
    "k": _few(-1, 2),
    "decimals": _few(0, 1),
    "default_value": _between(-1, 1),
    "b": _between(1, 4),
    "block_size": _few(1, 3),
    "order": _few(1, 2),
    "top_padding": _few(0, 2),
    "left_padding": _few(0, 2),
    "bottom_padding": _few(0, 2),
    "right_padding": _few(0, 2),
    "top_cropping": _few(0, 2),
    "left_cropping": _few(0, 2),
    "target_height": _few(1, 6),
    "target_width": _few(1, 6),
    "fill_value": _between(-1, 1),
    "output_padding": _few(0, 1),
}
"""What is drawn for a parameter of that name."""

OF_ONE: Mapping[tuple[str, str], Callable[[Site], Any]] = {
    ("CenterCrop", "height"): _few(1, 8),
    ("LSTM", "activation"): _one_of("tanh", "relu", "sigmoid"),
    ("GRU", "activation"): _one_of("tanh", "relu", "sigmoid"),
    ("SimpleRNN", "activation"): _one_of("tanh", "relu", "sigmoid"),
    ("RandomPosterization", "factor"): _fixed(4),
    ("Rescaling", "scale"): lambda site: site.any_of(
        round(site.rng.uniform(0.2, 2), 2), -0.5, [round(site.rng.uniform(0.2, 2), 2) for _ in range(site.shape[-1])]
    ),
    ("Normalization", "mean"): lambda site: site.numbers(site.shape[-1]).tolist(),
    ("Normalization", "variance"): lambda site: (np.abs(site.numbers(site.shape[-1])) + 0.3).tolist(),
    ("Normalization", "axis"): _fixed(-1),
    ("RMSNormalization", "axis"): _fixed(-1),
    ("Dot", "axes"): lambda site: site.any_of(*range(1, min(site.rank, 3))),
    ("EinsumDense", "equation"): lambda site: _einsum(site)[0],
    ("Embedding", "input_dim"): _fixed(10),
    ("Embedding", "output_dim"): _few(1, 6),
    ("Activation", "activation"): lambda site: _activation(site) or "linear",
    ("resize", "size"): lambda site: (site.rng.randint(1, 9), site.rng.randint(1, 9)),
    ("extract_patches", "size"): _few(1, 3),
    ("squeeze", "axis"): _single_axis,
    ("expand_dims", "axis"): lambda site: site.rng.randint(1, site.rank),
    ("stack", "axis"): lambda site: site.rng.randint(1, site.rank),
    ("transpose", "axes"): lambda site: (0, *_shuffled(site)),
    ("tile", "repeats"): lambda site: (1, *(site.rng.randint(1, 2) for _ in site.shape[1:])),
    ("broadcast_to", "shape"): lambda site: site.shape,
    ("top_k", "k"): lambda site: site.rng.randint(1, site.shape[-1]),
    ("saturate_cast", "dtype"): _one_of("int32", "uint8", "float32"),
    ("cast", "dtype"): _one_of("int32", "float32", "uint8", "bool", "int8", "float16"),
    ("array", "dtype"): _fixed("float32"),
    ("slice", "start_indices"): lambda site: (0,) * site.rank,
    ("slice", "shape"): lambda site: (site.shape[0], *(site.rng.randint(1, n) for n in site.shape[1:])),
    ("threshold", "threshold"): _between(-0.5, 0.5),
    ("logsumexp", "axis"): lambda site: site.axes(),
    ("normalize", "axis"): lambda site: site.axis(),
    ("max_pool", "padding"): _one_of("valid", "same"),
    ("split", "indices_or_sections"): lambda site: site.divisor(site.shape[1]) if site.rank > 1 else 1,
    ("split", "axis"): _fixed(1),
    ("array_split", "axis"): _fixed(1),
    ("dsplit", "indices_or_sections"): lambda site: site.divisor(site.shape[2]) if site.rank > 2 else 1,
    ("einsum", "subscripts"): lambda site: site.any_of(
        *{
            2: ("ab->ba",),
            3: ("abc->acb", "abc->ab", "abc->ac"),
            4: ("abcd->adbc", "abcd->ad", "abcd->abc"),
        }.get(site.rank, ())
        or ("...->...",)
    ),
}
"""The same where the parameter means something else for one layer or operation."""

NEVER = frozenset(
    {
        *("data_format", "dtype", "seed", "name", "momentum", "renorm", "synchronized", "stateful", "use_cudnn"),
        *("flash_attention", "dropout", "recurrent_dropout", "lora_rank", "lora_alpha", "noise_shape", "initial"),
        *("sparse", "ragged", "axis_of_batch", "weights", "factor_of_noise", "mask_zero"),
    }
)
"""Parameters that keep their default: they say nothing of what is computed at inference, or name the format."""


def draw_arguments(site: Site, parameters: Mapping[str, bool]) -> dict[str, Any]:
    """Arguments by name.

    Args:
        site: where they are drawn.
        parameters: the name of each parameter, and whether it must be given. Others are given now and then.

    Raises:
        NotDrawableError: If nothing is known of a parameter that must be given, or nothing fits.
    """
    arguments: dict[str, Any] = {}
    if site.name == "EinsumDense":
        equation, shape = _einsum(site)
        bias = site.any_of(None, equation[-1])
        return {"equation": equation, "output_shape": shape, "bias_axes": bias, "activation": _activation(site)}
    for parameter, required in parameters.items():
        draw = OF_ONE.get((site.name, parameter)) or ARGUMENTS.get(parameter)
        if draw is None and required:
            raise NotDrawableError(f"{site.name}: {parameter}")
        wanted = required or (site.name, parameter) in OF_ONE or site.rng.random() < 0.5
        if draw is not None and parameter not in NEVER and wanted:
            arguments[parameter] = draw(site)
    if {"filters", "groups"} <= set(arguments):
        arguments["filters"] = arguments["groups"] * site.rng.randint(1, 3)
    return arguments
