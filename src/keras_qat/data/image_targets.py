"""Labels of images that aren't classes of whole images: class maps in files, and numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from typing_extensions import Self

from keras_qat.data.fingerprint import digest, digest_files
from keras_qat.data.masks import WHITE, decode_mask
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.errors import UserError
from keras_qat.types import TaskKind

if TYPE_CHECKING:
    from keras_qat.data.augmentation import Augmentation


class ImageTargets(Protocol):
    """The labels of an `ImageSet`; any object with these methods will do."""

    @property
    def kind(self) -> TaskKind:
        """What they say."""

    def select(self, indices: NDArray[np.int64]) -> Self:
        """The labels of the images at `indices`, in that order."""

    def fingerprint(self) -> str:
        """A digest of the labels."""

    def reader(
        self, preprocessing: Preprocessing, augment: "Augmentation | None", seed: int | None
    ) -> Callable[[Any, Any], Any]:
        """A function from the index of an image and the number of the pass to its label, for `tf.data`."""


@dataclass(frozen=True, eq=False)
class NumberTargets:
    """Numbers for each image: those of a regression.

    Args:
        values: float32 array of shape (n, …).
    """

    values: NDArray[np.float32]
    kind: ClassVar[TaskKind] = "regression"

    def select(self, indices: NDArray[np.int64]) -> "NumberTargets":
        """The numbers of the images at `indices`, in that order."""
        return NumberTargets(self.values[indices])

    def fingerprint(self) -> str:
        """A digest of the numbers."""
        return digest(str(self.values.shape).encode(), np.ascontiguousarray(self.values).tobytes())

    def reader(
        self,
        preprocessing: Preprocessing,  # noqa: ARG002
        augment: "Augmentation | None",
        seed: int | None,  # noqa: ARG002
    ) -> Callable[[Any, Any], Any]:
        """A function from an index to the numbers.

        Raises:
            UserError: If images are to be varied: whether the numbers are coordinates, which would move, isn't known.
        """
        if augment is not None:
            raise UserError(
                "Images whose labels are numbers can't be mirrored or cropped at random, since coordinates would have "
                f"to move with the pixels. Received: {augment}. Leave the augmentation out."
            )
        with tf.device("CPU:0"):
            values = tf.constant(self.values)
        return lambda index, number: tf.gather(values, index)  # noqa: ARG005


@dataclass(frozen=True, eq=False)
class MaskTargets:
    """A class map for each image, in a file, decoded when it is read and fitted to the input as the image is.

    Args:
        paths: one mask for each image.
        white: whether there are two classes, of which the second is white, 255.
    """

    paths: tuple[str, ...]
    white: bool
    kind: ClassVar[TaskKind] = "segmentation"

    def select(self, indices: NDArray[np.int64]) -> "MaskTargets":
        """The masks of the images at `indices`, in that order."""
        return MaskTargets(tuple(self.paths[i] for i in indices), self.white)

    def fingerprint(self) -> str:
        """A digest of the files."""
        return digest(str(self.white).encode(), digest_files(self.paths).encode())

    def reader(
        self, preprocessing: Preprocessing, augment: "Augmentation | None", seed: int | None
    ) -> Callable[[Any, Any], Any]:
        """A function from an index and the number of the pass to int32 classes of shape (height, width)."""

        def decode(index: Any) -> NDArray[np.int32]:
            mask = decode_mask(self.paths[int(index)])[..., np.newaxis]
            return np.asarray(mask == WHITE if self.white else mask, np.int32)

        def read(index: Any, number: Any) -> Any:
            mask = tf.numpy_function(decode, [index], tf.int32, stateful=False)
            mask.set_shape((None, None, 1))
            if augment is None:
                return preprocessing.crop_mask(mask)[..., 0]
            return augment.prepare_mask(mask, preprocessing, (seed, number, index))[..., 0]

        return read
