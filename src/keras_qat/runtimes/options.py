"""What an engine is built for, and what a builder hands back."""

from dataclasses import dataclass
from pathlib import Path

from keras_qat.errors import UserError


@dataclass(frozen=True)
class BatchRange:
    """The batch sizes that an engine takes.

    Args:
        min: the smallest.
        opt: the one it is fastest at.
        max: the largest.

    Raises:
        UserError: not 1 <= min <= opt <= max.

    Example:
        >>> BatchRange(max=32)
        BatchRange(min=1, opt=1, max=32)
    """

    min: int = 1
    opt: int = 1
    max: int = 8

    def __post_init__(self) -> None:
        """Refuse what no profile can be."""
        if not 1 <= self.min <= self.opt <= self.max:
            raise UserError(
                "Batch sizes must be 1 <= min <= opt <= max. "
                f"Received: min {self.min}, opt {self.opt}, max {self.max}. Put them in order."
            )

    @classmethod
    def of(cls, least: int | None, fastest: int | None, most: int | None) -> "BatchRange | None":
        """The sizes that were given, the others filled in around them; `None` if none was.

        Example:
            >>> BatchRange.of(None, 16, None)
            BatchRange(min=1, opt=16, max=16)
        """
        if (least, fastest, most) == (None, None, None):
            return None
        least = cls.min if least is None else least
        fastest = least if fastest is None else fastest
        return cls(least, fastest, max(cls.max, fastest) if most is None else most)


@dataclass(frozen=True)
class BuildOptions:
    """What an engine is built for.

    Args:
        compute_capabilities: of the GPUs, such as "8.6"; what the engine chooses if empty.
        batch: the batch sizes, for a file whose batch is dynamic; what the engine chooses if not given.
    """

    compute_capabilities: tuple[str, ...] = ()
    batch: BatchRange | None = None


@dataclass(frozen=True)
class Built:
    """What a builder wrote.

    Args:
        version: the engine and its version.
        files: all that were written; the first is the one to open.
        warnings: what the engine's log warned of.
    """

    version: str
    files: tuple[Path, ...]
    warnings: tuple[str, ...]
