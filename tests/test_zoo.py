"""The networks, their weights, and the ways in which a file of weights is wrong."""

from pathlib import Path
from typing import Any, NoReturn

import keras
import numpy as np
import pytest

from keras_qat.data import Preprocessing
from keras_qat.errors import UserError, WeightsError
from keras_qat.models import SEED_MODELS, Builder, ZooEntry, build_model, find, names, register
from keras_qat.models import zoo as registry

# Keras 3.15 itself, when it saves a model under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept:DeprecationWarning")


def _tiny_builder(width: int, depth: int = 1) -> Builder:
    def build(*, size: int, num_classes: int) -> Any:
        inputs = x = keras.Input((size, size, 3))
        for _ in range(depth):
            x = keras.layers.Conv2D(width, 3, padding="same")(x)
            x = keras.layers.BatchNormalization()(x)
        x = keras.layers.GlobalAveragePooling2D()(x)
        x = keras.layers.Dense(num_classes, activation="softmax", name="head")(x)
        return keras.Model(inputs, x, name=f"tiny{width}x{depth}")

    return build


_EIGHT = Preprocessing("tf", 8, 8)
_TINY = ZooEntry(
    "tiny",
    _tiny_builder(4),
    _EIGHT,
    pretrained=lambda: _tiny_builder(4)(size=16, num_classes=1000),
    url="https://example.com/tiny",
)


def _build(weights: str | Path | None, entry: ZooEntry = _TINY, num_classes: int = 5, size: int = 8) -> Any:
    return build_model(entry, weights=weights, num_classes=num_classes, size=size)


@pytest.fixture
def trained() -> Any:
    """Other values in every tensor than a fresh model has."""
    model = _build(None)
    random = np.random.default_rng(0)
    model.set_weights([random.random(w.shape, np.float32) for w in model.get_weights()])
    return model


def _assert_same(model: Any, expected: Any) -> None:
    for ours, theirs in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("asked", "mode", "size", "resize", "top1"),
    [
        ("resnet50", "caffe", 224, 256, 75.05),
        ("ResNet101", "caffe", 224, 256, 76.47),
        ("resnet152", "caffe", 224, 256, None),
        ("ResNet50V2", "tf", 299, 342, 75.36),
        ("RESNET101V2", "tf", 299, 342, 76.89),
        ("resnet152v2", "tf", 299, 342, None),
    ],
)
def test_find_resnets(asked: str, mode: str, size: int, resize: int, top1: float | None) -> None:
    entry = find(asked)
    assert entry.name == asked.lower()
    assert entry.preprocessing == Preprocessing(mode, size, resize)
    assert entry.reference_top1 == top1


def test_seed_models_are_known() -> None:
    assert set(SEED_MODELS) <= set(names())


def test_unknown_name_suggests_a_known_one() -> None:
    with pytest.raises(UserError, match=r"Received: 'resnet-50'. Did you mean 'resnet50'\? Known: .*resnet50v2"):
        find("resnet-50")


def test_register(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    assert register(_TINY) is find("TINY")
    with pytest.raises(UserError, match="taken"):
        register(_TINY)
    with pytest.raises(UserError, match="lower case"):
        register(ZooEntry("Tiny2", _TINY.build, _EIGHT))


def test_resnet_is_keras_applications_network() -> None:
    model = build_model(find("resnet50v2"), weights=None, num_classes=7, size=32)
    reference = keras.applications.ResNet50V2(weights=None, classes=7, input_shape=(32, 32, 3))
    assert [type(a) for a in model.layers] == [type(b) for b in reference.layers]
    assert model.count_params() == reference.count_params()
    assert model.input_shape == (None, 32, 32, 3)
    assert np.asarray(model(np.zeros((2, 32, 32, 3)))).sum(-1) == pytest.approx([1, 1], abs=1e-5)


def test_too_small_an_input_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"resnet50 can't be built: .*Received: size=8"):
        build_model(find("resnet50"), weights=None, num_classes=2, size=8)


def test_builder_with_the_wrong_output_is_a_user_error() -> None:
    def _ignores_classes(*, size: int, num_classes: int) -> Any:  # noqa: ARG001
        return _tiny_builder(4)(size=size, num_classes=3)

    entry = ZooEntry("bad", _ignores_classes, _EIGHT)
    with pytest.raises(UserError, match=r"output shape \(None, 3\) for num_classes=5"):
        _build(None, entry)


@pytest.mark.parametrize("name", ["w.weights.h5", "model.keras", "model.h5"])
@pytest.mark.filterwarnings("ignore:.*legacy")
def test_weights_round_trip(tmp_path: Path, trained: Any, name: str) -> None:
    path = tmp_path / name
    save = trained.save_weights if name == "w.weights.h5" else trained.save
    save(path)
    _assert_same(_build(path), trained)
    _assert_same(_build(str(path), size=16), trained)


def test_weights_saved_with_an_optimizer_load(tmp_path: Path, trained: Any) -> None:
    trained.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    trained.fit(np.zeros((2, 8, 8, 3)), np.zeros(2), verbose=0)
    path = tmp_path / "w.weights.h5"
    trained.save_weights(path)
    _assert_same(_build(path), trained)


def test_imagenet_weights_are_copied_to_another_size() -> None:
    model = _build("imagenet", num_classes=1000, size=8)
    assert model.input_shape == (None, 8, 8, 3)


def test_failed_download_gives_advice() -> None:
    def fail() -> NoReturn:
        raise Exception("URL fetch failure on https://x: None")  # noqa: TRY002 - what Keras raises

    entry = ZooEntry("tiny", _TINY.build, _EIGHT, pretrained=fail, url="https://example.com/tiny")
    with pytest.raises(WeightsError, match=r"URL fetch failure.*Download the file elsewhere \(https://ex"):
        _build("imagenet", entry, num_classes=1000)
    with pytest.raises(WeightsError, match="1000 classes, the data have 5"):
        _build("imagenet", entry)
    with pytest.raises(WeightsError, match="has no ImageNet weights"):
        _build("imagenet", ZooEntry("tiny", _TINY.build, _EIGHT))


@pytest.mark.parametrize("name", ["gone.weights.h5", "gone.keras", "w.onnx", "folder.h5"])
def test_missing_or_unknown_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "w.onnx").write_bytes(b"x")
    (tmp_path / "folder.h5").mkdir()
    with pytest.raises(WeightsError, match=rf"Received: '.*{name}'. Give a .weights.h5, .h5 or .keras"):
        _build(tmp_path / name)


@pytest.mark.parametrize("name", ["w.weights.h5", "model.keras"])
@pytest.mark.parametrize("share", [0, 0.5, 0.95])
def test_truncated_file(tmp_path: Path, trained: Any, name: str, share: float) -> None:
    path = tmp_path / name
    (trained.save_weights if name == "w.weights.h5" else trained.save)(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    said = "truncated" if name == "w.weights.h5" else "whole zip archive"
    with pytest.raises(WeightsError, match=rf"{said}.*Received: '.*{name}'\. .*it again"):
        _build(path)


@pytest.mark.parametrize("name", ["w.weights.h5", "model.keras"])
@pytest.mark.parametrize("builder", [_tiny_builder(8), _tiny_builder(4, depth=2)])
def test_weights_of_another_network(tmp_path: Path, name: str, builder: Builder) -> None:
    other, path = builder(size=8, num_classes=5), tmp_path / name
    (other.save_weights if name == "w.weights.h5" else other.save)(path)
    with pytest.raises(WeightsError, match=rf"not those of tiny4x1: .*Received: .*{name}"):
        _build(path)


@pytest.mark.parametrize("name", ["w.weights.h5", "model.keras"])
def test_weights_for_other_classes(tmp_path: Path, trained: Any, name: str) -> None:
    path = tmp_path / name
    (trained.save_weights if name == "w.weights.h5" else trained.save)(path)
    with pytest.raises(WeightsError, match="for 5 classes, but tiny4x1 is built for 9"):
        _build(path, num_classes=9)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite(tmp_path: Path, trained: Any, value: float) -> None:
    head = trained.get_layer("head")
    head.kernel.assign(np.where(np.eye(4, 5) > 0, value, head.kernel))
    trained.save_weights(tmp_path / "w.weights.h5")
    with pytest.raises(WeightsError, match="4 of 20 numbers in head/kernel of tiny4x1"):
        _build(tmp_path / "w.weights.h5")


@pytest.mark.parametrize(
    ("name", "num_classes", "message"),
    [
        ("resnet101", 1000, "not those of resnet101: they hold 320 tensors"),
        ("resnet50v2", 1000, "not those of resnet50v2"),
        ("resnet50", 10, "for 1000 classes, but resnet50 is built for 10"),
    ],
)
def test_real_weights_in_the_wrong_network(shared_data: Path, name: str, num_classes: int, message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        build_model(find(name), weights=shared_data / "resnet50_imagenet.weights.h5", num_classes=num_classes, size=32)


def test_real_weights(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "resnet50_imagenet.weights.h5"
    model = build_model(find("resnet50"), weights=path, num_classes=1000, size=32)
    reference = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3))
    reference.load_weights(path)
    _assert_same(model, reference)
    half = tmp_path / "half.weights.h5"
    half.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(WeightsError, match="truncated"):
        build_model(find("resnet50"), weights=half, num_classes=1000, size=32)
