"""Keras model → a checked ONNX file on disk."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx

from keras_qat.export.onnx.emit import emit
from keras_qat.export.onnx.stream import save_and_release
from keras_qat.storage import atomic_path
from keras_qat.targets import Target, find_target
from keras_qat.types import IoDtype, Normalization, Precision


def export_onnx(
    model: Any,
    path: str | Path,
    *,
    target: str | Target | None = None,
    opset: int | None = None,
    precision: Precision = "fp32",
    io_dtype: IoDtype = "float32",
    metadata: Mapping[str, str] | None = None,
    normalization: Normalization | None = None,
) -> Path:
    """Write a Keras model, float or quantized, as an ONNX file.

    The file passes ONNX's own checker and strict shape inference before it gets its name.

    Args:
        model: a Functional or Sequential `keras.Model`; FakeQuantize layers become Q/DQ pairs, quantized kernels int8.
        path: where to write.
        target: the engine whose preferences the file follows; `None` for a float model.
        opset: ONNX operator set, 13 to 21; 17 if not given. FP16 needs 19 or later, and takes 19.
        precision: "fp16" for a strongly typed file: what isn't quantized and all scales are float16. ONNX Runtime's CPU
            optimizer computes such a file wrongly; run it there with optimizations off.
        io_dtype: element type of inputs and outputs: "float32", or "float16" with FP16.
        metadata: texts for the file's `metadata_props`, by keys that begin with "keras_qat.".
        normalization: let the file read uint8 pixels, (batch, height, width, 3) of RGB or (batch, height, width, 1) of
            gray, and normalize them itself, in the type that its input would have; such as
            `Preprocessing.normalization`.

    Returns:
        The path.

    Raises:
        UnsupportedModelError: a layer has no converter, or numbers that FP16 doesn't hold.
        UserError: target, precision or opset is unknown, or they don't go together; `metadata` has another key;
            the model has not exactly one image input to normalize.
        StorageError: the file can't be written.

    Example:
        >>> import keras, tempfile
        >>> x = keras.Input((8, 8, 3), name="image")
        >>> model = keras.Model(x, keras.layers.Conv2D(4, 3, name="conv")(x))
        >>> export_onnx(model, Path(tempfile.mkdtemp()) / "model.onnx").stat().st_size > 0
        True
    """
    file = emit(
        model,
        target=None if target is None else find_target(target),
        opset=opset,
        precision=precision,
        io_dtype=io_dtype,
        metadata=metadata,
        normalization=normalization,
    )
    path = Path(path)
    with atomic_path(path) as temporary:
        save_and_release(file, temporary)
        onnx.checker.check_model(str(temporary), full_check=True)
    return path
