"""What TensorBoard shows of a training: loss, accuracy, agreement and learning rate by Keras, and the ranges by us."""

import importlib.util
import logging
from pathlib import Path
from typing import Any

import keras

from keras_qat.layers import FakeQuantize
from keras_qat.training.cloning import all_layers
from keras_qat.training.distiller import Distiller

_logger = logging.getLogger(__name__)


class RangesToTensorBoard(keras.callbacks.Callback):
    """Writes the amax of every quantized tensor after each epoch, as the scalar `range/TENSOR`.

    Args:
        folder: of the logs.

    Example:
        >>> callback = RangesToTensorBoard("logs")  # model.fit(…, callbacks=[callback])
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__()
        self._folder = Path(folder)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Write them."""
        import tensorflow as tf

        with tf.summary.create_file_writer(str(self._folder / "ranges")).as_default(step=epoch):
            # A teacher may be quantized, too; its ranges don't change.
            trained = self.model.student if isinstance(self.model, Distiller) else self.model
            for layer in all_layers(trained):
                if isinstance(layer, FakeQuantize):
                    tf.summary.scalar(f"range/{layer.name}", float(layer.amax.numpy()))


def tensorboard_callbacks(folder: Path) -> list[keras.callbacks.Callback]:
    """Keras's and ours, writing below `folder`; none where TensorBoard isn't installed, and the log says so."""
    if importlib.util.find_spec("tensorboard") is None:
        _logger.info("No TensorBoard logs: install it with `pip install 'keras-qat[tensorboard]'`.")
        return []
    return [keras.callbacks.TensorBoard(folder, write_graph=False), RangesToTensorBoard(folder)]
