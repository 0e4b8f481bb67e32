"""`keras-qat`: the program with all its commands.

Exit codes: 0 ok, 2 a mistake in what was asked, 3 a file that does not compute what was simulated, 130 interrupted.
"""

import inspect
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import cyclopts
from rich.logging import RichHandler
from rich.text import Text

from keras_qat._version import __version__
from keras_qat.cli import judging, looking, making, measuring
from keras_qat.cli.config_file import read_config, with_config
from keras_qat.cli.outputs import with_outputs
from keras_qat.cli.prepare_imagenet import prepare_imagenet_command
from keras_qat.cli.shared import LogFormatter
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
        "not compute what was simulated.",
        version=__version__,
        suppress_keyboard_interrupt=False,
        config=read_config,
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


app = build_app()


def main(arguments: Sequence[str] | None = None, *, command: cyclopts.App = app) -> None:
    """Run the command line and exit with its code.

    Args:
        arguments: arguments without the program's name. If not given, those of this process.
        command: the program to run. Examples have their own.
    """
    sys.exit(run_program(sys.argv[1:] if arguments is None else arguments, command))


def run_program(arguments: Sequence[str], command: cyclopts.App) -> int:
    """Run the command line; print an error as one message and return the exit code."""
    try:
        with _logging_to_terminal():
            command(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        called = " ".join((command.name[0], *(error.command_chain or ())))
        return _fail(f"{error}\nSee `{called} --help`.", 2)
    except UserError as error:
        return _fail(str(error), 2)
    except GateMissedError as error:
        return _fail(str(error), 3)
    except KeyboardInterrupt:
        return _fail("Interrupted. The same command goes on from its last checkpoint, if it keeps any.", 130)
    return 0


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
    tensorflow = logging.getLogger("tensorflow")
    level = tensorflow.level
    tensorflow.setLevel(logging.ERROR)
    try:
        yield
    finally:
        tensorflow.setLevel(level)
        package.removeHandler(handler)
        package.propagate = True


def _fail(message: str, code: int) -> int:
    text = Text.assemble(("error:", "bold red"), " ", printable(message))
    CONSOLE.print(text, soft_wrap=True, highlight=False)
    return code
