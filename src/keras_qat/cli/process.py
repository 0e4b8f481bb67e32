"""The process of `keras-qat`: its signals, its streams, and how it ends.

`main` is what the installed program calls. It sets up the process, runs the command line, and ends the process. Those
who use keras-qat as a library get nothing of this, nor do those who call `main` with arguments, as in a notebook: the
process isn't this program's, and goes on.

Ctrl-C (SIGINT) and SIGTERM raise `InterruptedBySignal` in the main thread, which unwinds the command: checkpoints stay,
temporary files are removed. That alone doesn't always end a process: Python runs a handler only after native code has
returned, libraries may swallow the exception, and TensorFlow's threads may hang while the interpreter shuts down. So a
thread waits for the number of the signal, which Python's C code writes to a socket as soon as the signal arrives
(`signal.set_wakeup_fd`). It ends the process after a grace period, or at once when a second signal arrives. An
interrupted process ends with `os._exit`, which skips the shutdown of libraries.
"""

import contextlib
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO

from keras_qat.cli.start_up_lines import hide_start_up_lines
from keras_qat.text import shortened

if TYPE_CHECKING:
    import cyclopts

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_GRACE_S = 3.0
"""Seconds from the first signal to the end of the process in any case. Temporary files are removed in milliseconds."""

BROKEN_PIPE = 141
"""The exit code of a Unix program that SIGPIPE ends, 128 + 13: whoever read the output has stopped reading."""

SHOW_TRACEBACK = "KERAS_QAT_TRACEBACK"
"""The environment variable with which developers see the traceback of a bug itself."""

REINSTALL = "Install both again: pip install --force-reinstall keras-qat"
"""What to do where an import fails."""

INTERRUPTED = "Interrupted. The same command goes on from its last checkpoint, if it keeps any."

_INTERRUPTED_LINE = f"error: {INTERRUPTED}\n"


class InterruptedBySignal(KeyboardInterrupt):
    """The process received SIGINT or SIGTERM."""


class SignalWatch:
    """Turns SIGINT and SIGTERM into an exception, and ends the process if that doesn't.

    `received` is the number of the first signal, or `None`; it is set even where a library swallowed the exception.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._raised = False
        self._terminal: int | None = None
        self._hook = sys.unraisablehook

    def start(self) -> None:
        """Install the handlers and start the thread. Outside of the main thread Python allows no handlers.

        A signal that is ignored stays ignored: that is how a shell starts a program in the background.
        """
        if threading.current_thread() is not threading.main_thread():
            return
        with contextlib.suppress(OSError):
            self._terminal = os.dup(2)  # Standard error may be redirected when the thread writes to it.
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        signal.set_wakeup_fd(sender.detach(), warn_on_full_buffer=False)
        if hasattr(os, "register_at_fork"):
            # A child process shares the socket, but its signals are not those of this process.
            os.register_at_fork(after_in_child=partial(signal.set_wakeup_fd, -1))
        sys.unraisablehook = _print_unraisable  # To the end of the command.
        threading.Thread(target=self._watch, args=(receiver,), name="signals", daemon=True).start()
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._interrupt)

    def stop(self) -> None:
        """From now on, let a signal end the process at once: nothing is left to unwind."""
        for number in _SIGNALS:
            if signal.getsignal(number) == self._interrupt:
                signal.signal(number, signal.SIG_DFL)
        if sys.unraisablehook is _print_unraisable:
            sys.unraisablehook = self._hook

    def _interrupt(self, number: int, _: FrameType | None) -> None:
        """Raise an exception at the first signal only, since a second one would interrupt the removal of files."""
        self.received = self.received or number
        if not self._raised:
            self._raised = True
            raise InterruptedBySignal

    def _watch(self, receiver: socket.socket) -> None:
        number = _next_signal(receiver)
        self.received = self.received or number
        receiver.settimeout(_GRACE_S)
        with contextlib.suppress(TimeoutError):
            _next_signal(receiver)
        self._say_last_words()
        os._exit(128 + self.received)

    def _say_last_words(self) -> None:
        """Write without Python's streams, which may be locked, and only if that doesn't block."""
        with contextlib.suppress(OSError):
            if self._terminal is not None and select.select([], [self._terminal], [], 0)[1]:
                show_cursor = b"\x1b[?25h" if os.isatty(self._terminal) else b""
                os.write(self._terminal, show_cursor + _INTERRUPTED_LINE.encode())


def _next_signal(receiver: socket.socket) -> int:
    """Wait for SIGINT or SIGTERM."""
    while (number := receiver.recv(1)[0]) not in _SIGNALS:
        pass
    return number


def _print_unraisable(problem: Any) -> None:
    """Print an exception in a destructor as Python does, unless it is that of a signal: the thread ends the process."""
    if not isinstance(problem.exc_value, InterruptedBySignal):
        sys.__unraisablehook__(problem)


def main(arguments: Sequence[str] | None = None, *, command: "cyclopts.App | None" = None) -> None:
    """Run the command line and end the process with its exit code.

    Args:
        arguments: arguments without the program's name. If not given, those of this process, which is then set up as
            that of a program: its signals, its streams and its log. If given, nothing of the process is changed, and an
            interruption is the `KeyboardInterrupt` of whoever owns it.
        command: the program to run, `keras-qat` if not given. Examples have their own.

    Raises:
        SystemExit: In any case, with the exit code.

    Example:
        >>> main(["explain", "nowhere.keras"])
        Traceback (most recent call last):
        SystemExit: 2
    """
    if arguments is not None:
        sys.exit(_run(arguments, command, lambda: False))
    watch = SignalWatch()
    try:
        watch.start()
        _prepare_streams()
        hide_start_up_lines()
        code = _run(sys.argv[1:], command, lambda: watch.received is not None)
        code = _flush(code)
        watch.stop()
    except KeyboardInterrupt:
        with contextlib.suppress(OSError):
            sys.stderr.write(_INTERRUPTED_LINE)
        code = 130
    if watch.received is not None:
        _flush(code)
        os._exit(128 + watch.received)
    sys.exit(code)


def _run(arguments: Sequence[str], command: "cyclopts.App | None", interrupted: Callable[[], bool]) -> int:
    """The exit code of a command line, also where the program can't be imported."""
    try:
        # After the handlers are installed: with its libraries it takes 0.2 s.
        from keras_qat.cli import program
    except Exception as error:
        # A library is missing or broken, and may be one of those that the last resort of the program needs.
        if os.environ.get(SHOW_TRACEBACK):
            raise
        if not interrupted():
            reason = shortened(f"{type(error).__name__}: {error}")
            sys.stderr.write(
                f"error: A library that keras-qat needs can't be loaded. Received: {reason}. {REINSTALL}\n"
            )
        return 2
    return program.run_program(arguments, program.app if command is None else command, interrupted=interrupted)


def _prepare_streams() -> None:
    """Let no character and no closed stream end a command with a traceback.

    A terminal that isn't of UTF-8 shows an escape in place of a character that it doesn't have.
    """
    logging.raiseExceptions = False  # A line of the log that can't be written isn't worth a traceback.
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # It was closed by whoever started the program.
            stream = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - open to the end of the process
            setattr(sys, name, stream)
        if hasattr(stream, "reconfigure"):  # Not those of test runners and notebooks.
            stream.reconfigure(errors="backslashreplace")


def _flush(code: int) -> int:
    """Write out what the streams hold, and return the exit code, which is another one if that fails."""
    return code or max([_flushed_code(stream) for stream in (sys.stdout, sys.stderr)])


def _flushed_code(stream: TextIO) -> int:
    try:
        stream.flush()
    except OSError as error:
        # The interpreter would try again when it shuts down.
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        if isinstance(error, BrokenPipeError):
            return BROKEN_PIPE
        with contextlib.suppress(OSError):
            sys.stderr.write(f"error: Can't write the output: {error.strerror}. Make room for it.\n")
        return 2
    return 0
