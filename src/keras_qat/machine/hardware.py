"""The hardware of this machine: its processor, the memory and cores that this process may use, GPUs and disks."""

import functools
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import platformdirs
import psutil
import pynvml

_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")

_MEMORY_CGROUPS = {
    "": ("memory.max", "memory.current", "inactive_file"),
    "memory": ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}
"""{controller: (file of the limit, file of what is used, files read lately, in memory.stat)} of cgroup v2 and v1.

Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html and https://docs.kernel.org/admin-guide/cgroup-v1/memory.html.
"""


X86 = frozenset({"x86_64", "amd64", "i386", "i686"})
"""What `platform.machine` calls x86, in lower case."""


@dataclass(frozen=True)
class Cpu:
    """A processor.

    Args:
        name: the name that it gives itself.
        vnni: whether it multiplies int8 in hardware (AVX512-VNNI or AVX-VNNI); `None` where that is unknown.
    """

    name: str
    vnni: bool | None


@functools.cache
def read_cpu() -> Cpu:
    """The first processor, as Linux's /proc/cpuinfo describes it; elsewhere little is known.

    psutil doesn't know the name and the flags of a processor. py-cpuinfo 9.0 takes 1.2 s to tell them, which every
    session of ONNX Runtime would wait for; this function takes 0.2 ms.

    Example:
        >>> read_cpu().name != ""
        True
    """
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n", 1)[0].splitlines()
    except OSError:
        lines = []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = facts.get("flags", "").split()
    return Cpu(
        name=facts.get("model name", "") or platform.processor() or platform.machine(),
        vnni=any("vnni" in flag for flag in flags) if flags else None,
    )


def usable_cores() -> int:
    """The number of cores that this process may use, by its affinity and its cgroup's quota.

    Example:
        >>> usable_cores() >= 1
        True
    """
    # Imported late: it takes 0.2 s, and most callers of this module ask for the processor alone.
    import joblib

    return int(joblib.cpu_count())


class Memory(NamedTuple):
    """Bytes of memory.

    Args:
        total: all that this process may use.
        available: what it may still take without swapping.
    """

    total: int
    available: int


def memory() -> Memory:
    """The memory of this machine, or of the container that this process runs in, where that has less.

    psutil reads the machine's figures, which a container shows unchanged; a container's limit is that of its cgroup.
    Files that were read lately, such as images, count as available: the system drops them as soon as memory is asked
    for.

    Example:
        >>> 0 < memory().available <= memory().total
        True
    """
    machine = psutil.virtual_memory()
    limits = [Memory(machine.total, machine.available), *_cgroup_memory()]
    return Memory(min(limit.total for limit in limits), min(limit.available for limit in limits))


def _cgroup_memory() -> Iterator[Memory]:
    """The limit of each group that this process is in, and what is left of it; nothing where there is no limit."""
    for controller, (limit_file, used_file, inactive) in _MEMORY_CGROUPS.items():
        for folder in _cgroup_folders(controller):
            # A missing file, or the limit "max", is no limit.
            with suppress(OSError, ValueError):
                limit, used = (int((folder / name).read_text(encoding="ascii")) for name in (limit_file, used_file))
                yield Memory(limit, limit - used + _figure(folder / "memory.stat", inactive))


def _cgroup_folders(controller: str) -> list[Path]:
    """The folder of the group that this process is in, and of all groups around it.

    In a container, the outermost is the container's own. Of a job of Slurm or systemd the limit may be on any of them.
    """
    with suppress(OSError):
        for line in _OWN_CGROUPS.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controller in controllers.split(","):
                group = PurePosixPath(path.lstrip("/"))
                return [_CGROUPS / controller / folder for folder in (group, *group.parents)]
    return [_CGROUPS / controller]


def _figure(path: Path, name: str) -> int:
    """A number of a file of "name number" lines; 0 where the file lacks it."""
    with suppress(OSError, ValueError):
        words = path.read_text(encoding="ascii").split()
        return int(words[words.index(name) + 1])
    return 0


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Args:
        name: the name that it gives itself.
        driver: version of its driver.
        memory_mb: MiB of memory; 0 if the driver doesn't say.
        compute_capability: such as "8.6"; "" if the driver doesn't say.
    """

    name: str
    driver: str
    memory_mb: int
    compute_capability: str


def read_gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs of this machine, as the driver's library NVML lists them; none without a working driver.

    Example:
        >>> isinstance(read_gpus(), tuple)
        True
    """
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        driver = pynvml.nvmlSystemGetDriverVersion()
        return tuple(_read_gpu(index, driver) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _read_gpu(index: int, driver: str) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory_mb, capability = 0, ""
    # Old GPUs support neither question.
    with suppress(pynvml.NVMLError):
        memory_mb = pynvml.nvmlDeviceGetMemoryInfo(handle).total // 2**20
    with suppress(pynvml.NVMLError):
        capability = "{}.{}".format(*pynvml.nvmlDeviceGetCudaComputeCapability(handle))
    return Gpu(pynvml.nvmlDeviceGetName(handle), driver, memory_mb, capability)


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


def disks() -> tuple[Disk, ...]:
    """The folders that keras-qat writes to: its cache, temporary files, and the folder that it was started in."""
    folders = {
        "cache (baselines, ranges)": Path(platformdirs.user_cache_path("keras-qat")),
        "temporary files": Path(tempfile.gettempdir()),
        "this folder (runs)": Path.cwd(),
    }
    known = []
    for purpose, path in folders.items():
        existing = next((folder for folder in (path, *path.parents) if folder.exists()), path)
        with suppress(OSError):
            known.append(Disk(purpose, str(path), shutil.disk_usage(existing).free))
    return tuple(known)
