"""Images and labels: the embedded digits, folders of your own, or TFRecord shards."""

from keras_qat.data.augmentation import AUGMENTATIONS, Augmentation, find_augmentation
from keras_qat.data.decode import decode_errors
from keras_qat.data.image_set import ImageSet
from keras_qat.data.load import DATA_SETS, load_data, load_validation
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.records import load_records
from keras_qat.data.skipped import Skipped
from keras_qat.data.splits import Labelled, Splits

__all__ = [
    "AUGMENTATIONS",
    "DATA_SETS",
    "Augmentation",
    "ImageSet",
    "Labelled",
    "Preprocessing",
    "Skipped",
    "Splits",
    "decode_errors",
    "find_augmentation",
    "load_data",
    "load_records",
    "load_validation",
]
