"""Images with masks, and images that a CSV file lists with classes, numbers or masks."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_qat.data import (
    AUGMENTATIONS,
    ArraySpec,
    Preprocessing,
    Signature,
    Skipped,
    load_data,
    load_validation,
    reads_images,
)
from keras_qat.data.masks import decode_mask
from keras_qat.errors import DataError, UserError

RAW = Preprocessing("raw", 16, 16)
LEVEL = 80
"""The gray of the pixels of class 1; those of class c have c times as much."""


def _segmenter(classes: int) -> Signature:
    return Signature((ArraySpec("image", (None, 16, 16, 3)),), (ArraySpec("mask", (None, 16, 16, classes)),))


def _regressor(numbers: int) -> Signature:
    return Signature((ArraySpec("image", (None, 16, 16, 3)),), (ArraySpec("y", (None, numbers)),))


def _blocks(i: int, size: tuple[int, int], classes: int = 3) -> np.ndarray:
    """Classes in blocks of 20 pixels, others for each i."""
    random = np.random.default_rng(i).integers(0, classes, (size[0] // 20, size[1] // 20))
    return np.kron(random, np.ones((20, 20), int)).astype(np.uint8)


def _save_image(path: Path, classes: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(classes[..., None] * LEVEL, 3, -1).astype(np.uint8)).save(path)


def _save_mask(path: Path, classes: np.ndarray, form: str = "gray") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if form == "palette":
        mask = Image.fromarray(classes).convert("L")
        mask.putpalette([v for c in range(256) for v in (255 - c, 7 * c % 256, c)])
    elif form == "gray of 16 bits":
        mask = Image.fromarray(classes.astype(np.uint16))
    elif form == "equal channels":
        mask = Image.fromarray(np.repeat(classes[..., None], 3, -1))
    elif form == "black and white":
        mask = Image.fromarray((classes > 0).astype(np.uint8) * 255)
    elif form == "two levels":
        mask = Image.fromarray(classes > 0)
    else:
        mask = Image.fromarray(classes)
    mask.save(path)


FORMS = ("gray", "palette", "gray of 16 bits", "equal channels")


def _write_masks(root: Path, n: int, forms: Sequence[str] = FORMS, ending: str = "") -> Path:
    """Write n pairs, with masks of all forms in turn."""
    for i in range(n):
        classes = _blocks(i, (60, 80))
        _save_image(root / "images" / f"{i:02d}.png", classes)
        _save_mask(root / "masks" / f"{i:02d}{ending}.png", classes, forms[i % len(forms)])
    return root


def _agreement(data: Any, classes: int = 3, **options: Any) -> float:
    """The share of pixels inside blocks whose class is what the gray of the image says; the others lie on borders."""
    right = inside = 0
    for image, mask in data.batches(4, **options).as_numpy_iterator():
        assert (mask.dtype, mask.shape[1:]) == (np.int32, image.shape[1:3])
        gray = image[..., 0] / LEVEL
        said = np.minimum(np.rint(gray), classes - 1)
        sure = np.abs(gray - np.rint(gray)) < 0.02
        assert sure.mean() > 0.5
        right, inside = right + np.sum((said == mask)[sure]), inside + np.sum(sure)
    return float(right / inside)


def test_masks_of_all_forms_lie_on_their_images(tmp_path: Path) -> None:
    splits = load_data(_write_masks(tmp_path, 12), RAW, seed=0, signature=_segmenter(3))
    assert (len(splits.train), len(splits.selection), len(splits.validation)) == (9, 1, 2)
    assert (splits.num_classes, splits.class_names) == (0, ())
    assert (splits.train.labelled, splits.train.label_kinds) == (True, ("segmentation",))
    assert splits.train.labels.tolist() == [-1] * 9
    for part in (splits.train, splits.selection, splits.validation):
        assert _agreement(part) > 0.97


@pytest.mark.parametrize(
    ("form", "signature"),
    [
        ("black and white", _segmenter(1)),
        ("black and white", _segmenter(2)),
        ("black and white", None),
        ("two levels", None),
    ],
)
def test_white_is_the_second_of_two_classes(form: str, signature: Signature | None, tmp_path: Path) -> None:
    splits = load_data(_write_masks(tmp_path, 6, [form], "_mask"), RAW, seed=0, signature=signature)
    assert _agreement(splits.train, classes=2) > 0.97


def test_white_among_other_classes_is_no_class(tmp_path: Path) -> None:
    _write_masks(tmp_path, 6)
    for path in (tmp_path / "masks").iterdir():
        mask = decode_mask(path)
        mask[:10] = 255
        _save_mask(path, mask.astype(np.uint8))
    _, masks = next(load_data(tmp_path, RAW, seed=0, signature=_segmenter(3)).train.arrays(8))
    assert set(np.unique(masks)) == {0, 1, 2, 255}


@pytest.mark.parametrize(("name", "fit"), [("flip", "crop"), ("crop", "squash")])
def test_masks_are_varied_as_their_images_are(name: Any, fit: Any, tmp_path: Path) -> None:
    prepared = Preprocessing("raw", (16, 24), 16, fit=fit)
    train = load_data(_write_masks(tmp_path, 16), prepared, seed=0, signature=_segmenter(3)).train
    augment = AUGMENTATIONS[name]
    assert _agreement(train, shuffle_seed=1, augment=augment) > 0.97
    plain, varied = (next(iter(train.batches(16, shuffle_seed=1, augment=a)))[1] for a in (None, augment))
    assert np.mean(np.asarray(plain) != np.asarray(varied)) > 0.1


def test_a_folder_of_masks_that_is_cut_keeps_its_cut(tmp_path: Path) -> None:
    _write_masks(tmp_path / "train", 10)
    _write_masks(tmp_path / "val", 3, ending="-mask")
    splits = load_data(tmp_path, RAW, seed=0)
    assert (len(splits.train), len(splits.selection), len(splits.validation)) == (9, 1, 3)
    assert {Path(path).parts[-3] for path in splits.validation.source.paths} == {"val"}
    assert load_validation(tmp_path, RAW, seed=5).images.fingerprint() == splits.validation.fingerprint()
    shutil.copytree(tmp_path / "val", tmp_path / "alone" / "val")
    (tmp_path / "alone" / "val" / "masks").rename(tmp_path / "alone" / "val" / "annotations")
    assert load_validation(tmp_path / "alone", RAW, seed=5).images.fingerprint() == splits.validation.fingerprint()
    before = splits.fingerprints()
    _save_mask(tmp_path / "val" / "masks" / "01-mask.png", _blocks(99, (60, 80)))
    after = load_data(tmp_path, RAW, seed=0).fingerprints()
    assert [before[part] == after[part] for part in ("train", "selection", "validation")] == [True, True, False]


def test_broken_images_and_masks_are_left_out_if_asked(tmp_path: Path) -> None:
    _write_masks(tmp_path, 10)
    for path in ("images/03.png", "masks/07.png"):
        (tmp_path / path).write_bytes((tmp_path / path).read_bytes()[:60])
    with pytest.raises(DataError, match=r"07\.png"):
        load_data(tmp_path, RAW, seed=0)
    splits = load_data(tmp_path, RAW, seed=0, skip_bad=True)
    kept = [Path(p).stem for s in (splits.train, splits.selection, splits.validation) for p in s.source.paths]
    assert sorted(kept) == [f"{i:02d}" for i in range(10) if i not in (3, 7)]
    skipped = Skipped()
    assert sum(len(x) for x, _ in splits.train.arrays(4, skipped=skipped)) == len(splits.train)


def _write_images(root: Path, n: int = 20) -> None:
    for i in range(n):
        Image.new("RGB", (20, 24), (i, 0, 0)).save(root / f"{i}.png")


def _csv(root: Path, lines: list[str], header: str = "") -> Path:
    _write_images(root, 20)
    (root / "list.csv").write_text("\n".join([header] * bool(header) + lines) + "\n", encoding="utf-8")
    return root / "list.csv"


def _pairs(splits: Any) -> dict[int, Any]:
    """{number of the image, which its red says: its label}, of all parts."""
    parts = (splits.train, splits.selection, splits.validation)
    pairs = [
        (round(float(i[0, 0, 0])), label)
        for part in parts
        for x, y in part.arrays(8)
        for i, label in zip(x, y, strict=True)
    ]
    assert len(dict(pairs)) == len(pairs) == 20
    return dict(pairs)


NAMES = ["ant", "bee", "cat", "dog"]


@pytest.mark.parametrize(("delimiter", "header"), [(",", ""), (";", "file{}species"), ("\t", "")])
def test_names_of_classes_are_numbered_in_sorted_order(delimiter: str, header: str, tmp_path: Path) -> None:
    lines = [f"{i}.png{delimiter}{NAMES[3 - i % 4]}" for i in range(20)]
    splits = load_data(_csv(tmp_path, lines, header.format(delimiter)), RAW, seed=0)
    assert (splits.name, splits.num_classes, splits.class_names) == ("list", 4, tuple(NAMES))
    assert _pairs(splits) == {i: 3 - i % 4 for i in range(20)}
    assert splits.train.label_kinds == ("classification",)
    assert splits.validation.labels.tolist().count(2) == 1


def test_whole_numbers_are_classes_and_a_column_may_cut(tmp_path: Path) -> None:
    part = ["train"] * 12 + ["val"] * 3 + ["test"] * 5
    source = _csv(tmp_path, [f",{i}.png,{part[i]},{i % 3}" for i in range(20)], ",path,split,label")
    splits = load_data(source, RAW, seed=0, num_classes=5)
    assert _pairs(splits) == {i: i % 3 for i in range(20)}
    assert (splits.num_classes, splits.class_names) == (5, ("0", "1", "2", "3", "4"))
    assert (len(splits.train), len(splits.selection), len(splits.validation)) == (12, 3, 5)
    assert load_validation(source, RAW, seed=1).images.labels.tolist() == [i % 3 for i in range(15, 20)]


def test_other_numbers_are_those_of_a_regression(tmp_path: Path) -> None:
    source = _csv(tmp_path, [f"{i}.png,{i / 4},{-i}" for i in range(20)], "path,x,y")
    splits = load_data(source, RAW, seed=0, signature=_regressor(2))
    assert (splits.num_classes, splits.train.labelled, splits.train.label_kinds) == (0, True, ("regression",))
    for i, numbers in _pairs(splits).items():
        assert numbers.dtype == np.float32
        assert numbers.tolist() == [i / 4, -i]
    with pytest.raises(UserError, match="can't be mirrored or cropped at random"):
        splits.train.batches(4, shuffle_seed=0, augment=AUGMENTATIONS["flip"])


@pytest.mark.parametrize(("signature", "label"), [(_regressor(1), [7.0]), (_regressor(9), 7), (None, 7)])
def test_the_output_says_whether_whole_numbers_are_classes(
    signature: Signature | None, label: Any, tmp_path: Path
) -> None:
    source = _csv(tmp_path, [f"{i}.png,{i % 9}" for i in range(20)])
    assert np.array_equal(_pairs(load_data(source, RAW, seed=0, signature=signature))[16], label)


def test_images_without_labels_are_listed_too(tmp_path: Path) -> None:
    splits = load_data(_csv(tmp_path, [f"{i}.png" for i in range(20)]), RAW, seed=0)
    assert set(_pairs(splits).values()) == {-1}
    assert (splits.train.labelled, splits.train.label_kinds) == (False, ())


def test_masks_are_listed_too(tmp_path: Path) -> None:
    _write_masks(tmp_path, 10)
    (tmp_path / "list.csv").write_text("".join(f"images/{i:02d}.png,masks/{i:02d}.png\n" for i in range(10)))
    assert _agreement(load_data(tmp_path / "list.csv", RAW, seed=0, signature=_segmenter(3)).train) > 0.97


def test_a_source_says_by_its_name_whether_it_needs_a_preprocessing(tmp_path: Path) -> None:
    _write_masks(tmp_path / "segments", 1)
    _csv(tmp_path, [])
    (tmp_path / "arrays").mkdir()
    np.save(tmp_path / "arrays" / "x.npy", np.zeros(3))
    named = {"digits": True, "tfds:cars": True, "os.path:join": False}
    paths = {"segments": True, "list.csv": True, "arrays": False, "arrays/x.npy": False, ".": True}
    for source, images in {**named, **{str(tmp_path / name): images for name, images in paths.items()}}.items():
        assert reads_images(source) is images, source
    with pytest.raises(DataError, match="Images must be prepared as the model was trained"):
        load_data(tmp_path / "segments", None, seed=0)
