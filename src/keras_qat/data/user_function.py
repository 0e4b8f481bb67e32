"""Data from a function of the user's, named `module:function` or `path/to/file.py:function`.

The function is the user's own code, and naming it is the consent to run it. It is looked for without running anything,
so that a mistake in its name is reported before TensorFlow is loaded.
"""

import ast
import importlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_qat.errors import DataError
from keras_qat.files import is_file, read_text
from keras_qat.text import first_few, shortened

_NAMED = re.compile(r"(?P<place>.+\.py|[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*)")

_EXAMPLE = "Give module:function or path/to/file.py:function, such as my_data.py:load."


def is_function(source: str | Path) -> bool:
    """Whether a source names a function: a module or a Python file, a colon, and an identifier.

    Example:
        >>> is_function("my.data:load"), is_function("data/my.py:load"), is_function("C:/photos"), is_function("photos")
        (True, True, False, False)
    """
    return _NAMED.fullmatch(str(source)) is not None


def require_function(source: str) -> None:
    """Check that the module or file is there and defines a function of that name, as far as that can be told unread.

    Args:
        source: `"module:function"` or `"path/to/file.py:function"`.

    Raises:
        DataError: If there is no such module or file, it is no Python, or nothing in it has that name.

    Example:
        >>> require_function("os.path:join")
        >>> require_function("no_such_module:load")
        Traceback (most recent call last):
        keras_qat.errors.DataError: There is no Python module of that name. Received: 'no_such_module:load'. ...
    """
    place, function = _parts(source)
    path = _file_of(place, source)
    if path is None:
        return
    text = read_text(path)
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise DataError(
            f"The file {path} is no valid Python: {error.msg}, in line {error.lineno}. Received: {source!r}. Correct "
            "it."
        ) from error
    names = _Names()
    names.add(tree)
    if names.complete and function not in {*names.functions, *names.others}:
        raise _missing(function, source, names.functions)


def call_function(source: str) -> Any:
    """Call the function, without arguments.

    Args:
        source: `"module:function"` or `"path/to/file.py:function"`.

    Returns:
        What it returns.

    Raises:
        DataError: If it isn't there or needs arguments, or importing or calling it fails.
    """
    require_function(source)
    place, name = _parts(source)
    with importable(place):
        try:
            module = _import(place)
        except Exception as error:
            raise failed(f"Importing {place!r}", error, source) from error
        function = getattr(module, name, None)
        if not callable(function):
            raise _missing(name, source, [key for key, value in vars(module).items() if inspect.isfunction(value)])
        try:
            needed = [p.name for p in inspect.signature(function).parameters.values() if _must_be_given(p)]
        except ValueError:  # A function in C has no signature.
            needed = []
        if needed:
            raise DataError(
                f"The function that gives the data is called without arguments. Received: {source!r}, which needs "
                f"{first_few(map(repr, needed))}. Give them defaults, or name a function that calls it with them."
            )
        try:
            return function()
        except Exception as error:
            raise failed(f"The function {source!r}", error, source) from error


def failed(what: str, error: Exception, source: str) -> DataError:
    """The error of the user's code, with the file and line where it was raised."""
    frames = traceback.extract_tb(error.__traceback__)
    own = next((frame for frame in reversed(frames) if _is_own(frame.filename)), None)
    where = f" in line {own.lineno} of {own.filename}" if own else ""
    return DataError(
        f"{what} failed with {type(error).__name__}: {shortened(error)}{where}. Received: {source!r}. Call it in "
        "Python to see the whole traceback, and correct it."
    )


def _is_own(filename: str) -> bool:
    """Whether a file is the user's: not of this package, of Python, or of an installed one."""
    foreign = (str(Path(__file__).parents[1]), str(Path(ast.__file__).parent))
    return not filename.startswith((*foreign, "<")) and "site-packages" not in filename


@contextmanager
def importable(place: str) -> Iterator[None]:
    """Let modules beside the file, or in the current folder, be imported, as `python file.py` does.

    Args:
        place: the module, or the path of the Python file.
    """
    folder = str((Path(place).parent if place.endswith(".py") else Path()).resolve())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)


def place_of(source: str) -> str:
    """The module, or the path of the Python file."""
    return _parts(source)[0]


def _parts(source: str) -> tuple[str, str]:
    found = _NAMED.fullmatch(source)
    if found is None:
        raise DataError(f"This names no function. Received: {source!r}. {_EXAMPLE}")
    return found["place"], found["function"]


def _file_of(place: str, source: str) -> Path | None:
    """The Python file of a module; `None` for one that is built in or compiled."""
    if place.endswith(".py"):
        if not is_file(Path(place), DataError):
            raise DataError(f"There is no Python file of that name. Received: {source!r}. {_EXAMPLE}")
        return Path(place)
    try:
        with importable(place):
            spec = importlib.util.find_spec(place)
    except ModuleNotFoundError:
        spec = None
    except Exception as error:  # The package that holds the module is imported, and may raise anything.
        raise failed(f"Importing {place!r}", error, source) from error
    if spec is None:
        raise DataError(
            f"There is no Python module of that name. Received: {source!r}. {_EXAMPLE} Modules are looked for in the "
            f"current folder, {str(Path.cwd())!r}, and among the installed ones."
        )
    origin = Path(spec.origin or "")
    return origin if origin.suffix == ".py" else None


@dataclass
class _Names:
    """What the top level of a module defines.

    Args:
        functions: the functions, in order.
        others: classes, what is imported, and variables.
        complete: whether those are all.
    """

    functions: list[str] = field(default_factory=list)
    others: set[str] = field(default_factory=set)
    complete: bool = True

    def add(self, node: ast.AST) -> None:
        """Add what a node defines; what stands within functions and classes is not of the top level."""
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self.functions.append(node.name)
            # A module with a `__getattr__` of its own makes names when they are asked for.
            self.complete = self.complete and node.name != "__getattr__"
            return
        if isinstance(node, ast.ClassDef):
            self.others.add(node.name)
            return
        if isinstance(node, ast.Import | ast.ImportFrom):
            self.others.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
            self.complete = self.complete and not any(alias.name == "*" for alias in node.names)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            self.others.add(node.id)
        for child in ast.iter_child_nodes(node):
            self.add(child)


def _missing(function: str, source: str, others: list[str]) -> DataError:
    has = f"it has {first_few(map(repr, others))}" if others else "it has no function"
    return DataError(
        f"The module has no function {function!r}; {has}. Received: {source!r}. Name one that returns the data."
    )


def _import(place: str) -> Any:
    if not place.endswith(".py"):
        return importlib.import_module(place)
    path = Path(place).resolve()
    # A name that no module has, so that a file may be called `data.py`. Dataclasses look their module up by it.
    spec = importlib.util.spec_from_file_location(f"{path.stem} of {path}", path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{place} is no module")
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _must_be_given(parameter: inspect.Parameter) -> bool:
    optional = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return parameter.default is inspect.Parameter.empty and parameter.kind not in optional
