"""The loop over epochs that fine-tuning and the baseline share."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import keras

from keras_qat.training.batches import TrainData
from keras_qat.training.cloning import all_layers
from keras_qat.training.guards import FiniteLoss, memory_explained
from keras_qat.training.history import EpochRecord, History
from keras_qat.training.progress import TrainingProgress
from keras_qat.training.session import Session


def fit_epochs(
    session: Session,
    train: TrainData,
    selection: Any,
    history: History,
    *,
    epochs: int,
    steps_per_epoch: int,
    selection_steps: int,
    seed: int,
    batch_size: int | None = None,
    progress: bool = True,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    on_epoch: Callable[[History], None] = lambda _: None,
) -> History:
    """Train `session.working` epoch by epoch; `session.best` gets the weights of each best epoch.

    Each epoch is one plain `model.fit`; the compiled step and the optimizer go on from epoch to epoch. All
    that is random in epoch e starts from seed + e: it doesn't depend on how many epochs ran in this process.

    Args:
        session: the models; those after the last epoch of `history`.
        train: gives the data of epoch 1, 2, …
        selection: batches to choose the best epoch by.
        history: the epochs finished so far; empty to begin with the evaluation of the model as given.
        epochs: train until this epoch is finished.
        steps_per_epoch: steps of one epoch, no more than the data gives.
        selection_steps: batches of `selection`.
        seed: of everything random.
        batch_size: for an error message.
        progress: show a bar, or a line an epoch.
        callbacks: of Keras, besides ours.
        on_epoch: called with the history after each finished epoch, 0 included.

    Returns:
        The whole history.

    Raises:
        UserError: the loss isn't finite, or memory ran out.
    """
    working = session.working
    with ExitStack() as stack:
        stack.enter_context(memory_explained(batch_size))
        if not history.records:
            history = history.with_record(_evaluate_given(working, selection, selection_steps))
            on_epoch(history)
        ours: list[keras.callbacks.Callback] = [FiniteLoss()]
        if progress and history.last_epoch < epochs:
            bar = TrainingProgress(epochs, steps_per_epoch, done=history.last_epoch)
            ours.append(stack.enter_context(bar))
        for epoch in range(history.last_epoch + 1, epochs + 1):
            start_seeds(working, seed + epoch)
            started = time.perf_counter()
            fitted = working.fit(
                train(epoch),
                # Given though the data ends by itself: else Keras warns when data of unknown length ends.
                steps_per_epoch=steps_per_epoch,
                validation_data=selection,
                validation_steps=selection_steps,
                initial_epoch=epoch - 1,
                epochs=epoch,
                shuffle=False,  # the data shuffles itself
                verbose=0,
                callbacks=[*ours, *callbacks],
            )
            logs = {name: float(values[-1]) for name, values in fitted.history.items()}
            record = EpochRecord(
                epoch=epoch,
                learning_rate=session.rate_at(session.steps - 1),
                train_loss=logs["loss"],
                train_accuracy=logs["accuracy"],
                selection_loss=logs["val_loss"],
                selection_accuracy=logs["val_accuracy"],
                seconds=time.perf_counter() - started,
            )
            history = history.with_record(record)
            if history.best_epoch == epoch:
                session.best.set_weights(working.get_weights())
            on_epoch(history)
    return history


def start_seeds(model: keras.Model, seed: int) -> None:
    """Seed Python, NumPy and the backend, and each random layer of `model` (dropout, augmentation).

    A layer's own seed generator advances with each step and isn't part of a `.keras` file; without this a
    resumed run would draw other numbers than an uninterrupted one.
    """
    keras.utils.set_random_seed(seed)
    for index, layer in enumerate(all_layers(model)):
        for value in vars(layer).values():
            if isinstance(value, keras.random.SeedGenerator):
                value.state.assign([seed, index])


def _evaluate_given(model: keras.Model, selection: Any, steps: int) -> EpochRecord:
    started = time.perf_counter()
    logs = model.evaluate(selection, steps=steps, verbose=0, return_dict=True)
    return EpochRecord(
        epoch=0,
        learning_rate=None,
        train_loss=None,
        train_accuracy=None,
        selection_loss=float(logs["loss"]),
        selection_accuracy=float(logs["accuracy"]),
        seconds=time.perf_counter() - started,
    )
