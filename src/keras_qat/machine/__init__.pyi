from .hardware import X86, Cpu, Disk, Gpu, Memory, disks, memory, read_cpu, read_gpus, usable_cores
from .packages import (
    EXTRAS,
    TENSORFLOW,
    TENSORRT,
    TENSORRT_RTX,
    Environment,
    backend_packages,
    first_installed,
    read_environment,
    version_of,
)

__all__ = [
    "EXTRAS",
    "TENSORFLOW",
    "TENSORRT",
    "TENSORRT_RTX",
    "X86",
    "Cpu",
    "Disk",
    "Environment",
    "Gpu",
    "Memory",
    "backend_packages",
    "disks",
    "first_installed",
    "memory",
    "read_cpu",
    "read_environment",
    "read_gpus",
    "usable_cores",
    "version_of",
]
