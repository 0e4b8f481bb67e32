"""Run a model over images; keep the best classes of every image, and the scores of the first images.

A model file is fed images in its own type and in batches of its own size, or random numbers where no images are needed.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from keras_qat.errors import DataError, UserError, require_whole
from keras_qat.graph import per_class
from keras_qat.machine import memory
from keras_qat.progress import track
from keras_qat.runtimes import Runtime, TensorSpec
from keras_qat.text import size_text
from keras_qat.types import UNLABELLED, ScoreMeaning

_DRAWS: Mapping[str, Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]] = {
    "f": lambda random, shape: random.standard_normal(shape, np.float32),
    "u": lambda random, shape: random.integers(0, 256, shape, np.uint8),
    "i": lambda random, shape: random.integers(0, 128, shape, np.uint8),
    "b": lambda random, shape: random.integers(0, 2, shape, np.uint8),
}
"""{NumPy's kind of dtype: random numbers that every dtype of that kind can hold}."""


_WIDEST = 8
"""Bytes of the widest number that a model reads, for estimates of memory."""


def convert(images: np.ndarray, dtype: np.dtype, name: str = "image") -> np.ndarray:
    """Convert images to another type if that changes no image.

    Args:
        images: Images of any shape. An integer `dtype` needs whole numbers in its range, such as pixels for uint8.
        dtype: The type of the model's input.
        name: The name of the model's input, for the error message.

    Returns:
        The images in that type; the same array if it has that type already.

    Raises:
        DataError: If the integer type cannot hold a number, as with normalized images for an input of pixels.

    Example:
        >>> convert(np.array([0.0, 255.0]), np.dtype("uint8"))
        array([  0, 255], dtype=uint8)
    """
    images = np.asarray(images)
    if images.dtype == dtype or not np.issubdtype(dtype, np.integer):
        return np.asarray(images, dtype)
    limits = np.iinfo(dtype)
    # Comparisons with NaN are false.
    fits = (images >= limits.min) & (images <= limits.max) & (np.trunc(images) == images)
    if not fits.all():
        raise DataError(
            f"The input {name!r} reads whole numbers from {limits.min} to {limits.max} ({dtype}). Received: "
            f"{images.dtype} with {images[~fits].flat[0]:.6g}, from {images.min():.6g} to {images.max():.6g}. Give "
            "pixels that are not normalized (`Preprocessing.raw()`): the file normalizes them itself."
        )
    return images.astype(dtype)


def as_input(runtime: Runtime, images: np.ndarray) -> np.ndarray:
    """Return the images in the type of the model's first input, such as float16, or uint8 for whole pixels.

    Raises:
        DataError: If the model reads integers, and the images are not whole numbers that these can hold.
    """
    return convert(images, runtime.inputs[0].dtype, runtime.inputs[0].name)


def fixed_batch(specs: Sequence[TensorSpec]) -> int | None:
    """Return the batch size that a model was made for; `None` if it accepts any.

    Args:
        specs: The model's inputs. The batch is the first dimension.

    Returns:
        The first dimension of the first input that has dimensions, or 1 if no input has any. `None` if the first
        dimension of any input is dynamic.

    Example:
        >>> float32 = np.dtype("float32")
        >>> fixed_batch([TensorSpec("image", (4, 8, 8, 3), float32)])
        4
        >>> fixed_batch([TensorSpec("image", (None, 8, 8, 3), float32), TensorSpec("scale", (1,), float32)])
    """
    firsts = [spec.shape[0] for spec in specs if spec.shape]
    return None if None in firsts else next(iter(firsts), 1)


def random_inputs(
    specs: Sequence[TensorSpec], batch: int, *, seed: int = 0, model: str = "model"
) -> tuple[np.ndarray, ...]:
    """Draw an array for each input: normal floats, unsigned integers from 0 to 255, signed integers from 0 to 127.

    Args:
        specs: The model's inputs. A dynamic first dimension is the batch.
        batch: The size of the batch.
        seed: The seed of the random numbers.
        model: The model's name, for the error message.

    Returns:
        One array for each input, of its dtype.

    Raises:
        UserError: If a dimension other than the first is dynamic, a size is below 1, a dtype is neither boolean,
            integer nor float, or the numbers would not fit in memory.

    Example:
        >>> (image,) = random_inputs([TensorSpec("image", (None, 8, 8, 3), np.dtype("uint8"))], 2)
        >>> image.shape, image.dtype
        ((2, 8, 8, 3), dtype('uint8'))
    """
    shapes = [tuple(batch if size is None else size for size in spec.shape) for spec in specs]
    require_memory(sum(2 * _WIDEST * math.prod(shape) for shape in shapes), f"{model} at batch size {batch}")
    random = np.random.default_rng(seed)
    return tuple(_draw(random, spec, batch, model) for spec in specs)


def require_memory(needed: int, what: str) -> None:
    """Refuse arrays that would not fit in memory, before the system ends the process for them.

    Args:
        needed: number of bytes.
        what: what they are for, for the error message.

    Raises:
        UserError: If fewer bytes are available.

    Example:
        >>> require_memory(2**60, "int8.onnx at batch size 1048576")
        Traceback (most recent call last):
        keras_qat.errors.UserError: One batch doesn't fit in memory: it takes 1152921504.6 GB. Received: int8.onnx ...
    """
    available = memory().available
    if needed > available:
        raise UserError(
            f"One batch doesn't fit in memory: it takes {size_text(needed)}. Received: {what}, with "
            f"{size_text(available)} available. Give a smaller batch size."
        )


def _draw(random: np.random.Generator, spec: TensorSpec, batch: int, model: str) -> np.ndarray:
    if None in spec.shape[1:]:
        raise UserError(
            "Only the batch, the first dimension, may be dynamic: random input needs all other sizes. "
            f"Received: {spec} in {model}. Export the model with a fixed input size."
        )
    if any(size is not None and size < 1 for size in spec.shape):
        raise UserError(
            f"A model that reads nothing can't be run. Received: {spec} in {model}. Export the model with sizes of at "
            "least 1."
        )
    if spec.dtype.kind not in _DRAWS:
        raise UserError(
            "There are no random numbers of that type. "
            f"Received: {spec} in {model}. Export a model that reads floats, integers or booleans."
        )
    shape = tuple(batch if size is None else size for size in spec.shape)
    return _DRAWS[spec.dtype.kind](random, shape).astype(spec.dtype)


_SCORED = 256
"""The number of images whose scores are kept. The scores of ImageNet's whole validation set are 200 MB."""

_EQUAL_DB = 200.0
"""The SQNR of equal scores."""


@dataclass(frozen=True)
class Predictions:
    """The best classes of every image, in the order of the data.

    Args:
        classes: The best classes of each image, best first, int, shape (images, number of classes kept).
        labels: The labels, int, shape (images,); all -1 if they are unknown.
        scores: The scores of the first images, one for each class, float32, shape (up to 256 images, classes); `None`
            if they were not kept.
    """

    classes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None

    @property
    def labelled(self) -> bool:
        """Whether the classes of the images are known."""
        return not len(self.labels) or bool(np.any(self.labels != UNLABELLED))

    def accuracy(self, k: int = 1) -> float | None:
        """Return the share of images whose label is among the best `k` classes, 0 to 1; `None` without labels.

        Example:
            >>> classes = np.array([[2, 0], [1, 2]])
            >>> Predictions(classes, np.array([0, 1])).accuracy(1), Predictions(classes, np.array([-1, -1])).accuracy(1)
            (0.5, None)
        """
        return float(np.mean(self.right(k))) if self.labelled else None

    def right(self, k: int = 1) -> np.ndarray:
        """Return whether the label is among the best `k` classes, bool, shape (images,).

        Raises:
            DataError: If the images have no labels.
        """
        if not self.labelled:
            raise DataError(
                f"Without labels nothing is right or wrong. Received: {len(self.labels)} images with the label "
                f"{UNLABELLED}. Compare with another model's predictions by `agreement`, or give labels."
            )
        hits: np.ndarray = np.any(self.classes[:, :k] == self.labels[:, np.newaxis], axis=1)
        return hits

    def agreement(self, other: "Predictions") -> float:
        """Return the share of images for which both have the same best class, 0 to 1.

        Raises:
            DataError: If the two were not made on the same images.
        """
        return float(np.mean(self.agreeing(other)))

    def agreeing(self, other: "Predictions") -> np.ndarray:
        """Return whether both have the same best class, bool, shape (images,).

        Raises:
            DataError: If the two were not made on the same images.
        """
        self._require_same_images(other)
        same: np.ndarray = self.classes[:, 0] == other.classes[:, 0]
        return same

    def sqnr(self, reference: "Predictions") -> float | None:
        """Return the signal-to-quantization-noise ratio of the kept scores in dB; `None` if it is not defined.

            SQNR = 10 log₁₀ (Σ r² / Σ (r - x)²),   at most 200 dB, where r are the reference's scores and x these.

        Raises:
            DataError: If the two were not made on the same images.

        Example:
            >>> r, x = (Predictions(np.array([[0]]), np.array([0]), np.array([[s, 0.0]])) for s in (1.0, 0.9))
            >>> round(x.sqnr(r), 3)
            20.0
        """
        self._require_same_images(reference)
        if self.scores is None or reference.scores is None:
            return None
        r, x = reference.scores.astype(np.float64), self.scores.astype(np.float64)
        signal, noise = float(np.sum(r**2)), float(np.sum((r - x) ** 2))
        if not (np.isfinite(noise) and signal > 0):
            return None
        return min(10 * float(np.log10(signal / noise)), _EQUAL_DB) if noise else _EQUAL_DB

    def _require_same_images(self, other: "Predictions") -> None:
        if not np.array_equal(self.labels, other.labels):
            raise DataError(
                "Only predictions on the same images can be compared. "
                f"Received: {len(self.labels)} and {len(other.labels)} images with different labels."
            )


def predict(
    runtime: Runtime,
    batches: Iterable[tuple[np.ndarray, np.ndarray]],
    *,
    description: str = "evaluating",
    total: int = 0,
    best: int = 5,
    meaning: ScoreMeaning = "classes",
) -> Predictions:
    """Score all images.

    Args:
        runtime: The model in an engine, with one input and one output.
        batches: Pairs (images, labels): float32, shape (batch, height, width, channels), and int, shape (batch,).
        description: What is being done, for the progress bar.
        total: The number of batches, for the progress bar.
        best: How many of the best classes of each image are kept; all if there are fewer.
        meaning: What the model's scores mean.

    Raises:
        DataError: If there are no images, if they do not fit the model, or if the model has several outputs.
        UserError: If `best` isn't a whole number of at least 1.
    """
    best = require_whole("best", best)
    classes: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    kept: list[np.ndarray] = []
    for images, truth in track(batches, description, total or None):
        scores = class_scores(runtime, images, meaning)
        classes.append(np.argsort(-scores, axis=1, kind="stable")[:, :best])
        labels.append(np.asarray(truth))
        room = _SCORED - sum(len(s) for s in kept)
        if room > 0:
            kept.append(scores[:room])
    if not classes:
        raise DataError("There is nothing to evaluate on. Received: 0 images. Give at least one batch.")
    return Predictions(np.concatenate(classes), np.concatenate(labels), np.concatenate(kept))


def class_scores(runtime: Runtime, images: np.ndarray, meaning: ScoreMeaning = "classes") -> np.ndarray:
    """Score a batch, whatever types the model reads and writes and whatever batch size it was made for.

    Args:
        runtime: The model in an engine, with one input and one output.
        images: Images, float32, shape (batch, height, width, channels). A model with a fixed batch is given batches of
            that size. The last one is filled up with zeros, whose scores are dropped.
        meaning: What the model's scores mean.

    Returns:
        Float32, shape (batch, classes); two classes for a model with a single score.

    Raises:
        DataError: If the model has several outputs, if there are no images, or if they do not fit the model.
    """
    if len(runtime.outputs) != 1:
        raise DataError(
            "Only a model with one output has class scores. "
            f"Received: outputs {', '.join(spec.name for spec in runtime.outputs)}. Give a classifier."
        )
    if not len(images):
        raise DataError("There is nothing to score. Received: a batch of 0 images. Give at least one.")
    size = fixed_batch(runtime.inputs) or len(images)
    scores = [_run(runtime, images[start : start + size], size) for start in range(0, len(images), size)]
    by_class: np.ndarray = per_class(np.asarray(np.concatenate(scores), np.float32), meaning)
    return by_class


def _run(runtime: Runtime, images: np.ndarray, batch: int) -> np.ndarray:
    missing = batch - len(images)
    filled = np.concatenate([images, np.zeros((missing, *images.shape[1:]), images.dtype)]) if missing else images
    (scores,) = runtime.run(as_input(runtime, filled))
    return scores[: len(images)]
