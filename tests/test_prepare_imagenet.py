"""ImageNet's official archives, in miniature, to TFRecord shards and back."""

import hashlib
import io
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tracemalloc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from scipy.io import savemat

from keras_qat.cli.program import app, run_program
from keras_qat.data import Prepared, Preprocessing, load_data, load_validation, prepare_imagenet
from keras_qat.data.class_numbers import imagenet_classes
from keras_qat.data.imagenet import prepare as stage
from keras_qat.data.imagenet.archive import open_archive
from keras_qat.data.imagenet.listing import Devkit, list_train
from keras_qat.errors import DataError, StorageError, UserError

_SMALL = Preprocessing("tf", 8, 8)
_TRAIN, _VAL, _KIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
# In the order of their ILSVRC2012_ID, which isn't that of their names.
_WNIDS = ("n02119789", "n01440764", "n15075141", "n02105855")
_PNG, _CMYK = "n02105855_2933.JPEG", "n01440764_1.JPEG"
_SHARDS = (5, 3)


@dataclass(frozen=True)
class Miniature:
    """Archives, and what they hold: file name → bytes and WordNet id."""

    folder: Path
    train: Mapping[str, tuple[bytes, str]]
    validation: Mapping[str, tuple[bytes, str]]


def _picture(seed: int, mode: str = "RGB", kind: str = "JPEG") -> bytes:
    random = np.random.default_rng(seed)
    size = random.integers(9, 20, 2)
    file = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).convert(mode).save(file, kind)
    return file.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def _tar(files: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for name, data in files.items():
            _add(tar, name, data)
    return file.getvalue()


def _synsets(wnids: tuple[str, ...]) -> Any:
    """The table of meta.mat: the classes, and an inner node of WordNet behind them."""
    fields = (
        "ILSVRC2012_ID",
        "WNID",
        "words",
        "gloss",
        "num_children",
        "children",
        "wordnet_height",
        "num_train_images",
    )
    table = np.zeros((len(wnids) + 1, 1), [(name, object) for name in fields])
    for i, wnid in enumerate((*wnids, "n00001740")):
        inner = i == len(wnids)
        children = np.arange(1, 3) if inner else np.zeros((0, 0))
        table[i, 0] = (
            float(i + 1),
            wnid,
            f"words, of {wnid}",
            "a gloss",
            float(2 * inner),
            children,
            float(inner),
            10.0,
        )
    return table


def _write_archives(folder: Path, wnids: tuple[str, ...], train: Any, validation: Any) -> Miniature:
    folder.mkdir(parents=True, exist_ok=True)
    inner = {}
    for wnid in sorted(wnids):
        inner[f"{wnid}.tar"] = _tar({name: data for name, (data, of) in train.items() if of == wnid})
    (folder / _TRAIN).write_bytes(_tar(inner))
    # The official tar isn't sorted.
    (folder / _VAL).write_bytes(_tar({name: validation[name][0] for name in sorted(validation, reverse=True)}))
    meta = io.BytesIO()
    savemat(meta, {"synsets": _synsets(wnids)})
    answers = "".join(f"{wnids.index(validation[name][1]) + 1}\n" for name in sorted(validation))
    with tarfile.open(folder / _KIT, "w:gz") as tar:
        _add(tar, "ILSVRC2012_devkit_t12/readme.txt", b"Read me.")
        _add(tar, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
        _add(tar, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", answers.encode())
    return Miniature(folder, train, validation)


def _make(folder: Path, replaced: Mapping[str, bytes] | None = None) -> Miniature:
    train = {f"{wnid}_{i}.JPEG": (_picture(100 * k + i), wnid) for k, wnid in enumerate(_WNIDS) for i in range(6)}
    train[_PNG] = (_picture(7, kind="PNG"), "n02105855")
    train[_CMYK] = (_picture(8, "CMYK"), "n01440764")
    train["n15075141_0.JPEG"] = (_picture(9, "L"), "n15075141")
    train |= {name: (data, name.split("_")[0]) for name, data in (replaced or {}).items()}
    validation = {f"ILSVRC2012_val_{i + 1:08d}.JPEG": (_picture(1000 + i), _WNIDS[i * i % 4]) for i in range(7)}
    return _write_archives(folder, _WNIDS, train, validation)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    return _make(tmp_path_factory.mktemp("archives"))


@pytest.fixture(scope="module")
def whole(miniature: Miniature, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Prepared]:
    """Shards that an uninterrupted run wrote."""
    output = tmp_path_factory.mktemp("whole") / "imagenet"
    return output, prepare_imagenet(miniature.folder, output, shards=_SHARDS)


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def _read_by_tensorflow(folder: Path, split: str) -> dict[str, Any]:
    """File name → parsed features, as TensorFlow's own reader gives them."""
    kinds = {"encoded": tf.string, "class/label": tf.int64, "class/text": tf.string, "class/synset": tf.string}
    kinds |= {"height": tf.int64, "width": tf.int64, "channels": tf.int64, "colorspace": tf.string}
    kinds |= {"format": tf.string, "filename": tf.string}
    spec = {f"image/{name}": tf.io.FixedLenFeature([], kind) for name, kind in kinds.items()}
    records = tf.data.TFRecordDataset(sorted(str(path) for path in folder.glob(f"{split}-*")))
    parsed = [tf.io.parse_single_example(record, spec) for record in records]
    return {one["image/filename"].numpy().decode(): {k: v.numpy() for k, v in one.items()} for one in parsed}


# --- the round trip ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "validation"])
def test_tensorflow_reads_every_image_with_its_bytes_and_class(
    miniature: Miniature, whole: tuple[Path, Prepared], split: str
) -> None:
    images = getattr(miniature, split)
    records = _read_by_tensorflow(whole[0], split)
    assert set(records) == set(images)
    for name, (data, wnid) in images.items():
        record = records[name]
        assert record["image/class/synset"].decode() == wnid
        assert record["image/class/text"].decode() == f"words, of {wnid}"
        assert record["image/class/label"] == 1 + sorted(_WNIDS).index(wnid)
        assert (record["image/channels"], record["image/colorspace"], record["image/format"]) == (3, b"RGB", b"JPEG")
        decoded = tf.io.decode_jpeg(record["image/encoded"], channels=3, dct_method="INTEGER_ACCURATE").numpy()
        assert decoded.shape == (record["image/height"], record["image/width"], 3)
        if name in (_PNG, _CMYK):
            original = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int)
            assert np.abs(decoded - original).mean() < 1.5
            assert Image.open(io.BytesIO(record["image/encoded"])).mode == "RGB"
        else:
            assert record["image/encoded"] == data


def test_our_loader_reads_every_image_under_imagenets_labels(
    miniature: Miniature, whole: tuple[Path, Prepared]
) -> None:
    splits = load_data(whole[0], _SMALL, seed=0)
    assert splits.class_names == tuple(imagenet_classes().values())
    place = {wnid: i for i, wnid in enumerate(imagenet_classes())}
    for images, sets in (
        (miniature.train, (splits.train, splits.selection)),
        (miniature.validation, (splits.validation,)),
    ):
        expected = sorted(
            (hashlib.sha256(data).hexdigest(), place[wnid])
            for name, (data, wnid) in images.items()
            if name not in (_PNG, _CMYK)
        )
        found = [
            (hashlib.sha256(one.source.encoded(i)).hexdigest(), int(one.labels[i]))
            for one in sets
            for i in range(len(one))
        ]
        assert set(expected) <= set(found)
        assert len(found) == len(images)
    assert len(next(splits.validation.arrays(50))[1]) == 7


def test_order_is_a_seeded_shuffle_over_shards_of_equal_size(
    miniature: Miniature, whole: tuple[Path, Prepared], tmp_path: Path
) -> None:
    prepare_imagenet(miniature.folder, tmp_path / "one", shards=_SHARDS, workers=1)
    assert _files(tmp_path / "one") == _files(whole[0])
    prepare_imagenet(miniature.folder, tmp_path / "other", shards=_SHARDS, seed=1)
    assert _files(tmp_path / "other") != _files(whole[0])
    shards = [list(tf.data.TFRecordDataset(str(path))) for path in sorted(whole[0].glob("train-*"))]
    assert sorted(len(shard) for shard in shards) == [5, 5, 5, 5, 5]
    names = list(_read_by_tensorflow(whole[0], "train"))
    assert names != sorted(names)


def test_checksums_are_those_of_sha256sum(whole: tuple[Path, Prepared]) -> None:
    tool = shutil.which("sha256sum")
    if tool is None:
        pytest.skip("no sha256sum")
    command = [tool, "--check", "--strict", "SHA256SUMS"]
    done = subprocess.run(command, cwd=whole[0], capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(": OK") == sum(_SHARDS)


def test_command_prints_counts_and_names_what_was_encoded_anew(
    miniature: Miniature, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--archives", str(miniature.folder), "--output", str(tmp_path / "out"), "--shards", "2", "1"]
    assert run_program(["prepare-imagenet", *arguments], app) == 0
    out, log = capfd.readouterr()
    assert "25 train images in 2 shards, 7 validation images in 1 shards, 4 classes" in out
    assert "These are not the official counts (1,281,167 / 50,000 / 1,000)." in out
    assert "Encoded anew as RGB JPEG: 1 CMYK JPEG, 1 RGB PNG." in out
    assert f"{_PNG} was a RGB PNG" in log
    assert f"{_CMYK} was a CMYK JPEG" in log
    assert run_program(["prepare-imagenet", *arguments, "--seed", "3"], app) == 2
    assert "begun with other settings. Received: seed 3 (was 0)" in capfd.readouterr().err


def test_counts_are_official_only_if_all_are() -> None:
    counts = {"train": 1_281_167, "validation": 50_000}
    assert Prepared(counts, 1000, 0, {}, {}).official
    assert not Prepared({**counts, "validation": 49_999}, 1000, 0, {}, {}).official
    assert not Prepared(counts, 999, 0, {}, {}).official


def test_real_images(shared_data: Path, tmp_path: Path) -> None:
    mini = shared_data / "imagenet-mini"
    wnids = tuple(sorted(path.name for path in (mini / "val").iterdir()))[:4]

    def pictures(split: str, count: int) -> list[tuple[bytes, str]]:
        return [(p.read_bytes(), wnid) for wnid in wnids for p in sorted((mini / split / wnid).iterdir())[:count]]

    train = {f"{wnid}_{i}.JPEG": (data, wnid) for i, (data, wnid) in enumerate(pictures("train", 1))}
    validation = {f"ILSVRC2012_val_{i:08d}.JPEG": one for i, one in enumerate(pictures("val", 9))}
    archives = _write_archives(tmp_path / "archives", wnids, train, validation)
    prepared = prepare_imagenet(archives.folder, tmp_path / "out", shards=(3, 2))
    assert prepared.counts == {"train": 4, "validation": 36}
    by_folder = load_validation(mini, _SMALL, seed=0)
    by_records = load_validation(tmp_path / "out", _SMALL, seed=0)
    assert by_records.class_names == by_folder.class_names
    content = {
        Path(path).read_bytes(): label
        for path, label in zip(by_folder.images.source.paths, by_folder.images.labels, strict=True)
    }
    for i, label in enumerate(by_records.images.labels):
        assert content[by_records.images.source.encoded(i)] == label


# --- killed and resumed -----------------------------------------------------------------------------------------------

_KILLED = """
import json, os, signal, sys, time
from pathlib import Path
from keras_qat.data import prepare_imagenet
from keras_qat.data.imagenet import shard

archives, output, records = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
write_record = shard.framing.write_record
written = 0

def write_or_die(file, payload):
    global written
    if written == records:
        while not json.loads((output / "prepared.json").read_text())["shards"]:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    written += 1
    write_record(file, payload)

shard.framing.write_record = write_or_die
prepare_imagenet(archives, output, shards=(5, 3), workers=1)
"""


def test_a_killed_run_goes_on_to_the_same_bytes(
    miniature: Miniature, whole: tuple[Path, Prepared], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "out"
    command = [sys.executable, "-W", "ignore", "-c", _KILLED, str(miniature.folder), str(output), "13"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ})  # noqa: S603
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert [path.name for path in sorted(output.glob("train-*"))] == ["train-00000-of-00005", "train-00001-of-00005"]
    # The third was begun, under a temporary name.
    assert len(list(output.glob(".train-00002-of-00005.*"))) == 1
    assert len(json.loads((output / "prepared.json").read_text())["shards"]) >= 1

    written = []
    write_shard = stage.write_shard
    monkeypatch.setattr(
        stage, "write_shard", lambda path, *a, **k: written.append(path.name) or write_shard(path, *a, **k)
    )
    prepare_imagenet(miniature.folder, output, shards=_SHARDS)
    assert "train-00000-of-00005" not in written
    assert _files(output) == _files(whole[0])


def test_a_finished_run_writes_no_shard_again(
    miniature: Miniature, whole: tuple[Path, Prepared], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "write_shard", None)
    assert prepare_imagenet(miniature.folder, whole[0], shards=_SHARDS) == whole[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 1}, r"seed 1 \(was 0\)"),
        ({"shards": (4, 3)}, r"shards \[4, 3\] \(was \[5, 3\]\)"),
    ],
)
def test_other_settings_are_not_mixed(
    miniature: Miniature, whole: tuple[Path, Prepared], change: dict[str, Any], message: str
) -> None:
    before = _files(whole[0])
    with pytest.raises(DataError, match=f"other settings. Received: {message}"):
        prepare_imagenet(miniature.folder, whole[0], **{"shards": _SHARDS, **change})
    assert _files(whole[0]) == before


def test_other_archives_are_not_mixed(whole: tuple[Path, Prepared], tmp_path: Path) -> None:
    other = _make(tmp_path / "archives", {"n01440764_2.JPEG": _picture(5) * 100})
    with pytest.raises(DataError, match=r"other settings. Received: archives"):
        prepare_imagenet(other.folder, whole[0], shards=_SHARDS)


# --- what can be wrong ------------------------------------------------------------------------------------------------


def test_a_file_that_is_no_image(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    archives = _make(tmp_path / "archives", {"n01440764_2.JPEG": b"<html>", "n01440764_3.JPEG": b""}).folder
    output = tmp_path / "out"
    with pytest.raises(DataError, match=r"Can't read the image n01440764/n01440764_[23].JPEG in .*img_train.tar"):
        prepare_imagenet(archives, output, shards=_SHARDS, workers=1)
    with caplog.at_level(logging.WARNING):
        prepared = prepare_imagenet(archives, output, shards=_SHARDS, skip_bad=True)
    assert set(prepared.skipped) == {"n01440764/n01440764_2.JPEG", "n01440764/n01440764_3.JPEG"}
    assert prepared.counts == {"train": 23, "validation": 7}
    assert caplog.text.count("Left out: Can't read the image") == 2
    # Without the permission, what was left out is missed again.
    with pytest.raises(DataError, match="Can't read the image"):
        prepare_imagenet(archives, output, shards=_SHARDS)


def test_equal_file_names_in_two_classes(tmp_path: Path) -> None:
    inner = {
        f"{wnid}.tar": _tar({f"{i}.JPEG": b"<html>" if (k, i) == (1, 2) else _picture(10 * k + i) for i in range(3)})
        for k, wnid in enumerate(sorted(_WNIDS))
    }
    archives = _make(tmp_path / "archives").folder
    (archives / _TRAIN).write_bytes(_tar(inner))
    prepared = prepare_imagenet(archives, tmp_path / "out", shards=_SHARDS, skip_bad=True)
    assert set(prepared.skipped) == {f"{sorted(_WNIDS)[1]}/2.JPEG"}
    assert prepared.counts["train"] == 11


def test_a_try_that_wrote_no_shard_binds_nobody(
    miniature: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(miniature.folder, tmp_path / "archives")
    archives, output = tmp_path / "archives", tmp_path / "out"
    with pytest.raises(UserError, match="more train shards than images"):
        prepare_imagenet(archives, output, shards=(1024, 128))
    _cut(_TRAIN, 0.5)(archives)
    with pytest.raises(DataError, match="truncated"):
        prepare_imagenet(archives, output, shards=_SHARDS)
    (archives / _TRAIN).write_bytes((miniature.folder / _TRAIN).read_bytes())
    assert prepare_imagenet(archives, output, shards=_SHARDS).counts["train"] == 25
    # Nor does one that stopped in its first shard.
    with monkeypatch.context() as patched:
        patched.setattr(stage, "write_shard", None)
        with pytest.raises(TypeError):
            prepare_imagenet(archives, tmp_path / "second", shards=(1, 1))
    assert prepare_imagenet(archives, tmp_path / "second", shards=_SHARDS).counts["train"] == 25


def test_a_listing_is_held_in_arrays(tmp_path: Path) -> None:
    wnids = tuple(f"n{i:08d}" for i in range(40))
    inner = {f"{wnid}.tar": _tar({f"{wnid}_{i}.JPEG": b"x" for i in range(50)}) for wnid in wnids}
    (tmp_path / _TRAIN).write_bytes(_tar(inner))
    with open_archive(tmp_path / _TRAIN) as archive:
        tracemalloc.start()
        listing = list_train(archive, Devkit(dict.fromkeys(wnids, "words"), ()))
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert (len(listing), listing.key(51)) == (2000, "n00000001/n00000001_1.JPEG")
    # 35 bytes an image, twice while parts are joined, and the headers of one class.
    assert peak / len(listing) < 140


def _cut(name: str, keep: float) -> Callable[[Path], Any]:
    def cut(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: int(len(data) * keep)])

    return cut


def _retar(name: str, change: Callable[[dict[str, bytes]], Any], mode: str = "") -> Callable[[Path], Any]:
    """Unpack an archive in memory, change its files, and pack it again."""

    def retar(folder: Path) -> None:
        with tarfile.open(folder / name) as tar:
            files = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
        change(files)
        with tarfile.open(folder / name, f"w:{mode}") as tar:
            for file_name, data in files.items():
                _add(tar, file_name, data)

    return retar


def _at_boundary(folder: Path) -> None:
    """Cut the validation archive where an image begins: `tarfile` takes that for its end."""
    with tarfile.open(folder / _VAL) as tar:
        offset = tar.getmembers()[3].offset
    os.truncate(folder / _VAL, offset)


_META = "ILSVRC2012_devkit_t12/data/meta.mat"
_ANSWERS = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / _TRAIN).unlink(), r"img_train.tar: there is no such file"),
        (lambda folder: (folder / _VAL).unlink(), r"img_val.tar: there is no such file"),
        (lambda folder: (folder / _KIT).unlink(), r"devkit_t12.tar.gz: there is no such file"),
        (_cut(_TRAIN, 0.5), r"img_train.tar: .* truncated"),
        (_cut(_VAL, 0.5), r"img_val.tar: .* truncated"),
        (_at_boundary, r"img_val.tar: .* truncated or corrupt at byte"),
        (_cut(_KIT, 0.5), r"Can't read the development kit"),
        (_cut(_TRAIN, 0), r"img_train.tar: .* no uncompressed tar"),
        (_retar(_TRAIN, lambda _: None, "gz"), r"img_train.tar: .* no uncompressed tar"),
        (
            _retar(_TRAIN, lambda files: files.pop("n02119789.tar")),
            r"1 of 4 classes are missing, such as n02119789.tar",
        ),
        (_retar(_TRAIN, lambda files: files.update({"n00000001.tar": b""})), r"'n00000001.tar' in it is no archive of"),
        (_retar(_TRAIN, lambda files: files.update({"x.JPEG": b""})), r"'x.JPEG' in it is no archive"),
        (
            _retar(_TRAIN, lambda files: files.update({"n01440764.tar": b"x" * 2000})),
            r"n01440764.tar in .* truncated or no",
        ),
        (_retar(_VAL, lambda files: files.popitem()), r"has 6 images, the development kit has 7 answers"),
        (_retar(_KIT, lambda files: files.pop(_META), "gz"), r"it lacks .*meta.mat"),
        (_retar(_KIT, lambda files: files.update({_META: b"nothing"}), "gz"), r"meta.mat isn't the table of synsets"),
        (_retar(_KIT, lambda files: files.update({_ANSWERS: b"99\n" * 7}), "gz"), r"a line that is no class: 99"),
    ],
)
def test_archives_that_can_not_be_used(
    miniature: Miniature, tmp_path: Path, spoil: Callable[[Path], Any], message: str
) -> None:
    shutil.copytree(miniature.folder, tmp_path / "archives")
    spoil(tmp_path / "archives")
    with pytest.raises(DataError, match=message):
        prepare_imagenet(tmp_path / "archives", tmp_path / "out", shards=_SHARDS)
    assert not list((tmp_path / "out").glob("train-*"))


def test_output_that_can_not_be_used(miniature: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="Can't write"):
        prepare_imagenet(miniature.folder, tmp_path / "file" / "out", shards=_SHARDS)
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "train-00000-of-00001").write_bytes(b"")
    with pytest.raises(DataError, match=r"has shards, but no prepared.json"):
        prepare_imagenet(miniature.folder, tmp_path / "foreign", shards=_SHARDS)
    (tmp_path / "spoilt").mkdir()
    (tmp_path / "spoilt" / "prepared.json").write_text("[]")
    with pytest.raises(DataError, match=r"isn't what `keras-qat prepare-imagenet` writes"):
        prepare_imagenet(miniature.folder, tmp_path / "spoilt", shards=_SHARDS)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1, 1, 0))  # type: ignore[attr-defined]
    with pytest.raises(StorageError, match="is too full"):
        prepare_imagenet(miniature.folder, tmp_path / "full", shards=_SHARDS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shards": (0, 1)}, "`shards` must be at least 1. Received: 0"),
        ({"shards": (10**5, 1)}, "`shards` must be at most 99999. Received: 100000"),
        ({"shards": (26, 1)}, r"more train shards than images. Received: 26 shards, 25 images"),
        ({"workers": 0}, "`workers` must be at least 1. Received: 0"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_numbers_out_of_range(miniature: Miniature, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        prepare_imagenet(miniature.folder, tmp_path / "out", **{"shards": _SHARDS, **change})


def test_a_shard_that_rots_on_the_disk_is_found_and_written_anew(
    miniature: Miniature, whole: tuple[Path, Prepared], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(whole[0], output)
    shard = output / "train-00002-of-00005"
    data = bytearray(shard.read_bytes())
    data[len(data) // 2] ^= 1
    shard.write_bytes(data)
    with pytest.raises(StorageError, match=r"reads back differently: .*train-00002-of-00005.* Delete that shard"):
        prepare_imagenet(miniature.folder, output, shards=_SHARDS)
    shard.unlink()
    prepare_imagenet(miniature.folder, output, shards=_SHARDS)
    assert _files(output) == _files(whole[0])
