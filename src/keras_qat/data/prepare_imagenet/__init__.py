"""From the official archives of ImageNet to TFRecord shards."""

from keras_qat.data.prepare_imagenet.prepare import OFFICIAL, OFFICIAL_CLASSES, Prepared, prepare_imagenet

__all__ = ["OFFICIAL", "OFFICIAL_CLASSES", "Prepared", "prepare_imagenet"]
