"""Weights that can't work, found before hours are spent on them."""

from typing import Any

import numpy as np

from keras_qat.errors import WeightsError


def check_finite(model: Any) -> None:
    """Refuse a model with NaN or infinity in its weights.

    Args:
        model: a `keras.Model`.

    Raises:
        WeightsError: some weight isn't finite; the message names the first such layer.

    Example:
        >>> import keras
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, name="head")])
        >>> check_finite(model)
        >>> _ = model.get_layer("head").bias.assign([np.nan])
        >>> check_finite(model)
        Traceback (most recent call last):
        ...
        keras_qat.errors.WeightsError: 1 of 1 numbers in head/bias ... not finite...
    """
    for layer in model.layers:
        for weight in layer.weights:
            values = weight.numpy()
            bad = int(np.count_nonzero(~np.isfinite(values)))
            if bad:
                raise WeightsError(
                    f"{bad} of {values.size} numbers in {layer.name}/{weight.name} of {model.name} are not "
                    "finite. Received: NaN or infinity. Give weights of a training that converged."
                )
