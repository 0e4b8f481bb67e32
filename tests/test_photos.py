"""Folders of photos that nobody has cut, and what images without labels can tell of a file."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image

from keras_qat.cli.program import app, run_program
from keras_qat.cli.shared import SKIP_NOW, offering_skip_bad
from keras_qat.data import ImageSet, Labelled, Preprocessing, Splits, load_data, load_validation
from keras_qat.errors import BrokenImageError, DataError
from keras_qat.evaluation import EvaluationSettings, Predictions, compare, evaluate_file, require_classes
from keras_qat.export import export_onnx
from keras_qat.report import evaluation_notes

EIGHT = Preprocessing("unit", 8, 8)


def photo(path: Path, level: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (10, 9), (level, level, level)).save(path)
    return path


def half(path: Path) -> Path:
    """Cut a photo off: it still begins as one."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """40 photos, each of a gray level of its own."""
    for i in range(40):
        photo(tmp_path / "photos" / f"{i:02}.png", level=5 * i)
    (tmp_path / "photos" / ".DS_Store").write_text("x")
    return tmp_path / "photos"


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """30 ants, 20 bees, 10 Cats; capital letters come first."""
    for name, count in {"ant": 30, "bee": 20, "Cat": 10}.items():
        for i in range(count):
            photo(tmp_path / "insects" / name / f"{i}.jpg")
    return tmp_path / "insects"


def paths(images: ImageSet) -> list[str]:
    return list(images.source.paths)


def test_photos_without_folders_have_no_labels(flat: Path) -> None:
    splits = load_data(flat, EIGHT, seed=0)
    parts = (splits.train, splits.selection, splits.validation)
    assert [len(part) for part in parts] == [29, 3, 8]
    assert sorted(path for part in parts for path in paths(part)) == sorted(map(str, flat.glob("*.png")))
    assert [part.name for part in parts] == ["photos/train", "photos/selection", "photos/validation"]
    assert (splits.num_classes, splits.class_names) == (0, ())
    assert not any(part.labelled for part in parts)
    images, labels = next(splits.validation.arrays(8))
    levels = [5 * int(Path(path).stem) for path in paths(splits.validation)]
    np.testing.assert_allclose(images.mean((1, 2, 3)) * 255, levels, atol=1e-3)
    assert labels.tolist() == [-1] * 8


def test_the_cut_is_that_of_the_seed(flat: Path) -> None:
    once, again, other = (load_data(str(flat), EIGHT, seed) for seed in (3, 3, 4))
    assert paths(once.validation) == paths(again.validation)
    assert paths(once.selection) == paths(again.selection)
    assert paths(once.validation) != paths(other.validation)


def test_class_folders_give_labels_as_keras_numbers_them(classes: Path) -> None:
    splits = load_data(classes, EIGHT, seed=0)
    keras_names = keras.utils.image_dataset_from_directory(classes, image_size=(8, 8), verbose=False).class_names
    assert list(splits.class_names) == keras_names == ["Cat", "ant", "bee"]
    assert splits.num_classes == 3
    assert all(part.labelled for part in (splits.train, splits.selection, splits.validation))
    assert np.bincount(splits.validation.labels).tolist() == [2, 6, 4]
    assert len(splits.selection) == 5
    for path, label in zip(paths(splits.train), splits.train.labels, strict=True):
        assert Path(path).parent.name == splits.class_names[label]


def test_wordnet_ids_are_imagenets(tmp_path: Path) -> None:
    for wnid in ("n01440764", "n15075141"):
        for i in range(5):
            photo(tmp_path / wnid / f"{i}.jpg")
    splits = load_data(tmp_path, EIGHT, seed=0)
    assert (splits.num_classes, splits.class_names[999]) == (1000, "toilet tissue")
    assert sorted(set(splits.train.labels.tolist())) == [0, 999]


def test_no_image_that_calibrates_judges(flat: Path, classes: Path) -> None:
    for folder in (flat, classes):
        splits, judged = load_data(folder, EIGHT, seed=7), load_validation(folder, EIGHT, seed=7)
        assert paths(judged.images) == paths(splits.validation)
        assert judged.images.labels.tolist() == splits.validation.labels.tolist()
        assert judged.class_names == splits.class_names


def test_at_most_a_thousand_judge(tmp_path: Path) -> None:
    first = photo(tmp_path / "0.png")
    for i in range(1, 5100):
        (tmp_path / f"{i}.png").hardlink_to(first)
    splits = load_data(tmp_path, EIGHT, seed=0)
    assert [len(part) for part in (splits.train, splits.selection, splits.validation)] == [3690, 410, 1000]


def test_broken_photos_are_named_or_left_out(flat: Path, caplog: pytest.LogCaptureFixture) -> None:
    (flat / "00.png").write_text("<html>")
    with pytest.raises(DataError, match=r"Can't read the image .*00\.png.*Replace the file"):
        load_data(flat, EIGHT, seed=0)
    with caplog.at_level(logging.WARNING):
        splits = load_data(flat, EIGHT, seed=0, skip_bad=True)
    assert "1 file(s) that are no image are left out" in caplog.text
    assert sum(len(part) for part in (splits.train, splits.selection, splits.validation)) == 39


def test_files_that_are_no_photos_stop_a_run_or_are_left_out(
    classes: Path, flat: Path, caplog: pytest.LogCaptureFixture
) -> None:
    strays = {flat: flat / "labels.csv", classes: classes / "bee" / "Thumbs.db"}
    for folder, stray in strays.items():
        whole = load_data(folder, EIGHT, seed=0)
        stray.write_text("x")
        with pytest.raises(DataError, match=rf"{stray.name}'\. Move it away"):
            load_data(folder, EIGHT, seed=0)
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            assert load_data(folder, EIGHT, seed=0, skip_bad=True).fingerprints() == whole.fingerprints()
        assert f"1 file(s) of {stray.parent} that aren't images are left out: {stray.name}." in caplog.text
    (classes / "bee" / "drones").mkdir()
    with pytest.raises(DataError, match="one level deep"):
        load_data(classes, EIGHT, seed=0, skip_bad=True)


def test_half_a_photo_is_found_before_it_is_read(flat: Path) -> None:
    for suffix in ("jpg", "png"):
        half(flat / f"half.{suffix}")

    def read(splits: Splits) -> int:
        parts = (splits.train, splits.selection, splits.validation)
        return sum(len(x) for part in parts for x, _ in part.arrays(8))

    stopped = load_data(flat, EIGHT, seed=0)
    with pytest.raises(DataError, match=r"half\.(jpg|png).* truncated"):
        read(stopped)
    assert read(load_data(flat, EIGHT, seed=0, skip_bad=True)) == 40


@pytest.mark.parametrize("part", ["train", "selection", "validation"])
def test_the_cut_does_not_depend_on_skip_bad(tmp_path: Path, part: str) -> None:
    """Else images that calibrated a run judge it, when `evaluate` is asked with the option and the run wasn't."""
    for i in range(60):
        photo(tmp_path / "photos" / f"{i % 3}" / f"{i:02}.jpg")
    cut = load_data(tmp_path / "photos", EIGHT, seed=5)
    broken = str(half(Path(paths(getattr(cut, part))[1])))
    skipping = load_data(tmp_path / "photos", EIGHT, seed=5, skip_bad=True)
    for name in ("train", "selection", "validation"):
        assert paths(getattr(skipping, name)) == [path for path in paths(getattr(cut, name)) if path != broken]
        assert (broken in paths(getattr(cut, name))) == (name == part)
    for skip_bad, run in ((False, cut), (True, skipping)):
        judged = load_validation(tmp_path / "photos", EIGHT, seed=5, skip_bad=skip_bad)
        assert paths(judged.images) == paths(run.validation)
        assert judged.images.labels.tolist() == run.validation.labels.tolist()
        assert judged.skipped == (skip_bad and part == "validation")


def test_a_set_of_broken_photos_alone_is_refused(flat: Path) -> None:
    for path in paths(load_data(flat, EIGHT, seed=0).selection):
        half(Path(path))
    with pytest.raises(DataError, match=r"nothing is left of photos/selection\. Received: 3 file\(s\)"):
        load_data(flat, EIGHT, seed=0, skip_bad=True)


def test_every_file_of_a_large_folder_is_looked_at(
    flat: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("keras_qat.data.image_files._LOOKED_AT", 10)
    monkeypatch.setattr("keras_qat.data.image_files._AT_ONCE", 7)
    for name in ("03", "30"):
        half(flat / f"{name}.png")
    with caplog.at_level(logging.WARNING):
        splits = load_data(flat, EIGHT, seed=0, skip_bad=True)
    assert sum(len(part) for part in (splits.train, splits.selection, splits.validation)) == 38
    assert "2 file(s) that are no image are left out. The first: Can't read the image" in caplog.text
    assert "03.png" in caplog.text
    (flat / "30.png").write_text("<html>")
    load_data(flat, EIGHT, seed=0)  # too many files to look at, if nobody asked to


def test_a_stray_file_does_not_decide_the_layout(tmp_path: Path) -> None:
    """Two classes, one of them of locomotives and named train."""
    for name in ("train", "tram"):
        for i in range(5):
            photo(tmp_path / name / f"{i}.jpg")
    (tmp_path / "train" / "Thumbs.db").write_text("x")
    assert load_data(tmp_path, EIGHT, seed=0, skip_bad=True).class_names == ("train", "tram")
    with pytest.raises(DataError, match=r"isn't an image\. Received: '.*Thumbs\.db'"):
        load_data(tmp_path, EIGHT, seed=0)


def test_a_handful_is_the_least(tmp_path: Path) -> None:
    for i in range(4):
        photo(tmp_path / f"{i}.png")
    with pytest.raises(DataError, match=r"too few images.*Received: 4 image\(s\)\. Give at least 5"):
        load_data(tmp_path, EIGHT, seed=0)
    photo(tmp_path / "4.png")
    splits = load_data(tmp_path, EIGHT, seed=0)
    assert [len(part) for part in (splits.train, splits.selection, splits.validation)] == [3, 1, 1]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: photo(root / "cats" / "0.png"), r"Images lie beside folders.*00\.png' beside '.*cats'"),
        (lambda root: (root / "empty").mkdir(), "Images lie beside folders"),
        (lambda root: (root / "list.txt").write_text("x"), r"isn't an image\. Received: '.*list\.txt'"),
    ],
)
def test_what_is_no_flat_folder(flat: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(flat)
    with pytest.raises(DataError, match=message):
        load_data(flat, EIGHT, seed=0)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: photo(root / "ant" / "red" / "0.png"), r"one level deep\. Received: '.*ant/red'.*train/CLASS/"),
        (lambda root: (root / "ant" / "list.txt").write_text("x"), r"isn't an image.*ant/list\.txt"),
        (lambda root: (root / "list.txt").write_text("x"), r"isn't an image.*list\.txt"),
        (lambda root: (root / "dog").mkdir(), "dog has no image"),
        (lambda root: (root / "val").mkdir(), "it has no train/ folder"),
    ],
)
def test_what_is_no_folder_of_classes(classes: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(classes)
    with pytest.raises(DataError, match=message):
        load_data(classes, EIGHT, seed=0)


def test_a_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images in .*which is empty\. Put all images.*train/CLASS/IMAGE"):
        load_data(tmp_path, EIGHT, seed=0)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"no images in .*notes\.txt', which is no image"):
        load_validation(tmp_path, EIGHT, seed=0)


def test_predictions_without_labels() -> None:
    unknown = np.full(3, -1)
    first, second = (Predictions(np.array(c)[:, np.newaxis], unknown) for c in ([0, 1, 2], [0, 1, 1]))
    assert (first.labelled, first.accuracy(1), first.accuracy(5)) == (False, None, None)
    assert first.agreement(second) == pytest.approx(2 / 3)
    for ask in (first.right, lambda: compare(first, second)):
        with pytest.raises(DataError, match="nothing is right or wrong"):
            ask()
    assert Predictions(np.array([[0]]), np.array([0])).labelled


def test_a_stray_minus_one_among_labels_is_refused() -> None:
    images = ImageSet.from_arrays("some", np.zeros((2, 8, 8, 3), np.uint8), [-1, 0], EIGHT)
    assert images.labelled
    with pytest.raises(DataError, match="labels from -1 to 0"):
        require_classes(Path("m.onnx"), 2, Labelled(images, ()))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Two files of two classes that say bright from another level on: 0.25, and 0.75."""
    made = []
    for name, level in {"a": 0.25, "b": 0.75}.items():
        x = keras.Input((8, 8, 3), name="image")
        model = keras.Model(x, keras.layers.Dense(2, name="d")(keras.layers.GlobalAveragePooling2D()(x)))
        model.get_layer("d").set_weights([np.array([[0, 1 / 3]] * 3), np.array([level, 0])])
        made.append(export_onnx(model, tmp_path / f"{name}.onnx"))
    return made[0], made[1]


def test_two_files_agree_on_photos_without_labels(flat: Path, files: tuple[Path, Path]) -> None:
    found = evaluate_file(EvaluationSettings(files[0], str(flat), preprocessing=EIGHT, compare=files[1]))
    levels = np.array([5 * int(Path(path).stem) for path in paths(load_data(flat, EIGHT, seed=0).validation)]) / 255
    alike = int(np.sum((levels > 0.25) == (levels > 0.75)))
    assert 0 < alike < 8
    assert found.comparison is None
    assert found.agreement is not None
    assert (found.agreement.count, found.agreement.images, found.images) == (alike, 8, 8)
    assert [(file.top1, file.top_k) for file in found.files] == [(None, None)] * 2
    record = json.loads(json.dumps(found.to_dict()))
    assert (record["files"][0]["top1"], record["agreement"]["count"]) == (None, alike)
    assert "no labels, so nobody knows which is right" in " ".join(evaluation_notes(found))


def test_the_command_speaks_of_skip_bad_where_it_is_not_given(
    flat: Path, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    half(Path(paths(load_data(flat, EIGHT, seed=0).validation)[0]))
    command = ["evaluate", str(files[0]), "--data", str(flat), "--preprocessing", "unit:8", "--compare", str(files[1])]
    assert run_program(command, app) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "truncated" in error
    assert error.endswith("Replace the file with a whole image, or remove it. Or leave such files out with --skip-bad.")
    assert run_program([*command, "--skip-bad"], app) == 0
    # Whole when it was looked at: the option is of no more use.
    with pytest.raises(BrokenImageError), offering_skip_bad(SKIP_NOW, given=True):
        raise BrokenImageError


def test_the_command_says_what_photos_without_labels_can_tell(
    flat: Path, files: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", str(files[0]), "--data", str(flat), "--preprocessing", "unit:8"]
    assert run_program(command, app) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "Without labels nothing tells how good a file is." in error
    assert "--compare" in error
    assert run_program([*command, "--compare", str(files[1])], app) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Agreement on photos/validation" in out
    assert "Same class on" in out
    assert "Top-" not in out
