"""Keeps the lines that TensorFlow's C++ code writes while it is imported off the terminal.

`TF_CPP_MIN_LOG_LEVEL`, which `keras_qat` sets, hides most of them. Others are written through Abseil before its log is
initialized, and such lines ignore every setting ("E0000 00:00:… Unable to register cuDNN factory",
https://github.com/tensorflow/tensorflow/issues/100442). They are no errors. So standard error goes to a temporary file
during the import, and what isn't such a line is written out afterwards.

A user who sets `TF_CPP_MIN_LOG_LEVEL` to another value than 3 sees everything, at once. That is the only way to see the
last line of an import that ends the process by a signal, as TensorFlow does on a CPU without the instructions that it
was compiled for: what is in the temporary file is lost then.
"""

import contextlib
import importlib.machinery
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from types import ModuleType

_LEVEL, _HIDDEN = "TF_CPP_MIN_LOG_LEVEL", "3"

_START_UP = re.compile(
    rb"[IWE]\d{4} \d\d:\d\d:[\d.]+ +\d+ \S+:\d+\] "  # Abseil's prefix: severity, date, time, thread, file, line
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:[\d.]+: [IWE] \S+:\d+\] "  # TensorFlow's
    rb"|WARNING: All log messages before absl::InitializeLog\(\) is called are written to STDERR"
    rb"|To enable the following instructions: "
)


class _QuietFinder(MetaPathFinder):
    """Finds `tensorflow` as Python does, and gives it a loader that keeps standard error aside."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The specification of `tensorflow`; `None` for all other modules."""
        if name != "tensorflow":
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _QuietLoader(spec.loader)
        return spec


class _QuietLoader(Loader):
    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> object:
        """What else a loader has, such as the files of its package."""
        return getattr(self._loader, name)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType | None:
        """The module, before its code runs."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the code of the module, and write what it wrote to standard error, without the start-up lines."""
        with without_start_up_lines():
            self._loader.exec_module(module)


def hide_start_up_lines() -> None:
    """Keep TensorFlow's start-up lines off standard error when it is imported, unless the user wants to see them."""
    if os.environ.get(_LEVEL) == _HIDDEN and "tensorflow" not in sys.modules:
        sys.meta_path.insert(0, _QuietFinder())


@contextlib.contextmanager
def without_start_up_lines() -> Iterator[None]:
    """Write the lines that the block wrote to standard error after it, without those of TensorFlow's C++ log.

    Fatal messages stay, and every line that isn't of the log, unless the process ends within the block. Where standard
    error can't be redirected, all lines appear at once.
    """
    with contextlib.ExitStack() as stack:
        try:
            terminal = os.dup(2)
            stack.callback(os.close, terminal)
            aside = stack.enter_context(tempfile.TemporaryFile())
            os.dup2(aside.fileno(), 2)
        except OSError:  # Standard error is closed, or no temporary file can be written.
            yield
            return
        try:
            yield
        finally:
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.flush()
            os.dup2(terminal, 2)
            aside.seek(0)
            kept = b"".join(line for line in aside if not _START_UP.match(line))
            with contextlib.suppress(OSError), open(2, "wb", closefd=False) as stream:
                stream.write(kept)
