"""What stops to change in the middle of a training: batch norms and ranges. Callbacks for any `fit`, ours included.

Late in training the moving statistics of batch norms and the ranges of activations jump from batch to batch more than
they gain (Jacob et al. 2018, https://arxiv.org/abs/1712.05877; Krishnamoorthi 2018, https://arxiv.org/abs/1806.08342).
A frozen batch norm keeps statistics, scale and offset; a frozen range keeps its amax.
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
        """Freeze, at the first epoch (counted from 0) that isn't among those that train."""
        if epoch >= self._epochs and self._freeze(self.model):
            _renew_step(self.model)


class FreezeBatchNorm(_FreezeAfter):
    """Freezes all batch norms after so many epochs: `model.fit(…, callbacks=[FreezeBatchNorm(2)])`.

    Args:
        epochs: how many epochs they train.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs, freeze_batch_norms)


class FreezeRanges(_FreezeAfter):
    """Freezes the ranges of all `FakeQuantize` layers after so many epochs.

    Args:
        epochs: how many epochs they follow the batches or are learned.
    """

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs, freeze_ranges)


def freeze_batch_norms(model: keras.Model) -> bool:
    """Freeze all batch norms of a model that trains, in place; whether one wasn't frozen already."""
    moving = [
        layer for layer in all_layers(model) if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]
    for layer in moving:
        layer.trainable = False
    return bool(moving)


def freeze_ranges(model: keras.Model) -> bool:
    """Freeze all ranges of a model that trains, in place; whether one wasn't frozen already."""
    moving = [layer for layer in all_layers(model) if isinstance(layer, FakeQuantize) and layer.range_mode != "fixed"]
    for layer in moving:
        layer.freeze_range()
    return bool(moving)


def _renew_step(model: keras.Model) -> None:
    """Have the training step built again, by an optimizer of the variables that still train, its state carried over."""
    if not model.compiled:
        return
    old = model.optimizer
    if old is not None and old.built:
        new = type(old).from_config(old.get_config())
        for name in ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern"):
            if hasattr(old, name):  # whoever made the optimizer chose them, and they aren't in its configuration
                setattr(new, name, getattr(old, name))
        new.build(model.trainable_variables)
        load_optimizer(new, dump_optimizer(old))
        model.optimizer = new
    model.train_function = None
    model.make_train_function(force=True)
