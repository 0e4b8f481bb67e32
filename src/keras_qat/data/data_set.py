"""What every data set can do, whatever its items are and wherever they lie: the protocol that the stages read."""

from collections.abc import Iterator
from typing import Any, Protocol

from numpy.typing import NDArray
from typing_extensions import Self

from keras_qat.types import TaskKind


class DataSet(Protocol):
    """Inputs of a model, mostly with labels.

    A batch is a pair (x, y). x is one array of shape (batch, …), or a tuple of arrays in the order of the model's
    inputs where it has several. y is one array, or a tuple of arrays in the order of the outputs where there are labels
    for several:

        int32 (batch,)         the class of each input; -1 for all inputs of a set without labels
        int32 (batch, …)       the class of each position; -1 and 255 for a position without a class
        float32 (batch, …)     the numbers of a regression

    `ImageSet` and `ArraySet` are such sets.
    """

    @property
    def name(self) -> str:
        """What a report calls the set, such as `"digits/validation"`."""

    @property
    def labels(self) -> NDArray[Any]:
        """int32 array of shape (n,): the class of each input; -1 where labels aren't classes of whole inputs."""

    @property
    def labelled(self) -> bool:
        """Whether there are labels of any kind."""

    @property
    def label_kinds(self) -> tuple[TaskKind, ...]:
        """What the labels for each output say; empty without labels."""

    @property
    def preprocessing(self) -> Any:
        """The `Preprocessing` of the images; `None` where arrays are fed as they are."""

    def __len__(self) -> int:
        """The number of inputs."""

    def steps(self, batch_size: int) -> int:
        """The number of batches in one pass; the last batch may be smaller."""

    def batches(
        self,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        first_pass: int = 0,
        skipped: Any = None,
        augment: Any = None,
    ) -> Any:
        """Batches (x, y) for `model.fit`: a `tf.data.Dataset` or a `keras.utils.PyDataset`.

        Args:
            batch_size: the number of inputs in a batch; the last batch of a pass may have fewer.
            shuffle_seed: draw the order of each pass from this seed and the number of the pass.
            first_pass: the number of the first pass, to resume an interrupted training.
            skipped: a `Skipped`, which counts the images that can't be decoded, and leaves them out.
            augment: the `Augmentation` of training images.
        """

    def arrays(
        self, batch_size: int, *, shuffle_seed: int | None = None, skipped: Any = None
    ) -> Iterator[tuple[Any, Any]]:
        """One pass over the batches, as NumPy arrays. Arguments are those of `batches`."""

    def take(self, n: int, seed: int) -> Self:
        """A random subset of `n`, its classes in proportion as far as `n` allows."""

    def select(self, indices: NDArray[Any], name: str | None = None) -> Self:
        """The inputs at `indices`, in that order, under another name if one is given."""

    def fingerprint(self) -> str:
        """A digest of these inputs and labels in this order; preprocessing doesn't count."""
