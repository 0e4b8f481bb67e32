"""The classes of ILSVRC 2012 and the answers of its validation, from the official development kit.

`ILSVRC2012_devkit_t12.tar.gz` holds `data/meta.mat`, a struct array `synsets` whose leaves (`num_children` is 0) are
the classes, and `data/ILSVRC2012_validation_ground_truth.txt`, the ILSVRC2012_ID of each validation image by file name.
"""

import io
import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat.errors import DataError

DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_META = "ILSVRC2012_devkit_t12/data/meta.mat"
_ANSWERS = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"


@dataclass(frozen=True)
class Devkit:
    """What the development kit says.

    Args:
        words: each class's WordNet id → its words, sorted by id: the order of the labels.
        answers: the WordNet id of each validation image, in the order of the sorted file names.
    """

    words: Mapping[str, str]
    answers: tuple[str, ...]

    @property
    def labels(self) -> Mapping[str, int]:
        """The customary label of each class: 1 + its place among the sorted WordNet ids."""
        return {wnid: 1 + place for place, wnid in enumerate(self.words)}


def read_devkit(path: Path) -> Devkit:
    """Read the development kit, in memory.

    Raises:
        DataError: it is missing, truncated, or not the kit of ILSVRC 2012.
    """
    members = _extract(path, (_META, _ANSWERS))
    leaves = _leaves(path, members[_META])
    words = dict(sorted(leaves.values()))
    try:
        answers = tuple(leaves[int(line)][0] for line in members[_ANSWERS].split())
    except (ValueError, KeyError) as error:
        raise _unusable(path, f"{_ANSWERS} has a line that is no class: {error}") from error
    return Devkit(words, answers)


def _extract(path: Path, names: tuple[str, ...]) -> Mapping[str, bytes]:
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                file = archive.extractfile(member) if name in names else None
                if file is not None:
                    found[name] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise _unusable(path, str(error)) from error
    lacking = [name for name in names if name not in found]
    if lacking:
        raise _unusable(path, f"it lacks {', '.join(lacking)}")
    return found


def _leaves(path: Path, meta: bytes) -> Mapping[int, tuple[str, str]]:
    """ILSVRC2012_ID → WordNet id and words, of the synsets without children."""
    # Slow to import, and only this command needs it.
    from scipy.io import loadmat

    try:
        synsets = np.atleast_1d(loadmat(io.BytesIO(meta), squeeze_me=True)["synsets"])
        leaves = {int(row["ILSVRC2012_ID"]): _named(row) for row in synsets if int(row["num_children"]) == 0}
    except Exception as error:  # scipy raises what its parser stumbles over
        raise _unusable(path, f"{_META} isn't the table of synsets ({error})") from error
    if not leaves:
        raise _unusable(path, f"{_META} has no synset without children")
    return leaves


def _named(row: Any) -> tuple[str, str]:
    return str(row["WNID"]), str(row["words"])


def _unusable(path: Path, problem: str) -> DataError:
    return DataError(
        f"Can't read the development kit {path}: {problem}. Received: {str(path)!r}. "
        f"Give the official {DEVKIT}; if it is that, download it again."
    )
