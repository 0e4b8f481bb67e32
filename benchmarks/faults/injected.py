"""Faults that a worker injects into its own command: death at a rename, a power cut there, a small disk.

Death and power cuts patch the functions of `os` through which Python renames, replaces and removes files. Only calls
below the user's folder count.

The power cut follows what POSIX promises and no more. A file whose content was not flushed by `fsync` since it was last
written may be empty, cut off, or full of zeros. A rename is on the disk only once the folder was flushed, too; of the
renames that were not, the last ones are undone, as a journal that was not written yet would.
"""

import os
import random
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_CLOCK_STEP_NS = 20_000_000
"""The clock of a file system is behind by up to one tick of the kernel."""

_PATCHED = ("rename", "replace", "unlink", "remove", "rmdir")


@contextmanager
def fault(folder: Path, wanted: Mapping[str, Any] | None) -> Iterator[dict[str, Any]]:
    """Inject a fault into the block.

    Args:
        folder: the user's folder.
        wanted: `{"kind": NAME, …}` with the arguments of one of the functions below, or `None` for no fault.

    Yields:
        What the fault found out, once the block has ended.
    """
    found: dict[str, Any] = {}
    if wanted is None:
        yield found
        return
    options = dict(wanted)
    with _FAULTS[options.pop("kind")](folder, found, **options):
        yield found


@contextmanager
def _counted(folder: Path, found: dict[str, Any]) -> Iterator[None]:
    """Count the calls that a death may happen at."""
    calls: list[str] = []
    with _watched(folder, lambda name, before: calls.append(name) if before else None):
        yield
    found["calls"] = calls


@contextmanager
def _killed(folder: Path, found: dict[str, Any], *, call: int, before: bool) -> Iterator[None]:  # noqa: ARG001
    """Die at the call of that number, from 0, before or after it."""
    seen = [0]

    def die(_: str, now: bool) -> None:
        if now != before:
            return
        if seen[0] == call:
            os.kill(os.getpid(), signal.SIGKILL)
        seen[0] += 1

    with _watched(folder, die):
        yield


@contextmanager
def _watched(folder: Path, tell: Callable[[str, bool], None]) -> Iterator[None]:
    """Call `tell(name, before)` before and after every call that renames or removes something in the folder."""
    originals = {name: getattr(os, name) for name in _PATCHED}

    def watch(name: str) -> Callable[..., Any]:
        def call(path: Any, *rest: Any, **options: Any) -> Any:
            # `shutil.rmtree` gives names relative to a descriptor.
            own = options.get("dir_fd") is not None or _is_below(path, folder)
            if own:
                tell(name, True)
            result = originals[name](path, *rest, **options)
            if own:
                tell(name, False)
            return result

        return call

    with _patched({name: watch(name) for name in _PATCHED}):
        yield


@contextmanager
def _patched(functions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """Functions of `os` that take the place of its own within the block."""
    originals = {name: getattr(os, name) for name in functions}
    try:
        for name, function in functions.items():
            setattr(os, name, function)
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def _is_below(path: Any, folder: Path) -> bool:
    return not isinstance(path, int) and os.path.realpath(os.path.dirname(os.fsdecode(path) or ".")).startswith(  # noqa: PTH120
        os.path.realpath(folder)
    )


@dataclass
class Disk:
    """What of a folder would be there after a power cut.

    Args:
        folder: the folder.
        begun: everything that was written before this time, in ns, is on the disk.
    """

    folder: Path
    begun: int = field(default_factory=lambda: time.time_ns() - _CLOCK_STEP_NS)
    _flushed: dict[tuple[int, int], int] = field(default_factory=dict)
    _renames: list[tuple[Path, Path | None]] = field(default_factory=list)
    _backups: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="robustness-")))

    def flush(self, descriptor: int) -> None:
        """Note that the content of a file, or the entries of a folder, are on the disk now."""
        facts = os.fstat(descriptor)
        if stat.S_ISDIR(facts.st_mode):
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            self._renames = [entry for entry in self._renames if entry[0].parent != path]
        else:
            self._flushed[facts.st_dev, facts.st_ino] = facts.st_mtime_ns

    def renaming(self, target: Path) -> None:
        """Note that something is about to be renamed to `target`."""
        target = target.absolute()
        backup = None
        if target.is_file():
            # Numbers of entries come again once a folder is flushed.
            backup = self._backups / uuid.uuid4().hex
            shutil.copy2(target, backup)
        self._renames.append((target, backup))

    def cut(self, choice: random.Random) -> list[str]:
        """Leave what may be on the disk after a power cut; return what was lost, in words."""
        lost = []
        for path in sorted(self.folder.rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            facts = path.stat()
            kept = self._flushed.get((facts.st_dev, facts.st_ino)) == facts.st_mtime_ns
            if facts.st_mtime_ns < self.begun or kept or not facts.st_size or choice.random() < 0.2:  # noqa: PLR2004
                continue
            how = choice.choice(("emptied", "cut off", "zeroed"))
            size = 0 if how == "emptied" else choice.randrange(facts.st_size)
            with path.open("r+b") as file:
                file.truncate(size)
                if how == "zeroed":
                    file.truncate(facts.st_size)
            lost.append(f"{how} {path.relative_to(self.folder)}")
        undone = choice.randint(0, len(self._renames))
        for target, backup in reversed(self._renames[len(self._renames) - undone :]):
            if target.is_dir():
                continue
            if backup is None:
                target.unlink(missing_ok=True)
            else:
                shutil.copy2(backup, target)
            lost.append(f"undone {target.relative_to(self.folder)}")
        shutil.rmtree(self._backups, ignore_errors=True)
        return lost


@contextmanager
def _power_cut(folder: Path, found: dict[str, Any], *, call: int, seed: int) -> Iterator[None]:  # noqa: ARG001
    """Cut the power after the rename of that number, from 0."""
    disk = Disk(folder.resolve())
    originals = {name: getattr(os, name) for name in ("rename", "replace", "fsync", "fdatasync")}
    seen, one_at_a_time = [0], threading.Lock()

    def renamed(name: str) -> Callable[..., Any]:
        def rename(source: Any, target: Any, **options: Any) -> Any:
            if options or not _is_below(target, folder):
                return originals[name](source, target, **options)
            # No other thread goes on while the power is cut.
            with one_at_a_time:
                disk.renaming(Path(os.fsdecode(target)))
                result = originals[name](source, target)
                if seen[0] == call:
                    lost = disk.cut(random.Random(seed))  # noqa: S311
                    os.write(2, "".join(f"power cut: {line}\n" for line in lost).encode("utf-8", "surrogateescape"))
                    os.kill(os.getpid(), signal.SIGKILL)
                seen[0] += 1
            return result

        return rename

    def flushed(name: str) -> Callable[[Any], None]:
        def flush(file: Any) -> None:
            originals[name](file)
            disk.flush(file if isinstance(file, int) else file.fileno())

        return flush

    renames = {name: renamed(name) for name in ("rename", "replace")}
    try:
        with _patched(renames | {name: flushed(name) for name in ("fsync", "fdatasync")}):
            yield
    finally:
        shutil.rmtree(disk._backups, ignore_errors=True)  # noqa: SLF001


@contextmanager
def _small_disk(folder: Path, found: dict[str, Any], *, at: str, room: int) -> Iterator[None]:
    """Put a disk with that much room, in bytes, below a folder of the user's folder, with what is there now.

    After the block, what is on the disk is copied to the folder.
    """
    place = folder / at
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as kept:
        shutil.copytree(place, kept, symlinks=True, dirs_exist_ok=True)
        used = sum(-(-path.stat().st_size // 4096) * 4096 + 4096 for path in place.rglob("*"))
        mount = ["mount", "-t", "tmpfs", "-o", f"size={used + room + 4096}", "none", str(place)]
        subprocess.run(mount, check=True)  # noqa: S603
        try:
            shutil.copytree(kept, place, symlinks=True, dirs_exist_ok=True)
            yield
        finally:
            shutil.rmtree(kept)
            shutil.copytree(place, kept, symlinks=True)
            subprocess.run(["umount", "--lazy", str(place)], check=True)  # noqa: S603, S607
        shutil.rmtree(place)
        shutil.copytree(kept, place, symlinks=True)
    found["room"] = room


@contextmanager
def _read_only(folder: Path, found: dict[str, Any], *, at: str) -> Iterator[None]:  # noqa: ARG001
    """Let a folder be read-only, as root heeds no permissions."""
    place = str(folder / at)
    Path(place).mkdir(parents=True, exist_ok=True)
    for mount in (["mount", "--bind", place, place], ["mount", "-o", "remount,ro,bind", place]):
        subprocess.run(mount, check=True)  # noqa: S603
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)  # noqa: S603, S607


_FAULTS: Mapping[str, Callable[..., Any]] = {
    "count": _counted,
    "kill": _killed,
    "power cut": _power_cut,
    "small disk": _small_disk,
    "read-only": _read_only,
}
