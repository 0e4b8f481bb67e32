"""What can be wrong with a record or a shard, and what the user is told of it."""

from dataclasses import dataclass
from pathlib import Path

from keras_qat.errors import BrokenImageError, DataError

ADVICE = "Copy the shard anew from where it came, or write it again."
"""What to do of a bad record."""

# The first bytes of a gzip file, and of the usual zlib streams.
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\x78\x01": "zlib", b"\x78\x9c": "zlib", b"\x78\xda": "zlib"}


@dataclass(frozen=True)
class BadRecord:
    """A record that can't be used.

    Args:
        offset: where in the file it begins.
        problem: what is wrong with it.
        end: where the next record begins, or `None` if nothing tells: what follows in the file is lost.
    """

    offset: int
    problem: str
    end: int | None


def record_error(path: str | Path, offset: int, problem: str) -> BrokenImageError:
    """The error of one record: names the file and where in it the record begins."""
    return BrokenImageError(record_problem(path, offset, problem, ADVICE))


def record_problem(path: str | Path, offset: int, problem: str, advice: str) -> str:
    """What is said of one record.

    Example:
        >>> record_problem("shard", 16, "it is cut off", "Copy it again.")
        "Can't use the record at byte 16 of shard: it is cut off. Received: 'shard'. Copy it again."
    """
    return f"Can't use the record at byte {offset} of {path}: {problem}. Received: {str(path)!r}. {advice}"


def unreadable_error(path: str | Path, error: OSError) -> DataError:
    """The error of a file that can't be read."""
    return DataError(
        f"Can't read {path}: {error.strerror or error}. Received: {str(path)!r}. Give a file that you may read."
    )


def compression_error(path: str | Path, begin: bytes) -> DataError | None:
    """The error of a compressed shard; `None` if the first two bytes, `begin`, are of no known compression."""
    kind = _COMPRESSED.get(begin)
    if kind is None:
        return None
    return DataError(
        f"{path} is compressed, so single records of it can't be read. Received: a {kind} file. "
        "Write the shards anew without compression (gzip: `gunzip < SHARD > SHARD.plain`, then rename): "
        "the images in them are compressed by themselves."
    )
