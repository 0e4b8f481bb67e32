"""From images in some order to the batches that a network reads: the `tf.data` pipeline."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from keras_qat.data.augmentation import Augmentation
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.skipped import Skipped
from keras_qat.data.sources import ImageSource
from keras_qat.errors import UserError

Prepare = Callable[[Any, Any, Any], Any]
"""From an image, its index and the number of the pass to what the network reads."""


def preparation(preprocessing: Preprocessing, augment: Augmentation | None, seed: int | None) -> Prepare:
    """What is done to each image.

    Args:
        preprocessing: of the network.
        augment: vary the image, each by (`seed`, number of the pass, its index).
        seed: of the order and the variation.

    Raises:
        UserError: `augment` is given without a seed.
    """
    if augment is None:
        return lambda image, index, number: preprocessing.prepare(image)  # noqa: ARG005
    if seed is None:
        raise UserError(
            "Only training images are varied, in an order of their own. Received: augment without shuffle_seed. "
            "Give a seed, or leave the augmentation out."
        )
    return lambda image, index, number: augment.prepare(image, preprocessing, (seed, number, index))


def batched(
    order: Any,
    source: ImageSource,
    labels: NDArray[np.int32],
    prepare: Prepare,
    batch_size: int,
    skipped: Skipped | None = None,
) -> Any:
    """Read the images in the given order, several at once, and put them into batches.

    Args:
        order: `tf.data.Dataset` of pairs of int64 scalars: index, number of the pass.
        source: of the images.
        labels: int32 array of shape (n,).
        prepare: what is done to each image.
        batch_size: images in a batch.
        skipped: leave out the images that can't be decoded, and count them there.

    Returns:
        `tf.data.Dataset` of (float32 images (b, size, size, channels), int32 labels (b,)).
    """
    read = source.reader() if skipped is None else source.reader(skipped)
    with tf.device("CPU:0"):
        classes = tf.constant(labels)

    def label(image: Any, index: Any, number: Any) -> tuple[Any, Any]:
        return prepare(image, index, number), tf.gather(classes, index)

    if skipped is None:
        images = order.map(lambda index, number: label(read(index), index, number), num_parallel_calls=tf.data.AUTOTUNE)
    else:
        images = (
            order.map(lambda index, number: (read(index), index, number), num_parallel_calls=tf.data.AUTOTUNE)
            .filter(lambda image, *_: tf.size(image) > 0)
            .map(label, num_parallel_calls=tf.data.AUTOTUNE)
        )
    options = tf.data.Options()
    options.deterministic = True
    return images.batch(batch_size).prefetch(tf.data.AUTOTUNE).with_options(options)
