"""Training images varied at random, by a random crop that is resized and by mirroring.

The crop is Inception's (Szegedy et al. 2014, https://arxiv.org/abs/1409.4842, section 6): its share of the image's area
is uniform, its aspect ratio log-uniform, its position uniform among those where it fits. The aspect ratio is drawn
around that of what evaluation shows the network: of the network's input, which cuts out its shape; or of the image, all
of which is squashed or letterboxed, as the crop is then.

Nothing here has a state. What is drawn for an image is a function of a seed, the number of the pass and the image's
index, so it doesn't depend on how many threads read, in which order, or where a run was resumed.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf

from keras_qat.data.geometry import Fit
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.errors import UserError
from keras_qat.types import AugmentationName

_ATTEMPTS = 10
"""The number of crops that are drawn for an image; a crop may not fit."""

_HALF = 0.5

_FLIP, _WINDOW = 0, 1
"""What random numbers are for."""

_GENERATOR = "philox"
"""Set explicitly, since TensorFlow's default depends on the device."""


@dataclass(frozen=True)
class Augmentation:
    """How training images are varied; calibration and evaluation never are.

    Args:
        crop_area: the smallest and largest share of the image's area that is cut out and fitted to the network's
            input; `None` for what evaluation shows the network.
        aspect: the smallest and largest ratio of the crop's width to its height, relative to that of a square input; of
            an oblong input, or of the image if the preprocessing squashes or letterboxes it.
        flip: mirror an image, left to right, with a probability of one half.

    Raises:
        UserError: If a range begins with the larger number, `crop_area` is not within (0, 1], or `aspect` is not
            positive and finite.

    Example:
        >>> import numpy as np
        >>> image = np.zeros((20, 30, 3), "uint8")
        >>> varied = Augmentation().prepare(image, Preprocessing("tf", 8, 8), seed=(1, 0, 5))
        >>> varied.shape, float(varied[0, 0, 0])
        (TensorShape([8, 8, 3]), -1.0)
    """

    crop_area: tuple[float, float] | None = (0.08, 1.0)
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = True

    def __post_init__(self) -> None:
        """Refuse ranges that no crop can have."""
        if self.crop_area is not None and not 0 < self.crop_area[0] <= self.crop_area[1] <= 1:
            raise UserError(
                "`crop_area` must be two shares of the image, above 0 and at most 1, the smaller one first. "
                f"Received: crop_area={self.crop_area}. Give such as (0.35, 1.0)."
            )
        if not 0 < self.aspect[0] <= self.aspect[1] < math.inf:
            raise UserError(
                "`aspect` must be two ratios of width to height, above 0, the smaller one first. "
                f"Received: aspect={self.aspect}. Give such as (0.75, 1.33)."
            )

    def prepare(self, image: Any, preprocessing: Preprocessing, seed: tuple[Any, Any, Any]) -> Any:
        """Vary, resize and normalize one image; runs inside `tf.data`, in place of `Preprocessing.prepare`.

        Args:
            image: uint8 RGB tensor of shape (height, width, 3), of any height and width.
            preprocessing: the preprocessing of the network.
            seed: three integers: the seed of the run, the number of the pass, and the index of the image.

        Returns:
            float32 tensor of shape (height, width, channels).
        """
        return preprocessing.finish(self._vary(image, preprocessing, seed, Preprocessing.crop))

    def prepare_mask(self, mask: Any, preprocessing: Preprocessing, seed: tuple[Any, Any, Any]) -> Any:
        """Vary and resize the class map of an image as `prepare` does the image, in place of `Preprocessing.crop_mask`.

        Args:
            mask: tensor of integers of shape (height, width, 1), of the height and width of its image.
            preprocessing: the preprocessing of the network.
            seed: that of the image.

        Returns:
            int32 tensor of shape (height, width, 1).
        """
        return self._vary(mask, preprocessing, seed, Preprocessing.crop_mask)

    def _vary(
        self, image: Any, preprocessing: Preprocessing, seed: tuple[Any, Any, Any], crop: Callable[[Any, Any], Any]
    ) -> Any:
        """Draw a part of an image or mask, fit it to the input by `crop`, and mirror one in two."""
        image = tf.convert_to_tensor(image)
        if self.crop_area is None:
            pixels = crop(preprocessing, image)
        else:
            height, width = tf.unstack(tf.shape(image)[:2])
            fitted, aspect = _FITTED[preprocessing.fit](preprocessing, height, width)
            top, left, rows, columns = self.window(height, width, seed, aspect)
            pixels = crop(fitted, tf.slice(image, (top, left, 0), (rows, columns, -1)))
        if self.flip:
            pixels = tf.cond(_uniform(seed, _FLIP, ()) < _HALF, lambda: pixels[:, ::-1], lambda: pixels)
        return pixels

    def window(
        self, height: Any, width: Any, seed: tuple[Any, Any, Any], aspect: Any = 1.0
    ) -> tuple[Any, Any, Any, Any]:
        """Draw the crop of an image.

        The first of ten draws that fits is taken. If none fits, as in an image that is far longer than `aspect` allows,
        it is the largest crop of the centre whose aspect ratio is allowed.

        Args:
            height: the height of the image in pixels, an int32 scalar.
            width: the width of the image in pixels, an int32 scalar.
            seed: as for `prepare`.
            aspect: the ratio of width to height that the crop has on average.

        Returns:
            Top, left, rows and columns in pixels: int32 scalars.
        """
        least_area, most_area = self.crop_area or (1.0, 1.0)
        h, w = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
        draws = _uniform(seed, _WINDOW, (_ATTEMPTS, 4))
        area = _between(least_area, most_area, draws[:, 0]) * h * w
        drawn = tf.exp(_between(math.log(self.aspect[0]), math.log(self.aspect[1]), draws[:, 1])) * aspect
        rows, columns = tf.round(tf.sqrt(area / drawn)), tf.round(tf.sqrt(area * drawn))
        fits = (rows >= 1) & (columns >= 1) & (rows <= h) & (columns <= w)
        # The last candidate is the crop of the centre, which always fits.
        rows = tf.concat([rows, [tf.minimum(h, tf.round(w / (self.aspect[0] * aspect)))]], 0)
        columns = tf.concat([columns, [tf.minimum(w, tf.round(h * (self.aspect[1] * aspect)))]], 0)
        places = tf.concat([draws[:, 2:], [[_HALF, _HALF]]], 0)
        chosen = tf.argmax(tf.concat([fits, [True]], 0))
        rows, columns, place = tf.maximum(rows[chosen], 1), tf.maximum(columns[chosen], 1), places[chosen]
        free = tf.stack([h - rows, w - columns])
        top_left = tf.minimum(tf.floor(place * (free + 1)), free)
        top, left, rows, columns = tf.unstack(tf.cast(tf.concat([top_left, [rows, columns]], 0), tf.int32))
        return top, left, rows, columns


def _onto_the_input(p: Preprocessing, _height: Any, _width: Any) -> tuple[Preprocessing, Any]:
    return replace(p, fit="squash", resize=min(p.height, p.width)), p.width / p.height


def _as_the_image(p: Preprocessing, height: Any, width: Any) -> tuple[Preprocessing, Any]:
    return p, tf.cast(width, tf.float32) / tf.cast(height, tf.float32)


_FITTED: Mapping[Fit, Callable[[Preprocessing, Any, Any], tuple[Preprocessing, Any]]] = {
    "crop": _onto_the_input,
    "squash": _as_the_image,
    "letterbox": _as_the_image,
}
"""From the preprocessing, and height and width of an image, to how its crop becomes the input, and its aspect ratio."""


AUGMENTATIONS: Mapping[AugmentationName, Augmentation | None] = {
    "none": None,
    "flip": Augmentation(crop_area=None),
    "crop": Augmentation(crop_area=(0.35, 1.0)),
}
"""The choices of the command line. Fine-tuning starts from a trained network and needs less variety than 0.08 gives."""


def find_augmentation(name: str) -> Augmentation | None:
    """Look up an augmentation by its name; that of `"none"` is `None`.

    Raises:
        UserError: If the name is not known.

    Example:
        >>> find_augmentation("flip")
        Augmentation(crop_area=None, aspect=(0.75, 1.3333333333333333), flip=True)
    """
    for known, augmentation in AUGMENTATIONS.items():
        if name == known:
            return augmentation
    raise UserError(f"Unknown augmentation. Received: {name!r}. Use one of: {', '.join(AUGMENTATIONS)}.")


def _uniform(seed: tuple[Any, Any, Any], purpose: int, shape: tuple[int, ...]) -> Any:
    """Random numbers in [0, 1) that depend on the seed and the purpose alone."""
    run, number, index = (tf.cast(part, tf.int64) for part in seed)
    key = tf.stack([run, number])
    for part in (index, tf.constant(purpose, tf.int64)):
        key = tf.random.experimental.stateless_fold_in(key, part, alg=_GENERATOR)
    return tf.random.stateless_uniform(shape, key, alg=_GENERATOR)


def _between(least: float, most: float, share: Any) -> Any:
    return least + (most - least) * share
