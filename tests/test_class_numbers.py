"""Class folders named by WordNet ids: ImageNet's numbers, or those of a model of these classes alone."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_qat.cli.program import app, run_program
from keras_qat.data import Preprocessing, load_data, load_validation
from keras_qat.data.class_numbers import imagenet_classes, number_classes
from keras_qat.errors import DataError
from keras_qat.evaluation import EvaluationSettings, evaluate_file
from keras_qat.export import export_onnx
from keras_qat.files import write_json
from keras_qat.models import ModelFacts
from keras_qat.run import RunFolder, Settings, VerificationSettings, load_saved, verify_files

SIDE = 4
RAW = Preprocessing("raw", SIDE, SIDE)
WNIDS = {"n01443537": (200, 0, 0), "n01440764": (0, 0, 200), "n15075141": (0, 200, 0)}
"""Not in sorted order: goldfish, tench, toilet tissue; one colour each."""

IN_KERAS = ("n01440764", "n01443537", "n15075141")
"""As `image_dataset_from_directory` numbers them."""

IN_IMAGENET = {"n01440764": 0, "n01443537": 1, "n15075141": 999}


def paint(folder: Path, count: int) -> None:
    for wnid, colour in WNIDS.items():
        (folder / wnid).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (SIDE, SIDE), colour).save(folder / wnid / f"{i}.png")


def cut(root: Path) -> Path:
    for split in ("train", "val"):
        paint(root / split, 4)
    return root


def uncut(root: Path) -> Path:
    paint(root, 8)
    return root


@pytest.fixture(params=[cut, uncut], ids=["train and val", "photos"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    layout: Callable[[Path], Path] = request.param
    return layout(tmp_path / "data")


def labels_by_wnid(folder: Path, num_classes: int | None) -> dict[str, set[int]]:
    """The labels that each folder's images got, in all three sets and in those loaded alone."""
    splits = load_data(folder, RAW, 0, num_classes=num_classes)
    alone = load_validation(folder, RAW, 0, num_classes=num_classes)
    found: dict[str, set[int]] = {}
    for images in (splits.train, splits.selection, splits.validation, alone.images):
        for path, label in zip(images.source.paths, images.labels, strict=True):  # type: ignore[attr-defined]
            found.setdefault(Path(path).parent.name, set()).add(int(label))
    assert alone.class_names == splits.class_names
    assert len(splits.class_names) == splits.num_classes
    return found


@pytest.mark.parametrize("num_classes", [None, 1000])
def test_imagenets_numbers_for_a_model_of_imagenet(folder: Path, num_classes: int | None) -> None:
    assert labels_by_wnid(folder, num_classes) == {wnid: {label} for wnid, label in IN_IMAGENET.items()}


def test_the_models_own_for_one_of_as_many_classes(folder: Path) -> None:
    assert labels_by_wnid(folder, 3) == {wnid: {i} for i, wnid in enumerate(IN_KERAS)}
    assert load_data(folder, RAW, 0, num_classes=3).class_names == ("tench", "goldfish", "toilet tissue")
    keras_names = keras.utils.image_dataset_from_directory(
        folder if not (folder / "val").exists() else folder / "val", image_size=(SIDE, SIDE), verbose=False
    ).class_names
    assert tuple(keras_names) == IN_KERAS


def test_other_models_are_refused_with_both_ways(folder: Path) -> None:
    message = r"ImageNet's 1000 classes or the 3 of these.*Received: a model of 10 classes"
    for load in (load_data, load_validation):
        with pytest.raises(DataError, match=message):
            load(folder, RAW, 0, num_classes=10)


def test_validation_counts_the_classes_of_training(tmp_path: Path) -> None:
    root = cut(tmp_path / "data")
    for path in (root / "val" / "n01440764").iterdir():
        path.unlink()
    (root / "val" / "n01440764").rmdir()
    assert set(load_validation(root, RAW, 0, num_classes=3).images.labels.tolist()) == {1, 2}
    with pytest.raises(DataError, match="the 3 of these folders"):
        load_validation(root, RAW, 0, num_classes=2)


def test_ids_outside_of_imagenet_may_be_a_models_own(tmp_path: Path) -> None:
    paint(tmp_path / "data", 8)
    (tmp_path / "data" / "n15075141").rename(tmp_path / "data" / "n99999999")
    assert load_data(tmp_path / "data", RAW, 0, num_classes=3).class_names == ("tench", "goldfish", "n99999999")
    with pytest.raises(DataError, match="aren't among ImageNet's 1000 classes"):
        load_data(tmp_path / "data", RAW, 0, num_classes=1000)


def test_one_misspelt_of_imagenets_ids_moves_no_other(tmp_path: Path) -> None:
    """As many folders as ImageNet has classes, one digit of the second wrong: in sorted order all but one move."""
    names = list(imagenet_classes())
    assert names == sorted(names)
    misspelt = sorted([*names[:1], *names[2:], "n09999999"])
    message = r"'n09999999'.*Correct or remove.*the 1000 of these folders alone, in sorted order, .*my-n09999999"
    with pytest.raises(DataError, match=message):
        number_classes(tmp_path, misspelt, 1000)
    assert number_classes(tmp_path, names, 1000)[0] == {name: i for i, name in enumerate(names)}
    # The way out that the message names keeps the order.
    prefixed = [f"my-{name}" for name in misspelt]
    assert number_classes(tmp_path, prefixed, 1000) == ({name: i for i, name in enumerate(prefixed)}, tuple(prefixed))


def test_labels_that_do_not_matter_are_refused_for_nothing(folder: Path) -> None:
    """Verification has no use for labels, whatever the folders are called."""
    for split in ("train", "val") if (folder / "val").exists() else (".",):
        (folder / split / "n15075141").rename(folder / split / "n99999999")
    assert sorted(map(set, labels_by_wnid(folder, 0).values())) == [{0}, {1}, {2}]


def test_names_in_words_are_numbered_whatever_the_model(tmp_path: Path) -> None:
    paint(tmp_path / "data", 8)
    (tmp_path / "data" / "n15075141").rename(tmp_path / "data" / "tissue")
    for num_classes in (None, 3, 7, 1000):
        assert load_data(tmp_path / "data", RAW, 0, num_classes=num_classes).num_classes == 3


def test_a_run_that_is_read_back_numbers_as_it_did(folder: Path, tmp_path: Path) -> None:
    names = ("tench", "goldfish", "toilet tissue")
    run = tmp_path / "run"
    write_json(run / "settings.json", Settings.of(model="mine.keras", data=str(folder)).to_dict())
    write_json(run / "preprocessing.json", ModelFacts(RAW, embedded=False, class_names=names).to_dict())
    images = load_saved(RunFolder(run).settings())
    assert images.fingerprints() == load_data(folder, RAW, 0, num_classes=3).fingerprints()
    assert images.class_names == names


def colours(path: Path, classes: int) -> Path:
    """A model that says blue is 0, red 1, green 2."""
    model = keras.Sequential(
        [
            keras.Input((SIDE, SIDE, 3)),
            keras.layers.Rescaling(1 / 255),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(classes, "softmax", name="head"),
        ]
    )
    kernel = np.zeros((3, classes), np.float32)
    kernel[(2, 0, 1), (0, 1, 2)] = 9
    model.get_layer("head").set_weights([kernel, np.zeros(classes, np.float32)])
    model.save(path)
    return path


def test_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = cut(tmp_path / "data")
    path = colours(tmp_path / "mine.keras", 3)
    (file,) = evaluate_file(EvaluationSettings(path, str(root), preprocessing=RAW)).files
    assert file.top1 is not None
    assert (file.top1.count, file.top1.images) == (12, 12)
    other = colours(tmp_path / "other.keras", 5)
    assert run_program(["quantize", str(other), "--data", str(root), "--run-folder", str(tmp_path / "run")], app) == 2
    assert "either ImageNet's 1000 classes or the 3 of these folders" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("classes", [3, 5])
def test_a_file_is_verified_on_folders_of_any_ids(classes: int, tmp_path: Path) -> None:
    """A model of ids that aren't ImageNet's, and one of more classes than there are folders."""
    root = cut(tmp_path / "data")
    for split in ("train", "val"):
        (root / split / "n15075141").rename(root / split / "n99999999")
    model = keras.models.load_model(colours(tmp_path / "mine.keras", classes))
    file = export_onnx(model, tmp_path / "mine.onnx")
    found = verify_files(VerificationSettings(file, data=str(root), preprocessing=RAW))
    assert (found.miss, found.inputs, found.files[0].images, found.files[0].agreement) == (None, "data/val", 12, 1)
