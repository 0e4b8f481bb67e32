"""Files that aren't what their names say: of other formats, of absurd sizes, no files at all, or with hostile names."""

import errno
import io
import json
import os
import signal
import socket
import struct
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from PIL import Image
from rich.table import Table

from keras_qat.calibration import calibrate, require_variety
from keras_qat.cli.program import app, run_program
from keras_qat.cli.shared import show
from keras_qat.data import FileSource, ImageSet, Preprocessing, decode_file, load_data, load_records
from keras_qat.data.image_files import FORMATS, MOST_PIXELS_VARIABLE
from keras_qat.data.records.index import cached_index, scan_shards
from keras_qat.errors import BrokenImageError, DataError, StorageError, UserError
from keras_qat.files import is_file, open_file, read_json, read_text, write_text
from keras_qat.graph import trace
from keras_qat.placement import plan
from keras_qat.training.checkpoint import LAST, load_checkpoint

EIGHT = Preprocessing("unit", 8, 8)


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """A FIFO that is opened without care would block the test for ever."""

    def stop(*_: Any) -> None:
        raise AssertionError("it waits")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def noise(path: Path, seed: int = 0, size: int = 16, **options: Any) -> Path:
    """An image that no other seed has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8)
    Image.fromarray(pixels).save(path, **options)
    return path


def fifo(path: Path) -> Path:
    os.mkfifo(path)
    return path


def listening(path: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(path))
    return path


def zeros(path: Path) -> Path:
    path.symlink_to("/dev/zero")
    return path


def loop(path: Path) -> Path:
    path.symlink_to(path.name)
    return path


SPECIAL = [fifo, listening, zeros, loop]


@pytest.fixture(params=SPECIAL, ids=[make.__name__ for make in SPECIAL])
def special(request: pytest.FixtureRequest) -> Callable[[Path], Path]:
    """Makes something at a path that is no file."""
    return request.param  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", FORMATS)
def test_formats_are_told_by_content(kind: str, tmp_path: Path) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow has no {kind}")
    path = noise(tmp_path / "photo.png", format=kind)
    with Image.open(path) as image:
        assert image.format == kind
        np.testing.assert_array_equal(decode_file(path), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["EPS", "PCX", "ICO", "TGA", "SGI"])
def test_other_formats_are_no_images_whatever_their_name(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow gives an EPS to Ghostscript."""
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(BrokenImageError, match=r"photo.png: no known image format \(JPEG, PNG"):
        decode_file(noise(tmp_path / "photo.png", format=kind))


@pytest.mark.parametrize("error", [RuntimeError("avif"), AssertionError(), ZeroDivisionError("x")])
def test_whatever_a_decoder_raises_is_a_broken_image(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: Any) -> None:
        raise error

    paths = [noise(tmp_path / "photos" / f"{seed}.bmp", seed) for seed in range(6)]
    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", load)
    with pytest.raises(BrokenImageError, match=r"0.bmp: \w+"):
        decode_file(paths[0])
    with pytest.raises(DataError, match="none of them a whole image"):
        load_data(tmp_path / "photos", EIGHT, seed=0, skip_bad=True)


@pytest.mark.parametrize(
    ("error", "raised", "message"),
    [
        (OSError(errno.EMFILE, "Too many open files"), StorageError, r"0.bmp: Too many open files.*ulimit -n"),
        (OSError(errno.EIO, "Input/output error"), StorageError, r"0.bmp: Input/output error"),
        (OSError(errno.ESTALE, "Stale file handle"), StorageError, r"0.bmp: Stale file handle"),
        (MemoryError(), MemoryError, r"too little memory.*0.bmp"),
    ],
)
@pytest.mark.parametrize("moment", ["looked at", "read"])
def test_a_failure_of_the_machine_makes_no_image_a_broken_one(
    error: Exception,
    raised: type[Exception],
    message: str,
    moment: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With --skip-bad, good images would be left out, and nobody would notice."""

    def load(_: Any) -> None:
        raise error

    paths = [noise(tmp_path / "photos" / f"{seed}.bmp", seed) for seed in range(6)]
    images = ImageSet.from_files("x", paths[:1], [0], EIGHT)
    monkeypatch.setattr("PIL.BmpImagePlugin.BmpImageFile.load", load)
    moments = {
        "looked at": lambda: load_data(tmp_path / "photos", EIGHT, seed=0, skip_bad=True),
        "read": lambda: list(images.arrays(1)),
    }
    with pytest.raises(raised, match=message):
        moments[moment]()


def test_a_broken_avif_is_left_out(tmp_path: Path) -> None:
    """Its decoder raises a RuntimeError where Pillow's own raise an OSError."""
    Image.init()
    if "AVIF" not in Image.SAVE:
        pytest.skip("this Pillow has no AVIF")
    for seed in range(6):
        noise(tmp_path / "photos" / f"{seed}.png", seed)
    broken = noise(tmp_path / "photos" / "broken.png", size=64, format="AVIF")
    whole = broken.read_bytes()
    for place in range(150, 400):
        broken.write_bytes(whole[:place] + b"\xff" * 8 + whole[place + 8 :])
        try:
            Image.open(broken).load()
        except RuntimeError:
            break
        except Exception:  # noqa: BLE001, S112 - what is looked for is a RuntimeError
            continue
    else:
        pytest.skip("no damage makes this Pillow raise a RuntimeError")
    with pytest.raises(BrokenImageError, match=r"broken\.png"):
        decode_file(broken)
    splits = load_data(tmp_path / "photos", EIGHT, seed=0, skip_bad=True)
    assert sum(map(len, (splits.train, splits.selection, splits.validation))) == 6


def test_the_limit_of_pixels_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    path = noise(tmp_path / "photo.png", size=40)
    monkeypatch.setenv(MOST_PIXELS_VARIABLE, "1599")
    with pytest.raises(BrokenImageError, match=rf"40 x 40 pixels.* {MOST_PIXELS_VARIABLE} .*1599"):
        decode_file(path)
    monkeypatch.setenv(MOST_PIXELS_VARIABLE, "1600")
    assert decode_file(path).shape == (40, 40, 3)
    for wrong in ("0", "many", "", "-1", "9" * 5000):
        monkeypatch.setenv(MOST_PIXELS_VARIABLE, wrong)
        with pytest.raises(UserError, match=f"{MOST_PIXELS_VARIABLE} is the most pixels"):
            decode_file(path)


def test_pillows_own_limit_rises_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bitmap of 400 million pixels by its header, which ends there."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    path = tmp_path / "huge.ppm"
    path.write_bytes(b"P6 20000 20000 255\n")
    with pytest.raises(BrokenImageError, match=f"too large.*{MOST_PIXELS_VARIABLE}"):
        decode_file(path)
    monkeypatch.setenv(MOST_PIXELS_VARIABLE, "400000000")
    with pytest.raises(BrokenImageError, match=r"truncated|too little memory"):
        decode_file(path)


def test_what_is_no_file_is_refused_at_once(special: Callable[[Path], Path], tmp_path: Path) -> None:
    path = special(tmp_path / "x.png")
    assert not is_file(path)
    with pytest.raises(OSError, match=r"not a file|symbolic links"):
        open_file(path)
    with pytest.raises(BrokenImageError, match=r"x.png: (it is a \w+, not a file|Too many)"):
        decode_file(path)
    for read in (read_text, read_json):
        with pytest.raises(StorageError, match="Can't read"):
            read(path)
    with pytest.raises(DataError, match="Can't read"):
        scan_shards([path], "scanning")


def test_among_images_it_is_left_out_with_skip_bad(special: Callable[[Path], Path], tmp_path: Path) -> None:
    for seed in range(6):
        noise(tmp_path / f"{seed}.png", seed)
    special(tmp_path / "x.png")
    with pytest.raises(BrokenImageError, match="holds a FIFO, a socket, a device or a link that leads nowhere"):
        load_data(tmp_path, EIGHT, seed=0)
    splits = load_data(tmp_path, EIGHT, seed=0, skip_bad=True)
    assert sum(map(len, (splits.train, splits.selection, splits.validation))) == 6


def test_as_a_source_a_checkpoint_or_a_cache(
    special: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = special(tmp_path / "x")
    with pytest.raises(DataError, match="no data set or folder of that name"):
        load_data(path, EIGHT, seed=0)
    assert run_program(["prepare-imagenet", "--archives", str(path), "--output", str(tmp_path / "out")], app) == 2
    assert "Received: " in capsys.readouterr().err
    special(tmp_path / LAST)
    if is_there_to_open := (tmp_path / LAST).exists():
        with pytest.raises(StorageError, match=f"Can't read .*{LAST}"):
            load_checkpoint(tmp_path, None, None)  # type: ignore[arg-type]
    assert is_there_to_open or load_checkpoint(tmp_path, None, None) is None  # type: ignore[arg-type]


def test_a_file_of_class_names(tmp_path: Path) -> None:
    (tmp_path / "train-00000-of-00001").write_bytes(b"")
    names = tmp_path / "label.labels.txt"
    for make, message in ((lambda: names.write_text("\n \n"), "from 1 to"), (lambda: fifo(names), "Can't read")):
        names.unlink(missing_ok=True)
        make()
        with pytest.raises(UserError, match=message):
            _class_names_of(tmp_path)


def _class_names_of(folder: Path) -> Any:
    from keras_qat.data.records.shard_folder import _class_names

    return _class_names(folder)


@pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "file/below"], ids=["null", "long", "below a file"])
def test_paths_that_can_not_be(name: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / name
    for load in (load_data, lambda *_, **__: load_records(path, EIGHT, 0), lambda *_, **__: decode_file(path)):
        with pytest.raises(DataError):
            load(path, EIGHT, seed=0)
    with pytest.raises(StorageError):
        write_text(path, "text")
    FileSource((str(path),)).fingerprint()


def test_exchanged_contents_have_another_fingerprint(tmp_path: Path) -> None:
    """Bitmaps are of equal sizes, and a tool that exchanges names can keep the times."""
    paths = [noise(tmp_path / f"{seed}.bmp", seed, size=120) for seed in range(2)]
    source = FileSource(tuple(map(str, paths)))
    before, states = source.fingerprint(), [path.stat() for path in paths]
    a, b = (path.read_bytes() for path in paths)
    paths[0].write_bytes(b)
    paths[1].write_bytes(a)
    for path, state in zip(paths, states, strict=True):
        os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert source.fingerprint() != before
    paths[0].write_bytes(a)
    paths[1].write_bytes(b)
    assert source.fingerprint() == before


@pytest.mark.parametrize("place", [0, 70_000, 139_999])
def test_of_large_sets_pieces_are_compared(place: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "photo.bin"
    content = bytearray(140_000)
    path.write_bytes(content)
    monkeypatch.setattr("keras_qat.data.fingerprint._MOST_HASHED", 100_000)
    source = FileSource((str(path),))
    before = source.fingerprint()
    content[place] = 1
    path.write_bytes(content)
    assert (source.fingerprint() != before) == (place in {0, 139_999})


def test_exchanged_records_have_another_fingerprint(tmp_path: Path) -> None:
    """Records of equal lengths, the modification time of the shards kept."""
    import tensorflow as tf

    from keras_qat.data.records.framing import write_record
    from keras_qat.data.records.record_set import open_records

    def write(order: list[int]) -> None:
        with path.open("wb") as file:
            for i in order:
                feature = {
                    "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[b"%d" % i])),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[1])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=feature))
                write_record(file, example.SerializeToString(deterministic=True))
        os.utime(path, ns=(1, 1))

    def fingerprint() -> str:
        return open_records("train", [path]).image_set("x", np.zeros(2, np.int32), EIGHT).fingerprint()

    path = tmp_path / "train-00000-of-00001"
    write([0, 1])
    before = fingerprint()
    assert fingerprint() == before
    write([1, 0])
    assert fingerprint() != before
    # The cache of indexes didn't answer for the old file.
    index = cached_index([path], lambda: pytest.fail("the index wasn't cached"))
    assert len(index) == 2


@pytest.fixture(scope="module")
def network() -> keras.Model:
    """A small convolution without a name for its classes."""
    x = keras.Input((8, 8, 3), name="image")
    return keras.Model(x, keras.layers.Conv2D(2, 3, name="conv")(x))


def test_images_of_one_colour(
    network: keras.Model, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """Of each channel's constant, as preprocessing makes it of black; the command refuses them, Python warns."""
    images = np.ones((6, 8, 8, 3), "float32") * np.float32([-1, 0, 2])
    with pytest.raises(DataError, match=r"one and the same colour.*6 image"):
        require_variety([[images[:4]], [images[4:]]])
    different = images.copy()
    different[5, 0, 0, 0] = 3
    require_variety([[different[:4]], [different[4:]]])
    placement = plan(trace(network).graph, "onnxruntime")
    for x, message in ((images, "one and the same colour"), (np.repeat(different[5:], 3, 0), "are the same")):
        caplog.clear()
        calibrate(network, placement, x)
        assert message in caplog.text
    caplog.clear()
    calibrate(network, placement, different)
    assert not caplog.text

    earlier = tmp_path / "run" / "results.json"
    x = keras.Input((8, 8, 3))
    scores = keras.layers.Dense(3, "softmax")(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(x)))
    keras.Model(x, scores).save(tmp_path / "model.keras")
    for i in range(8):
        (tmp_path / "black").mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "black" / f"{i}.png")
    command = ["quantize", str(tmp_path / "model.keras"), "--data", str(tmp_path / "black")]
    assert run_program([*command, "--run-folder", str(earlier.parent)], app) == 2
    assert "one and the same colour" in " ".join(capsys.readouterr().err.split())
    assert not earlier.parent.exists()


HOSTILE = "\x1b]0;title\x07\x1b[2J\udce9\u202e[red]"


def test_names_do_not_control_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(6):
        noise(tmp_path / f"{seed}.png", seed)
    for name in (f"{HOSTILE}.png", "line\nfeed.png"):
        (tmp_path / name).write_text("text")
    assert run_program(["quantize", str(tmp_path / f"{HOSTILE}.keras"), "--data", str(tmp_path)], app) == 2
    error = capsys.readouterr().err
    load_data(tmp_path, EIGHT, seed=0, skip_bad=True)
    show(lambda: HOSTILE, {}, as_json=False)
    table = Table(title=HOSTILE)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    show(lambda: table, {}, as_json=False)
    write_text(tmp_path / "note.md", HOSTILE)
    show(lambda: "", {"name": HOSTILE}, as_json=True)
    shown = capsys.readouterr().out
    for text in (error, shown, (tmp_path / "note.md").read_text(encoding="utf-8")):
        assert not set(text) & {"\x1b", "\x07", "\udce9", "\u202e"}
        assert "\\x1b]0;title" in text or "\\u001b" in text
    assert "[red]" in shown
    assert json.loads(shown[shown.index("{\n") :])["name"] == HOSTILE


def test_the_log_has_no_control_characters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import logging

    from keras_qat.cli.program import _logging_to_terminal
    from keras_qat.cli.shared import logging_to

    with _logging_to_terminal(), logging_to(tmp_path / "log.txt"):
        logging.getLogger("keras_qat.data").warning("left out: %s", HOSTILE)
    for text in (capsys.readouterr().err, (tmp_path / "log.txt").read_text(encoding="utf-8")):
        assert "left out: \\x1b]0;title\\x07" in text
        assert "\x1b" not in text


@pytest.mark.parametrize("table", [False, True], ids=["the kit", "the table in it"])
def test_a_kit_that_unpacks_to_gigabytes(table: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is lowered here: it stops the kit itself, and the table, which is compressed once more."""
    from keras_qat.data.imagenet.listing import read_devkit

    monkeypatch.setattr("keras_qat.data.imagenet.listing._MOST_UNPACKED", 100_000)
    element = zlib.compress(bytes(200_000))
    content = bytes(124) + b"\0\1IM" + struct.pack("<II", 15, len(element)) + element if table else bytes(200_000)
    path = tmp_path / "kit.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name in ("meta.mat", "ILSVRC2012_validation_ground_truth.txt"):
            info = tarfile.TarInfo(f"ILSVRC2012_devkit_t12/data/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    with pytest.raises(DataError, match="unpacked, it has more than"):
        read_devkit(path)


def test_a_name_in_an_error_from_the_pipeline(tmp_path: Path) -> None:
    """TensorFlow carries the message as UTF-8, and its first line is found again."""
    path = tmp_path / "caf\udce9\n.png"
    path.write_text("text")
    with pytest.raises(BrokenImageError, match=r"caf\\udce9\\n.png: no known image format .*Replace the file"):
        list(ImageSet.from_files("x", [path], [0], EIGHT).arrays(1))


def test_names_of_outputs_are_utf8(tmp_path: Path) -> None:
    """Libraries that write models can't be given others; so a run names its folder in characters that they take."""
    from keras_qat.run import Settings

    with pytest.raises(StorageError, match="isn't UTF-8"):
        write_text(tmp_path / "caf\udce9.txt", "")
    assert Settings(data="/photos/caf\udce9\x1b").folder.name == "resnet50-caf_udce9_x1b-onnxruntime"


@pytest.mark.parametrize("damage", ["zeroed", "flipped", "cut off"])
def test_a_png_with_wrong_checksums_is_broken(damage: str, tmp_path: Path) -> None:
    """Pillow decodes the rest of such a file without a word."""
    path = noise(tmp_path / "photo.png", 0)
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    if damage == "zeroed":
        content[half:] = bytes(len(content) - half)
    elif damage == "flipped":
        content[half] ^= 1
    path.write_bytes(bytes(content[:-20]) if damage == "cut off" else bytes(content))
    with pytest.raises(BrokenImageError, match="Received: "):
        decode_file(str(path))
