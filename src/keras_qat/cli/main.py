"""`keras-qat`: the command line. Exit codes: 0 ok, 2 the user's mistake, 3 a promise not kept, 130 interrupted."""

import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import cyclopts
from rich.logging import RichHandler

from keras_qat._version import __version__
from keras_qat.cli.benchmark import benchmark_command
from keras_qat.cli.build_engine import build_engine_command
from keras_qat.cli.diagnose import diagnose_command
from keras_qat.cli.diff_ranges import diff_ranges_command
from keras_qat.cli.evaluate import evaluate_command
from keras_qat.cli.explain import explain_command
from keras_qat.cli.prepare_imagenet import prepare_imagenet_command
from keras_qat.cli.run import run_command
from keras_qat.errors import GateMissedError, UserError
from keras_qat.progress import CONSOLE

app = cyclopts.App(
    name="keras-qat",
    help="Take a trained Keras 3 CNN to INT8: post-training quantization, fine-tuning, verified ONNX.",
    version=__version__,
    suppress_keyboard_interrupt=False,
)
app.command(run_command, name="run")
app.command(build_engine_command, name="build-engine")
app.command(explain_command, name="explain")
app.command(diff_ranges_command, name="diff-ranges")
app.command(diagnose_command, name="diagnose")
app.command(benchmark_command, name="benchmark")
app.command(evaluate_command, name="evaluate")
app.command(prepare_imagenet_command, name="prepare-imagenet")


def main(arguments: Sequence[str] | None = None, *, command: cyclopts.App = app) -> None:
    """Run the command line and exit with its code.

    Args:
        arguments: without the program's name; those of this process if not given.
        command: the program to run; examples bring their own.
    """
    sys.exit(run_program(sys.argv[1:] if arguments is None else arguments, command))


def run_program(arguments: Sequence[str], command: cyclopts.App) -> int:
    """Run the command line; errors become one readable message and an exit code."""
    try:
        with _logging_to_terminal():
            command(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except cyclopts.CycloptsError as error:
        return _fail(f"{error}\nSee `{command.name[0]} --help`.", 2)
    except UserError as error:
        return _fail(str(error), 2)
    except GateMissedError as error:
        return _fail(str(error), 3)
    except KeyboardInterrupt:
        return _fail("Interrupted. The same command goes on from its last checkpoint, if it keeps any.", 130)
    return 0


@contextmanager
def _logging_to_terminal() -> Iterator[None]:
    """Show the package's log on standard error, once: TensorFlow gives the root logger a handler of its own."""
    # Rich wraps lines to the terminal; in a log file a line stays a line.
    rich = RichHandler(console=CONSOLE, show_path=False, show_level=False) if CONSOLE.is_terminal else None
    handler = rich or logging.StreamHandler()
    package = logging.getLogger("keras_qat")
    package.addHandler(handler)
    package.setLevel(logging.INFO)
    package.propagate = False
    try:
        yield
    finally:
        package.removeHandler(handler)
        package.propagate = True


def _fail(message: str, code: int) -> int:
    CONSOLE.print(f"[bold red]error:[/] {message.replace('[', chr(92) + '[')}", soft_wrap=True, highlight=False)
    return code
