"""Write docs/layers.md: every layer of Keras and every operation of `keras.ops`, and what becomes of it for each target.

    .venv/bin/python docs/site/layers.py

The page is made from the registries: kinds, composites, converters and the targets' tables.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
from keras.src.ops import core, image, linalg, math, nn, numpy  # the classes behind `keras.ops`

from keras_qat import onnx, placement, targets
from keras_qat.graph import kind_of
from keras_qat.types import OpKind

PAGE = Path(__file__).resolve().parents[2] / "docs" / "layers.md"

_HEAD = """# Layers and operations

What `keras-qat` does with each layer of Keras and each operation of `keras.ops`. This page is written by
`docs/site/layers.py` from the tables that the program uses. In the column of a target:

- **integers**: the engine has integer kernels for it, so its inputs (and weights, if it has any) are quantized;
- **inside**: it is computed inside the operation before it, or as a part of that operation's weights;
- **moved**: it only moves numbers, so a Q/DQ pair before it serves for what follows too;
- **float**: it gets no Q/DQ pair of its own, and computes in float or, where the engine moves a pair past it (a max-pool or
  a concatenation in TensorRT), on integers. `keras-qat explain` gives the reason for your model;
- **–**: there is nothing to compute at inference.

A layer that isn't in this table, such as one of your own, is read through: it is replaced by the layers and operations
that its `call` uses. So are those marked *read*. What can be neither exported nor read is refused by name before an image is
read; then [write a converter](custom_layers.md) or replace the layer. Masks (`Masking`, `mask_zero`) are refused.

`keras.ops` in your own `call` or between layers of a functional model are one and the same.
"""

_SAMPLES: Mapping[str, Callable[[], Any]] = {
    "Activation": lambda: keras.layers.Activation("relu"),
    "Mean": lambda: numpy.Mean(axis=(1, 2)),
    "Pad": lambda: numpy.Pad(((0, 0), (1, 1)), mode="reflect"),
    "ReLU": keras.layers.ReLU,
    "UpSampling1D": keras.layers.UpSampling1D,
    "UpSampling2D": keras.layers.UpSampling2D,
    "UpSampling3D": keras.layers.UpSampling3D,
}
"""An object of each type whose kind depends on its settings; the page shows the most usual one."""

_COMPOSITES: Mapping[str, str] = {
    "EinsumDense": "a Dense between reshapes, where the equation is one",
    "SeparableConv1D": "a depthwise and a pointwise convolution",
    "SeparableConv2D": "a depthwise and a pointwise convolution",
    "TimeDistributed": "a call of the inner layer for each step",
}

_READ = (
    *("AdditiveAttention", "Attention", "GroupQueryAttention", "Lambda", "MultiHeadAttention", "Pipeline"),
    *("SpectralNormalization",),
)
"""Layers of Keras that are read through."""

_NOTES: Mapping[str, str] = {
    "Activation": "depends on the function; relu and relu6 are shown",
    "Mean": "over height and width; over other axes it is float",
    "Pad": "float for a constant other than 0 and -∞",
    "UpSampling2D": "nearest; bilinear, bicubic and Lanczos are float",
    "Add": "with a constant it is inside the operation before it",
    "Multiply": "with a constant it is inside the operation before it",
}

_NAMES: Mapping[str, str] = {
    "BatchNorm": "batch_normalization",
    "GetItem": "x[…]",
    "LayerNorm": "layer_normalization",
    "RMSNorm": "rms_normalization",
}
"""Operations whose function has another name than the class."""

_ALIASES = re.compile(r"Convolution|AvgPool|MaxPool\d|GlobalMaxPool\d|GlobalAvgPool")

_INSIDE = frozenset({OpKind.RELU, OpKind.BATCH_NORM, OpKind.SCALE})


def page() -> str:
    """The text of the page."""
    names = [target.name for target in targets.find_targets()]
    head = f"| | {' | '.join(names)} | |\n| --- | {' | '.join('---' for _ in names)} | --- |"
    layers, operations = "\n".join(_layers()), "\n".join(_operations())
    return f"{_HEAD}\n## Layers\n\n{head}\n{layers}\n\n## Operations of keras.ops\n\n{head}\n{operations}\n"


def _layers() -> Iterator[str]:
    for name in sorted(dir(keras.layers)):
        layer_type = getattr(keras.layers, name)
        if not isinstance(layer_type, type) or not issubclass(layer_type, keras.layers.Layer) or _ALIASES.search(name):
            continue
        if name in _COMPOSITES:
            yield _row(f"`{name}`", ["as its parts"] * 3, _COMPOSITES[name])
        elif name in _READ:
            yield _row(f"`{name}`", ["read"] * 3, "as the layers and operations of its `call`")
        elif onnx.has_converter(layer_type):
            yield _row(f"`{name}`", _cells(name, layer_type), _NOTES.get(name, ""))


def _operations() -> Iterator[str]:
    rows = {}
    for module in (numpy, nn, core, math, linalg, image):
        for name, operation in vars(module).items():
            if (
                isinstance(operation, type)
                and operation.__module__ == module.__name__
                and onnx.has_converter(operation)
            ):
                shown = _function(name, "image." if module is image else "")
                rows[shown] = _row(f"`{shown}`", _cells(name, operation), _NOTES.get(name, ""))
    yield from (rows[shown] for shown in sorted(rows))


def _function(name: str, prefix: str) -> str:
    """The function of `keras.ops` that makes operations of a class."""
    if name in _NAMES:
        return _NAMES[name]
    space = keras.ops.image if prefix else keras.ops
    plain = {function.replace("_", "").lower(): function for function in dir(space)}
    return prefix + plain.get(name.lower(), name)


def _cells(name: str, operation_type: type) -> list[str]:
    operation = _SAMPLES[name]() if name in _SAMPLES else operation_type.__new__(operation_type)
    kind = kind_of(operation)
    return [_cell(kind, target) for target in targets.find_targets()]


def _cell(kind: OpKind, target: targets.Target) -> str:
    if kind in {OpKind.IDENTITY, OpKind.INPUT}:
        return "–"
    if kind in placement.MOVES_NUMBERS:
        return "moved"
    if kind in _INSIDE or kind in target.fused_activations:
        return "inside"
    rule = target.rule(kind)
    return "float" if rule.inputs is targets.Inputs.NONE else "integers"


def _row(name: str, cells: list[str], note: str) -> str:
    return f"| {name} | {' | '.join(cells)} | {note} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
