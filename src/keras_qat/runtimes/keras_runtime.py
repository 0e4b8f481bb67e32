"""The Keras model itself, as its users run it: `predict_on_batch`."""

import os
from typing import Any

import keras
import numpy as np

from keras_qat.runtimes.runtime import Runtime


class KerasRuntime(Runtime):
    """Runs a `keras.Model` on the backend that Keras was started with.

    Args:
        model: any model from images to scores.
    """

    def __init__(self, model: Any) -> None:
        backend = keras.backend.backend()
        super().__init__(f"Keras {keras.version()} on {backend}", f"{os.cpu_count()} threads")
        self._model = model

    def run(self, images: np.ndarray) -> np.ndarray:
        """Score a batch; see `Runtime.run`."""
        return np.asarray(self._model.predict_on_batch(images), np.float32)
