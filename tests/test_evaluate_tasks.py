"""`evaluate` on models that aren't classifiers of images: what their outputs say is found out, and judged."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from keras_qat import export_onnx
from keras_qat.errors import DataError, UnsupportedModelError
from keras_qat.evaluation import EvaluationSettings, OutputScores, evaluate_file
from keras_qat.report import evaluation_notes
from keras_qat.runtimes import KerasRuntime, open_runtime

layers = keras.layers
COUNT = 20
RNG = np.random.default_rng(0)


def sensors(*last: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    x = layers.Conv1D(4, 3, activation="relu")(signal := keras.Input((16, 2), name="signal"))
    return keras.Model(signal, last[-1](x) if len(last) == 1 else last[1](last[0](x)))


def save(folder: Path, model: keras.Model, **arrays: np.ndarray) -> tuple[Path, str]:
    """An ONNX file that says nothing of its outputs, and its data, all of which judge."""
    values: dict[str, Any] = {f"{name}_val": array for name, array in arrays.items()}
    np.savez(folder / "data.npz", **values)
    return export_onnx(model, folder / "model.onnx"), str(folder / "data.npz")


def outputs_of(path: Path, x: np.ndarray) -> np.ndarray:
    with open_runtime(path) as runtime:
        return runtime.run(x)[0]


def evaluated(path: Path, data: str) -> OutputScores:
    (file,) = evaluate_file(EvaluationSettings(path, data, batch_size=8)).files
    assert (file.top1, file.top_k) == (None, None)
    (scores,) = file.outputs
    return scores


def test_four_numbers_are_no_four_classes(tmp_path: Path) -> None:
    x, y = RNG.normal(size=(COUNT, 16, 2)).astype("float32"), RNG.normal(size=(COUNT, 4)).astype("float32")
    path, data = save(tmp_path, sensors(layers.Flatten(), layers.Dense(4)), x=x, y=y)
    scores = evaluated(path, data)
    assert scores.kind == "regression"
    assert scores.value("mae") == pytest.approx(np.mean(np.abs(outputs_of(path, x) - y)), rel=1e-5)


def test_four_logits_are_with_labels_of_classes(tmp_path: Path) -> None:
    x, y = RNG.normal(size=(COUNT, 16, 2)).astype("float32"), RNG.integers(0, 4, COUNT)
    path, data = save(tmp_path, sensors(layers.Flatten(), layers.Dense(4)), x=x, y=y)
    evaluation = evaluate_file(EvaluationSettings(path, data, batch_size=8))
    top1 = evaluation.files[0].top1
    assert top1 is not None
    assert (top1.count, top1.images) == (int(np.sum(outputs_of(path, x).argmax(1) == y)), COUNT)
    assert evaluation.files[0].to_dict()["preprocessing"] is None


@pytest.mark.parametrize(("activation", "found"), [("sigmoid", 0.5), (None, 0.0)])
def test_one_score_for_each_position(activation: str | None, found: float, tmp_path: Path) -> None:
    x, y = RNG.normal(size=(COUNT, 16, 2)).astype("float32"), RNG.integers(0, 2, (COUNT, 14, 1))
    path, data = save(tmp_path, sensors(layers.Conv1D(1, 1, activation=activation)), x=x, y=y)
    scores = evaluated(path, data)
    assert scores.kind == "segmentation"
    assert scores.value("pixel_accuracy") == pytest.approx(np.mean((outputs_of(path, x) > found) == y))


def test_a_position_score_without_a_known_end_is_refused(tmp_path: Path) -> None:
    x, y = RNG.normal(size=(COUNT, 16, 2)).astype("float32"), RNG.integers(0, 2, (COUNT, 14, 1))
    path, data = save(tmp_path, sensors(layers.Conv1D(1, 1, activation="tanh")), x=x, y=y)
    with pytest.raises(UnsupportedModelError, match="this file doesn't show which"):
        evaluate_file(EvaluationSettings(path, data))


def test_a_reconstruction_is_compared_without_labels(tmp_path: Path) -> None:
    x = RNG.uniform(size=(COUNT, 16, 2)).astype("float32")
    model = sensors(layers.Conv1DTranspose(2, 3, activation="sigmoid"))
    path, data = save(tmp_path, model, x=x)
    model.save(tmp_path / "model.keras")
    (first, _) = evaluate_file(EvaluationSettings(path, data, compare=tmp_path / "model.keras")).files
    assert (first.outputs[0].kind, set(first.outputs[0].figures)) == (
        "regression", {"sqnr", "mean_error", "largest_error", "cosine"},
    )  # fmt: skip
    assert first.outputs[0].value("sqnr") > 80  # type: ignore[operator]


@pytest.fixture
def masked(tmp_path: Path) -> tuple[Path, Path, np.ndarray, np.ndarray]:
    """A segmenter of two classes that reads images / 255, and images with masks, some pixels of which have no class."""
    images = RNG.integers(0, 256, (6, 8, 12, 3), np.uint8)
    masks = np.where(RNG.random((6, 8, 12)) < 0.1, 255, RNG.integers(0, 2, (6, 8, 12))).astype(np.uint8)
    for name in ("images", "masks"):
        (tmp_path / "val" / name).mkdir(parents=True)
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        Image.fromarray(image).save(tmp_path / "val" / "images" / f"{i}.png")
        Image.fromarray(mask).save(tmp_path / "val" / "masks" / f"{i}.png")
    keras.utils.set_random_seed(0)
    x = keras.Input((8, 12, 3))
    mask = layers.Conv2D(2, 3, padding="same", activation="softmax")(layers.Rescaling(1 / 255)(x))
    keras.Model(x, mask).save(tmp_path / "model.keras")
    return tmp_path / "model.keras", tmp_path, images, masks


def test_masks_of_oblong_images(masked: tuple[Path, Path, np.ndarray, np.ndarray]) -> None:
    path, data, images, masks = masked
    evaluation = evaluate_file(EvaluationSettings(path, str(data), batch_size=4))
    (scores,) = evaluation.files[0].outputs
    (made,) = KerasRuntime.load(path).run(images.astype("float32"))
    counted = masks != 255
    assert (scores.kind, scores.images) == ("segmentation", 6)
    assert scores.value("pixel_accuracy") == pytest.approx(np.mean((made.argmax(-1) == masks)[counted]))
    assert "samples/s, batch 4." in " ".join(evaluation_notes(evaluation))


def test_a_mask_of_more_classes_than_the_model(masked: tuple[Path, Path, np.ndarray, np.ndarray]) -> None:
    path, data, _, masks = masked
    Image.fromarray(masks[0] | 4).save(data / "val" / "masks" / "0.png")
    with pytest.raises(DataError, match="Received: "):
        evaluate_file(EvaluationSettings(path, str(data), batch_size=4))
