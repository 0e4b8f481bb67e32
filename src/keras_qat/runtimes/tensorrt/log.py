"""TensorRT's log, kept instead of printed."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any


@dataclass(frozen=True)
class Message:
    """One entry.

    Args:
        severity: an `ILogger.Severity`, from 0, an internal error, to 4, verbose.
        text: what it says, on one line.
    """

    severity: int
    text: str


@dataclass(frozen=True)
class Log:
    """The log of one step of work.

    Args:
        trt: the Python package.
        messages: all so far.
    """

    trt: Any
    messages: list[Message]

    def warnings(self) -> tuple[str, ...]:
        """What it warned of, each once."""
        level = int(self.trt.ILogger.WARNING)
        return tuple(dict.fromkeys(m.text for m in self.messages if m.severity == level))

    def errors(self) -> tuple[str, ...]:
        """What went wrong, each once."""
        level = int(self.trt.ILogger.ERROR)
        return tuple(dict.fromkeys(m.text for m in self.messages if m.severity <= level))

    def notes(self) -> tuple[str, ...]:
        """All that isn't for the engine's own developers, each once."""
        level = int(self.trt.ILogger.INFO)
        return tuple(dict.fromkeys(m.text for m in self.messages if m.severity <= level))


@contextmanager
def recorded(trt: Any) -> Iterator[tuple[Any, Log]]:
    """The logger to build or open with, and the log of what happens within the block.

    TensorRT keeps the first logger of a process as long as any builder or runtime lives and ignores all others; so
    there is one, and each block empties it.
    """
    logger, messages = _collector(trt)
    messages.clear()
    log = Log(trt, [])
    try:
        yield logger, log
    finally:
        log.messages.extend(messages)


@cache
def _collector(trt: Any) -> tuple[Any, list[Message]]:
    messages: list[Message] = []

    def keep(_: Any, severity: Any, text: str) -> None:
        # TensorRT-RTX writes the version numbers of a foreign engine as characters.
        line = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text.strip().replace("\n", " "))
        messages.append(Message(int(severity), line.rstrip(".")))

    return type("Collector", (trt.ILogger,), {"log": keep})(), messages
