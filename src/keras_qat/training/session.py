"""The models of a training run: the model that trains, the trainer around it, and the model of the best epoch."""

from dataclasses import dataclass
from typing import Any

import keras

from keras_qat.errors import UserError
from keras_qat.training import callbacks, cloning, distiller, optimizers
from keras_qat.training.recipe import Recipe, parse_batch_norm


@dataclass(frozen=True)
class Session:
    """The models and the schedule of one run.

    Args:
        working: the model that trains.
        trainer: the compiled model whose `fit` is called: `working` itself, or the `Distiller` around it.
        best: an uncompiled model with the given model's `trainable` flags, which holds the weights of the best epoch.
        schedule: the learning rate of each step.
    """

    working: keras.Model
    trainer: keras.Model
    best: keras.Model
    schedule: keras.optimizers.schedules.LearningRateSchedule

    def rate_at(self, step: int) -> float:
        """Return the learning rate of `step`, counted from 0 over the whole run."""
        return float(self.schedule(step))

    def keep_best(self) -> None:
        """Copy the current weights to `best`."""
        self.best.set_weights(self.working.get_weights())


def open_session(
    model: keras.Model,
    recipe: Recipe,
    steps_per_epoch: int,
    *,
    teacher: keras.Model | None = None,
    batch_norm_momentum: float | None = None,
    labelled: bool = True,
) -> Session:
    """Clone `model` twice and compile the copy that trains.

    Args:
        model: a classifier with softmax or sigmoid output, `(images, …) → (images, classes)`, which isn't changed.
        recipe: the settings.
        steps_per_epoch: number of steps in one epoch, for the learning-rate schedule.
        teacher: the float model, which isn't changed; used if the recipe distills.
        batch_norm_momentum: momentum of the moving averages while training; `None` leaves it.
        labelled: whether the images have labels; without labels the accuracy isn't measured.

    Returns:
        The models, with the optimizer built.

    Raises:
        UserError: If no weight is left to train, or the teacher has other inputs or classes.
        UnsupportedModelError: If the model or the teacher can't be cloned.
    """
    schedule = optimizers.make_schedule(recipe.schedule, recipe.learning_rate, steps_per_epoch, recipe.epochs)
    working = cloning.clone(model, precision=recipe.training_precision, range_mode=recipe.range_mode)
    if parse_batch_norm(recipe.batch_norm) == 0:
        callbacks.freeze_batch_norms(working)
    for layer in cloning.all_layers(working):
        if isinstance(layer, keras.layers.BatchNormalization) and batch_norm_momentum is not None:
            layer.momentum = batch_norm_momentum
    if not working.trainable_variables:
        raise UserError(
            f"The model has no weight to train. Received: {model.name!r} with all layers frozen. "
            "Set `layer.trainable = True` on the layers to fine-tune."
        )
    trainer = working
    if teacher is not None and recipe.distillation is not None:
        trainer = distiller.Distiller(working, teacher, recipe.distillation, precision=recipe.training_precision)
    optimizer = optimizers.make_optimizer(
        recipe.optimizer,
        schedule,
        weight_decay=recipe.weight_decay,
        clip_norm=recipe.clip_norm,
        accumulate=recipe.accumulate,
    )
    trainer.compile(
        optimizer=optimizer,
        loss=_smoothed_loss(recipe.label_smoothing),
        metrics=[keras.metrics.MeanMetricWrapper(_correct, name="accuracy")] if labelled else [],
        jit_compile=keras.backend.backend() == "jax",
    )
    # Built now, so that the checkpoint of epoch 0 holds the optimizer's state like later ones.
    optimizers.build_optimizer(optimizer, working.trainable_variables)
    return Session(working, trainer, cloning.clone(model), schedule)


def _smoothed_loss(smoothing: float) -> Any:
    def loss(labels: Any, probabilities: Any) -> Any:
        return distiller.labels_loss(labels, probabilities, smoothing)

    return loss


def _correct(labels: Any, probabilities: Any) -> Any:
    return keras.metrics.sparse_categorical_accuracy(labels, distiller.class_probabilities(probabilities))
