"""The digits, image folders, and what a user can get wrong about them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import sklearn.datasets
from PIL import Image

from keras_qat.data import Preprocessing, decode_errors, decode_file, load_data
from keras_qat.data.class_numbers import imagenet_classes
from keras_qat.errors import DataError

_SMALL = Preprocessing("tf", 16, 16)


def _save(path: Path, level: int = 128, mode: str = "RGB", size: tuple[int, int] = (20, 24)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).convert(mode).save(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three classes, 8 train images and 2 validation images each."""
    for i, name in enumerate(["ant", "bee", "cat"]):
        for k in range(8):
            _save(tmp_path / "train" / name / f"{k}.png", level=80 * i)
        for k in range(2):
            _save(tmp_path / "val" / name / f"{k}.JPEG", level=80 * i)
    (tmp_path / "train" / ".DS_Store").write_text("x")
    (tmp_path / "train" / "ant" / ".hidden").write_text("x")
    return tmp_path


def test_digits_are_scikit_learns_split_without_overlap() -> None:
    splits = load_data("digits", _SMALL.for_size(8), seed=0)
    parts = (splits.train, splits.selection, splits.validation)
    assert [len(part) for part in parts] == [1257, 180, 360]
    assert splits.num_classes == 10
    assert splits.class_names == tuple("0123456789")
    for part in parts:
        assert np.all(np.abs(np.bincount(part.labels) / len(part) - 0.1) < 0.02)
    images = np.concatenate([x for part in parts for x, _ in part.arrays(500)])
    ink = np.sort(np.rint((images[..., 0] + 1) * 8).reshape(-1, 64), axis=0)
    np.testing.assert_array_equal(ink, np.sort(sklearn.datasets.load_digits().data, axis=0))
    again = load_data("Digits", _SMALL.for_size(8), seed=0)
    np.testing.assert_array_equal(again.validation.labels, splits.validation.labels)


def test_folder_classes_are_numbered_in_sorted_order(folder: Path) -> None:
    splits = load_data(folder, _SMALL, seed=0)
    assert splits.class_names == ("ant", "bee", "cat")
    assert splits.num_classes == 3
    assert [len(s) for s in (splits.train, splits.selection, splits.validation)] == [22, 2, 6]
    assert not set(splits.train.source.paths) & set(splits.selection.source.paths)
    for part in (splits.train, splits.selection, splits.validation):
        for images, labels in part.arrays(5):
            np.testing.assert_allclose((images.mean((1, 2, 3)) + 1) * 127.5, labels * 80, atol=1)
    again = load_data(str(folder), _SMALL, seed=0)
    assert again.selection.source.paths == splits.selection.source.paths


def test_selection_is_stratified(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for k in range(20):
            _save(tmp_path / "train" / name / f"{k}.png", size=(4, 4))
        _save(tmp_path / "val" / name / "0.png", size=(4, 4))
    for seed in range(3):
        selection = load_data(tmp_path, _SMALL, seed).selection
        np.testing.assert_array_equal(np.bincount(selection.labels), [2, 2])


def test_wordnet_ids_become_imagenets_labels(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for wnid in ("n01440764", "n15075141"):
            _save(tmp_path / split / wnid / "x.jpg")
    splits = load_data(tmp_path, _SMALL, seed=0)
    assert splits.num_classes == len(splits.class_names) == 1000
    assert splits.validation.labels.tolist() == [0, 999]
    assert splits.class_names[999] == "toilet tissue"


def test_packaged_classes_are_sorted_wordnet_ids() -> None:
    wnids = list(imagenet_classes())
    assert len(set(wnids)) == 1000
    assert wnids == sorted(wnids)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: root.rename(root.with_name("gone")), r"no data set or folder.*'digits'"),
        (lambda root: (root / "val").rename(root / "validation"), "it has no val/ folder"),
        (lambda root: (root / "train").rename(root / "t"), "it has no train/ folder"),
        (lambda root: _save(root / "val" / "dog" / "0.png"), "that .*train lacks. Received: 'dog'"),
        (lambda root: (root / "train" / "elk").mkdir(), "elk has no image"),
        (lambda root: (root / "train" / "ant" / "a.txt").write_text("x"), "isn't an image.*a.txt"),
        (lambda root: (root / "train" / "ant" / "sub").mkdir(), "isn't an image.*sub"),
        (lambda root: (root / "val" / "bee" / "fake.jpg").write_text("<html>"), "Can't read.*fake.jpg"),
        (lambda root: _save(root / "train" / "stray.png"), "outside of a class folder.*stray.png"),
    ],
)
def test_folder_errors_name_what_is_wrong(folder: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(folder)
    with pytest.raises(DataError, match=message):
        load_data(folder, _SMALL, seed=0)


def test_folder_without_class_folders_or_with_one_image(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "val").mkdir()
    with pytest.raises(DataError, match="has no class folder"):
        load_data(tmp_path, _SMALL, seed=0)
    _save(tmp_path / "train" / "a" / "0.png")
    _save(tmp_path / "val" / "a" / "0.png")
    with pytest.raises(DataError, match="too small to hold out"):
        load_data(tmp_path, _SMALL, seed=0)


def test_unknown_wordnet_id(tmp_path: Path) -> None:
    for split in ("train", "val"):
        _save(tmp_path / split / "n99999999" / "x.jpg")
    with pytest.raises(DataError, match=r"aren't among ImageNet's.*'n99999999'"):
        load_data(tmp_path, _SMALL, seed=0)


@pytest.mark.parametrize(
    ("suffix", "mode"),
    [
        ("JPEG", "RGB"),
        ("jpg", "L"),
        ("jpg", "CMYK"),
        ("png", "RGBA"),
        ("png", "P"),
        ("png", "I;16"),
        ("png", "1"),
        ("gif", "P"),
        ("bmp", "RGB"),
        ("webp", "RGB"),
    ],
)
def test_decodes_every_mode_to_rgb(tmp_path: Path, suffix: str, mode: str) -> None:
    path = tmp_path / f"x.{suffix}"
    if mode == "I;16":
        Image.fromarray(np.full((24, 20), 255 * 257, np.uint16)).save(path)
    else:
        _save(path, level=255, mode=mode)
    image = decode_file(path)
    assert (image.dtype, image.shape) == (np.uint8, (24, 20, 3))
    assert image.min() >= 250


@pytest.mark.parametrize("consume", ["arrays", "predict"])
def test_truncated_image_is_named(folder: Path, consume: str) -> None:
    broken = folder / "val" / "cat" / "1.JPEG"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(broken, "JPEG")
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    validation = load_data(folder, _SMALL, seed=0).validation
    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten()])
    consumers = {
        "arrays": lambda: list(validation.arrays(4)),
        "predict": lambda: model.predict(validation.batches(4), verbose=0),
    }
    with (
        pytest.raises(DataError, match=r"Can't read the image .*val/cat/1.JPEG: .*truncated") as raised,
        decode_errors(),
    ):
        consumers[consume]()
    assert "\n" not in str(raised.value)


def test_a_file_deleted_after_listing_is_named(folder: Path) -> None:
    validation = load_data(folder, _SMALL, seed=0).validation
    (folder / "val" / "ant" / "0.JPEG").unlink()
    with pytest.raises(DataError, match=r"ant/0.JPEG: .*No such file"):
        list(validation.arrays(4))


def test_other_errors_pass_through() -> None:
    with pytest.raises(ZeroDivisionError), decode_errors():
        _ = 1 / 0


def test_imagenet_mini(shared_data: Path) -> None:
    splits = load_data(shared_data / "imagenet-mini", _SMALL, seed=0)
    assert [len(s) for s in (splits.train, splits.selection, splits.validation)] == [900, 100, 500]
    assert np.unique(splits.validation.labels, return_counts=True)[1].tolist() == [50] * 10
    few = splits.validation.take(20, seed=0)
    assert np.unique(few.labels, return_counts=True)[1].tolist() == [2] * 10
    assert next(few.arrays(20))[0].shape == (20, 16, 16, 3)
