"""Freezing batch norms and ranges in the middle of training, as callbacks that work with any `fit`.

Late in training, the noise that batches bring into the moving statistics of batch norms and into the ranges of
activations outweighs the benefit (Jacob et al. 2018, https://arxiv.org/abs/1712.05877; Krishnamoorthi 2018,
https://arxiv.org/abs/1806.08342). A frozen batch norm keeps its statistics, scale and offset; a frozen range keeps its
amax.
"""

from collections.abc import Callable
from typing import Any

import keras

from keras_qat.layers import FakeQuantize
from keras_qat.training.cloning import all_layers
from keras_qat.training.optimizers import dump_optimizer, load_optimizer


class _FreezeAfter(keras.callbacks.Callback):
    def __init__(self, epochs: int, freeze: Callable[[keras.Model], bool]) -> None:
        super().__init__()
        self._epochs, self._freeze = epochs, freeze

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:  # noqa: ARG002
        """Freeze at the start of epoch `epochs` (counted from 0)."""
        if epoch >= self._epochs and self._freeze(self.model):
            _renew_step(self.model)


class FreezeBatchNorm(_FreezeAfter):
    """Freezes all batch norms after a number of epochs.

    Args:
        epochs: number of epochs in which batch norms train.

    Example:
        >>> callback = FreezeBatchNorm(2)  # model.fit(…, callbacks=[callback])
    """

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs, freeze_batch_norms)


class FreezeRanges(_FreezeAfter):
    """Freezes the ranges of all `FakeQuantize` layers after a number of epochs.

    Args:
        epochs: number of epochs in which the ranges follow the batches or are learned.

    Example:
        >>> callback = FreezeRanges(2)  # model.fit(…, callbacks=[callback])
    """

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs, freeze_ranges)


def freeze_batch_norms(model: keras.Model) -> bool:
    """Freeze all batch norms of a model in place, and return whether any of them was trainable before.

    Example:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.BatchNormalization()])
        >>> freeze_batch_norms(model), freeze_batch_norms(model)
        (True, False)
    """
    moving = [
        layer for layer in all_layers(model) if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    for layer in moving:
        layer.trainable = False
    return bool(moving)


def freeze_ranges(model: keras.Model) -> bool:
    """Freeze the ranges of all `FakeQuantize` layers in place, and return whether any of them was free before."""
    moving = [layer for layer in all_layers(model) if isinstance(layer, FakeQuantize) and layer.range_mode != "fixed"]
    for layer in moving:
        layer.freeze_range()
    return bool(moving)


def _renew_step(model: keras.Model) -> None:
    """Rebuild the training step with an optimizer of the variables that still train, which takes over the state."""
    if not model.compiled:
        return
    old = model.optimizer
    if old is not None and old.built:
        new = type(old).from_config(old.get_config())
        for name in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"):
            if hasattr(old, name):  # chosen by whoever made the optimizer, and not part of its configuration
                setattr(new, name, getattr(old, name))
        new.build(model.trainable_variables)
        load_optimizer(new, dump_optimizer(old))
        model.optimizer = new
    model.train_function = None
    model.make_train_function(force=True)
