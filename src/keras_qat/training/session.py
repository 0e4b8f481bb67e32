"""The two copies that a training run works on: one that trains, one that keeps the best epoch."""

from dataclasses import dataclass

import keras

from keras_qat.errors import UserError
from keras_qat.training.cloning import all_layers, clone
from keras_qat.training.optimizers import make_optimizer


@dataclass(frozen=True)
class Session:
    """Models of one run.

    Args:
        working: compiled, trains.
        best: uncompiled, with the given model's `trainable` flags; gets the weights of each best epoch.
        schedule: the learning rate of each step.
    """

    working: keras.Model
    best: keras.Model
    schedule: keras.optimizers.schedules.LearningRateSchedule

    @property
    def steps(self) -> int:
        """How many steps the optimizer has taken."""
        return int(self.working.optimizer.iterations)

    def rate_at(self, step: int) -> float:
        """Return the learning rate of `step`."""
        return float(self.schedule(step))


def open_session(
    model: keras.Model,
    optimizer: str,
    schedule: keras.optimizers.schedules.LearningRateSchedule,
    *,
    freeze_batch_norm: bool = False,
    batch_norm_momentum: float | None = None,
) -> Session:
    """Clone `model` twice and compile the copy that trains.

    Args:
        model: a classifier with softmax output, `(images, ...) → (images, classes)`; it isn't touched.
        optimizer: a name of `keras_qat.training.optimizers.OPTIMIZERS`.
        schedule: the learning rate of each step.
        freeze_batch_norm: keep BatchNorm's statistics, scale and offset as they are.
        batch_norm_momentum: the moving averages' momentum while training; `None` leaves it.

    Raises:
        UserError: no weight is left to train, or the model can't be cloned.
    """
    working = clone(model)
    for layer in all_layers(working):
        if isinstance(layer, keras.layers.BatchNormalization):
            if freeze_batch_norm:
                layer.trainable = False
            if batch_norm_momentum is not None:
                layer.momentum = batch_norm_momentum
    if not working.trainable_variables:
        raise UserError(
            f"The model has no weight to train. Received: {model.name!r} with all layers frozen. "
            "Set `layer.trainable = True` on the layers to fine-tune."
        )
    working.compile(
        optimizer=make_optimizer(optimizer, schedule),
        loss=keras.losses.SparseCategoricalCrossentropy(),
        metrics=[keras.metrics.SparseCategoricalAccuracy(name="accuracy")],
        jit_compile=False,
    )
    # Built now, so that a checkpoint of epoch 0 holds the optimizer's state as those of later epochs do.
    working.optimizer.build(working.trainable_variables)
    return Session(working, clone(model), schedule)
