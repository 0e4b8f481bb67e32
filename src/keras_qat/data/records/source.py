"""Images in TFRecord shards, read one by one in any order."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.decode import decode_bytes
from keras_qat.data.records.bad_record import ADVICE, record_error
from keras_qat.data.records.framing import read_record
from keras_qat.data.records.layout import bytes_of, parse_features
from keras_qat.data.skipped import Skipped
from keras_qat.data.sources import decoding_reader, digest
from keras_qat.errors import BrokenImageError, DataError


@dataclass(frozen=True, eq=False)
class RecordSource:
    """Images in the records of shards, decoded when they are read.

    Args:
        paths: the shards.
        image: the feature that holds an encoded image.
        shard: int32 (n,): the index in `paths` of each image's shard.
        offset: int64 (n,): where in the shard its record begins, in bytes.
        length: int64 (n,): bytes of the record's payload.
    """

    paths: tuple[str, ...]
    image: str
    shard: NDArray[np.int32]
    offset: NDArray[np.int64]
    length: NDArray[np.int64]

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.offset)

    def select(self, indices: NDArray[np.int64]) -> "RecordSource":
        """The images at `indices`, in that order."""
        return replace(self, shard=self.shard[indices], offset=self.offset[indices], length=self.length[indices])

    def fingerprint(self) -> str:
        """A digest of the shards' names and of where each record lies."""
        names = "\n".join(Path(path).name for path in self.paths)
        return digest(names.encode(), *(array.tobytes() for array in (self.shard, self.offset, self.length)))

    def reader(self, skipped: Skipped | None = None) -> Callable[[Any], Any]:
        """A function from an index to the decoded image."""
        return decoding_reader(self._decode, skipped)

    def encoded(self, index: int) -> bytes:
        """The bytes of the image file that the record holds.

        Raises:
            DataError: the shard changed since it was indexed.
        """
        path, offset = self.paths[self.shard[index]], int(self.offset[index])
        features = parse_features(read_record(path, offset, int(self.length[index])))
        data = None if features is None else bytes_of(features, self.image)
        if data is None:
            raise record_error(path, offset, f"it has no {self.image!r}")
        return data

    def _decode(self, index: int) -> NDArray[np.uint8]:
        name = f"{self.paths[self.shard[index]]} (record at byte {self.offset[index]})"
        try:
            return decode_bytes(self.encoded(index), name, ADVICE)
        except BrokenImageError as error:
            # Too late to do without: only the records are looked at beforehand, not the images in them.
            raise DataError(str(error)) from error
