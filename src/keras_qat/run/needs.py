"""What each command needs of a run's folder, where files may have been deleted or emptied since."""

from collections.abc import Callable, Mapping
from pathlib import Path

from keras_qat.errors import StorageError
from keras_qat.files import is_there
from keras_qat.run.folder import RunFolder
from keras_qat.types import BASELINE, PTQ

_NEEDS: Mapping[str, Callable[[RunFolder], tuple[Path, ...]]] = {
    "train": lambda run: (
        *(run.settings_path, run.facts_path, run.placement_path),
        *(run.model_path(BASELINE), run.model_path(PTQ)),
    ),
    "diagnose": lambda run: (run.settings_path, run.facts_path, run.model_path(BASELINE), run.model_path(PTQ)),
    "verify": lambda run: (
        *(run.settings_path, run.facts_path, run.placement_path),
        *(run.model_path(BASELINE), run.model_path(PTQ), run.onnx_path(BASELINE), run.onnx_path(PTQ)),
    ),
    "report": lambda run: (run.results_path,),
}
"""{command: the files that it needs}. Files of the fine-tuned model are not among them: a run may have none."""


def require_files_for(command: str, run: RunFolder) -> None:
    """Refuse a run that lacks files which a command needs, before anything slow is loaded.

    Args:
        command: name of the command.
        run: the folder of the run.

    Raises:
        StorageError: If files are missing or empty. The message names them, says how the run is made anew, and which
            commands have all that they need.

    Example:
        >>> require_files_for("train", RunFolder(Path("nowhere")))
        Traceback (most recent call last):
        keras_qat.errors.StorageError: This is not the folder of a run: it has no settings.json. ...
    """
    lacking = _lacking(command, run)
    if not lacking:
        return
    if not run.begun:
        run.require()
    possible = [f"`keras-qat {name}`" for name in _NEEDS if not _lacking(name, run)]
    anew = "Make the run anew in another folder."
    if run.settings_path not in lacking:
        anew = f"`keras-qat run --config {run.settings_path}` makes the run anew."
    raise StorageError(
        f"`keras-qat {command}` needs files that the run lacks: "
        f"{', '.join(f'{path.name} ({why})' for path, why in lacking.items())}. Received: {str(run.path)!r}. {anew}"
        + (f" {' and '.join(possible)} {'have' if len(possible) > 1 else 'has'} what is needed." if possible else "")
    )


def _lacking(command: str, run: RunFolder) -> Mapping[Path, str]:
    """The files that a command needs and can't use, each with the reason."""
    reasons = {path: _unusable(path) for path in _NEEDS[command](run)}
    return {path: why for path, why in reasons.items() if why is not None}


def _unusable(path: Path) -> str | None:
    if not is_there(path):
        return "missing"
    return "empty" if path.is_file() and path.stat().st_size == 0 else None
