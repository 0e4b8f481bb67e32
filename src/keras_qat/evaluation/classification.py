"""The best classes of one image, according to a classifier in a file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat.data import Preprocessing, decode_file
from keras_qat.errors import require_whole
from keras_qat.evaluation.predictions import class_scores
from keras_qat.evaluation.served_model import open_model, warn_unless_finite
from keras_qat.files import to_json_value


@dataclass(frozen=True)
class RankedClass:
    """One of the best classes.

    Args:
        index: its number.
        name: its name, or its number if it has no name.
        score: its score, as the model writes it.
    """

    index: int
    name: str
    score: float


@dataclass(frozen=True)
class Classification:
    """The classes of one image, according to a model.

    Args:
        file: the model file.
        engine: the engine and its version.
        device: the device that it ran on.
        image: the image file.
        classes: the best classes, best first.
    """

    file: str
    engine: str
    device: str
    image: str
    classes: tuple[RankedClass, ...]

    def to_dict(self) -> dict[str, Any]:
        """The classification as JSON can hold it."""
        return dict(to_json_value(self))


def rank(scores: np.ndarray, names: tuple[str, ...], k: int) -> tuple[RankedClass, ...]:
    """The k best classes, best first; of classes with equal scores the first.

    Args:
        scores: shape (classes,).
        names: names of the classes. None of them is used if there are not as many names as scores.
        k: number of classes; all, if there are fewer.

    Raises:
        UserError: If `k` isn't a whole number of at least 1.

    Example:
        >>> rank(np.array([0.25, 0.75]), ("cat", "dog"), k=1)
        (RankedClass(index=1, name='dog', score=0.75),)
    """
    k = require_whole("k", k)
    known = names if len(names) == len(scores) else tuple(map(str, range(len(scores))))
    best = np.argsort(-scores, kind="stable")[:k]
    return tuple(RankedClass(int(i), known[i], float(scores[i])) for i in best)


def classify(
    file: Path,
    image: Path,
    *,
    engine: str | None = None,
    preprocessing: Preprocessing | None = None,
    k: int = 5,
    threads: int | None = None,
    trust: bool = False,
) -> Classification:
    """Classify one image.

    Args:
        file: the model file, or the folder of a SavedModel.
        image: an image file of any format that Pillow reads.
        engine: the engine that runs the file; chosen by its suffix if not given.
        preprocessing: how the image is prepared; see `open_model` if not given.
        k: number of classes; all, if there are fewer.
        threads: threads of one inference; the engine chooses if not given.
        trust: whether code in the file may run, as from `open_runtime`.

    Returns:
        The best classes.

    Raises:
        DataError: If the image is missing or corrupt.
        StorageError: If the model file is missing or corrupt.
        UserError: As from `open_model`, or if `k` is less than 1.
    """
    pixels = decode_file(image)
    model = open_model(file, engine=engine, threads=threads, preprocessing=preprocessing, trust=trust)
    with model.runtime as runtime:
        images: Any = model.preprocessing  # A classifier of images has one.
        prepared = np.asarray(images.prepare(pixels))[np.newaxis]
        (scores,) = class_scores(runtime, prepared, model.meaning)
    warn_unless_finite(file, scores)
    return Classification(str(file), runtime.engine, runtime.device, str(image), rank(scores, model.class_names, k))
