"""A data set cut into what trains, what chooses, and what judges.

Training images held out of training, to choose the best epoch by.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.image_set import ImageSet, stratified_cut
from keras_qat.errors import DataError


@dataclass(frozen=True, eq=False)
class Splits:
    """Three disjoint sets of images.

    Args:
        name: what a report calls the data set.
        train: for calibration and training.
        selection: held out of training; chooses the best epoch.
        validation: touched only to report accuracy.
        num_classes: the classes a network for this data tells apart; 0 where the images have no labels.
        class_names: one name for each class, in the order of the labels; none where there are no labels.
    """

    name: str
    train: ImageSet
    selection: ImageSet
    validation: ImageSet
    num_classes: int
    class_names: tuple[str, ...]

    def fingerprints(self) -> dict[str, str]:
        """What tells each set from others, by its name."""
        return {name: getattr(self, name).fingerprint() for name in ("train", "selection", "validation")}


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images to judge a network by.

    Args:
        images: with the labels' indices in `class_names`.
        class_names: one name for each class; empty where only the classes of these images are known, and there may be
            more of them, and where the images have no labels.
        skipped: images that were left out already, since they are broken.
    """

    images: ImageSet
    class_names: tuple[str, ...]
    skipped: int = 0


_SHARE = 0.1

_MOST = 5000
"""As many tell two epochs apart; each epoch waits for them."""


def hold_out(whole: ImageSet, name: str, where: Path, seed: int) -> tuple[ImageSet, ImageSet]:
    """Part a training set: a tenth, but at most 5000 images, as stratified as it can be, is held out.

    Args:
        whole: all training images.
        name: of the images held out.
        where: they lie, for the message.
        seed: of the choice.

    Returns:
        The images that train and those held out, both in the order of `whole`.

    Raises:
        DataError: nothing would be left to train.

    Example:
        >>> from keras_qat.data import Preprocessing
        >>> black = np.zeros((20, 8, 8, 3), "uint8")
        >>> whole = ImageSet.from_arrays("all", black, [0, 1] * 10, Preprocessing("tf", 8, 8))
        >>> train, selection = hold_out(whole, "selection", Path("photos/train"), seed=0)
        >>> len(train), len(selection)
        (18, 2)
    """
    train, selection = held_out(whole.labels, where, seed)
    return whole.select(train), whole.select(selection, name)


def held_out(labels: NDArray[np.int32], where: Path, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The same of labels alone: the indices of the images that train and of those held out, both int64 and sorted.

    Raises:
        DataError: nothing would be left to train.
    """
    train, selection = stratified_cut(labels, _SHARE, _MOST, seed)
    if not len(train):
        raise DataError(
            f"{where} is too small to hold out images that choose the best epoch. "
            f"Received: {len(labels)} image(s). Give at least 2, better some hundreds."
        )
    return train, selection
