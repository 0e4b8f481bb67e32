"""The processor of this machine, as far as INT8 is concerned.

NVIDIA GPUs, as nvidia-smi describes them.

Cores, memory and disks of this machine.
"""

import functools
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs


@dataclass(frozen=True)
class Cpu:
    """A processor.

    Args:
        name: as it calls itself.
        vnni: whether it multiplies int8 in hardware (AVX512-VNNI or AVX-VNNI); `None` where that is unknown.
    """

    name: str
    vnni: bool | None


@functools.cache
def read_cpu() -> Cpu:
    """Look at the first processor, by Linux's /proc/cpuinfo; elsewhere little is known.

    Example:
        >>> read_cpu().name != ""
        True
    """
    facts = _facts()
    flags = facts.get("flags", "").split()
    return Cpu(
        name=facts.get("model name", "") or platform.processor() or platform.machine(),
        vnni=any("vnni" in flag for flag in flags) if flags else None,
    )


def _facts() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {key.strip(): value.strip() for key, _, value in pairs}


_QUERY = "name,driver_version,memory.total,compute_cap"
_SECONDS = 10


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Args:
        name: as it calls itself.
        driver: version of its driver.
        memory_mb: MiB of memory.
        compute_capability: such as "8.6"; "" if the driver doesn't say.
    """

    name: str
    driver: str
    memory_mb: int
    compute_capability: str


def read_gpus() -> tuple[Gpu, ...]:
    """The GPUs of this machine; none where nvidia-smi is missing or fails.

    Example:
        >>> isinstance(read_gpus(), tuple)
        True
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        return ()
    command = [program, f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse_gpus(found.stdout)


def parse_gpus(text: str) -> tuple[Gpu, ...]:
    """The lines of nvidia-smi; lines of another form are left out.

    Example:
        >>> parse_gpus("NVIDIA RTX A2000, 550.54, 6138, 8.6")
        (Gpu(name='NVIDIA RTX A2000', driver='550.54', memory_mb=6138, compute_capability='8.6'),)
    """
    rows = [[cell.strip() for cell in line.split(",")] for line in text.splitlines()]
    fields = _QUERY.count(",") + 1
    return tuple(
        Gpu(name, driver, int(memory) if memory.isdigit() else 0, capability if capability[:1].isdigit() else "")
        for name, driver, memory, capability in (row for row in rows if len(row) == fields)
    )


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
