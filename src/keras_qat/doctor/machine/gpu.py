"""NVIDIA GPUs, as nvidia-smi describes them."""

import shutil
import subprocess
from dataclasses import dataclass

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
