"""The models of a training run: the model that trains, the trainer around it, and the model of the best epoch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from keras_qat.errors import UserError
from keras_qat.training import callbacks, cloning, distiller, losses, optimizers
from keras_qat.training.objectives import Objective, read_objectives
from keras_qat.training.recipe import Recipe, parse_batch_norm
from keras_qat.training.trainer import Trainer


@dataclass(frozen=True)
class Session:
    """The models and the schedule of one run.

    Args:
        working: the model that trains.
        trainer: the compiled model whose `fit` is called: `working` itself, or the `Trainer` around it.
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
    objectives: Sequence[Objective] | None = None,
) -> Session:
    """Clone `model` twice and compile the copy that trains.

    Args:
        model: the model to train, which isn't changed.
        recipe: the settings.
        steps_per_epoch: number of steps in one epoch, for the learning-rate schedule.
        teacher: the float model, which isn't changed; used if the recipe distills.
        batch_norm_momentum: momentum of the moving averages while training; `None` leaves it.
        objectives: what each output is trained for; read from the model if `None`.

    Returns:
        The models, with the optimizer built.

    Raises:
        UserError: If no weight is left to train, or the teacher has other inputs or outputs.
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
    objectives = tuple(objectives or read_objectives(model))
    trainer = working
    if teacher is not None and recipe.distillation is not None:
        trainer = distiller.Distiller(
            working, teacher, recipe.distillation, precision=recipe.training_precision, objectives=objectives
        )
    elif _is_nested(model):
        trainer = Trainer(working, [objective.name for objective in objectives])
    optimizer = optimizers.make_optimizer(
        recipe.optimizer,
        schedule,
        weight_decay=recipe.weight_decay,
        clip_norm=recipe.clip_norm,
        accumulate=recipe.accumulate,
    )
    labelled = [objective for objective in objectives if objective.labelled]
    trainer.compile(
        optimizer=optimizer,
        loss=_by_output(objectives, {o.name: o.label_loss(recipe.label_smoothing) for o in labelled}),
        loss_weights={o.name: 1 / len(labelled) for o in labelled} if len(objectives) > 1 and labelled else None,
        metrics=_by_output(objectives, {o.name: _metrics(o) for o in labelled}),
        jit_compile=keras.backend.backend() == "jax",
    )
    # Built now, so that the checkpoint of epoch 0 holds the state of the optimizer like later ones. JAX takes the
    # variables in the order of the trainer, which may be another than that of the model.
    optimizers.build_optimizer(optimizer, trainer.trainable_variables)
    return Session(working, trainer, cloning.clone(model), schedule)


def _is_nested(model: keras.Model) -> bool:
    """Whether a model was made with a list or dictionary of inputs or outputs."""
    graph = getattr(model, "_functional", model)  # a Sequential model keeps its graph there
    return any(map(keras.tree.is_nested, (graph.input, graph.output)))


def _by_output(objectives: Sequence[Objective], values: Mapping[str, Any]) -> Any:
    """What `compile` takes for several outputs, or for one; `None` if there are no labels."""
    if len(objectives) > 1:
        return values or None
    return next(iter(values.values()), None)


def _metrics(objective: Objective) -> list[Any]:
    own = [] if objective.task.scores is None else [losses.Accuracy(objective.task)]
    return [*own, *objective.metrics]
