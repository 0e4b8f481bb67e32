"""Arrays as a data set: any number of inputs of any rank, with labels of any kind or none, on every Keras backend."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_qat.data import fingerprint, stratified
from keras_qat.data.arrays import fitting
from keras_qat.data.arrays.rows import ArrayRows, Rows, require_finite
from keras_qat.data.signature import Signature
from keras_qat.errors import MOST_IMAGES_AT_ONCE, UserError, require_whole
from keras_qat.types import UNLABELLED, TaskKind


@dataclass(frozen=True, eq=False)
class ArraySet:
    """Samples of arrays, fed to a model as they are.

    Args:
        name: what a report calls the set, such as `"sensors/validation"`.
        inputs: an array for each input of the model.
        targets: an array of labels for each output; none where there are no labels.
        indices: int64 array of shape (n,): the samples of these arrays that belong to the set.

    Example:
        >>> data = ArraySet.from_arrays("noise", np.zeros((5, 16, 3), "float32"), [0, 1, 0, 1, 0])
        >>> [(x.shape, y.tolist()) for x, y in data.arrays(3)]
        [((3, 16, 3), [0, 1, 0]), ((2, 16, 3), [1, 0])]
    """

    name: str
    inputs: tuple[Rows, ...]
    targets: tuple[Rows, ...]
    indices: NDArray[np.int64]

    @classmethod
    def from_arrays(cls, name: str, x: Any, y: Any = None, signature: Signature | None = None) -> "ArraySet":
        """Make a set from arrays in memory.

        Args:
            name: what a report calls the set.
            x: an array of shape (n, …), or a tuple or list of such arrays, one for each input of the model.
            y: labels, an array of shape (n, …); a tuple of such arrays for several outputs; `None` without labels.
            signature: what the model reads and answers, if it is known: arrays are checked and cast, and what the
                labels say is told by the shapes of the outputs.

        Raises:
            DataError: If arrays don't fit the model, have different lengths, or hold numbers that are not finite.
        """
        several = isinstance(x, tuple | list) and all(hasattr(array, "shape") for array in x)
        arrays = tuple(ArrayRows(np.asarray(a), f"input {i} of {name}") for i, a in enumerate(x if several else (x,)))
        labels = () if y is None else y if isinstance(y, tuple) else (y,)
        targets = tuple(ArrayRows(np.asarray(a), f"label {i} of {name}") for i, a in enumerate(labels))
        return cls.fitted(name, arrays, targets, signature)

    @classmethod
    def fitted(
        cls, name: str, inputs: Sequence[Rows], targets: Sequence[Rows], signature: Signature | None
    ) -> "ArraySet":
        """Make a set of all samples of arrays, checked and converted to what a model reads.

        Raises:
            DataError: If arrays don't fit the model, have different lengths, or hold numbers that are not finite.
        """
        fitting.require_same_length((*inputs, *targets), name)
        fitted = fitting.fit_inputs(inputs, signature, name)
        labels = fitting.fit_targets(targets, signature, name)
        return cls(name, fitted, labels, np.arange(fitted[0].shape[0]))

    def __len__(self) -> int:
        """The number of samples."""
        return len(self.indices)

    @property
    def preprocessing(self) -> None:
        """Nothing is done to arrays."""
        return

    @cached_property
    def labels(self) -> NDArray[np.int32]:
        """int32 array of shape (n,): the class of each sample; -1 where labels aren't classes of whole samples."""
        classes = next((target for target in self.targets if fitting.are_classes(target)), None)
        if classes is None:
            return np.full(len(self), UNLABELLED, np.int32)
        return np.asarray(classes.read(self.indices), np.int32)

    @property
    def labelled(self) -> bool:
        """Whether there are labels; where they are classes, one of them must be known."""
        classes_only = len(self.targets) == 1 and fitting.are_classes(self.targets[0])
        return bool(self.targets) and not (classes_only and len(self) and np.all(self.labels == UNLABELLED))

    @property
    def label_kinds(self) -> tuple[TaskKind, ...]:
        """What the labels for each output say; empty without labels."""
        return tuple(map(fitting.kind_of_labels, self.targets)) if self.labelled else ()

    def steps(self, batch_size: int) -> int:
        """The number of batches in one pass; the last batch may be smaller.

        Raises:
            UserError: If `batch_size` isn't a whole number from 1 to 65,536.
        """
        return -(-len(self) // require_whole("batch_size", batch_size, most=MOST_IMAGES_AT_ONCE))

    def order(self, shuffle_seed: int | None, number: int) -> NDArray[np.int64]:
        """The order of a pass, which `ImageSet` draws in the same way: 0, 1, 2 … without a seed.

        Args:
            shuffle_seed: the seed of all passes.
            number: the number of the pass.
        """
        if shuffle_seed is None:
            return np.arange(len(self))
        return np.random.default_rng((shuffle_seed, number)).permutation(len(self)).astype(np.int64)

    def read(self, places: NDArray[np.int64]) -> tuple[Any, Any]:
        """The batch (x, y) of the samples at some places of this set.

        Raises:
            DataError: If a sample can't be read, or holds a number that is not finite.
        """
        indices = self.indices[places]
        x, y = (tuple(_checked(rows, indices) for rows in part) for part in (self.inputs, self.targets))
        unlabelled = np.full(len(indices), UNLABELLED, np.int32)
        return x if len(x) > 1 else x[0], unlabelled if not y else y if len(y) > 1 else y[0]

    def batches(
        self,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        first_pass: int = 0,
        skipped: Any = None,  # noqa: ARG002 - nothing is decoded that could be broken
        augment: Any = None,
    ) -> Any:
        """Batches for `model.fit` and `model.predict`, on every backend.

        Args:
            batch_size: the number of samples in a batch; the last batch of a pass may have fewer.
            shuffle_seed: shuffle the samples, anew for each pass, from this seed and the number of the pass.
            first_pass: the number of the first pass, to resume an interrupted training.
            skipped: has no effect; broken images are left out of data sets of images.
            augment: must be `None`.

        Returns:
            `keras.utils.PyDataset` of batches (x, y), as `DataSet` describes them. Each epoch of `fit` and each loop
            over it is the next pass.

        Raises:
            UserError: If `batch_size` is less than 1, or `augment` is given.
        """
        from keras_qat.data.arrays.array_batches import ArrayBatches

        if augment is not None:
            raise UserError(
                f"Images of files are mirrored and cropped, arrays are not. Received: augment for {self.name}, a set "
                "of arrays. Leave it out, or give arrays that are varied already."
            )
        self.steps(batch_size)
        return ArrayBatches(self, batch_size, shuffle_seed, first_pass)

    def arrays(
        self,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        skipped: Any = None,  # noqa: ARG002 - as for `batches`
    ) -> Iterator[tuple[Any, Any]]:
        """One pass over the batches (x, y), as NumPy arrays.

        Raises:
            DataError: If a sample can't be read, or holds a number that is not finite.
            UserError: If `batch_size` is less than 1.
        """
        self.steps(batch_size)
        order = self.order(shuffle_seed, 0)
        for begin in range(0, len(self), batch_size):
            yield self.read(order[begin : begin + batch_size])

    def take(self, n: int, seed: int) -> "ArraySet":
        """A random subset, its classes in proportion as far as `n` allows.

        The samples come in random order. With the same seed, `take(m)` for m < n gives the first m of `take(n)`.

        Args:
            n: the number of samples; all are taken if there are fewer.
            seed: the same seed takes the same samples.

        Raises:
            UserError: If `n` isn't a whole number of at least 1.
        """
        n = require_whole("n", n)
        return self.select(stratified.stratified_order(self.labels, seed)[:n])

    def select(self, indices: NDArray[np.int64], name: str | None = None) -> "ArraySet":
        """The samples at `indices`, in that order, under another name if one is given."""
        return replace(self, name=name or self.name, indices=self.indices[indices])

    def unlabelled(self) -> "ArraySet":
        """The same samples without their labels."""
        return replace(self, targets=())

    def fingerprint(self) -> str:
        """A digest of these samples and labels in this order."""
        arrays = (rows.fingerprint().encode() for rows in (*self.inputs, *self.targets))
        return fingerprint.digest(self.indices.astype(np.int64).tobytes(), *arrays)


def _checked(rows: Rows, indices: NDArray[np.int64]) -> NDArray[Any]:
    array = rows.read(indices)
    require_finite(array, rows.place, indices)
    return array
