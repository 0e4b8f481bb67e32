"""The files that commands write, checked in one place before a command begins.

A command marks such an option with `Output`. All other paths that it is given are its inputs. `with_outputs` lets a
command begin only if each output is a new or regular file with a fitting suffix, and replaces neither an input nor a
file of a run.
"""

import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args

from keras_qat.errors import StorageError
from keras_qat.files import FACTS_FILE, is_folder, is_there, require_apart, require_creatable, require_replaceable
from keras_qat.run import require_not_of_run


@dataclass(frozen=True)
class Output:
    """Marks an option as the path of a file that the command writes: `Annotated[Path | None, Output(".json")]`.

    Args:
        suffixes: suffixes that the file may have; "" for none.
        of_run: names of files of a run that it may replace.
        folder: whether the option may name a folder, too, which the command checks itself.
    """

    suffixes: tuple[str, ...]
    of_run: tuple[str, ...] = ()
    folder: bool = False


JSON = Output((".json",))

LOG = Output((".log", ".txt", ".out", ""))

_FOLDERS = frozenset({"output", "run_folder"})
"""Options of a group, such as that of `run`, that name folders which are written. `RunFolder` checks those."""


def with_outputs(command: Callable[..., None]) -> Callable[..., None]:
    """The command, which first checks the files that it will write.

    Raises:
        StorageError: When the command is called, if an output isn't a file, has another suffix, can't be written, or
            would replace an input of the command or a file of a run.

    Example:
        >>> from typing import Annotated
        >>> @with_outputs
        ... def describe(model: Path, *, output: Annotated[Path | None, JSON] = None) -> None: ...
        >>> describe(Path("model.json"), output=Path("model.json"))
        Traceback (most recent call last):
        keras_qat.errors.StorageError: An input of this command would be replaced. ...
    """
    signature = inspect.signature(command)
    outputs = {
        name: mark
        for name, parameter in signature.parameters.items()
        for mark in get_args(parameter.annotation)
        if isinstance(mark, Output)
    }

    @functools.wraps(command)
    def checked(*arguments: Any, **options: Any) -> None:
        given = signature.bind(*arguments, **options).arguments
        named = [path for name, value in given.items() if name not in outputs for path in _paths(value)]
        inputs = [part for path in named for part in _with_companions(path)]
        for name, mark in outputs.items():
            if given.get(name) is not None:
                _require_output(given[name], mark, inputs)
        written = [given[name] for name in outputs if given.get(name) is not None]
        for place, path in enumerate(written):
            require_apart([path], written[:place])
        command(*arguments, **options)

    return checked


def _require_output(path: Path, mark: Output, inputs: list[Path]) -> None:
    require_apart([path], inputs)
    require_replaceable(path)
    require_not_of_run(path, mark.of_run)
    if mark.folder:
        return
    if is_folder(path):
        raise StorageError(f"The output is a file. Received: the folder {str(path)!r}. Name a file.")
    if path.suffix.lower() not in mark.suffixes:
        raise StorageError(
            f"The output is a {' or '.join(mark.suffixes)} file. Received: {str(path)!r}. Name it "
            f"{str(path.with_suffix(mark.suffixes[0]))!r}, for example."
        )
    require_creatable(path.parent)


def _with_companions(path: Path) -> tuple[Path, ...]:
    """A path, and what is read beside it: the facts about a model's images, and the weights of an OpenVINO file."""
    return (path, path.parent / FACTS_FILE, *([path.with_suffix(".bin")] if path.suffix == ".xml" else []))


def _paths(value: Any) -> Iterator[Path]:
    """The paths in the value of an option or of a group of options; a name of data or of a model may be one."""
    if is_dataclass(value):
        for option in fields(value):
            if option.name not in _FOLDERS:
                yield from _paths(getattr(value, option.name))
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _paths(item)
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _paths(item)
    elif isinstance(value, Path) or (isinstance(value, str) and _names_something(value)):
        yield Path(value)


def _names_something(text: str) -> bool:
    """Whether a file or folder has that name. A text that can be no path names none."""
    try:
        return bool(text) and os.path.lexists(text) and is_there(Path(text))
    except (StorageError, ValueError):
        return False
