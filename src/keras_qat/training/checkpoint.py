"""The history of a training run, and checkpoints from which a killed run can resume at any time, within an epoch too.

A folder holds `last.npz`: everything that the next step depends on (weights, ranges, seeds, the optimizer's state, the
running means of the epoch), the identity of the run, the finished epochs, and the position in the data. It is a single
file, written beside the old one and then renamed, so that it never mixes two states. `best.keras` is the model of the
best epoch. A kill between the two renames leaves an older `best.keras`, which is repaired when the checkpoint is
loaded: if the last epoch is the best, its weights are in `last.npz`. `history.json` is for the user.

A checkpoint that is damaged or belongs to another run is moved aside, never deleted.
"""

import json
import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from keras_qat.errors import StorageError, UserError
from keras_qat.files import (
    atomic_path,
    is_file,
    is_there,
    open_file,
    parse_json,
    require_space,
    to_json_value,
    write_json,
)
from keras_qat.training.optimizers import dump_optimizer, load_optimizer
from keras_qat.training.recipe import Recipe
from keras_qat.training.session import Session
from keras_qat.types import Monitor


@dataclass(frozen=True)
class EpochRecord:
    """The results of one epoch.

    Args:
        epoch: number of the epoch; 0 is the model as given, 1 the first trained epoch.
        learning_rate: learning rate of the epoch's last step; `None` for epoch 0.
        train_loss: mean loss over the epoch, in training mode; `None` for epoch 0.
        train_accuracy: mean top-1 accuracy over the epoch, from 0 to 1; `None` for epoch 0, without labels, or without
            an output of classes. Where an output has a class for each position, it is that of the positions.
        selection_loss: mean loss over the selection data, after the epoch.
        selection_accuracy: top-1 accuracy on the selection data, from 0 to 1; `None` likewise.
        seconds: wall time, selection included.
        selection_agreement: share of the selection images, or of their positions, to which the teacher gives the same
            class, from 0 to 1; `None` without a teacher, or without an output of classes.
        selection_sqnr: 10 log₁₀ (Σ t² / Σ (t - s)²) in dB of the teacher's other outputs t and the model's s on the
            selection data, at most 200; `None` without a teacher, or with outputs of classes alone.
        selection_metrics: the user's own metrics on the selection data, by name.
    """

    epoch: int
    learning_rate: float | None
    train_loss: float | None
    train_accuracy: float | None
    selection_loss: float
    selection_accuracy: float | None
    seconds: float
    selection_agreement: float | None = None
    selection_sqnr: float | None = None
    selection_metrics: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class History:
    """The epochs of a run so far, in order from epoch 0.

    Args:
        records: one record per epoch.
        monitor: the metric that chooses the best epoch.

    Example:
        >>> given = EpochRecord(0, None, None, None, selection_loss=0.5, selection_accuracy=0.9, seconds=1.0)
        >>> worse = EpochRecord(1, 1e-3, 0.4, 0.9, selection_loss=0.4, selection_accuracy=0.8, seconds=1.0)
        >>> [History((given,), monitor).with_record(worse).best_epoch for monitor in ("accuracy", "loss")]
        [0, 1]
    """

    records: tuple[EpochRecord, ...] = ()
    monitor: Monitor = "loss"

    @property
    def last_epoch(self) -> int:
        """The last finished epoch; -1 for an empty history."""
        return len(self.records) - 1

    @property
    def best_epoch(self) -> int:
        """The epoch with the lowest selection loss or the highest top-1; the other metric breaks ties."""

        def rank(record: EpochRecord) -> tuple[float, ...]:
            metrics = {"loss": -record.selection_loss, "accuracy": record.selection_accuracy or 0.0}
            return metrics.pop(self.monitor), *metrics.values(), -record.epoch

        return max(self.records, key=rank).epoch

    def with_record(self, record: EpochRecord) -> "History":
        """Return a new history with one more epoch.

        Raises:
            UserError: If the selection loss isn't finite.
        """
        if not math.isfinite(record.selection_loss):
            raise UserError(
                f"The model gives a loss that isn't finite on the selection data after epoch {record.epoch}. "
                f"Received: loss={record.selection_loss}, learning_rate={record.learning_rate}. "
                + (
                    "The given model or its calibration is broken: check its weights and ranges."
                    if record.epoch == 0
                    else "Lower the learning rate, for example to a tenth."
                )
            )
        return replace(self, records=(*self.records, record))

    def to_list(self) -> list[dict[str, Any]]:
        """Return the records in a form that JSON can hold."""
        return [asdict(record) for record in self.records]

    @classmethod
    def from_list(cls, records: list[dict[str, Any]], monitor: Monitor = "loss") -> "History":
        """Make a history from the result of `to_list`."""
        return cls(tuple(EpochRecord(**record) for record in records), monitor)


LAST, BEST, HISTORY, TENSORBOARD = "last.npz", "best.keras", "history.json", "tensorboard"
_STATE, _MODEL, _OPTIMIZER, _METRICS = (
    "state",
    "model/",
    "optimizer/",
    "metrics/",
)  # of the arrays

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunIdentity:
    """What must be equal for a run to resume from a checkpoint.

    Args:
        recipe: all settings.
        steps_per_epoch: number of steps in one epoch, as counted from the data.
        model: fingerprint of the model as given.
        teacher: fingerprint of the teacher; empty without one.
        labelled: whether the images have labels, which decides what is measured.
        data: the caller's identifier of the images; empty if there is none.
        objectives: what the outputs are trained for, as text; empty if nothing but the model decides it.
    """

    recipe: Recipe
    steps_per_epoch: int
    model: str
    teacher: str = ""
    labelled: bool = True
    data: str = ""
    objectives: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the identity as JSON holds it, where tuples are lists."""
        return dict(to_json_value(self))


@dataclass(frozen=True)
class Position:
    """How far a run has come.

    Args:
        history: the finished epochs.
        step: number of steps taken in the epoch after them.
        metrics: values of the metrics' variables after these steps; empty at the start of an epoch.
    """

    history: History
    step: int = 0
    metrics: tuple[np.ndarray, ...] = ()


def require_room(folder: Path, session: Session) -> None:
    """Check before hours of training that the checkpoints fit on the disk.

    Raises:
        StorageError: If less than twice the size of both files is free; new files are written beside the old ones.
    """
    variables = [*session.working.variables, *session.trainer.optimizer.variables, *session.best.variables]
    require_space(folder, 2 * sum(4 * int(np.prod(variable.shape)) for variable in variables))


def save_checkpoint(folder: Path, identity: RunIdentity, session: Session, position: Position) -> None:
    """Write the state at a position, and after an epoch `history.json` and, if it is the best, `best.keras`.

    Within an epoch, a state with numbers that aren't finite doesn't replace the last good one.

    Args:
        folder: the folder to write to.
        identity: identity of the run.
        session: the models, with the weights at `position`.
        position: how far the run has come.

    Raises:
        StorageError: If the folder can't be written.
    """
    history = position.history
    state = {**identity.to_dict(), "step": position.step, "history": history.to_list()}
    arrays = {name: ops.convert_to_numpy(variable) for name, variable in _model_variables(session)}
    optimizer = dump_optimizer(session.trainer.optimizer, session.working.variables)
    arrays |= {_OPTIMIZER + path: value for path, value in optimizer.items()}
    if position.step and not all(np.isfinite(value).all() for value in arrays.values()):
        _logger.warning("The weights aren't finite after step %d: %s isn't replaced.", position.step, folder / LAST)
        return
    arrays |= {f"{_METRICS}{i}": value for i, value in enumerate(position.metrics)}
    arrays[_STATE] = np.array(json.dumps(state))
    with atomic_path(folder / LAST) as last:
        np.savez(last, allow_pickle=False, **arrays)
    if position.step == 0:
        write_json(folder / HISTORY, {"recipe": identity.recipe.to_dict(), "epochs": history.to_list()})
        if history.best_epoch == history.last_epoch:
            _save_best(folder, session)


def _save_best(folder: Path, session: Session) -> None:
    with atomic_path(folder / BEST) as best:
        session.best.save(best)


def _model_variables(session: Session) -> list[tuple[str, Any]]:
    """Return all variables of the model that trains, seeds of dropout included, by names that no process changes."""
    return [(f"{_MODEL}{i}", variable) for i, variable in enumerate(session.working.variables)]


def load_checkpoint(folder: Path, identity: RunIdentity, session: Session) -> Position | None:
    """Load the weights and the optimizer's state of a checkpoint into `session`.

    A checkpoint that is damaged or belongs to another run is set aside, and the log says why.

    Args:
        folder: the folder that `save_checkpoint` wrote to.
        identity: identity of the run that wants to resume.
        session: a newly opened session, which is changed in place. If the result is `None`, discard it: a part of the
            checkpoint may have been loaded.

    Returns:
        The position of the checkpoint; `None` if there is none from which this run can resume.

    Raises:
        StorageError: If the files can't be read or moved, although they may be intact.
        MemoryError: If the arrays don't fit in memory.
    """
    if not is_there(folder / LAST):
        return None
    try:
        position, best_in_memory = _read(folder, identity, session)
    except _UnusableError as error:
        set_aside(folder, f"Can't resume from the checkpoint in {folder}: {error}")
        return None
    if best_in_memory:
        # A kill before the second rename left an older file, and no later epoch is sure to be better.
        _save_best(folder, session)
    return position


def _read(folder: Path, identity: RunIdentity, session: Session) -> tuple[Position, bool]:
    """Return the position, and whether `session.best` was filled without reading `best.keras`."""
    # The file is opened here, because NumPy leaves a damaged archive open.
    with _damage_reported(folder / LAST), open_file(folder / LAST) as stream, np.load(stream) as file:
        arrays = {name: file[name] for name in file.files}
    with _damage_reported(folder / LAST):
        # Older checkpoints lack these entries: all their images had labels, and all their models were classifiers.
        state = {"labelled": True, "data": "", "objectives": "", **parse_json(str(arrays[_STATE]), "the state")}
        differing = [name for name, value in identity.to_dict().items() if state[name] != value]
    if differing:
        raise _UnusableError(f"it belongs to another run ({', '.join(differing)} differs)")
    with _damage_reported(folder / LAST):
        position = _restore(arrays, state, identity.recipe, session)
    return position, _load_best(folder, session, position)


def _restore(arrays: dict[str, Any], state: dict[str, Any], recipe: Recipe, session: Session) -> Position:
    history = History.from_list(state["history"], recipe.monitor)
    for name, variable in _model_variables(session):
        variable.assign(arrays[name])
    optimizer = {k.removeprefix(_OPTIMIZER): v for k, v in arrays.items() if k.startswith(_OPTIMIZER)}
    # The checkpoint may lack variables that were frozen later; they are frozen again when their epoch begins.
    load_optimizer(session.trainer.optimizer, optimizer, session.working.variables, partial=recipe.freezes_later)
    metrics = tuple(arrays[f"{_METRICS}{i}"] for i in range(sum(k.startswith(_METRICS) for k in arrays)))
    return Position(history, state["step"], metrics)


def _load_best(folder: Path, session: Session, position: Position) -> bool:
    """Load the best epoch's weights into `session.best`, and return whether this was possible without the file."""
    best = position.history.best_epoch
    if best == 0:
        return True  # a new session holds the model as given
    if position.step == 0 and best == position.history.last_epoch:
        session.keep_best()
        return True
    if not is_file(folder / BEST):
        raise _UnusableError(f"{LAST} is whole, but {BEST} is missing, which held the best epoch ({best})")
    with _damage_reported(folder / BEST, f"{LAST} is whole, but "):
        session.best.load_weights(folder / BEST)
    return False


class _UnusableError(Exception):
    """The reason why a run can't resume from a checkpoint."""


@contextmanager
def _damage_reported(path: Path, prefix: str = "") -> Iterator[None]:
    """Raise `_UnusableError` if a file is damaged, and `StorageError` if it can't be read at the moment."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        # Errors of the system have a number. Those of HDF5 and zip archives, which report damage, have none.
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError(
                f"Can't read {path}: {error.strerror or error}. Received: {str(path)!r}. "
                "Restore access to it and start the same run again, or choose another folder."
            ) from error
        reason = str(error).splitlines()[0] if str(error) else "no details"
        raise _UnusableError(f"{prefix}{path.name} is damaged ({type(error).__name__}: {reason})") from error


def set_aside(folder: Path, reason: str) -> None:
    """Move the files of an earlier run, if any, to the subfolder `earlier-1`, `earlier-2`, …, and log a warning.

    The state is moved first, so that an interrupt doesn't leave a mixture of two runs that can be read.

    Args:
        folder: folder of the run.
        reason: the first words of the warning.

    Raises:
        StorageError: If the files can't be moved.
    """
    names = [name for name in (LAST, BEST, HISTORY, TENSORBOARD) if (folder / name).exists()]
    if not names:
        return
    earlier = next(path for path in (folder / f"earlier-{i}" for i in count(1)) if not path.exists())
    try:
        earlier.mkdir()
        for name in names:
            (folder / name).rename(earlier / name)
    except OSError as error:
        raise StorageError(
            f"Can't move the files of an earlier run: {error.strerror or error}. Received: {str(folder)!r}. "
            "Choose another folder."
        ) from error
    _logger.warning("%s: starting anew. The files of the earlier run are in %s.", reason, earlier)
