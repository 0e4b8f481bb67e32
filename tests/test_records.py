"""TFRecord shards: framing against TensorFlow's own, the index, labels, and what can be wrong with a set."""

import dataclasses
import gzip
import io
import logging
import os
import shutil
import struct
import sys
import tracemalloc
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_qat.data import Preprocessing, Skipped, decode_errors, load_data, load_records, load_validation
from keras_qat.data import splits as holding_out
from keras_qat.data.class_numbers import imagenet_classes
from keras_qat.data.records import index as index_stage
from keras_qat.data.records.framing import BadRecord, Record, masked_crc, read_record, scan_records, write_record
from keras_qat.errors import DataError
from keras_qat.run import Settings

_SMALL = Preprocessing("tf", 8, 8)
_PAYLOADS = [b"", b"a", b"bc" * 700, bytes(range(256)) * 40]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(path))
    return path


def _picture(level: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (9, 10), (level, level, level)).save(file, kind)
    return file.getvalue()


def _example(**features: Any) -> bytes:
    """A serialized example; `__` in a name stands for a slash."""

    def feature(value: Any) -> tf.train.Feature:
        if isinstance(value, int):
            return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))
        data = value.encode() if isinstance(value, str) else value
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))

    named = {name.replace("__", "/"): feature(value) for name, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=named)).SerializeToString()


def _customary(level: int, label: int, **more: Any) -> bytes:
    """A record whose image has the gray level `level`."""
    return _example(
        image__encoded=_picture(level), image__class__label=label, **{f"image__class__{k}": v for k, v in more.items()}
    )


def _write(folder: Path, split: str, payloads: Sequence[bytes], shards: int = 1, stem: str = "") -> list[Path]:
    """Shards as TensorFlow writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{stem}{split}-{i:05d}-of-{shards:05d}" for i in range(shards)]
    for path, part in zip(paths, np.array_split(np.arange(len(payloads)), shards), strict=True):
        with tf.io.TFRecordWriter(str(path)) as writer:
            for i in part:
                writer.write(payloads[i])
    return paths


def _levels(images: Any) -> list[int]:
    """The gray levels of a set's images, in order."""
    return [round((float(image[0, 0, 0]) + 1) * 127.5) for batch, _ in images.arrays(3) for image in batch]


def _set(folder: Path, first: int = 1, **more: Any) -> Path:
    """12 training and 6 validation images of three classes; image i has the level 10 i, or 5 + 10 i to validate."""
    _write(folder, "train", [_customary(10 * i, first + i % 3, **more) for i in range(12)], shards=3)
    _write(folder, "validation", [_customary(5 + 10 * i, first + i % 3, **more) for i in range(6)], shards=2)
    return folder


# --- framing ----------------------------------------------------------------------------------------------------------


def test_tensorflow_reads_what_we_write_and_we_read_what_it_writes(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    with ours.open("wb") as file:
        for payload in _PAYLOADS:
            write_record(file, payload)
    with tf.io.TFRecordWriter(str(theirs)) as writer:
        for payload in _PAYLOADS:
            writer.write(payload)
    assert ours.read_bytes() == theirs.read_bytes()
    assert list(tf.data.TFRecordDataset(str(ours)).as_numpy_iterator()) == _PAYLOADS
    records = [record for record in scan_records(theirs) if isinstance(record, Record)]
    assert [record.payload for record in records] == _PAYLOADS
    for record in reversed(records):
        assert read_record(theirs, record.offset) == record.payload
        assert read_record(theirs, record.offset, len(record.payload)) == record.payload


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"")
    assert list(scan_records(tmp_path / "x")) == []


@pytest.mark.parametrize("byte", range(0, 76, 5))
def test_every_flipped_byte_is_found(tmp_path: Path, byte: int) -> None:
    """Three records of 10, 10 and 8 bytes of payload: 26, 26 and 24 bytes of file."""
    (path,) = _write(tmp_path, "train", [b"0123456789", b"abcdefghij", b"ABCDEFGH"])
    data = bytearray(path.read_bytes())
    data[byte] ^= 0x10
    path.write_bytes(data)
    broken = min(byte // 26, 2)
    found = list(scan_records(path))
    (bad,) = (record for record in found if isinstance(record, BadRecord))
    assert bad.offset == 26 * broken
    in_header = byte - 26 * broken < 12
    # What follows a broken length can't be found.
    assert (bad.end is None) == in_header
    assert len(found) == (broken + 1 if in_header else 3)
    with pytest.raises(DataError, match=rf"byte {26 * broken} of .*{path.name}: the checksum of its") as raised:
        read_record(path, 26 * broken)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("size", "problem"), [(60, "within its length"), (70, "file ends at byte 70"), (75, "at byte 75")]
)
def test_truncated_file(tmp_path: Path, size: int, problem: str) -> None:
    (path,) = _write(tmp_path, "train", [b"0123456789", b"abcdefghij", b"ABCDEFGH"])
    path.write_bytes(path.read_bytes()[:size])
    *good, bad = scan_records(path)
    assert len(good) == 2
    assert isinstance(bad, BadRecord)
    assert bad.end is None
    assert problem in bad.problem
    with pytest.raises(DataError, match="byte 52 of"):
        read_record(path, 52, 8)


def test_a_length_that_lies_is_not_allocated(tmp_path: Path) -> None:
    """A right checksum of a length of 2⁶² bytes."""
    length = struct.pack("<Q", 1 << 62)
    (tmp_path / "x").write_bytes(length + struct.pack("<I", masked_crc(length)) + b"data")
    with pytest.raises(DataError, match="the file ends at byte 16"):
        read_record(tmp_path / "x", 0)


@pytest.mark.parametrize("compression", ["GZIP", "ZLIB"])
def test_compressed_shards_are_refused_with_advice(tmp_path: Path, compression: str) -> None:
    _set(tmp_path)
    shard = tmp_path / "train-00001-of-00003"
    with tf.io.TFRecordWriter(str(shard), compression) as writer:
        writer.write(_customary(0, 1))
    if compression == "GZIP":
        assert gzip.decompress(shard.read_bytes())
    for skip_bad in (False, True):
        with pytest.raises(
            DataError, match=f"train-00001.*compressed.*a {compression.lower()} file.*without compression"
        ):
            load_records(tmp_path, _SMALL, 0, skip_bad)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"Can't read .*gone: No such file"):
        read_record(tmp_path / "gone", 0)


# --- sets -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0, 1])
def test_splits_hold_every_image_with_its_label(tmp_path: Path, first: int) -> None:
    splits = load_data(_set(tmp_path / "mine", first), _SMALL, seed=0)
    assert splits.name == "mine"
    assert (splits.num_classes, splits.class_names) == (3, tuple(str(first + i) for i in range(3)))
    assert [len(s) for s in (splits.train, splits.selection, splits.validation)] == [11, 1, 6]
    for part, at_zero in ((splits.train, 0), (splits.selection, 0), (splits.validation, 5)):
        numbers = (np.asarray(_levels(part)) - at_zero) // 10
        np.testing.assert_array_equal(part.labels, numbers % 3)
    assert sorted(_levels(splits.train) + _levels(splits.selection)) == list(range(0, 120, 10))
    assert _levels(splits.validation) == [5, 15, 25, 35, 45, 55]
    again = load_data(str(tmp_path / "mine"), _SMALL, seed=0)
    assert _levels(again.selection) == _levels(splits.selection)
    validation = load_validation(tmp_path / "mine", _SMALL, seed=0)
    assert validation.class_names == splits.class_names
    np.testing.assert_array_equal(validation.images.labels, splits.validation.labels)


def test_selection_is_stratified_and_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path, "train", [_customary(i, 1 + i % 2) for i in range(80)])
    _write(tmp_path, "validation", [_customary(0, 1)])
    assert np.bincount(load_records(tmp_path, _SMALL, 0).selection.labels).tolist() == [4, 4]
    monkeypatch.setattr(holding_out, "_MOST", 4)
    assert np.bincount(load_records(tmp_path, _SMALL, 0).selection.labels).tolist() == [2, 2]


def test_batches_in_random_order(tmp_path: Path) -> None:
    train = load_records(_set(tmp_path), _SMALL, 0).train
    levels = [
        (round((float(image[0, 0, 0]) + 1) * 127.5), int(label))
        for batch, labels in train.arrays(4, shuffle_seed=1)
        for image, label in zip(batch, labels, strict=True)
    ]
    assert sorted(level for level, _ in levels) == sorted(_levels(train))
    assert [level for level, _ in levels] != _levels(train)
    assert all(label == level // 10 % 3 for level, label in levels)


@pytest.mark.parametrize("place", ["", "split folders", "suffix"])
def test_where_shards_may_lie_and_how_they_may_be_named(tmp_path: Path, place: str) -> None:
    _set(tmp_path)
    for path in list(tmp_path.iterdir()):
        split = path.name.split("-")[0]
        if place == "split folders":
            (tmp_path / split).mkdir(exist_ok=True)
            path.rename(tmp_path / split / path.name)
        elif place == "suffix":
            path.rename(path.with_name(path.name + ".tfrecord"))
    (tmp_path / "readme.txt").write_text("x")
    assert len(load_data(tmp_path, _SMALL, seed=0).train) == 11


def test_names_of_classes(tmp_path: Path) -> None:
    _write(
        tmp_path, "train", [_customary(0, 1, text="tench, a fish"), _customary(0, 3, synset="wren"), _customary(0, 2)]
    )
    _write(tmp_path, "validation", [_customary(0, 2)])
    assert load_records(tmp_path, _SMALL, 0).class_names == ("tench, a fish", "2", "wren")


@pytest.mark.parametrize("numbering", ["ImageNet from 0", "ImageNet from 1", "own from 1"])
def test_synsets_of_imagenet_give_imagenets_labels(tmp_path: Path, numbering: str) -> None:
    wnids = list(imagenet_classes())
    places = [3, 500, 999]
    label = {
        "ImageNet from 0": lambda i: places[i],
        "ImageNet from 1": lambda i: places[i] + 1,
        "own from 1": lambda i: i + 1,
    }
    payloads = [_customary(i, label[numbering](i % 3), synset=wnids[places[i % 3]]) for i in range(9)]
    _write(tmp_path, "train", payloads)
    _write(tmp_path, "validation", payloads[1:2])
    splits = load_records(tmp_path, _SMALL, 0)
    assert splits.class_names == tuple(imagenet_classes().values())
    assert splits.validation.labels.tolist() == [500]
    assert sorted({*splits.train.labels.tolist(), *splits.selection.labels.tolist()}) == places


def test_a_label_that_contradicts_its_synset(tmp_path: Path) -> None:
    wnids = list(imagenet_classes())
    payloads = [_customary(i, 1 + i % 3, synset=wnids[i % 3]) for i in range(9)]
    payloads[7] = _customary(7, 3, synset=wnids[1])
    (path,) = _write(tmp_path, "train", payloads)
    _write(tmp_path, "validation", payloads[:3])
    offset = list(scan_records(path))[7].offset
    with pytest.raises(
        DataError,
        match=rf"byte {offset} of .*train-00000-of-00001: its label 3 contradicts its synset '{wnids[1]}': in all "
        rf"records, that synset has the label\(s\) 2, 3, and that label the synset\(s\) {wnids[1]}, {wnids[2]}",
    ):
        load_records(tmp_path, _SMALL, 0)


def test_labels_in_an_order_of_their_own_beside_synsets(tmp_path: Path) -> None:
    """ILSVRC2012_ID numbers the classes otherwise than their sorted synsets."""
    wnids = list(imagenet_classes())
    labels = [5, 2, 9]
    _write(tmp_path, "train", [_customary(i, labels[i % 3], synset=wnids[i % 3]) for i in range(9)])
    _write(tmp_path, "validation", [_customary(i, labels[i % 3], synset=wnids[i % 3]) for i in range(4)])
    assert load_records(tmp_path, _SMALL, 0).validation.labels.tolist() == [0, 1, 2, 0]


def test_a_label_that_stands_for_every_synset_is_refused(tmp_path: Path) -> None:
    wnids = list(imagenet_classes())
    _write(tmp_path, "validation", [_customary(i, 1, synset=wnids[i]) for i in range(3)])
    said = rf"that synset has the label\(s\) 1, and that label the synset\(s\) {', '.join(wnids[:3])}"
    with pytest.raises(DataError, match=said):
        load_validation(tmp_path, _SMALL, 0)


@pytest.mark.parametrize(
    ("train", "validation", "message"),
    [
        ([1, 2, 2], [3], r"validation-0.*its label 3 is out of range: the train records have labels 1 to 2"),
        ([1, 2, 2], [0], r"validation-0.*its label 0 is out of range: the train records have labels 1 to 2"),
        ([1, -1, 2], [1], r"train-0.*its label -1 is out of range: labels count from 1"),
        ([1, 1 << 40, 2], [1], r"train-0.*its label 1099511627776 is out of range"),
    ],
)
def test_labels_out_of_range(tmp_path: Path, train: list[int], validation: list[int], message: str) -> None:
    _write(tmp_path, "train", [_customary(0, label) for label in train])
    _write(tmp_path, "validation", [_customary(0, label) for label in validation])
    with pytest.raises(DataError, match=message):
        load_records(tmp_path, _SMALL, 0)


# --- validation alone -------------------------------------------------------------------------------------------------


def test_validation_shards_alone(tmp_path: Path) -> None:
    _set(tmp_path, first=0)
    for path in tmp_path.glob("train-*"):
        path.unlink()
    validation = load_validation(tmp_path, _SMALL, seed=0)
    assert validation.images.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert _levels(validation.images) == [5, 15, 25, 35, 45, 55]
    # There may be classes that none of these images is of.
    assert validation.class_names == ()
    with pytest.raises(DataError, match=r"has no shards of 'train'. Received: 'validation'"):
        load_data(tmp_path, _SMALL, seed=0)


def test_validation_labels_of_which_nothing_says_the_first(tmp_path: Path) -> None:
    _write(tmp_path, "validation", [_customary(0, label) for label in (1, 3, 2)])
    said = r"labels of the validation records count from 0 or from 1. Received: labels from 1 to 3, none of them 0"
    with pytest.raises(DataError, match=f"{said}.* Put the training shards there.* label.labels.txt"):
        load_validation(tmp_path, _SMALL, seed=0)
    (tmp_path / "label.labels.txt").write_text("ant\nbee\ncat\n")
    validation = load_validation(tmp_path, _SMALL, seed=0)
    assert (validation.images.labels.tolist(), validation.class_names) == ([0, 2, 1], ("ant", "bee", "cat"))
    # Of four classes, the last one may be 3 or 4.
    (tmp_path / "label.labels.txt").write_text("ant\nbee\ncat\ndog\n")
    with pytest.raises(DataError, match=said):
        load_validation(tmp_path, _SMALL, seed=0)
    _write(tmp_path, "train", [_customary(0, label) for label in range(4)])
    assert load_validation(tmp_path, _SMALL, seed=0).images.labels.tolist() == [1, 3, 2]


def test_training_shards_are_not_read_where_synsets_say_it_all(tmp_path: Path) -> None:
    wnids = list(imagenet_classes())
    _write(tmp_path, "train", [b"nothing that could be read"])
    _write(tmp_path, "validation", [_customary(0, 2, synset=wnids[1])])
    assert load_validation(tmp_path, _SMALL, seed=0).images.labels.tolist() == [1]


def test_validation_labels_take_their_first_number_from_the_training_records(tmp_path: Path) -> None:
    """Labels 1 and 2 alone would be taken to count from 1."""
    _write(tmp_path, "train", [_customary(0, label) for label in (0, 1, 2)])
    _write(tmp_path, "validation", [_customary(0, 1), _customary(0, 2)])
    validation = load_validation(tmp_path, _SMALL, seed=0)
    assert (validation.images.labels.tolist(), len(validation.class_names)) == ([1, 2], 3)


def _save(path: Path, level: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_picture(level))


def test_validation_of_folders_and_digits(tmp_path: Path) -> None:
    for i, name in enumerate(["ant", "bee", "cat"]):
        _save(tmp_path / "train" / name / "0.png", i)
        _save(tmp_path / "train" / name / "1.png", i)
    for i, name in enumerate(["bee", "cat"]):
        _save(tmp_path / "val" / name / "0.png", 10 * i)
    whole, alone = load_data(tmp_path, _SMALL, seed=0), load_validation(tmp_path, _SMALL, seed=0)
    assert alone.class_names == whole.class_names == ("ant", "bee", "cat")
    assert alone.images.labels.tolist() == whole.validation.labels.tolist() == [1, 2]
    shutil.rmtree(tmp_path / "train")
    alone = load_validation(tmp_path, _SMALL, seed=0)
    assert (alone.class_names, alone.images.labels.tolist()) == (("bee", "cat"), [0, 1])
    with pytest.raises(DataError, match="it has no train/ folder"):
        load_data(tmp_path, _SMALL, seed=0)
    digits = load_validation("digits", _SMALL, seed=3)
    np.testing.assert_array_equal(digits.images.labels, load_data("digits", _SMALL, seed=3).validation.labels)
    with pytest.raises(DataError, match="no data set or folder"):
        load_validation(tmp_path / "gone", _SMALL, seed=0)


# --- bad records and images -------------------------------------------------------------------------------------------


def _spoil(path: Path, byte: int) -> None:
    data = bytearray(path.read_bytes())
    data[byte] ^= 1
    path.write_bytes(data)


def test_bad_records_are_an_error_or_are_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _set(tmp_path)
    shards = sorted(tmp_path.glob("train-*"))
    second = [record.offset for record in scan_records(shards[1])][1]
    _spoil(shards[0], 40)
    _spoil(shards[1], second + 2)
    message = rf"2 of the train records can't be read. The first: .*byte 0 of {shards[0]}: the checksum of its data"
    with pytest.raises(DataError, match=message):
        load_records(tmp_path, _SMALL, 0)
    with caplog.at_level(logging.WARNING):
        splits = load_records(tmp_path, _SMALL, 0, skip_bad=True)
    # One record of the first shard, and three of the second, after its broken length.
    assert sorted(_levels(splits.train) + _levels(splits.selection)) == [10, 20, 30, 40, 80, 90, 100, 110]
    assert "2 bad train record(s) are passed over" in caplog.text
    assert caplog.text.count("1 shard(s) can't be read beyond a broken length") == 1
    assert shards[1].name in caplog.text


def test_records_without_image_or_label_are_bad(tmp_path: Path) -> None:
    _set(tmp_path)
    good = _customary(200, 2)
    _write(tmp_path, "validation", [good, b"\xff" * 9, _example(image__class__label=1), good], shards=2)
    with pytest.raises(DataError, match=r"2 of the validation records.*it has no 'image/encoded' and"):
        load_records(tmp_path, _SMALL, 0)
    assert _levels(load_records(tmp_path, _SMALL, 0, skip_bad=True).validation) == [200, 200]


def test_a_record_that_rots_after_it_was_indexed(tmp_path: Path) -> None:
    validation = load_records(_set(tmp_path), _SMALL, 0).validation
    shard = tmp_path / "validation-00001-of-00002"
    _spoil(shard, 30)
    with pytest.raises(DataError, match=f"byte 0 of {shard}: the checksum of its data is wrong"), decode_errors():
        list(validation.arrays(4))
    skipped = Skipped()
    labels = [int(label) for _, batch in validation.arrays(4, skipped=skipped) for label in batch]
    assert labels == [0, 1, 2, 1, 2]
    assert (skipped.count, len(skipped.reasons)) == (1, 1)
    shard.unlink()
    with pytest.raises(DataError, match=f"Can't read {shard}: No such file"):
        list(validation.arrays(4))


@pytest.mark.parametrize("source", ["records", "folder"])
@pytest.mark.parametrize("shuffle_seed", [None, 4])
def test_images_that_do_not_decode_are_left_out_on_demand(
    tmp_path: Path, source: str, shuffle_seed: int | None
) -> None:
    """Every third image ends where its pixels begin."""
    pictures = [_picture(i)[: 42 if i % 3 == 0 else None] for i in range(20)]
    if source == "records":
        _write(tmp_path, "validation", [_example(image__encoded=data, image__class__label=0) for data in pictures])
    else:
        for i, data in enumerate(pictures):
            (tmp_path / "val" / "x").mkdir(parents=True, exist_ok=True)
            (tmp_path / "val" / "x" / f"{i:02d}.png").write_bytes(data)
    images = load_validation(tmp_path, _SMALL, seed=0).images
    advice = "Copy the shard anew" if source == "records" else "Replace the file"
    with pytest.raises(DataError, match=rf"Can't read the image (/\S+)( \(record at byte \d+\))?: .*\. {advice}"):
        list(images.arrays(4, shuffle_seed=shuffle_seed))
    skipped = Skipped()
    passes = [list(images.arrays(4, shuffle_seed=shuffle_seed, skipped=skipped)) for _ in range(2)]
    levels = [round((float(image[0, 0, 0]) + 1) * 127.5) for batch, _ in passes[0] for image in batch]
    order = np.arange(20) if shuffle_seed is None else np.random.default_rng((shuffle_seed, 0)).permutation(20)
    assert levels == [i for i in order if i % 3]
    assert [len(labels) for _, labels in passes[0]] == [4, 4, 4, 1]
    assert skipped.count == 7
    np.testing.assert_array_equal(passes[0][0][0], passes[1][0][0])


def test_files_that_are_no_image_are_left_out_on_demand(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split, count in (("train", 5), ("val", 3)):
        for i in range(count):
            _save(tmp_path / split / "ant" / f"{i}.png", i)
    (tmp_path / "val" / "ant" / "1.png").write_text("<html>")
    with pytest.raises(DataError, match=r"Can't read the image .*1.png: no known image format"):
        load_validation(tmp_path, _SMALL, seed=0)
    with caplog.at_level(logging.WARNING):
        assert len(load_validation(tmp_path, _SMALL, seed=0, skip_bad=True).images) == 2
        assert len(load_data(tmp_path, _SMALL, seed=0, skip_bad=True).validation) == 2
    assert "1 file(s) that are no image are left out" in caplog.text


# --- sets that can't be used ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "train-00001-of-00003").unlink(), r"1 of 3 train shards are missing. .* without 1\."),
        (lambda folder: (folder / "validation-00000-of-00002").unlink(), "1 of 2 validation shards are missing"),
        (lambda folder: _write(folder, "train", [b"x"], 2), "two sets of train shards.*-of-00002.*-of-00003"),
        (
            lambda folder: [p.unlink() for p in folder.glob("val*")],
            "no shards of 'validation' or 'test'. Received: 'train'",
        ),
        (
            lambda folder: _write(folder, "train", [_example(x=1)], 3),
            r"hold no labelled images.*features \['x'\] in train",
        ),
        (lambda folder: _write(folder, "train", [b"\xff" * 9], 3), "Received: no tf.train.Example"),
        (lambda folder: _write(folder, "train", [], 3), "The shards hold no record"),
        (lambda folder: _write(folder, "train", [_customary(0, 3)], 3), r"too small to hold out.* Received: 1 image"),
        (
            lambda folder: _write(folder, "validation", [_example(image=_picture(0), label=0)], 2),
            "records of two layouts. Received: 'customary' to train, 'TensorFlow Datasets' to validate",
        ),
    ],
)
def test_sets_that_can_not_be_used(tmp_path: Path, spoil: Callable[[Path], Any], message: str) -> None:
    spoil(_set(tmp_path))
    with pytest.raises(DataError, match=message):
        load_data(tmp_path, _SMALL, seed=0)


def test_shards_of_no_known_split(tmp_path: Path) -> None:
    _write(tmp_path, "extra", [_customary(0, 1)])
    with pytest.raises(DataError, match=r"no shards of 'train'. Received: no split of a known name"):
        load_records(tmp_path, _SMALL, seed=0)


def test_a_checkpoint_beside_image_folders_is_no_shard(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for i in range(2):
            _save(tmp_path / split / "ant" / f"{i}.png", i)
    (tmp_path / "model.ckpt.data-00000-of-00001").write_bytes(b"weights")
    assert len(load_data(tmp_path, _SMALL, seed=0).validation) == 2


# --- the cache of the index -------------------------------------------------------------------------------------------


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the shards that are read through."""
    seen: list[str] = []
    scan = index_stage.framing.scan_records

    def counted(path: Path) -> Iterator[Record | BadRecord]:
        seen.append(path.name)
        return scan(path)

    monkeypatch.setattr(index_stage.framing, "scan_records", counted)
    return seen


def test_shards_are_read_through_once(tmp_path: Path, scans: list[str], own_cache: Path) -> None:
    _set(tmp_path, text="some words", synset="a word")
    first = load_records(tmp_path, _SMALL, 0)
    assert len(set(scans)) == 5
    scans.clear()
    again = load_records(tmp_path, _SMALL, 0)
    assert scans == []
    assert again.class_names == first.class_names
    assert _levels(again.train) == _levels(first.train)
    # Another content of the same size at another time, and a cache that is spoilt, are scanned again.
    _write(tmp_path, "train", [_customary(10 * i, 1 + i % 4, text="some words", synset="a word") for i in range(12)], 3)
    assert load_records(tmp_path, _SMALL, 0).num_classes == 4
    assert set(scans) == {f"train-{i:05d}-of-00003" for i in range(3)}
    scans.clear()
    for path in own_cache.rglob("*.npz"):
        path.write_bytes(b"PK spoilt")
    assert load_records(tmp_path, _SMALL, 0).num_classes == 4
    assert len(set(scans)) == 5


def test_a_shard_that_is_copied_anew_with_its_times_is_read_anew(tmp_path: Path) -> None:
    shard = _set(tmp_path) / "train-00000-of-00003"
    whole, times = shard.read_bytes(), (shard.stat().st_atime_ns, shard.stat().st_mtime_ns)
    _spoil(shard, 40)
    os.utime(shard, ns=times)
    with pytest.raises(DataError, match=r"1 of the train records.* Copy the shard anew"):
        load_records(tmp_path, _SMALL, 0)
    shard.write_bytes(whole)
    os.utime(shard, ns=times)
    assert len(load_records(tmp_path, _SMALL, 0).train) == 11


def test_two_folders_of_like_shards_have_an_index_each(tmp_path: Path) -> None:
    for name, labels in (("one", [0, 1]), ("other", [1, 0])):
        for path in (
            *_write(tmp_path / name, "train", [_customary(9, label) for label in labels]),
            *_write(tmp_path / name, "validation", [_customary(9, label) for label in labels]),
        ):
            os.utime(path, ns=(5, 5))
        assert load_records(tmp_path / name, _SMALL, 0).validation.labels.tolist() == labels


def test_a_damaged_cache_is_scanned_again(tmp_path: Path, own_cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever byte is wrong: of zip's directory, the method of compression, the stream, the array's header."""
    _write(tmp_path, "validation", [_customary(i, i, text="words") for i in range(3)])
    load_validation(tmp_path, _SMALL, seed=0)
    (cache,) = own_cache.rglob("*.npz")
    whole = cache.read_bytes()
    for byte in range(0, len(whole), 7):
        cache.write_bytes(whole[:byte] + bytes([whole[byte] ^ 0x55]) + whole[byte + 1 :])
        assert load_validation(tmp_path, _SMALL, seed=0).images.labels.tolist() == [0, 1, 2]
    assert "The cached index can't be read" in caplog.text


def test_the_index_grows_by_bytes_and_not_by_objects(tmp_path: Path) -> None:
    count = 1500
    image, wnid = b"x" * 40, "n01440764"
    _write(
        tmp_path,
        "train",
        [_example(image__encoded=image, image__class__label=900 + i, image__class__synset=wnid) for i in range(count)],
    )
    layout = index_stage.framing.LAYOUTS[0]
    tracemalloc.start()
    found = index_stage._scan(tmp_path / "train-00000-of-00001", layout)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(found.label) == count
    # Four integers of 8 bytes, and what an array grows ahead.
    assert held / count < 50


def test_a_cache_that_can_not_be_written_costs_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING):
        assert len(load_records(_set(tmp_path / "set"), _SMALL, 0).train) == 11
    assert "The index isn't cached" in caplog.text


# --- TensorFlow Datasets ----------------------------------------------------------------------------------------------


@dataclasses.dataclass
class _Builder:
    """Stands in for a builder of TensorFlow Datasets: writes what the real one would."""

    data_dir: str
    judge: str = "test"

    def download_and_prepare(self) -> None:
        folder = Path(self.data_dir)
        for split, count in (("train", 6), (self.judge, 4)):
            payloads = [_example(image=_picture(40 * (i % 2)), label=i % 2, file_name="x") for i in range(count)]
            _write(folder, f"{split}.tfrecord", payloads, 2, stem="mine-")
        (folder / "label.labels.txt").write_text("no\nyes\nmaybe\n")
        (folder / "features.json").write_text("{}")


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.SimpleNamespace:
    def builder(name: str) -> _Builder:
        if name != "mine":
            raise ValueError(f"Dataset {name} not found.")
        return _Builder(str(tmp_path / "mine" / "1.0.0"))

    package = types.SimpleNamespace(builder=builder)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", package)
    return package


def test_tfds_prepares_and_we_read(stand_in: types.SimpleNamespace) -> None:
    splits = load_data("tfds:mine", _SMALL, seed=0)
    assert splits.class_names == ("no", "yes", "maybe")
    assert (splits.name, splits.validation.name) == ("tfds-mine", "tfds-mine/test")
    assert [len(s) for s in (splits.train, splits.selection, splits.validation)] == [5, 1, 4]
    assert splits.validation.labels.tolist() == [0, 1, 0, 1]
    assert _levels(splits.validation) == [0, 40, 0, 40]
    assert load_validation("tfds:mine", _SMALL, seed=0).class_names == splits.class_names
    with pytest.raises(DataError, match=r"can't prepare 'other': Dataset other not found.*\n?.*'tfds:other'"):
        load_data("tfds:other", _SMALL, seed=0)
    assert stand_in


def test_runs_on_two_sets_of_tfds_have_a_folder_each() -> None:
    sets = ("tfds:cars/1.0.0", "tfds:beans/1.0.0", "tfds:imagenet_v2/matched-frequency:3.0.0")
    assert [Settings.of(data=data).folder.name for data in sets] == [
        "resnet50-tfds-cars-1.0.0-onnxruntime",
        "resnet50-tfds-beans-1.0.0-onnxruntime",
        "resnet50-tfds-imagenet_v2-matched-frequency-3.0.0-onnxruntime",
    ]
    assert Settings.of(data="/data/imagenet/").folder.name == "resnet50-imagenet-onnxruntime"


def test_folders_of_tfds(tmp_path: Path) -> None:
    builder = _Builder(str(tmp_path), judge="validation")
    builder.download_and_prepare()
    # Its test split has no labels for some data sets: what is named validation judges.
    _write(tmp_path, "test.tfrecord", [_example(image=_picture(0), label=-1)], stem="mine-")
    assert len(load_data(tmp_path, _SMALL, seed=0).validation) == 4
    wnids = list(imagenet_classes())
    (tmp_path / "label.labels.txt").write_text(f"{wnids[7]}\n{wnids[9]}\n")
    assert load_validation(tmp_path, _SMALL, seed=0).images.labels.tolist() == [7, 9, 7, 9]
    (tmp_path / "label.labels.txt").write_text("one\n")
    with pytest.raises(DataError, match="its label 1 is out of range: the file of class names has 1 lines"):
        load_data(tmp_path, _SMALL, seed=0)
    for path in tmp_path.glob("*validation*"):
        path.unlink()
    with pytest.raises(DataError, match="its label -1 is out of range"):
        load_validation(tmp_path, _SMALL, seed=0)


def test_tfds_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(DataError, match=r"pip install 'keras-qat\[tfds\]'"):
        load_data("tfds:mnist", _SMALL, seed=0)
