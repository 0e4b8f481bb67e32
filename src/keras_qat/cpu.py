"""The processor of this machine, as far as INT8 is concerned."""

import functools
import platform
from dataclasses import dataclass
from pathlib import Path


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
