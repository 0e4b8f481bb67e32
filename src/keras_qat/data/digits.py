"""The embedded data set: 1797 handwritten digits that ship with scikit-learn, so nothing is downloaded."""

import numpy as np

from keras_qat.data.image_set import ImageSet
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.splits import Splits

_INK_LEVELS = 16
_VALIDATION_SHARE = 0.2
_SELECTION_SHARE = 0.1


def load_digits_splits(preprocessing: Preprocessing, seed: int) -> Splits:
    """Load the digits: 70% to train, 10% to choose the best epoch, 20% to validate, stratified.

    The 8x8 images are kept as they are and resized to the network's input as they are read.

    Args:
        preprocessing: of the network; `preprocessing.for_size(32)` keeps it small.
        seed: of the split.

    Returns:
        1257 training, 180 selection and 360 validation images of ten classes.

    Example:
        >>> splits = load_digits_splits(Preprocessing("caffe", 32, 32), seed=0)
        >>> len(splits.train), len(splits.selection), len(splits.validation)
        (1257, 180, 360)
    """
    # Slow to import, and only this data set needs it.
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    gray = np.rint(digits.images * (255 / _INK_LEVELS)).astype(np.uint8)
    everything = ImageSet.from_arrays(
        "digits", np.repeat(gray[..., np.newaxis], 3, axis=-1), digits.target, preprocessing
    )
    indices = np.arange(len(everything))
    labels = everything.labels
    rest, validation = train_test_split(indices, test_size=_VALIDATION_SHARE, stratify=labels, random_state=seed)
    train, selection = train_test_split(
        rest, test_size=round(_SELECTION_SHARE * len(indices)), stratify=labels[rest], random_state=seed
    )
    return Splits(
        name="digits",
        train=everything.select(train, "digits/train"),
        selection=everything.select(selection, "digits/selection"),
        validation=everything.select(validation, "digits/validation"),
        num_classes=10,
        class_names=tuple(str(name) for name in digits.target_names),
    )
