"""Quantization-aware training: plain Keras training of a fake-quantized model, never worse than it began."""

import importlib.util
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from keras_qat.storage import require_writable
from keras_qat.training.batches import TrainData, count_steps, first_epoch, require_probabilities
from keras_qat.training.checkpoint import (
    STATE,
    RunIdentity,
    clear_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from keras_qat.training.cloning import fingerprint
from keras_qat.training.epochs import fit_epochs
from keras_qat.training.history import EpochRecord, History
from keras_qat.training.recipe import Recipe
from keras_qat.training.schedule import make_schedule
from keras_qat.training.session import Session, open_session

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
    folder: Path | None = None,
    resume: bool = True,
    progress: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> FineTuned:
    """Train a copy of `model`; return its best epoch by `selection`, where epoch 0 is the model as given.

    The best has the highest top-1 accuracy; of equals the lowest loss, then the earliest. The loss is the
    cross-entropy with the labels.

    Args:
        model: a classifier with softmax output, float images in, `(images, classes)` out. It isn't touched.
        train: epoch (from 1) → a `tf.data.Dataset` of (images, integer labels) batches, finite and shuffled
            for that epoch: `lambda epoch: image_set.batches(64, shuffle_seed=seed + epoch)`.
        selection: batches of the same kind, to choose the epoch by; not the data to report accuracy on.
        recipe: the settings.
        folder: where to keep `state.json`, `last.keras`, `best.keras` and TensorBoard's logs; `None` keeps
            nothing.
        resume: go on after the last finished epoch that `folder` holds of the same recipe, model and number
            of steps; a run that had finished returns at once. On a CPU the weights equal those of an
            uninterrupted run. The data can't be compared: use another folder for other data.
        progress: show a bar on a terminal, a line an epoch elsewhere.
        callbacks: of Keras, besides ours.

    Raises:
        UserError: the model has no softmax or nothing to train, the loss isn't finite, or memory ran out.
        StorageError: `folder` can't be written; known before the first step.
        KeyboardInterrupt: passed on. The checkpoint is that of the last finished epoch.

    Example:
        >>> import numpy as np, tensorflow as tf
        >>> data = tf.data.Dataset.from_tensor_slices((np.eye(4, dtype="float32"), [0, 0, 1, 1])).batch(2)
        >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
        >>> recipe = Recipe(epochs=1, schedule="constant", learning_rate=0.5)
        >>> tuned = fine_tune(model, lambda epoch: data, data, recipe, progress=False)
        >>> [record.epoch for record in tuned.history]
        [0, 1]
    """
    if folder is not None:
        require_writable(folder)
    steps = count_steps(first_epoch(train), recipe.steps_per_epoch, "training")
    selection_steps = count_steps(selection, None, "selection")
    schedule = make_schedule(recipe.schedule, recipe.learning_rate, steps, recipe.epochs)
    keras.utils.set_random_seed(recipe.seed)
    require_probabilities(model, selection)

    identity = RunIdentity(recipe, steps, fingerprint(model))
    session, history = _start(model, schedule, identity, folder if resume else None)
    logs: list[keras.callbacks.Callback] = []
    if folder is not None and history.last_epoch < recipe.epochs:
        if not history.records:
            clear_checkpoint(folder)
        logs = _tensorboard(folder)

    def keep(so_far: History) -> None:
        if folder is not None:
            save_checkpoint(folder, identity, session, so_far)

    try:
        history = fit_epochs(
            session,
            train,
            selection,
            history,
            epochs=recipe.epochs,
            steps_per_epoch=steps,
            selection_steps=selection_steps,
            seed=recipe.seed,
            batch_size=recipe.batch_size,
            progress=progress,
            callbacks=[*logs, *callbacks],
            on_epoch=keep,
        )
    except KeyboardInterrupt:
        if folder is None:
            _logger.warning("Interrupted; nothing was kept. With a folder the run could go on.")
        else:
            _logger.warning("Interrupted; %s holds the last finished epoch. Run the same again to go on.", folder)
        raise
    return FineTuned(session.best, history.best_epoch, history.records)


def _start(
    model: keras.Model,
    schedule: keras.optimizers.schedules.LearningRateSchedule,
    identity: RunIdentity,
    folder: Path | None,
) -> tuple[Session, History]:
    recipe = identity.recipe
    if folder is not None and (folder / STATE).exists():
        session = open_session(model, recipe.optimizer, schedule, freeze_batch_norm=recipe.freeze_batch_norm)
        history = load_checkpoint(folder, identity, session)
        if history is not None:
            _logger.info("Going on after epoch %d of %d, from %s.", history.last_epoch, recipe.epochs, folder)
            return session, history
    session = open_session(model, recipe.optimizer, schedule, freeze_batch_norm=recipe.freeze_batch_norm)
    return session, History()


def _tensorboard(folder: Path) -> list[keras.callbacks.Callback]:
    if importlib.util.find_spec("tensorboard") is None:
        _logger.info("No TensorBoard logs: install it with `pip install 'keras-qat[tensorboard]'`.")
        return []
    return [keras.callbacks.TensorBoard(folder / "tensorboard", write_graph=False)]
