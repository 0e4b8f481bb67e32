"""One image in a model file."""

from pathlib import Path

import numpy as np

from keras_qat.data import Preprocessing
from keras_qat.data.decode import decode_file
from keras_qat.evaluate_file.finite_scores import warn_unless_finite
from keras_qat.evaluate_file.open_model import open_model
from keras_qat.evaluation import Classification, class_scores, rank


def classify(
    file: Path,
    image: Path,
    *,
    engine: str | None = None,
    preprocessing: Preprocessing | None = None,
    k: int = 5,
    threads: int | None = None,
) -> Classification:
    """Classify one image.

    Args:
        file: the model file, or the folder of a SavedModel.
        image: an image file of any format that Pillow reads.
        engine: what runs the file; by its suffix if not given.
        preprocessing: what the file says by itself if not given.
        k: how many classes; all, if there are fewer.
        threads: of one inference; what the engine chooses if not given.

    Returns:
        The best classes.

    Raises:
        DataError: the image is missing or corrupt.
        StorageError: the model file is missing or corrupt.
        UserError: as from `open_model`, or `k` is under 1.
    """
    pixels = decode_file(image)
    model = open_model(file, engine=engine, threads=threads, preprocessing=preprocessing)
    with model.runtime as runtime:
        prepared = np.asarray(model.preprocessing.prepare(pixels))[np.newaxis]
        (scores,) = class_scores(runtime, prepared, model.meaning)
    warn_unless_finite(file, scores)
    return Classification(str(file), runtime.engine, runtime.device, str(image), rank(scores, model.class_names, k))
