"""A data set cut into what trains, what chooses the best epoch, and what judges."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.stratified import stratified_cut
from keras_qat.errors import DataError

FINGERPRINTS = "2"
"""The version of the fingerprints of images, which a run keeps. Those of version 1 did not read the images."""

_SHARE = 0.1
"""The share of the training images that is held out."""

_MOST = 5000
"""The most images that are held out: 5000 tell two epochs apart, and each epoch waits for them."""

_VALIDATION_SHARE, _MOST_VALIDATION = 0.2, 1000
"""1000 images tell a point of agreement or accuracy; more than that are of more use to choose ranges by."""

_FEWEST = 5
"""One image for validation, one for selection, and a few to choose ranges by."""


@dataclass(frozen=True, eq=False)
class Splits:
    """Three disjoint sets, of images or arrays: each has the methods of `DataSet`.

    Args:
        name: what a report calls the data set.
        train: the images for calibration and training.
        selection: the images held out of training, which choose the best epoch.
        validation: the images that are used only to report accuracy.
        num_classes: the number of classes of a network for this data; 0 if labels aren't classes of whole images, or
            there are none.
        class_names: one name for each class, in the order of the labels; empty likewise.
    """

    name: str
    train: Any
    selection: Any
    validation: Any
    num_classes: int
    class_names: tuple[str, ...]

    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each set, by its name, and the version of the fingerprints."""
        digests = {name: getattr(self, name).fingerprint() for name in ("train", "selection", "validation")}
        return {"version": FINGERPRINTS, **digests}


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images to judge a network by.

    Args:
        images: the images or arrays, with the methods of `DataSet`; labels that are classes are indices in
            `class_names`.
        class_names: one name for each class. Empty if labels aren't classes of whole images, or there are none, or if
            only the classes of these images are known and there may be more.
        skipped: the number of broken images that were left out already.
    """

    images: Any
    class_names: tuple[str, ...]
    skipped: int = 0


def cut_off(
    labels: NDArray[np.int32], place: str | Path, seed: int, unit: str = "image"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Cut off a fifth of the images, at most 1000, to judge by, as stratified as possible.

    Args:
        labels: int32 array of shape (n,): the labels of all images.
        place: where the images are, for the error message.
        seed: the seed of the choice.
        unit: what a message counts.

    Returns:
        The indices of the images that stay and of those that judge, both int64 and sorted.

    Raises:
        DataError: If there are fewer than 5 images.

    Example:
        >>> rest, judge = cut_off(np.zeros(20, np.int32), "photos", seed=0)
        >>> len(rest), len(judge)
        (16, 4)
    """
    if len(labels) < _FEWEST:
        raise DataError(
            f"{place} has too few {unit}s to cut them into some that calibrate and some that judge. "
            f"Received: {len(labels)} {unit}(s). Give at least {_FEWEST}, better some hundreds."
        )
    return stratified_cut(labels, _VALIDATION_SHARE, _MOST_VALIDATION, seed)


def hold_out(
    labels: NDArray[np.int32], folder: str | Path, seed: int, unit: str = "image"
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Hold out a tenth of the training images, at most 5000, as stratified as possible.

    Args:
        labels: int32 array of shape (n,): the labels of all training images.
        folder: where the images are, for the error message.
        seed: the seed of the choice.
        unit: what a message counts.

    Returns:
        The indices of the images that train and of those held out, both int64 and sorted.

    Raises:
        DataError: If no image would be left to train.

    Example:
        >>> train, selection = hold_out(np.array([0, 1] * 10, np.int32), Path("photos/train"), seed=0)
        >>> len(train), len(selection)
        (18, 2)
    """
    train, selection = stratified_cut(labels, _SHARE, _MOST, seed)
    if not len(train):
        raise DataError(
            f"{folder} is too small to hold out {unit}s that choose the best epoch. "
            f"Received: {len(labels)} {unit}(s). Give at least 2, better some hundreds."
        )
    return train, selection
