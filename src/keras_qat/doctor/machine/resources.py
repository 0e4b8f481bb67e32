"""Cores, memory and disks of this machine."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs


@dataclass(frozen=True)
class Disk:
    """A folder that keras-qat writes to.

    Args:
        purpose: what is written there.
        path: the folder.
        free_bytes: on its disk.
    """

    purpose: str
    path: str
    free_bytes: int


def usable_cores() -> int:
    """Cores that this process may use, which in a container are fewer than there are.

    Example:
        >>> 1 <= usable_cores() <= os.cpu_count()
        True
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="utf-8").split()
        cores = min(cores, max(1, round(int(quota) / int(period))))  # "max" is no number: no limit.
    return cores


def memory() -> tuple[int | None, int | None]:
    """Bytes of memory: all, and what is available; `None` where Linux's /proc/meminfo is missing."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None, None
    kilobytes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if rest}
    total, available = (kilobytes.get(name) for name in ("MemTotal", "MemAvailable"))
    return (None if total is None else total * 1024), (None if available is None else available * 1024)


def disks() -> tuple[Disk, ...]:
    """Where keras-qat writes: its cache, temporary files, and the folder that it was started in."""
    return tuple(_disks())


def _disks() -> Iterator[Disk]:
    places = {
        "cache (baselines, ranges)": Path(platformdirs.user_cache_path("keras-qat")),
        "temporary files": Path(tempfile.gettempdir()),
        "this folder (runs)": Path.cwd(),
    }
    for purpose, path in places.items():
        existing = next((folder for folder in (path, *path.parents) if folder.exists()), path)
        with suppress(OSError):
            yield Disk(purpose, str(path), shutil.disk_usage(existing).free)
