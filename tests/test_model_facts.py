"""What a model file expects, written and read back."""

import json
from pathlib import Path
from typing import Any

import keras
import onnx
import pytest

from keras_qat.data import Preprocessing
from keras_qat.errors import StorageError, UserError
from keras_qat.export import export_onnx
from keras_qat.models import ModelFacts, read_model_facts
from keras_qat.types import OutputTask

_FACTS = ModelFacts(Preprocessing("caffe", 8, 10, whole_pixels=True), embedded=True, class_names=("Äpfel", "pears"))


@pytest.fixture(scope="module")
def model() -> keras.Model:
    x = keras.Input((8, 8, 3), name="image")
    return keras.Model(x, keras.layers.Conv2D(2, 3, name="conv")(x))


def _with_metadata(path: Path, **changed: str) -> Path:
    file = onnx.load(path)
    metadata = {entry.key: entry.value for entry in file.metadata_props} | {
        f"keras_qat.{k}": v for k, v in changed.items()
    }
    onnx.helper.set_model_props(file, metadata)
    onnx.save(file, path)
    return path


@pytest.mark.parametrize("embedded", [True, False])
def test_an_onnx_file_holds_its_facts(model: keras.Model, embedded: bool, tmp_path: Path) -> None:
    facts = ModelFacts(_FACTS.preprocessing, embedded, _FACTS.class_names)
    path = export_onnx(model, tmp_path / "m.onnx", metadata=facts.metadata())
    assert read_model_facts(path) == facts
    # In the open, for readers that aren't ours.
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    assert json.loads(metadata["keras_qat.preprocessing"]) == {
        "mode": "caffe",
        "size": 8,
        "resize": 10,
        "whole_pixels": True,
        "channels": 3,
        "embedded": embedded,
    }
    assert json.loads(metadata["keras_qat.classes"]) == ["Äpfel", "pears"]


def test_weights_beside_the_file_are_not_needed(model: keras.Model, tmp_path: Path) -> None:
    path = export_onnx(model, tmp_path / "m.onnx", metadata=_FACTS.metadata())
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    (tmp_path / "weights.bin").unlink()
    assert read_model_facts(path) == _FACTS


def test_other_files_find_theirs_beside_them(tmp_path: Path) -> None:
    (tmp_path / "preprocessing.json").write_text(json.dumps(_FACTS.to_dict()), encoding="utf-8")
    # Engines are built from the ONNX file and read pixels like it; what Keras wrote reads normalized images.
    for name, embedded in {
        "qat.engine": True,
        "qat.xml": True,
        "qat.keras": False,
        "qat_saved_model": False,
    }.items():
        facts = read_model_facts(tmp_path / name)
        assert facts == ModelFacts(_FACTS.preprocessing, embedded, _FACTS.class_names)
        assert facts.reads == (_FACTS.preprocessing.raw() if embedded else _FACTS.preprocessing)


def test_facts_without_embedding_are_read_too(tmp_path: Path) -> None:
    value = {"preprocessing": {"mode": "tf", "size": 8, "resize": 8}, "classes": []}
    (tmp_path / "preprocessing.json").write_text(json.dumps(value))
    assert read_model_facts(tmp_path / "qat.xml") == ModelFacts(
        Preprocessing("tf", 8, 8), embedded=False, class_names=()
    )


def test_where_nobody_wrote_them_down_there_are_none(model: keras.Model, tmp_path: Path) -> None:
    assert read_model_facts(tmp_path / "model.keras") is None
    path = export_onnx(model, tmp_path / "m.onnx")
    (tmp_path / "preprocessing.json").write_text(json.dumps(_FACTS.to_dict()))
    assert read_model_facts(path) is None  # it may come from anywhere: only what it says itself counts


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"preprocessing": {"mode": "tf", "size": 8, "resize": 8}},
        {"preprocessing": {"mode": "tf"}, "classes": []},
        {"preprocessing": {"mode": "timm", "size": 8, "resize": 8}, "classes": []},
        {"preprocessing": "tf", "classes": []},
        {"preprocessing": {"mode": "tf", "size": 8, "resize": 8}, "classes": "cat"},
        {"preprocessing": {"mode": "tf", "size": 8, "resize": 8, "embedded": "yes"}, "classes": []},
    ],
)
def test_facts_that_make_no_sense_are_refused(value: Any, model: keras.Model, tmp_path: Path) -> None:
    (tmp_path / "preprocessing.json").write_text(json.dumps(value))
    with pytest.raises(UserError, match=r"Can't understand the preprocessing that .*preprocessing\.json names"):
        read_model_facts(tmp_path / "model.keras")
    if isinstance(value, dict) and "classes" in value:
        path = export_onnx(model, tmp_path / "m.onnx")
        _with_metadata(path, preprocessing=json.dumps(value["preprocessing"]), classes=json.dumps(value["classes"]))
        with pytest.raises(UserError, match=r"that .*m\.onnx names"):
            read_model_facts(path)


def test_unreadable_files(model: keras.Model, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"There is no such file\. Received: .*none\.onnx"):
        read_model_facts(tmp_path / "none.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(StorageError, match=r"broken\.onnx"):
        read_model_facts(tmp_path / "broken.onnx")
    path = _with_metadata(export_onnx(model, tmp_path / "m.onnx"), preprocessing="{")
    with pytest.raises(UserError, match=r"that .*m\.onnx names"):
        read_model_facts(path)
    (tmp_path / "preprocessing.json").write_text("{")
    with pytest.raises(UserError, match="isn't JSON"):
        read_model_facts(tmp_path / "model.keras")


def test_facts_of_other_models_than_classifiers(model: keras.Model, tmp_path: Path) -> None:
    """Several outputs, and arrays that are fed as they are."""
    tasks = (OutputTask("mask", "segmentation", "probability"), OutputTask("box", "regression"))
    facts = ModelFacts(None, embedded=False, class_names=(), tasks=tasks)
    assert (facts.reads, facts.normalize, facts.normalization) == (None, None, None)
    assert read_model_facts(export_onnx(model, tmp_path / "m.onnx", metadata=facts.metadata())) == facts
    (tmp_path / "preprocessing.json").write_text(json.dumps(facts.to_dict()), encoding="utf-8")
    assert read_model_facts(tmp_path / "m.xml") == facts
    assert "tasks" not in _FACTS.to_dict()


@pytest.mark.parametrize(
    ("tasks", "part"),
    [
        ([{"output": "mask", "kind": "detection"}], "`[0].kind` must be 'classification' or 'segmentation' or 'regr"),
        ([{"output": "mask"}], "`[0].kind` is missing"),
        ([{"output": "box", "kind": "regression", "scores": "logit"}], "a regression has none"),
        ("mask", "must be a list"),
    ],
)
def test_tasks_that_make_no_sense_are_refused(tasks: Any, part: str, tmp_path: Path) -> None:
    (tmp_path / "preprocessing.json").write_text(json.dumps({"classes": [], "tasks": tasks}))
    with pytest.raises(UserError, match=r"Received: ") as caught:
        read_model_facts(tmp_path / "m.xml")
    assert part in str(caught.value)


def test_only_a_known_preprocessing_can_be_embedded() -> None:
    with pytest.raises(ValueError, match=r"Received: preprocessing=None"):
        ModelFacts(None, embedded=True, class_names=())


def test_a_classifier_of_arrays_is_read_back(tmp_path: Path) -> None:
    facts = ModelFacts(None, embedded=False, class_names=("walk", "run"))
    (tmp_path / "preprocessing.json").write_text(json.dumps(facts.to_dict()))
    assert read_model_facts(tmp_path / "sensors.keras") == facts
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
    assert read_model_facts(export_onnx(model, tmp_path / "sensors.onnx", metadata=facts.metadata())) == facts
