"""Checkpoints that a killed run can always go on from, in the middle of an epoch too.

A folder holds `last.npz`: everything that the next step depends on (weights, ranges, seeds, the optimizer's state, the
running means of the epoch), which run it is of, the finished epochs, and the position in the data. It is one file,
written whole beside the old one and then renamed, so there is no mixture of two moments. `best.keras` is the best
epoch's model; a kill between the two renames leaves an older one, which is mended at reading
(`keras_qat.training.restore`): the best epoch, if it is the last one, is in `last.npz`. `history.json` is for reading.

Going on from a checkpoint, or not: what is damaged or of another run is set aside and never deleted.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from keras_qat.errors import StorageError
from keras_qat.files import atomic_path, require_space, write_json
from keras_qat.training.history import History
from keras_qat.training.optimizers import dump_optimizer, load_optimizer
from keras_qat.training.recipe import Recipe
from keras_qat.training.session import Session

LAST, BEST, HISTORY, TENSORBOARD = "last.npz", "best.keras", "history.json", "tensorboard"
STATE, OPTIMIZER = "state", "optimizer/"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunIdentity:
    """What must be equal for a run to go on from a checkpoint.

    Args:
        recipe: every setting.
        steps_per_epoch: steps of one epoch, as counted from the data.
        model: fingerprint of the model as given.
        teacher: fingerprint of the teacher; empty without one.
        labelled: whether the images have labels, which decides what is measured.
        data: what the caller knows the images by; empty if nothing.
    """

    recipe: Recipe
    steps_per_epoch: int
    model: str
    teacher: str = ""
    labelled: bool = True
    data: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the identity, as JSON holds it."""
        plain = {
            "recipe": self.recipe.to_dict(),
            "steps_per_epoch": self.steps_per_epoch,
            "model": self.model,
            "teacher": self.teacher,
            "labelled": self.labelled,
            "data": self.data,
        }
        return dict(json.loads(json.dumps(plain)))  # tuples become lists, as in a file that was read


@dataclass(frozen=True)
class Position:
    """Where a run stands.

    Args:
        history: the finished epochs.
        step: steps taken of the epoch after them.
        metrics: values of the metrics' variables over those steps; empty at the start of an epoch.
    """

    history: History
    step: int = 0
    metrics: tuple[np.ndarray, ...] = ()


def save_checkpoint(folder: Path, identity: RunIdentity, session: Session, position: Position) -> None:
    """Write the state at a position; within an epoch only one whose numbers are finite, or the last good one stays.

    Raises:
        StorageError: the folder can't be written.
    """
    history = position.history
    state = {**identity.to_dict(), "step": position.step, "history": history.to_list()}
    arrays = {name: ops.convert_to_numpy(value) for name, value in named_variables(session)}
    optimizer = dump_optimizer(session.trainer.optimizer, session.working.variables)
    arrays |= {OPTIMIZER + path: value for path, value in optimizer.items()}
    if position.step and not all(np.isfinite(value).all() for value in arrays.values()):
        _logger.warning("The weights aren't finite after step %d: %s stays as it was.", position.step, folder / LAST)
        return
    arrays |= {f"metrics/{i}": value for i, value in enumerate(position.metrics)}
    arrays[STATE] = np.array(json.dumps(state))
    with atomic_path(folder / LAST) as last:
        np.savez(last, allow_pickle=False, **arrays)
    if position.step == 0:
        write_json(folder / HISTORY, {"recipe": identity.recipe.to_dict(), "epochs": history.to_list()})
        if history.best_epoch == history.last_epoch:
            save_best(folder, session)


def require_room(folder: Path, session: Session) -> None:
    """Find out before hours of training that the checkpoints will not fit on the disk.

    Raises:
        StorageError: there is less room than both files take twice, for the new ones are written beside the old.
    """
    variables = [value for _, value in named_variables(session)] + list(session.trainer.optimizer.variables)
    last = sum(4 * int(np.prod(value.shape)) for value in variables)
    best = sum(4 * int(np.prod(value.shape)) for value in session.best.variables)
    require_space(folder, 2 * (last + best))


def save_best(folder: Path, session: Session) -> None:
    """Write the best epoch's model."""
    with atomic_path(folder / BEST) as best:
        session.best.save(best)


def named_variables(session: Session) -> list[tuple[str, Any]]:
    """All variables of the model that trains, seeds of dropout included, under names that every process gives them."""
    return [(f"model/{i}", variable) for i, variable in enumerate(session.working.variables)]


def load_checkpoint(folder: Path, identity: RunIdentity, session: Session) -> Position | None:
    """Put a checkpoint's weights into `session`.

    Args:
        folder: what `save_checkpoint` wrote to.
        identity: of the run that wants to go on.
        session: freshly opened; gets the weights and the optimizer's state. After `None` throw it away, for
            it may hold a part of them.

    Returns:
        The position, or `None` where there is no checkpoint, or it is of another run or damaged; then its files have
        been set aside, and the log says which it was.

    Raises:
        StorageError: the files can't be read or moved, though they may be whole.
        MemoryError: they don't fit.
    """
    if not (folder / LAST).exists():
        return None
    try:
        position, in_hand = _read(folder, identity, session)
    except _UnusableError as error:
        set_aside(folder, f"The checkpoint in {folder} is of no use, {error}")
        return None
    if in_hand:
        # A kill before the second rename left an older one, and no later epoch need be better.
        save_best(folder, session)
    return position


def _read(folder: Path, identity: RunIdentity, session: Session) -> tuple[Position, bool]:
    """The position, and whether the best epoch's weights are known without their file."""
    # Opened here: NumPy leaves a damaged archive open.
    with _damage_named(folder / LAST), (folder / LAST).open("rb") as stream, np.load(stream) as file:
        arrays = {name: file[name] for name in file.files}
    with _damage_named(folder / LAST):
        # Checkpoints that don't say so are of a time when all images had labels.
        state = {"labelled": True, "data": "", **json.loads(str(arrays[STATE]))}
        differing = [name for name, value in identity.to_dict().items() if state[name] != value]
    if differing:
        raise _UnusableError(f"being of another run ({', '.join(differing)} differs)")
    with _damage_named(folder / LAST):
        position = _restore(arrays, state, identity.recipe, session)
    return position, _load_best(folder, session, position)


def _restore(arrays: dict[str, Any], state: dict[str, Any], recipe: Recipe, session: Session) -> Position:
    history = History.from_list(state["history"], recipe.monitor)
    for name, variable in named_variables(session):
        variable.assign(arrays[name])
    optimizer = {k.removeprefix(OPTIMIZER): v for k, v in arrays.items() if k.startswith(OPTIMIZER)}
    # What was frozen since the optimizer was built is frozen again when its epoch begins.
    load_optimizer(session.trainer.optimizer, optimizer, session.working.variables, partial=recipe.freezes_later)
    metrics = tuple(arrays[f"metrics/{i}"] for i in range(sum(k.startswith("metrics/") for k in arrays)))
    return Position(history, state["step"], metrics)


def _load_best(folder: Path, session: Session, position: Position) -> bool:
    """Put the best epoch's weights into `session.best`; whether they are known without the file."""
    best = position.history.best_epoch
    if best == 0:
        return True  # the model as given, which a fresh session holds
    if position.step == 0 and best == position.history.last_epoch:
        session.keep_best()
        return True
    if not (folder / BEST).exists():
        raise _UnusableError(f"for {LAST} is whole, but {BEST} is missing, which held its best epoch, {best}")
    with _damage_named(folder / BEST, f"{LAST} is whole, but "):
        session.best.load_weights(folder / BEST)
    return False


class _UnusableError(Exception):
    """Why a checkpoint can't be gone on from."""


@contextmanager
def _damage_named(path: Path, but: str = "") -> Iterator[None]:
    """Tell a file that is damaged from one that can't be read now."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:
        # The system's errors have a number; those of HDF5 and zip archives, which find damage, don't.
        if isinstance(error, OSError) and error.errno is not None:
            raise StorageError(
                f"Can't read {path}: {error.strerror or error}. Received: {str(path)!r}. "
                "Mend the access and run the same again, or choose another folder."
            ) from error
        reason = str(error).splitlines()[0] if str(error) else "no details"
        raise _UnusableError(f"for {but}{path.name} is damaged ({type(error).__name__}: {reason})") from error


def set_aside(folder: Path, why: str) -> None:
    """Move the files of an earlier run, if there are any, to `earlier-1`, `earlier-2`, … in the folder, and say so.

    The state goes first, so that no mixture of two runs can be read.

    Args:
        folder: of the run.
        why: the log's first words.

    Raises:
        StorageError: they can't be moved.
    """
    names = [name for name in (LAST, BEST, HISTORY, TENSORBOARD) if (folder / name).exists()]
    if not names:
        return
    place = next(p for p in (folder / f"earlier-{i}" for i in count(1)) if not p.exists())
    try:
        place.mkdir()
        for name in names:
            (folder / name).rename(place / name)
    except OSError as error:
        raise StorageError(
            f"Can't move the files of an earlier run: {error.strerror or error}. Received: {str(folder)!r}. "
            "Choose another folder."
        ) from error
    _logger.warning("%s: starting anew. The files of the earlier run are in %s.", why, place)
