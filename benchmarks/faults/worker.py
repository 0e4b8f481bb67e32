"""A process that imports keras-qat once and then runs one command line after the other.

    python -m faults.worker REQUESTS ANSWERS

`REQUESTS` and `ANSWERS` are the numbers of two inherited descriptors, which carry a JSON value per line. A request says
in which folder to run which arguments, and with which fault. The answer has the exit code; what was printed stays in
the two files that the request names, where the parent finds it even if this process dies.
"""

import json
import logging
import os
import resource
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faults import handle, injected, user_folder

_MEMORY = 4 << 30
"""The most memory of a worker, in bytes: a command that reads an endless device must not take the machine down."""


def main() -> None:
    """Serve requests until the pipe is closed."""
    requests, answers = (os.fdopen(int(number), mode) for number, mode in zip(sys.argv[1:3], "rw", strict=True))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (handle.FILE_SIZE, handle.FILE_SIZE))
    warnings.simplefilter("ignore")
    import keras  # noqa: F401 - takes seconds, which no try should wait for

    user_folder.register_network()
    answers.write("ready\n")
    answers.flush()
    for line in requests:
        answers.write(json.dumps(_serve(json.loads(line))) + "\n")
        answers.flush()


def _serve(request: dict[str, Any]) -> dict[str, Any]:
    folder = Path(request["folder"])
    os.chdir(folder)
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    os.environ["HOME"] = str(folder / "home")
    saved = [os.dup(1), os.dup(2)]
    for number, name in ((1, request["out"]), (2, request["err"])):
        opened = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(opened, number)
        os.close(opened)
    start = time.perf_counter()
    try:
        with injected.fault(folder, request.get("fault")) as found:
            code = _build(folder) if request["arguments"] is None else run(request["arguments"])
    except BaseException:  # noqa: BLE001 - a fault of the harness itself must not end the worker
        traceback.print_exc()
        code, found = 1, {}
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, descriptor in zip((1, 2), saved, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)
    _forget()
    return {"code": code, "seconds": time.perf_counter() - start, **found}


def run(arguments: Sequence[str]) -> int:
    """Run `keras-qat` in this process and return its exit code, 1 for what a process would end with as a traceback."""
    from keras_qat.cli.program import app, run_program

    try:
        return run_program(list(arguments), app)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:  # noqa: BLE001 - whatever it is, a user would see it as a traceback
        traceback.print_exc()
        return 1


def _build(folder: Path) -> int:
    user_folder.build(folder, lambda *arguments: run(arguments))
    return 0


def _forget() -> None:
    """Undo what a command that was cut off may have left behind in this process."""
    import keras

    keras.backend.clear_session()
    package = logging.getLogger("keras_qat")
    for handler in list(package.handlers):
        package.removeHandler(handler)


if __name__ == "__main__":
    main()
