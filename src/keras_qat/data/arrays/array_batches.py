"""The batches of arrays, as Keras reads them on every backend."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras

if TYPE_CHECKING:
    from keras_qat.data.arrays.array_set import ArraySet


class ArrayBatches(keras.utils.PyDataset):
    """Batches (x, y) of a set, in another order in each pass if there is a seed.

    Args:
        data: the set.
        batch_size: the number of samples in a batch; the last batch may have fewer.
        shuffle_seed: the seed of the orders; `None` for the order of the set.
        first_pass: the number of the first pass.
    """

    def __init__(self, data: "ArraySet", batch_size: int, shuffle_seed: int | None, first_pass: int) -> None:
        super().__init__()
        self._data = data
        self._batch_size = batch_size
        self._seed = shuffle_seed
        self._next_pass = first_pass
        self._order = data.order(shuffle_seed, first_pass)

    def __len__(self) -> int:
        """The number of batches in a pass."""
        return self._data.steps(self._batch_size)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """A batch of this pass."""
        if not 0 <= index < len(self):
            raise IndexError(f"There are {len(self)} batches. Received: index {index}.")
        begin = index * self._batch_size
        return self._data.read(self._order[begin : begin + self._batch_size])

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        """The batches of the next pass."""
        self.on_epoch_begin()
        for index in range(len(self)):
            yield self[index]

    def on_epoch_begin(self) -> None:
        """Begin the next pass. Keras calls `on_epoch_end` more often than epochs end, so that isn't counted."""
        self._order = self._data.order(self._seed, self._next_pass)
        self._next_pass += 1
