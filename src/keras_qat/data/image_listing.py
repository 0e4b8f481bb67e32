"""Images that a file or folder lists together with their labels, cut into those that train and those that judge."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.arrays.parts import TEST, TRAIN, VALIDATION
from keras_qat.data.image_files import opened, whole_files
from keras_qat.data.image_set import ImageSet
from keras_qat.data.image_targets import ImageTargets, MaskTargets
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.sources import FileSource
from keras_qat.data.splits import Labelled, Splits, cut_off, hold_out
from keras_qat.errors import DataError
from keras_qat.types import UNLABELLED

_LOOKED_AT = 20_000
"""The most images whose size is compared with that of their masks."""


@dataclass(frozen=True, eq=False)
class ImageListing:
    """Image files with labels, broken ones included.

    Args:
        name: what a report calls the data set.
        place: where the images are listed, for messages.
        paths: all n images.
        targets: labels that aren't classes; `None` if there are none.
        labels: int32 array of shape (n,): the class of each image; -1 where there are none. All -1 if not given.
        class_names: one name for each class.
        parts: {part: the indices of its images}; empty if the set is cut here.
    """

    name: str
    place: str
    paths: Sequence[str]
    targets: ImageTargets | None = None
    labels: NDArray[np.int32] | None = None
    class_names: tuple[str, ...] = ()
    parts: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def splits(self, preprocessing: Preprocessing, seed: int, skip_bad: bool) -> Splits:
        """The three sets: cut as listed, or as a folder of images is.

        Args:
            preprocessing: the preprocessing of the network.
            seed: the seed of the cut.
            skip_bad: leave out the images that are broken, or whose masks are.

        Raises:
            BrokenImageError: If a file is no image and `skip_bad` is not set.
            DataError: If a part is missing or too small.
        """
        train, validation = self._cut(seed)
        if TEST in self.parts and VALIDATION in self.parts:
            selection = self.parts[VALIDATION]
        else:
            kept, held_out = hold_out(self._classes[train], self.place, seed)
            train, selection = train[kept], train[held_out]
        whole = self._whole(np.arange(len(self.paths)), skip_bad)

        def image_set(indices: NDArray[np.int64], part: str) -> ImageSet:
            return self._image_set(indices[whole[indices]], f"{self.name}/{part}", preprocessing)

        return Splits(
            name=self.name,
            train=image_set(train, "train"),
            selection=image_set(selection, "selection"),
            validation=image_set(validation, self._judge),
            num_classes=len(self.class_names),
            class_names=self.class_names,
        )

    def validation(self, preprocessing: Preprocessing, seed: int, skip_bad: bool) -> Labelled:
        """The validation images of `splits` alone. Arguments and errors are those of `splits`."""
        indices = self._cut(seed)[1] if not self.parts or self._judge not in self.parts else self.parts[self._judge]
        whole = self._whole(indices, skip_bad)
        images = self._image_set(indices[whole], f"{self.name}/{self._judge}", preprocessing)
        return Labelled(images, self.class_names, int(np.sum(~whole)))

    @property
    def _classes(self) -> NDArray[np.int32]:
        return np.full(len(self.paths), UNLABELLED, np.int32) if self.labels is None else self.labels

    @property
    def _judge(self) -> str:
        """The part that judges."""
        return TEST if TEST in self.parts else VALIDATION

    def _cut(self, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The indices of the images that train, those held out for selection among them, and of those that judge."""
        if not self.parts or set(self.parts) == {TRAIN}:
            return cut_off(self._classes, self.place, seed)
        missing = next((part for part in (TRAIN, self._judge) if part not in self.parts), None)
        if missing is not None:
            raise DataError(
                f"{self.place} is cut into parts, and has no part {missing!r}. Received: {', '.join(self.parts)}. Give "
                "images that train and images that judge."
            )
        return self.parts[TRAIN], self.parts[self._judge]

    def _whole(self, indices: NDArray[np.int64], skip_bad: bool) -> NDArray[np.bool_]:
        """Which of the images, and of their masks, are whole."""
        whole = whole_files([self.paths[i] for i in indices], skip_bad)
        if isinstance(self.targets, MaskTargets):
            masks = [self.targets.paths[i] for i in indices]
            whole = whole & whole_files(masks, skip_bad)
            pairs = [(self.paths[i], mask) for i, mask, good in zip(indices, masks, whole, strict=True) if good]
            for image, mask in pairs if len(pairs) <= _LOOKED_AT else ():
                require_same_size(image, mask)
        return whole

    def _image_set(self, indices: NDArray[np.int64], name: str, preprocessing: Preprocessing) -> ImageSet:
        if not len(indices):
            raise DataError(
                f"Without the files that are no image nothing is left of {name}. Received: no whole image listed in "
                f"{self.place}. Replace some with whole images."
            )
        source = FileSource(tuple(self.paths[i] for i in indices))
        targets = None if self.targets is None else self.targets.select(indices)
        return ImageSet(name, self._classes[indices], source, preprocessing, targets)


def require_same_size(image: str, mask: str) -> None:
    """Refuse a mask of another size than its image, whose geometry it shares.

    Raises:
        DataError: If the sizes differ.
    """
    sizes = []
    for path in (image, mask):
        with opened(path, path, header_only=True) as opened_image:
            sizes.append(opened_image.size)
    if sizes[0] != sizes[1]:
        (width, height), (mask_width, mask_height) = sizes
        raise DataError(
            f"A mask must have the size of its image. Received: {mask!r} of {mask_width} x {mask_height} pixels, and "
            f"{image!r} of {width} x {height}. Resize the mask, without interpolating."
        )
