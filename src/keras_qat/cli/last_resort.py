"""What the program says of an exception that no command expected: a full disk, too little memory, or a bug.

A command raises `UserError` for each mistake that it knows. What reaches this module is either a failure of the machine
at any moment of the work, which the user can mend, or a bug of keras-qat, whose details go to a file.
"""

import contextlib
import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

from keras_qat.cli.process import REINSTALL, SHOW_TRACEBACK
from keras_qat.files import is_disk_full
from keras_qat.machine import read_environment
from keras_qat.text import shortened

USER, BUG = 2, 4
"""Exit codes."""

_DISK = "Make room on the disk, or choose a folder on another one."
_ACCESS = "Choose files and folders that you may read and write."
_DEVICE = "Check the disk or the network folder, and start again."
_FILES = "Raise the limit, for example with `ulimit -n 4096`."
_MEMORY = "Use smaller batches, fewer images or a smaller model, or a machine with more memory."

_MACHINE: Mapping[int, str] = {
    errno.ENOSPC: _DISK,
    errno.EDQUOT: _DISK,
    errno.EFBIG: _DISK,
    errno.EACCES: _ACCESS,
    errno.EPERM: _ACCESS,
    errno.EROFS: _ACCESS,
    errno.EIO: _DEVICE,
    errno.ESTALE: _DEVICE,
    errno.ENODEV: _DEVICE,
    errno.ENOTCONN: _DEVICE,
    errno.EMFILE: _FILES,
    errno.ENFILE: _FILES,
    errno.ENOMEM: _MEMORY,
}
"""{number of an `OSError` that no code can prevent: what to do}."""

_MARKS: Mapping[str, int] = {
    "RESOURCE_EXHAUSTED": errno.ENOMEM,
    "ResourceExhausted": errno.ENOMEM,
    "bad_alloc": errno.ENOMEM,
    "OutOfMemory": errno.ENOMEM,
}
"""{what stands in the errors of libraries that have their own classes: number of the `OSError` that it is}."""


def describe_failure(error: BaseException, arguments: Sequence[str]) -> tuple[str, int]:
    """Say what happened and what to do; if it is a bug, write its details to a file.

    Args:
        error: what a command raised, other than an error of keras-qat.
        arguments: the command line.

    Returns:
        The message, and the exit code.
    """
    short = shortened(f"{type(error).__name__}: {error}")
    if isinstance(error, ImportError) and not (error.name or "").startswith("keras_qat"):
        return f"A library that keras-qat needs can't be loaded. Received: {short}. {REINSTALL}", USER
    number = _number(error)
    if number is not None:
        name = getattr(error, "filename", None)
        received = short if name is None else repr(os.fsdecode(name) if isinstance(name, bytes) else str(name))
        return f"{os.strerror(number)}. Received: {received}. {_MACHINE[number]}", USER
    return (
        f"This is a bug of keras-qat, not a mistake of yours. Received: {short}. {_report(error, arguments)}",
        BUG,
    )


def _number(error: BaseException) -> int | None:
    """The number of the failure of the machine that an exception stands for, or that it came from, or `None`.

    What an exception was raised `from` is its cause. The context, in which it was raised, is none: a bug in the
    handling of an error is a bug.
    """
    if isinstance(error, OSError) and error.errno in _MACHINE:
        return error.errno
    if is_disk_full(error):
        return errno.ENOSPC
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    text = f"{type(error).__name__}: {error}"
    number = next((number for mark, number in _MARKS.items() if mark in text), None)
    return number if number is not None or error.__cause__ is None else _number(error.__cause__)


def _report(error: BaseException, arguments: Sequence[str]) -> str:
    """Where the details are."""
    trace = "".join(traceback.format_exception(error))
    if os.environ.get(SHOW_TRACEBACK):
        return f"Its traceback:\n{trace}"
    try:
        path = _write_details(trace, arguments)
    except OSError as refusal:
        return f"Its traceback, which could not be written to a file ({refusal.strerror}):\n{trace}"
    return f"The details are in {path}. Report it with that file and with the model or file that was read."


def _write_details(trace: str, arguments: Sequence[str]) -> Path:
    """Write the versions, the command line and the traceback to a new file in the system's temporary folder."""
    lines = [f"Arguments: {list(arguments)}", f"Program: {sys.argv[:1]}"]
    with contextlib.suppress(Exception):  # Whatever is wrong here, the traceback is what matters.
        environment = read_environment()
        lines += [f"Python: {environment.python}", f"System: {environment.system}, {environment.cpu}"]
        lines += [f"{name}: {version}" for name, version in environment.packages.items()]
    descriptor, name = tempfile.mkstemp(prefix="keras-qat-bug-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        file.write("\n".join((*lines, "", trace)))
    return Path(name)
