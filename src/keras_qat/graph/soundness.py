"""Whether the numbers of a model are such that quantization and export mean something.

Two kinds of models look like any other and give wrong files without a word: those whose weights are not finite, and
those that Keras has quantized itself. Both are refused at the first look, by the name of what is wrong.
"""

from typing import Any

import keras
import numpy as np

from keras_qat.errors import UnsupportedModelError, WeightsError
from keras_qat.text import first_few


def require_sound(model: Any) -> None:
    """Refuse a model that can be run, but neither quantized nor exported.

    Args:
        model: a built `keras.Model`. It is not changed.

    Raises:
        UnsupportedModelError: If Keras's own quantization has replaced the arithmetic of a layer.
        WeightsError: If a weight is NaN or infinite.

    Example:
        >>> require_sound(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    """
    _require_float(model)
    require_finite(model)


def require_finite(model: Any) -> None:
    """Refuse a model with NaN or infinity in its weights, before hours are spent on it.

    Args:
        model: a built `keras.Model`. It is not changed.

    Raises:
        WeightsError: If a weight is not finite; the message names the first such variable.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="head")])
        >>> require_finite(model)
        >>> _ = model.get_layer("head").bias.assign([np.nan])
        >>> require_finite(model)
        Traceback (most recent call last):
        keras_qat.errors.WeightsError: 1 of 1 numbers in ...head/bias of sequential... are not finite. ...
    """
    for weight in model.weights:
        values = np.asarray(keras.ops.convert_to_numpy(weight))
        # A finite sum takes half the time of a look at each number, and no memory. It may overflow without a NaN.
        with np.errstate(over="ignore", invalid="ignore"):
            if values.dtype.kind in "biu" or np.isfinite(values.sum()):
                continue
        bad = int(np.count_nonzero(~np.isfinite(values)))
        if bad:
            raise WeightsError(
                f"{bad} of {values.size} numbers in {weight.path} of {model.name} are not finite. Received: NaN or "
                "infinity. Give weights of a training that converged."
            )


def _require_float(model: Any) -> None:
    """Refuse layers that `keras.Model.quantize` has changed: they compute with other weights than their kernels'."""
    # `model.layers` doesn't enter composite layers, and Keras has no public method that does.
    layers = model._flatten_layers(include_self=False, recursive=True)  # noqa: SLF001
    modes = {layer.name: mode for layer in layers if (mode := getattr(layer, "quantization_mode", None)) is not None}
    if modes:
        kinds = ", ".join(sorted(map(repr, set(modes.values()))))
        raise UnsupportedModelError(
            f"Keras's own quantization, `model.quantize({kinds})`, has changed this model, and keras-qat starts from "
            f"float weights. Received: {model.name!r}, with the quantized layers {first_few(map(repr, modes))}. "
            "Load the float model that was saved before that call, with `keras.saving.load_model`, and give that."
        )
