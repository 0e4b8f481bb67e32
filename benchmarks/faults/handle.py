"""A worker as its parent sees it: ask it to run a command, and end it when it hangs."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

FILE_SIZE = 1 << 30
"""The most bytes of a file that a command may write, so that none fills the disk."""

_START_S = 120.0
_MOST_REQUESTS = 250
"""A worker is replaced after that many commands, since TensorFlow keeps memory."""


@dataclass(frozen=True)
class Answer:
    """How a command ended.

    Args:
        code: its exit code; `None` if it didn't end by itself; negative for the signal that ended its process.
        out: what it printed on standard output.
        err: on standard error.
        seconds: how long it took.
        hung: whether it was ended because its time was over.
        found: what an injected fault found out.
    """

    code: int | None
    out: str
    err: str
    seconds: float
    hung: bool = False
    found: Mapping[str, Any] = field(default_factory=dict)


@cache
def may_mount() -> bool:
    """Whether a process of this one may have mounts of its own."""
    if shutil.which("unshare") is None or os.geteuid() != 0:
        return False
    probe = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0  # noqa: S603


class Worker:
    """One worker process, which is started when it is first asked, and again after its death.

    Args:
        scratch: a folder for what commands print.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._process: subprocess.Popen[bytes] | None = None
        self._served = 0

    def ask(
        self,
        arguments: Sequence[str] | None,
        folder: Path,
        patience: float,
        *,
        fault: Mapping[str, Any] | None = None,
        kill_after: float | None = None,
    ) -> Answer:
        """Run `keras-qat` with these arguments.

        Args:
            arguments: `None` builds the user's folder.
            folder: the user's folder.
            patience: seconds after which the command hangs.
            fault: a fault to inject.
            kill_after: SIGKILL comes after that many seconds, which is no hang.
        """
        self.begin(arguments, folder, fault=fault)
        return self.end(patience, kill_after=kill_after)

    def begin(self, arguments: Sequence[str] | None, folder: Path, *, fault: Mapping[str, Any] | None = None) -> None:
        """Send a request, whose answer `end` waits for."""
        if self._process is None or self._served >= _MOST_REQUESTS:
            self.close()
            self._start()
        self._served += 1
        self._out, self._err = (self._scratch / f"{id(self)}.{name}" for name in ("out", "err"))
        request = {"arguments": arguments, "folder": str(folder), "fault": fault}
        request |= {"out": str(self._out), "err": str(self._err)}
        self._begun = time.monotonic()
        os.write(self._requests, json.dumps(request).encode() + b"\n")

    def end(self, patience: float, *, kill_after: float | None = None) -> Answer:
        """Wait for the answer to the last request."""
        line = self._line(patience if kill_after is None else min(kill_after, patience))
        seconds = time.monotonic() - self._begun
        reply = json.loads(line) if line else {"code": None}
        hung = False
        if not line:
            # Either the process is dead or its time is over.
            hung = self._process is not None and self._process.poll() is None and kill_after is None
            reply["code"] = self.close()
        out, err = (
            path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
            for path in (self._out, self._err)
        )
        code = None if hung else reply.pop("code")
        reply.pop("code", None)
        return Answer(code, out, err, reply.pop("seconds", seconds), hung, reply)

    def close(self) -> int | None:
        """End the process; return how it ended."""
        if self._process is None:
            return None
        process, self._process = self._process, None
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        os.close(self._requests)
        os.close(self._answers)
        return code

    def _start(self) -> None:
        theirs, self._requests = os.pipe()
        self._answers, answers = os.pipe()
        command = [sys.executable, "-W", "ignore", "-m", "faults.worker", str(theirs), str(answers)]
        prefix = ["unshare", "--mount", "--propagation", "private"] if may_mount() else []
        self._process = subprocess.Popen(  # noqa: S603
            prefix + command,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(theirs, answers),
            start_new_session=True,
        )
        os.close(theirs)
        os.close(answers)
        self._served = 0
        self._begun = time.monotonic()
        if self._line(_START_S) != "ready":
            raise RuntimeError("A worker didn't start. Run `python -m faults.worker` in benchmarks/ to see why.")

    def _line(self, patience: float) -> str:
        """The next line of the worker; empty if it died or was silent for that long."""
        text = b""
        until = self._begun + patience
        while not text.endswith(b"\n"):
            ready, _, _ = select.select([self._answers], [], [], max(0.0, until - time.monotonic()))
            part = os.read(self._answers, 1 << 16) if ready else b""
            if not part:
                if ready and self._process is not None:
                    # The pipe is closed, so the process is ending.
                    self._process.wait(timeout=30)
                return ""
            text += part
        return text.decode().strip()


def environment() -> dict[str, str]:
    """The environment of a worker: it finds this package, and keras-qat where this process finds it."""
    import keras_qat

    source = Path(keras_qat.__file__).parents[1]
    paths = [str(Path(__file__).parents[1]), str(source), os.environ.get("PYTHONPATH", "")]
    unwanted = {"KERAS_BACKEND"}
    kept = {name: value for name, value in os.environ.items() if name not in unwanted}
    return kept | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "TF_CPP_MIN_LOG_LEVEL": "3", "COLUMNS": "200"}
