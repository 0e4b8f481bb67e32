"""The models that a training run works on: one that trains, what fits it, one that keeps the best epoch."""

from dataclasses import dataclass
from typing import Any

import keras

from keras_qat.errors import UserError
from keras_qat.training.cloning import all_layers, clone
from keras_qat.training.distiller import Distiller, class_probabilities, labels_loss
from keras_qat.training.freezing import freeze_batch_norms
from keras_qat.training.optimizers import build_optimizer, make_optimizer
from keras_qat.training.recipe import Recipe, parse_batch_norm


@dataclass(frozen=True)
class Session:
    """Models of one run.

    Args:
        working: trains.
        trainer: compiled, what `fit` is called on: `working` itself, or the `Distiller` around it.
        best: uncompiled, with the given model's `trainable` flags; gets the weights of each best epoch.
        schedule: the learning rate of each step.
    """

    working: keras.Model
    trainer: keras.Model
    best: keras.Model
    schedule: keras.optimizers.schedules.LearningRateSchedule

    def rate_at(self, step: int) -> float:
        """Return the learning rate of `step`."""
        return float(self.schedule(step))

    def keep_best(self) -> None:
        """Make the weights of now those of the best epoch."""
        self.best.set_weights(self.working.get_weights())


def open_session(
    model: keras.Model,
    recipe: Recipe,
    schedule: keras.optimizers.schedules.LearningRateSchedule,
    *,
    teacher: keras.Model | None = None,
    batch_norm_momentum: float | None = None,
    labelled: bool = True,
) -> Session:
    """Clone `model` twice and compile the copy that trains.

    Args:
        model: a classifier with softmax or sigmoid output, `(images, ...) → (images, classes)`; it isn't touched.
        recipe: the settings.
        schedule: the learning rate of each step.
        teacher: the float model, if the recipe distills; it isn't touched.
        batch_norm_momentum: the moving averages' momentum while training; `None` leaves it.
        labelled: without labels there is no accuracy to measure.

    Raises:
        UserError: no weight is left to train, the model can't be cloned, or the teacher doesn't fit.
    """
    working = clone(model, precision=recipe.training_precision, range_mode=recipe.range_mode)
    if parse_batch_norm(recipe.batch_norm) == 0:
        freeze_batch_norms(working)
    for layer in all_layers(working):
        if isinstance(layer, keras.layers.BatchNormalization) and batch_norm_momentum is not None:
            layer.momentum = batch_norm_momentum
    if not working.trainable_variables:
        raise UserError(
            f"The model has no weight to train. Received: {model.name!r} with all layers frozen. "
            "Set `layer.trainable = True` on the layers to fine-tune."
        )
    trainer = working
    if teacher is not None and recipe.distillation is not None:
        trainer = Distiller(working, teacher, recipe.distillation, precision=recipe.training_precision)
    optimizer = make_optimizer(
        recipe.optimizer,
        schedule,
        weight_decay=recipe.weight_decay,
        clip_norm=recipe.clip_norm,
        accumulate=recipe.accumulate,
    )
    trainer.compile(
        optimizer=optimizer,
        loss=_smoothed(recipe.label_smoothing),
        metrics=[keras.metrics.MeanMetricWrapper(_right, name="accuracy")] if labelled else [],
        jit_compile=keras.backend.backend() == "jax",
    )
    # Built now, so that a checkpoint of epoch 0 holds the optimizer's state as those of later epochs do.
    build_optimizer(optimizer, working.trainable_variables)
    return Session(working, trainer, clone(model), schedule)


def _smoothed(smoothing: float) -> Any:
    def loss(labels: Any, probabilities: Any) -> Any:
        return labels_loss(labels, probabilities, smoothing)

    return loss


def _right(labels: Any, probabilities: Any) -> Any:
    return keras.metrics.sparse_categorical_accuracy(labels, class_probabilities(probabilities))
