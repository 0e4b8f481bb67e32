"""Draws operations whose operands are constants, or tensors of other shapes."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from keras import ops

from graph_arguments import Site
from graph_parts import JUMPS, POSITIVE_OPERANDS, Application, Tensor, drawable, may_read


def _special(draw: Callable[[Any, str, Tensor, Site], tuple[Callable[..., Any], str]], rank: Any = None) -> Any:
    """An operation on one tensor of a rank, with constants that are drawn for it."""

    def application(drawing: Any, name: str) -> Application:
        x = drawing.pick_float(rank)
        run, text = draw(drawing, name, x, drawing.site(name, x))
        return Application(run, (x,), f"{name}({x.name}, {text})", name in {"x[…]", "take", "pad", "repeat"})

    return application


def _conv(_: Any, name: str, __: Tensor, site: Site) -> tuple[Callable[..., Any], str]:
    window = [site.rng.randint(1, min(3, n)) for n in site.sizes]
    kernel = site.numbers(*window, site.shape[-1], site.rng.randint(1, 4)) / 2
    strides, padding = site.rng.randint(1, 2), site.any_of("valid", "same")
    function = getattr(ops, name)
    return lambda x: function(x, kernel, strides=strides, padding=padding), f"{kernel.shape}, {strides}, {padding!r}"


def _product(_: Any, name: str, __: Tensor, site: Site) -> tuple[Callable[..., Any], str]:
    kernel = site.numbers(site.shape[-1], site.rng.randint(1, 6))
    function = {"tensordot": lambda x: ops.tensordot(x, kernel, axes=1)}.get(name)
    return function or (lambda x: getattr(ops, name)(x, kernel)), f"constant {kernel.shape}"


def _clip(_: Any, __: str, ___: Tensor, site: Site) -> tuple[Callable[..., Any], str]:
    least, most = round(site.rng.uniform(-2, 0), 2), round(site.rng.uniform(0.1, 2), 2)
    return lambda x: ops.clip(x, least, most), f"{least}, {most}"


def _pad(_: Any, __: str, x: Tensor, site: Site) -> tuple[Callable[..., Any], str]:
    mode = site.any_of("constant", "reflect", "symmetric")
    width = [(0, 0), *((site.rng.randint(0, min(2, n - 1)), site.rng.randint(0, min(2, n - 1))) for n in x.shape[1:])]
    named = {"constant_values": 0.5} if mode == "constant" and site.rng.random() < 0.5 else {}
    return lambda x: ops.pad(x, width, mode=mode, **named), f"{width}, {mode!r}, {named}"


def _index(_: Any, __: str, x: Tensor, site: Site) -> tuple[Callable[..., Any], str]:
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


def _take(_: Any, __: str, ___: Tensor, site: Site) -> tuple[Callable[..., Any], str]:
    axis = site.axis()
    indices = [site.rng.randrange(site.shape[axis]) for _ in range(site.rng.randint(1, 4))]
    return lambda x: ops.take(x, indices, axis=axis), f"{indices}, {axis}"


def _repeat(_: Any, __: str, ___: Tensor, site: Site) -> tuple[Callable[..., Any], str]:
    axis, times = site.axis(), site.rng.randint(1, 3)
    return lambda x: ops.repeat(x, times, axis=axis), f"{times}, {axis}"


def _batch_norm(_: Any, __: str, ___: Tensor, site: Site) -> tuple[Callable[..., Any], str]:
    mean, offset, scale = (site.numbers(site.shape[-1]) for _ in range(3))
    variance = np.abs(site.numbers(site.shape[-1])) + 0.3
    return lambda x: ops.batch_normalization(x, mean, variance, -1, offset=offset, scale=scale), "constants"


def _einsum_of_two(drawing: Any, name: str) -> Application:
    x = drawing.pick_float(3)
    y = drawing.like(x)
    equation = drawing.rng.choice(("abc,adc->abd", "abc,abd->acd", "abc,abc->ac", "abc,adc->adb"))
    return Application(lambda a, b: ops.einsum(equation, a, b), (x, y), f"{name}({equation!r}, {x.name}, {y.name})")


def _matmul(drawing: Any, name: str) -> Application:
    if drawing.rng.random() < 0.5:
        return _special(_product)(drawing, name)
    x = drawing.pick(lambda t: t.is_float and len(t.shape) in {3, 4})
    y = drawing.like(x)
    text = f"matmul({x.name}, swapaxes({y.name}, -1, -2)) / {x.shape[-1]}"
    return Application(lambda a, b: ops.matmul(a, ops.swapaxes(b, -1, -2)) / x.shape[-1], (x, y), text)


def _attention(drawing: Any, name: str) -> Application:
    x = drawing.pick_float(4)
    y = drawing.like(x)
    causal = drawing.rng.random() < 0.3
    text = f"{name}({x.name}, {y.name}, {x.name}, is_causal={causal})"
    return Application(lambda a, b: ops.dot_product_attention(a, b, a, is_causal=causal), (x, y), text)


def _with_a_number(drawing: Any, name: str) -> Application:
    """A binary operation, half of the time with a constant."""
    function = drawable()[name]
    if drawing.rng.random() < 0.5:
        return drawing.operation(name, function)
    x = drawing.pick(lambda t: t.is_float and may_read(name, t))
    number: Any = round(drawing.rng.uniform(0.3, 2), 2)
    if drawing.rng.random() < 0.5 and x.shape[-1] > 1:  # for (…, n, 1) Keras 3.15 adds along another axis
        number = np.abs(drawing.site(name, x).numbers(*x.shape[-drawing.rng.randint(1, 2) :])) + 0.3
    left = drawing.rng.random() < 0.3
    positive = POSITIVE_OPERANDS.get(name, ())

    def run(v: Any) -> Any:
        v = positive(v) if (1 if left else 0) in positive else v
        return function(number, v) if left else function(v, number)

    shown = number if isinstance(number, float) else f"constant {number.shape}"
    text = f"ops.{name}({shown}, {x.name})" if left else f"ops.{name}({x.name}, {shown})"
    return Application(run, (x,), text, name in JUMPS)


def _where(drawing: Any, _: str) -> Application:
    x = drawing.pick(lambda t: t.is_float and t.exact)
    y = drawing.like(x)
    limit = round(drawing.rng.uniform(-0.5, 0.5), 2)
    text = f"where({x.name} > {limit}, {x.name}, {y.name})"
    return Application(lambda a, b: ops.where(a > limit, a, b), (x, y), text)


_BINARY = (
    *("add", "subtract", "multiply", "divide", "true_divide", "maximum", "minimum", "power", "greater", "less"),
    *("equal", "not_equal", "greater_equal", "less_equal", "floor_divide", "mod", "divide_no_nan", "logaddexp"),
)

SPECIAL: Mapping[str, Callable[[Any, str], Application]] = {
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
