"""`keras-qat`: the program with all its commands.

Exit codes: 0 ok, 2 a mistake in what was asked, 3 a file that does not compute what was simulated, 4 a bug of
keras-qat, 130 interrupted (143 by SIGTERM).
"""

import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, get_args

import cyclopts
from rich.logging import RichHandler
from rich.text import Text

from keras_qat._version import __version__
from keras_qat.cli import judging, looking, making, measuring
from keras_qat.cli.config_file import read_config, with_config
from keras_qat.cli.last_resort import describe_failure
from keras_qat.cli.prepare_imagenet import prepare_imagenet_command
from keras_qat.cli.process import BROKEN_PIPE, INTERRUPTED
from keras_qat.cli.shared import LogFormatter
from keras_qat.cli.written import with_outputs
from keras_qat.errors import GateMissedError, UserError
from keras_qat.progress import CONSOLE
from keras_qat.text import printable

COMMANDS: Mapping[str, Mapping[str, Callable[..., None]]] = {
    "From model to file": {
        "run": making.run_command,
        "quantize": making.quantize_command,
        "train": making.train_command,
        "export": making.export_command,
        "build-engine": making.build_engine_command,
    },
    "Judge": {
        "verify": judging.verify_command,
        "evaluate": judging.evaluate_command,
        "benchmark": measuring.benchmark_command,
        "diagnose": measuring.diagnose_command,
    },
    "Look": {
        "report": looking.report_command,
        "explain": looking.explain_command,
        "diff-ranges": looking.diff_ranges_command,
        "doctor": looking.doctor_command,
    },
    "Prepare": {
        "prepare-imagenet": prepare_imagenet_command,
    },
}
"""{group: {name: command}}, in the order of `--help`, which is that of the flow."""


def build_app() -> cyclopts.App:
    """The program with all its commands, each of which takes `--config`."""
    program = cyclopts.App(
        name="keras-qat",
        help="Take a trained Keras 3 CNN to INT8: post-training quantization, fine-tuning, verified ONNX.\n\n"
        "`keras-qat COMMAND --help` has examples. Exit codes: 0 ok, 2 a mistake in what was asked, 3 a file that does "
        "not compute what was simulated, 4 a bug of keras-qat.",
        version=__version__,
        suppress_keyboard_interrupt=False,
        config=[read_config, refuse_fractions],
    )
    for group, commands in COMMANDS.items():
        ordered = cyclopts.Group.create_ordered(group)
        for position, (name, command) in enumerate(commands.items()):
            program.command(
                with_outputs(with_config(command)),
                name=name,
                group=ordered,
                sort_key=position,
                help_epilogue=_examples(command),
            )
    program.register_install_completion_command(
        help="Complete commands and options with Tab in bash, zsh or fish; adds a line to the shell's startup file."
    )
    options = cyclopts.Group.create_ordered("Options")
    for name in ("--help", "--version", "--install-completion"):
        program[name].group = options
    return program


def _examples(command: Callable[..., None]) -> str:
    """The examples of a command's docstring, which cyclopts leaves out of the help."""
    section = (inspect.getdoc(command) or "").partition("Examples:\n")[2].partition("\nArgs:")[0]
    return f"Examples:\n\n{section}" if section else ""


def refuse_fractions(_: cyclopts.App, __: tuple[str, ...], arguments: cyclopts.ArgumentCollection) -> None:
    """Refuse 1.5 where a whole number is expected, which cyclopts would round.

    cyclopts calls this once it has read a command line, after `read_config`.

    Raises:
        UserError: If an option takes whole numbers alone and has a fraction.
    """
    for argument in arguments:
        kinds = set(_leaves(argument.hint))
        if int in kinds and not kinds & {float, str}:
            for token in argument.tokens:
                if _FRACTION.fullmatch(token.value.strip()):
                    raise UserError(
                        f"{argument.name} takes a whole number. Received: {token.value}. Give one without a fraction."
                    )


_FRACTION = re.compile(r"[+-]?[0-9_]*\.(?!0*$)[0-9_]*(e[+-]?[0-9]+)?", re.IGNORECASE)
"""A decimal number whose digits behind the point aren't all 0."""


def _leaves(hint: Any) -> Iterator[Any]:
    """The types that a type is made of, such as those of a tuple."""
    inner = [part for part in get_args(hint) if part is not Ellipsis]
    for part in inner:
        yield from _leaves(part)
    if not inner:
        yield hint


app = build_app()


def run_program(
    arguments: Sequence[str], command: cyclopts.App, *, interrupted: Callable[[], bool] = lambda: False
) -> int:
    """Run the command line; print an error as one message and return the exit code.

    Args:
        arguments: arguments without the program's name.
        command: the program to run.
        interrupted: whether a signal has arrived. Libraries swallow the exception that a signal raises, or replace it
            by one of their own.
    """
    message, code = "", 0
    try:
        with _logging_to_terminal():
            _require_utf8(arguments)
            command(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        called = " ".join((command.name[0], *(error.command_chain or ())))
        message, code = f"{error}\nSee `{called} --help`.", 2
    except UserError as error:
        message, code = str(error), 2
    except GateMissedError as error:
        message, code = str(error), 3
    except (BrokenPipeError, SystemExit) as error:
        message, code = _end(error)
    except KeyboardInterrupt:
        message, code = INTERRUPTED, 130
    except BaseException as error:  # noqa: BLE001 - the last resort; some libraries' errors aren't of `Exception`
        if not interrupted():
            message, code = describe_failure(error, arguments)
    if interrupted():
        message, code = INTERRUPTED, 130
    if message:
        _print_error(message)
    return code


def _require_utf8(arguments: Sequence[str]) -> None:
    """Refuse names that Python alone can handle: ONNX and the engines open files by names in UTF-8."""
    for argument in arguments:
        if any("\ud800" <= character <= "\udfff" for character in argument):
            raise UserError(
                f"An argument isn't UTF-8, and ONNX can't open a file of such a name. Received: {argument!r}. "
                "Rename the file or folder."
            )


def _end(error: BrokenPipeError | SystemExit) -> tuple[str, int]:
    """The message and the exit code where a library ends the program, or nobody reads the output any more.

    The latter is so in `keras-qat explain | head`; Rich raises `SystemExit` then. `SystemExit` may hold a text instead
    of a code (https://docs.python.org/3/library/exceptions.html#SystemExit).
    """
    if isinstance(error, BrokenPipeError) or isinstance(error.__context__, BrokenPipeError):
        return "", BROKEN_PIPE
    if error.code is None or isinstance(error.code, int):
        return "", int(error.code or 0)
    return str(error.code), 2


@contextmanager
def _logging_to_terminal() -> Iterator[None]:
    """Show the package's log on standard error, and hide TensorFlow's warnings.

    The log is not propagated: TensorFlow gives the root logger a handler, which would show each line a second time.
    TensorFlow's warnings are for authors of models; it warns of retracing where several models run in turn.
    """
    # Rich wraps lines to the terminal's width. Where the output is not a terminal, lines stay whole.
    rich = RichHandler(console=CONSOLE, show_path=False, show_level=False) if CONSOLE.is_terminal else None
    handler = rich or logging.StreamHandler()
    handler.setFormatter(LogFormatter())
    package = logging.getLogger("keras_qat")
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    package.propagate = False
    others = {"tensorflow": logging.ERROR, "absl": logging.CRITICAL}
    levels = {name: logging.getLogger(name).level for name in others}
    for name, level in others.items():
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        package.removeHandler(handler)
        package.propagate = True


def _print_error(message: str) -> None:
    """Print an error. Names of files and layers in it are text, not markup."""
    text = Text.assemble(("error:", "bold red"), " ", printable(message))
    with suppress(OSError, SystemExit):  # Standard error may be a closed pipe or on a full disk.
        CONSOLE.print(text, soft_wrap=True, highlight=False)
