"""Float training from scratch, for the data that the package carries with it.

Quantization-aware training: plain Keras training of a fake-quantized model, never worse than it began.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_qat.errors import UserError
from keras_qat.files import require_writable
from keras_qat.training.batches import TrainData, read_data
from keras_qat.training.callbacks import tensorboard_callbacks
from keras_qat.training.checkpoint import (
    LAST,
    TENSORBOARD,
    Position,
    RunIdentity,
    load_checkpoint,
    require_room,
    save_checkpoint,
    set_aside,
)
from keras_qat.training.cloning import fingerprint
from keras_qat.training.devices import available_memory, require_memory
from keras_qat.training.distiller import require_teacher
from keras_qat.training.epochs import fit_epochs
from keras_qat.training.history import EpochRecord, History
from keras_qat.training.optimizers import make_schedule
from keras_qat.training.recipe import Recipe
from keras_qat.training.session import Session, open_session

# With Keras's 0.99 the moving statistics lag on small data: ResNet50 on digits stays at chance for 10 epochs.
_BATCH_NORM_MOMENTUM = 0.9


def train_baseline(
    model: keras.Model,
    train: TrainData,
    selection: Any,
    *,
    epochs: int,
    learning_rate: float = 1e-3,
    steps_per_epoch: int | None = None,
    seed: int = 0,
    progress: bool = True,
) -> keras.Model:
    """Train a copy of `model` with Adam, cosine decay and BatchNorm momentum 0.9; return its best epoch.

    Args:
        model: a classifier with softmax output, usually with fresh weights. It isn't touched.
        train: epoch (from 1) → a `tf.data.Dataset` of (images, integer labels) batches, shuffled for it.
        selection: batches of the same kind; the best epoch has the highest top-1 accuracy, of equals the
            lowest loss.
        epochs: how many epochs to train.
        learning_rate: of the first step.
        steps_per_epoch: the most steps of one epoch; `None` takes all the data.
        seed: of everything random.
        progress: show a bar on a terminal, a line an epoch elsewhere.

    Returns:
        The best epoch's model, uncompiled.

    Raises:
        UserError: the model has no softmax or nothing to train, the loss isn't finite, or memory ran out.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> data = tf.data.Dataset.from_tensor_slices((np.eye(4, dtype="float32"), [0, 0, 1, 1])).batch(2)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
        >>> trained = train_baseline(model, lambda epoch: data, data, epochs=1, progress=False)
        >>> trained.output_shape
        (None, 2)
    """
    recipe = Recipe(
        optimizer="adam",
        schedule="cosine",
        learning_rate=learning_rate,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        seed=seed,
        batch_norm="train",
        distillation=None,
        monitor="accuracy",
    )
    data = read_data(train, selection, recipe, model)
    keras.utils.set_random_seed(seed)
    schedule = make_schedule(recipe.schedule, learning_rate, data.steps, epochs)
    session = open_session(model, recipe, schedule, batch_norm_momentum=_BATCH_NORM_MOMENTUM)
    fit_epochs(session, data, recipe, Position(History(monitor="accuracy")), progress=progress)
    return session.best


_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FineTuned:
    """What fine-tuning gave.

    Args:
        model: the best epoch's, uncompiled, with the given model's `trainable` flags.
        best_epoch: which epoch it is; 0 is the model as given.
        history: every epoch, from 0.
    """

    model: keras.Model
    best_epoch: int
    history: tuple[EpochRecord, ...]


def fine_tune(
    model: keras.Model,
    train: TrainData,
    selection: Any,
    recipe: Recipe,
    *,
    teacher: keras.Model | None = None,
    folder: str | Path | None = None,
    resume: bool = True,
    data_id: str = "",
    keep_every_s: float = 600.0,
    progress: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> FineTuned:
    """Train a copy of `model`; return its best epoch by `selection`, where epoch 0 is the model as given.

    The best has the lowest loss, or by `recipe.monitor` the highest top-1 accuracy. The loss is the distance from the
    teacher's probabilities, cross-entropy with the labels, or a mixture (see `Distillation`).

    Args:
        model: a classifier with softmax output, float images in, `(images, classes)` out; or with a sigmoid,
            `(images, 1)` out. It isn't touched.
        train: epoch (from 1) → a `tf.data.Dataset` of (images, integer labels) batches, finite and shuffled
            for that epoch: `lambda epoch: image_set.batches(64, shuffle_seed=seed + epoch)`. Labels of -1 stand for
            images without, which are enough where the recipe only distills; accuracies are `None` then.
        selection: batches of the same kind, to choose the epoch by; not the data to report accuracy on.
        recipe: the settings.
        teacher: the float model that `model` was made from, which the recipe's distillation asks; it isn't touched.
        folder: where to keep `last.npz`, `best.keras`, `history.json` and TensorBoard's logs; `None` keeps nothing.
        resume: go on from what `folder` holds of the same recipe, models and number of steps; a run that had
            finished returns at once. On a CPU the weights equal those of an uninterrupted run. The data
            can't be compared, but by `data_id`. What can't be gone on from is moved to `earlier-1` and so on.
        data_id: what you know the images by; a run of others isn't gone on from.
        keep_every_s: within an epoch the state is kept that often, in seconds.
        progress: show a bar on a terminal, a line an epoch elsewhere.
        callbacks: of Keras, besides ours. They see one `fit` an epoch, so what they count from `on_train_begin` begins
            anew with each. One that sets `stop_training` ends the run after that epoch; an epoch that it cuts short
            doesn't count.

    Raises:
        UserError: the model or the teacher has no softmax or doesn't fit the labels, the recipe needs labels or a
            teacher and there are none, there is nothing to train, the loss isn't finite, or memory doesn't suffice.
        StorageError: `folder` can't be read or written, or its disk is too full; known before the first step.
        KeyboardInterrupt: passed on. The same call goes on from the last checkpoint.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> data = tf.data.Dataset.from_tensor_slices((np.eye(4, dtype="float32"), [0, 0, 1, 1])).batch(2)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
        >>> recipe = Recipe(epochs=1, schedule="constant", learning_rate=0.5, distillation=None)
        >>> tuned = fine_tune(model, lambda epoch: data, data, recipe, progress=False)
        >>> [record.epoch for record in tuned.history]
        [0, 1]
    """
    place = None if folder is None else Path(folder)
    if place is not None:
        require_writable(place)
    teacher = _teacher_for(model, recipe, teacher)
    data = read_data(train, selection, recipe, model, teacher)
    _require_steps(recipe, data.steps)
    require_memory(model, data.batch_size, recipe.accumulate, available_memory(), recipe.training_precision)
    schedule = make_schedule(recipe.schedule, recipe.learning_rate, data.steps, recipe.epochs)
    keras.utils.set_random_seed(recipe.seed)

    taught_by = "" if teacher is None else fingerprint(teacher)
    identity = RunIdentity(recipe, data.steps, fingerprint(model), taught_by, data.labelled, data_id)
    session, position = _start(model, teacher, schedule, identity, place if resume else None)
    logs: list[keras.callbacks.Callback] = []
    if place is not None and position.history.last_epoch < recipe.epochs:
        if not position.history.records:
            set_aside(place, f"Not going on from what is in {place}")
        require_room(place, session)
        logs = tensorboard_callbacks(place / TENSORBOARD)

    def keep(now: Position) -> None:
        if place is not None:
            save_checkpoint(place, identity, session, now)

    try:
        history = fit_epochs(
            session,
            data,
            recipe,
            position,
            progress=progress,
            callbacks=[*logs, *callbacks],
            keep=keep,
            keep_every_s=keep_every_s,
        )
    except KeyboardInterrupt:
        if place is None:
            _logger.warning("Interrupted; nothing was kept. With a folder the run could go on.")
        else:
            _logger.warning("Interrupted; %s holds the last checkpoint. Run the same again to go on.", place)
        raise
    return FineTuned(session.best, history.best_epoch, history.records)


def _teacher_for(model: keras.Model, recipe: Recipe, teacher: keras.Model | None) -> keras.Model | None:
    """The teacher, where the recipe asks one."""
    if recipe.distillation is None:
        return None
    if teacher is None:
        raise UserError(
            "The recipe distills, and there is no teacher. Received: teacher=None. Give the float model as `teacher`, "
            "or train on the labels alone with `Recipe(distillation=None)`."
        )
    require_teacher(model, teacher)
    return teacher


def _require_steps(recipe: Recipe, steps: int) -> None:
    total = steps * recipe.epochs
    if recipe.accumulate > total:
        raise UserError(
            f"`accumulate` is more than the {total} steps of the whole run, so no weight would ever move. Received: "
            f"accumulate={recipe.accumulate}. Use {total} or less, or smaller batches."
        )


def _start(
    model: keras.Model,
    teacher: keras.Model | None,
    schedule: keras.optimizers.schedules.LearningRateSchedule,
    identity: RunIdentity,
    folder: Path | None,
) -> tuple[Session, Position]:
    recipe = identity.recipe
    if folder is not None and (folder / LAST).exists():
        session = open_session(model, recipe, schedule, teacher=teacher, labelled=identity.labelled)
        position = load_checkpoint(folder, identity, session)
        if position is not None:
            done = position.history.last_epoch
            _logger.info(
                "Going on after epoch %d of %d and %d steps, from %s.", done, recipe.epochs, position.step, folder
            )
            return session, position
    session = open_session(model, recipe, schedule, teacher=teacher, labelled=identity.labelled)
    return session, Position(History(monitor=recipe.monitor))
