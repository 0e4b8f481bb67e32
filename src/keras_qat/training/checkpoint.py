"""Checkpoints that a killed run can always go on from, in the middle of an epoch too.

A folder holds `last.npz`: everything that the next step depends on (weights, ranges, seeds, the optimizer's state, the
running means of the epoch), which run it is of, the finished epochs, and the position in the data. It is one file,
written whole beside the old one and then renamed, so there is no mixture of two moments. `best.keras` is the best
epoch's model; a kill between the two renames leaves an older one, which is mended at reading: the best epoch, if it is
the last one, is in `last.npz`. `history.json` is for reading.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops

from keras_qat.storage import atomic_path, require_space, write_json
from keras_qat.training.optimizer_state import dump_optimizer, load_optimizer
from keras_qat.training.history import History
from keras_qat.training.recipe import Recipe
from keras_qat.training.session import Session

LAST, BEST, HISTORY = "last.npz", "best.keras", "history.json"
_STATE, _OPTIMIZER = "state", "optimizer/"

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunIdentity:
    """What must be equal for a run to go on from a checkpoint.

    Args:
        recipe: every setting.
        steps_per_epoch: steps of one epoch, as counted from the data.
        model: fingerprint of the model as given.
        teacher: fingerprint of the teacher; empty without one.
    """

    recipe: Recipe
    steps_per_epoch: int
    model: str
    teacher: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the identity, as JSON holds it."""
        plain = {
            "recipe": self.recipe.to_dict(),
            "steps_per_epoch": self.steps_per_epoch,
            "model": self.model,
            "teacher": self.teacher,
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
    """Write the state at a position.

    Raises:
        StorageError: the folder can't be written.
    """
    history = position.history
    state = {**identity.to_dict(), "step": position.step, "history": history.to_list()}
    arrays = {name: ops.convert_to_numpy(value) for name, value in _named(session)}
    optimizer = dump_optimizer(session.trainer.optimizer, session.working.variables)
    arrays |= {_OPTIMIZER + path: value for path, value in optimizer.items()}
    arrays |= {f"metrics/{i}": value for i, value in enumerate(position.metrics)}
    arrays[_STATE] = np.array(json.dumps(state))
    with atomic_path(folder / LAST) as last:
        np.savez(last, allow_pickle=False, **arrays)
    if position.step == 0:
        write_json(folder / HISTORY, {"recipe": identity.recipe.to_dict(), "epochs": history.to_list()})
        if history.best_epoch == history.last_epoch:
            _save_best(folder, session)


def load_checkpoint(folder: Path, identity: RunIdentity, session: Session) -> Position | None:
    """Put a checkpoint's weights into `session`.

    Args:
        folder: what `save_checkpoint` wrote to.
        identity: of the run that wants to go on.
        session: freshly opened; gets the weights and the optimizer's state. After `None` throw it away, for
            it may hold a part of them.

    Returns:
        The position, or `None` where there is no checkpoint, or it is of another run or can't be read; the log says
        which.

    Raises:
        StorageError: the folder can't be written.
    """
    if not (folder / LAST).exists():
        return None
    try:
        # Opened here: NumPy leaves a damaged archive open.
        with (folder / LAST).open("rb") as stream, np.load(stream) as file:
            arrays = {name: file[name] for name in file.files}
        state = json.loads(str(arrays[_STATE]))
        wanted = identity.to_dict()
        differing = [name for name, value in wanted.items() if state[name] != value]
        if differing:
            _logger.warning(
                "The checkpoint in %s is of another run (%s differs): starting anew.", folder, ", ".join(differing)
            )
            return None
        history = History.from_list(state["history"], identity.recipe.monitor)
        for name, variable in _named(session):
            variable.assign(arrays[name])
        optimizer = {k.removeprefix(_OPTIMIZER): v for k, v in arrays.items() if k.startswith(_OPTIMIZER)}
        # What was frozen since the optimizer was built is frozen again when its epoch begins.
        load_optimizer(
            session.trainer.optimizer, optimizer, session.working.variables, partial=identity.recipe.freezes_later
        )
        metrics = tuple(arrays[f"metrics/{i}"] for i in range(sum(k.startswith("metrics/") for k in arrays)))
        position = Position(history, state["step"], metrics)
        is_best = position.step == 0 and history.best_epoch == history.last_epoch
        if is_best:
            session.keep_best()
        else:
            session.best.load_weights(folder / BEST)
    except Exception as error:  # noqa: BLE001 - a damaged archive fails in zipfile, NumPy, Keras or json, each its way
        reason = str(error).splitlines()[0] if str(error) else "no details"
        _logger.warning(
            "Can't read the checkpoint in %s (%s: %s): starting anew.", folder, type(error).__name__, reason
        )
        return None
    if is_best:
        # A kill before the second rename left an older one, and no later epoch need be better.
        _save_best(folder, session)
    return position


def clear_checkpoint(folder: Path) -> None:
    """Remove the files of an earlier run, the state first, so that no mixture of two runs can be read."""
    for name in (LAST, BEST, HISTORY):
        (folder / name).unlink(missing_ok=True)


def require_room(folder: Path, session: Session) -> None:
    """Find out before hours of training that the checkpoints will not fit on the disk.

    Raises:
        StorageError: there is less room than both files take twice, for the new ones are written beside the old.
    """
    variables = [value for _, value in _named(session)] + list(session.trainer.optimizer.variables)
    last = sum(4 * int(np.prod(value.shape)) for value in variables)
    best = sum(4 * int(np.prod(value.shape)) for value in session.best.variables)
    require_space(folder, 2 * (last + best))


def _save_best(folder: Path, session: Session) -> None:
    with atomic_path(folder / BEST) as best:
        session.best.save(best)


def _named(session: Session) -> list[tuple[str, Any]]:
    """All variables of the model that trains, seeds of dropout included, under names that every process gives them."""
    return [(f"model/{i}", variable) for i, variable in enumerate(session.working.variables)]
