"""`--config FILE`: options from a YAML, TOML or JSON file. Those of the command line take precedence.

A file has the options of one command by their names, or a table for each of several commands:

    target: tensorrt          run:
    epochs: 3                   target: tensorrt
                              benchmark:
                                runs: 200

In a file with tables, options outside of them apply to every command that reads the file. The `settings.json` of an
earlier run is such a file; an option that is null was not given.
"""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import yaml  # type: ignore[import-untyped]
from cyclopts import Parameter
from cyclopts.config import Dict, Toml

from keras_qat.errors import StorageError, UserError
from keras_qat.files import is_file, read_json, read_text
from keras_qat.text import one_line

_OPTION = "--config"

_LARGEST = 100_000
"""Bytes; the options of all commands take a few thousand, and a page of YAML takes long to read."""


class _OptionsLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads plain values, as YAML's safe loader does, and refuses a name that stands twice in one mapping.

    It also refuses aliases, with which a few lines become a list of billions of values.
    """

    def compose_node(self, parent: Any, index: Any) -> Any:
        """The next node of the file."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "options have no aliases", self.peek_event().start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        """The mapping of a node; PyYAML would keep the last of two values."""
        names = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for i, key in enumerate(names) if key in names[:i]), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the name {twice!r} stands twice", node.start_mark)
        return dict(super().construct_mapping(node, deep))


def _read_yaml(path: Path) -> Any:
    loader = _OptionsLoader(read_text(path))
    loader.name = str(path)  # Messages name it.
    return {} if (options := loader.get_single_data()) is None else options  # An empty file sets nothing.


def _read_toml(path: Path) -> Any:
    return Toml(path).config


_READERS: Mapping[str, Callable[[Path], Any]] = {
    ".yaml": _read_yaml,
    ".yml": _read_yaml,
    ".toml": _read_toml,
    ".json": read_json,
}

_HELP = (
    "Take options from this .yaml, .toml or .json file. Those of the command line take precedence. `run` repeats a run "
    "from its settings.json."
)


def with_config(command: Callable[..., None]) -> Callable[..., None]:
    """The command with one more option, `--config`, which `read_config` reads.

    Example:
        >>> def show(*, target: str = "onnxruntime") -> None: ...
        >>> list(inspect.signature(with_config(show)).parameters)
        ['target', 'config']
    """

    @functools.wraps(command)
    def configured(*arguments: Any, config: Path | None = None, **options: Any) -> None:  # noqa: ARG001
        command(*arguments, **options)

    signature = inspect.signature(command)
    option = inspect.Parameter(
        "config",
        inspect.Parameter.KEYWORD_ONLY,
        default=None,
        annotation=Annotated[Path | None, Parameter(name=_OPTION, help=_HELP)],
    )
    new = signature.replace(parameters=[*signature.parameters.values(), option])
    configured.__signature__ = new  # type: ignore[attr-defined]
    return configured


def read_config(app: cyclopts.App, commands: tuple[str, ...], arguments: cyclopts.ArgumentCollection) -> None:
    """Fill in the options that the command line left out. cyclopts calls this once it has read a command line.

    Args:
        app: the command.
        commands: name of the command.
        arguments: options of the command, with the values that were given.

    Raises:
        StorageError: If there is no such file.
        UserError: If the file can't be read in its format, or has no options, or one that the command doesn't have.
    """
    option = next((argument for argument in arguments if argument.name == _OPTION), None)
    if option is None or not option.tokens:
        return
    path = Path(option.tokens[0].value)
    options = _of_command(_read(path), commands, app.app_stack.current_frame[0])
    source = Dict(options, use_commands_as_keys=False, source=str(path))
    try:
        source(app, commands, arguments)
    except cyclopts.UnknownOptionError as error:
        raise _unknown(error, path, commands, arguments) from error


def _read(path: Path) -> Mapping[str, Any]:
    if not is_file(path):
        raise StorageError(f"There is no such file of options. Received: {str(path)!r}. Name a file.")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"Options stand in a {', '.join(_READERS)} file. Received: {str(path)!r}. Rename it, or write such a file."
        )
    if (size := path.stat().st_size) > _LARGEST:
        raise UserError(
            f"A file of options has at most {_LARGEST} bytes. Received: {str(path)!r}, which has {size} bytes. "
            "Name another file."
        )
    try:
        options = reader(path)
    except (cyclopts.CycloptsError, yaml.YAMLError, ValueError, RecursionError, OSError) as error:
        cause = error.__cause__ or error
        reason = "it nests too deep" if isinstance(cause, RecursionError) else one_line(cause)
        raise UserError(f"Can't read the options: {reason}. Received: {str(path)!r}. Correct that line.") from error
    if not isinstance(options, Mapping) or not all(isinstance(key, str) for key in options):
        raise UserError(
            f"A file of options has a name for each of them. Received: {str(path)!r}, which holds "
            f"{type(options).__name__}. Write lines such as `target: tensorrt`."
        )
    return options


def _of_command(options: Mapping[str, Any], commands: tuple[str, ...], root: cyclopts.App) -> dict[str, Any]:
    """The options for one command: those of its own table, then those outside of tables."""
    tables = {name: value for name, value in options.items() if isinstance(value, Mapping) and name in root}
    loose = {name: value for name, value in options.items() if name not in tables}
    own = tables.get(commands[-1], {}) if commands else {}
    return {name: value for name, value in {**loose, **own}.items() if value is not None}


def _unknown(
    error: cyclopts.UnknownOptionError, path: Path, commands: tuple[str, ...], arguments: cyclopts.ArgumentCollection
) -> UserError:
    key = (error.token.keyword or "").strip("[]").replace("][", ".")
    known = [argument.name.removeprefix("--") for argument in arguments if argument.name.startswith("--")]
    near = difflib.get_close_matches(key.replace("_", "-"), known, n=1)
    advice = f"Did you mean {near[0]!r}?" if near else f"See `keras-qat {' '.join(commands)} --help`."
    return UserError(f"{path} sets an option that the command doesn't have. Received: {key!r}. {advice}")
