"""What users get wrong about data: a `DataError` says what failed, what was received, and what to do."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

from keras_qat.data import ArraySet, ArraySpec, Preprocessing, Signature, load_data, load_validation, require_source
from keras_qat.errors import DataError

RAW = Preprocessing("raw", 8, 8)
MODEL = Signature((ArraySpec("sensor", (None, 6, 2)),), (ArraySpec("scores", (None, 4)),))
PAIR = Signature((ArraySpec("left", (None, 3)), ArraySpec("right", (None, 2))), (ArraySpec("y", (None, 4)),))
TOKENS = Signature((ArraySpec("tokens", (None, 6), "int8"),))
SEGMENTER = Signature((ArraySpec("image", (None, 8, 8, 3)),), (ArraySpec("mask", (None, 8, 8, 3)),))
REGRESSOR = Signature((ArraySpec("image", (None, 8, 8, 3)),), (ArraySpec("box", (None, 4)),))

X, Y = np.zeros((20, 6, 2), np.float32), np.arange(20) % 4


def _npz(**arrays: Any) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        np.savez(root / "d.npz", **arrays)
        return root / "d.npz"

    return write


def _file(name: str, content: bytes = b"not what its name says") -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        (root / name).write_bytes(content)
        return root / name

    return write


def _hdf5(fill: Callable[[h5py.File], Any]) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        with h5py.File(root / "d.h5", "w") as file:
            fill(file)
        return root / "d.h5"

    return write


def _code(body: str, name: str = "load") -> Callable[[Path], str]:
    """A function `load` whose body is given, named `name` on the command line."""

    def write(root: Path) -> str:
        lines = "".join(f"    {line}\n" for line in body.split("\n"))
        text = f"import numpy as np\nx, y = np.zeros((20, 6, 2)), np.arange(20) % 4\ndef load():\n{lines}"
        (root / "mine.py").write_text(text)
        return f"{root / 'mine.py'}:{name}"

    return write


def _samples(**second: Any) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        for i, arrays in enumerate(({"x": X[0], "y": 1}, second)):
            np.savez(root / f"{i}.npz", **arrays)
        return root

    return write


def _masks(spoil: Callable[[Path], Any], *places: str) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        for place in places or (".",):
            for folder, level in (("images", 90), ("masks", 1)):
                (root / place / folder).mkdir(parents=True)
                for i in range(6):
                    Image.new("L", (9, 9), level).save(root / place / folder / f"{i}.png")
        spoil(root)
        return root

    return write


def _csv(*lines: str, spoil: Callable[[Path], Any] = lambda _: None) -> Callable[[Path], Path]:
    def write(root: Path) -> Path:
        for i in range(6):
            Image.new("RGB", (9, 9)).save(root / f"{i}.png")
        (root / "d.csv").write_text("\n".join(lines) + "\n")
        spoil(root)
        return root / "d.csv"

    return write


def _images(labels: str) -> list[str]:
    return [f"{i}.png,{label}" for i, label in enumerate(labels.split(" "))]


def _with(array: np.ndarray, value: float, row: int = 13) -> np.ndarray:
    changed = array.astype(np.result_type(array, type(value)))
    changed[row] = value
    return changed


def _object_npy(root: Path) -> Path:
    np.save(root / "x.npy", np.array([{}, {}], object), allow_pickle=True)
    return root / "x.npy"


def _arguments(root: Path) -> str:
    (root / "a.py").write_text("def load(path, n=3): ...")
    return f"{root}/a.py:load"


def _broken_import(root: Path) -> str:
    (root / "b.py").write_text("raise ValueError('no disk')\ndef load(): ...")
    return f"{root}/b.py:load"


def _broken_dataset(root: Path) -> Path:
    for name in ("dataset_spec.pb", "snapshot.metadata"):
        (root / name).write_bytes(b"\xff")
    return root


Mistake = tuple[Callable[[Path], Any], Signature | None, str]

BY_NAME: dict[str, Mistake] = {
    "nothing there": (lambda root: root / "gone", None, "no data set or folder of that name.*Give 'digits'"),
    "a pickle": (_file("d.pkl"), None, r"kind '\.pkl' are not read.*may be code.*numpy\.savez"),
    "a file of torch": (_file("d.pt"), None, r"kind '\.pt' are not read.*my_data\.py:load"),
    "annotations": (_file("coco.json"), None, r"'\.json' are not read.*annotations"),
    "an archive": (_file("photos.zip"), None, r"'\.zip' are not read.*Unpack"),
    "a model": (_file("m.keras"), None, r"'\.keras' are not read.*That is a model"),
    "one image": (_file("a.png"), None, r"'\.png' are not read.*a single image. Give a folder"),
    "an unknown kind": (_file("d.xyz"), None, r"'\.xyz' are not read.*function"),
    "a file without suffix": (_file("d"), None, "are not read"),
    "a Python file without function": (_file("mine.py"), None, r"'\.py' are not read.*behind a colon"),
    "no such module": (lambda _: "no_such_module:load", None, "no Python module of that name"),
    "no such package": (lambda _: "no_such.module:load", None, "no Python module of that name"),
    "no such Python file": (lambda root: f"{root}/none.py:load", None, "no Python file of that name"),
    "no such function": (_code("return x", "lode"), None, r"no function 'lode'; it has 'load'\."),
    "a module without it": (lambda _: "keyword:nowhere", None, "no function 'nowhere'"),
    "no Python": (lambda root: f"{_file('a.py', b'def load(:')(root)}:load", None, "no valid Python.*in line 1"),
}

READING: dict[str, Mistake] = {
    "npy, no array file": (_file("x.npy"), None, r"Can't read the array file .*x\.npy"),
    "npy, cut short": (_file("x.npy", b"\x93NUMPY\x01\x00"), None, "Can't read the array file"),
    "npy, Python objects": (_object_npy, None, "Python objects, which are not read, since they may be code"),
    "npy, several inputs": (_file("x.npy"), PAIR, "holds one array, and the model has the inputs left, right"),
    "npz, no archive": (_file("d.npz"), None, "Can't read the array file"),
    "npz, Python objects": (_npz(x=np.array([{}], object)), None, "Python objects"),
    "npz, keys of another meaning": (_npz(a=X, b=Y), MODEL, r"don't say which is for the input.*Received: 'a', 'b'"),
    "npz, an input missing": (
        _npz(left=X, y=Y),
        PAIR,
        "the inputs of the model, 'left', 'right'.*Received: 'left', 'y'",
    ),
    "npz, labels alone": (_npz(y=Y), MODEL, "don't say which is for the input"),
    "npz, cut and not cut": (_npz(x=X, x_train=X), MODEL, "isn't clear which arrays.*'x', 'x_train'"),
    "npz, nothing to judge by": (_npz(x_val=X, x_extra=X), MODEL, "nothing that trains or calibrates"),
    "npz, labels for one part": (_npz(x_train=X, y_train=Y, x_test=X), MODEL, "Only some parts.*no labels for test"),
    "empty": (_npz(x=X[:0]), None, "holds no sample"),
    "too few": (_npz(x=X[:4], y=Y[:4]), MODEL, "too few samples.*4 sample"),
    "one to train": (_npz(x_train=X[:1], x_test=X), MODEL, "too small to hold out samples"),
    "a number": (_npz(x=np.float32(3)), None, "first axis of an array counts samples"),
    "text": (_npz(x=X, y=np.array(["ant"] * 20)), None, "must hold numbers. Received: an array of type <U3"),
    "other lengths": (
        _npz(x=X, y=Y[:19]),
        MODEL,
        "different numbers of samples. Received: 20 in 'x' of d.npz, 19 in 'y'",
    ),
    "another shape": (_npz(x=X[:, :5], y=Y), MODEL, r"takes \(\?, 6, 2\). Received: an array of shape \(20, 5, 2\)"),
    "channels first": (_npz(x=X.transpose(0, 2, 1)), MODEL, "channels seem to come first"),
    "one sample": (_npz(x=X[0]), MODEL, "one sample without a batch axis"),
    "complex numbers": (_npz(x=X.astype(complex)), MODEL, "must hold numbers. Received: an array of type complex128"),
    "fractions for integers": (_npz(x=np.full((20, 6), 0.5)), TOKENS, "type int8 .*0.5 to 0.5"),
    "integers out of range": (_npz(x=np.full((20, 6), 300)), TOKENS, "type int8 .*from 300 to 300"),
    "NaN": (_npz(x=_with(X, np.nan), y=Y), MODEL, "'x' of d.npz holds a number.*Received: nan in sample 13"),
    "infinity in labels": (_npz(x=X, y=_with(Y, np.inf)), MODEL, "'y' of d.npz holds a number.*inf in sample 13"),
    "too large for float32": (_npz(x=_with(X, 1e300), y=Y), MODEL, "Received: inf in sample 13"),
    "labels out of range": (_npz(x=X, y=_with(Y, 7)), MODEL, "from 0 to 3. Received: labels from 0 to 7"),
    "labels from 1": (_npz(x=X, y=Y + 1), MODEL, "Received: labels from 1 to 4. Subtract 1"),
    "negative labels": (_npz(x=X, y=Y - 3), MODEL, "labels from -3"),
    "labels with fractions": (_npz(x=X, y=Y + 0.5), MODEL, "which are whole. Received: 0.5"),
    "labels of another shape": (
        _npz(x=X, y=np.zeros((20, 3))),
        MODEL,
        r"of shape \(\?, 4\). Received: labels of shape",
    ),
    "HDF5, no such file": (_file("d.h5"), None, "Can't read the array file"),
    "HDF5, a Keras model": (_hdf5(lambda f: f.attrs.update(model_config="{}")), None, "holds a Keras model"),
    "HDF5, a link": (
        _hdf5(lambda f: f.update(x=h5py.ExternalLink("/etc/passwd", "x"))),
        None,
        "takes numbers from elsewhere: 'x' is a link",
    ),
    "HDF5, more rows than memory": (
        _hdf5(lambda f: f.create_dataset("x", (2**45,), "u1", chunks=(2**20,))),
        None,
        "of memory, and .* are available",
    ),
    "HDF5, no arrays": (_hdf5(lambda f: f.create_group("x")), MODEL, "Received: no array"),
    "samples of other shapes": (_samples(x=X[0, :3], y=0), MODEL, r"one shape.*Received: .*1\.npz.*\(3, 2\)"),
    "a sample without label": (_samples(x=X[0]), MODEL, r"Can't read .*1\.npz"),
    "arguments needed": (
        _arguments,
        None,
        "without arguments.*'path'",
    ),
    "import fails": (
        _broken_import,
        None,
        r"Importing .* failed with ValueError: no disk in line 1",
    ),
    "the function fails": (_code("return 1 / 0"), None, r"failed with ZeroDivisionError: .* in line 4 of .*mine\.py"),
    "returns nothing": (_code("pass"), None, "nothing that can be read as data. Received: NoneType"),
    "returns a path": (_code("return 'photos'"), None, "gives a text.*'photos'.*give it in place of the function"),
    "returns text": (_code("return np.array(['a'])"), None, "no array of numbers"),
    "returns ragged lists": (_code("return [[1, 2], [3]], y"), None, "no array"),
    "no batches": (_code("yield from ()"), None, "gives no data. Received: generator without a batch"),
    "a generator fails": (
        _code("yield x[:4], y[:4]\nraise OSError('disk')"),
        MODEL,
        r"batch 2, failed with OSError: disk in line 5",
    ),
    "ends early": (
        _code("class A(list):\n    def __iter__(self): return iter([x])\nreturn A([x, x])"),
        MODEL,
        "end early. Received: 1 of 2 batches",
    ),
    "never ends, by its length": (
        _code("import tensorflow as tf\nreturn tf.data.Dataset.from_tensors(x).repeat()"),
        MODEL,
        r"never end\. .*dataset\.take\(n\)",
    ),
    "never ends": (_code("while True: yield np.zeros((2**14, 6, 2))"), MODEL, "don't fit in memory, or never end"),
    "batches of other shapes": (
        _code("yield x\nyield x[:, :2]"),
        None,
        r"one shape. Received: x of shapes \(2, 2\), \(6, 2\)",
    ),
    "labels come and go": (
        _code("yield x, y\nyield x"),
        MODEL,
        "same structure. Received: batch 2 of 1 input.* 0 label",
    ),
    "too many in a batch": (
        _code("yield x, y, y, y"),
        MODEL,
        r"x, \(x, y\) or \(x, y, weights\). Received: tuple of 4",
    ),
    "other names in batches": (_code("yield {'up': x, 'down': x}, y"), PAIR, "Name them 'left', 'right'"),
    "one input of two": (_code("return x, y"), PAIR, r"2 input\(s\), left: float32 \(\?, 3\).*Received: 1 input array"),
    "parts in parts": (_code("return {'train': {'x_train': x}, 'val': x}"), MODEL, "A part can't hold other parts"),
    "no saved dataset": (_broken_dataset, None, "TensorFlow can't read the saved dataset"),
    "a mask missing": (
        _masks(lambda r: (r / "masks/4.png").unlink()),
        None,
        r"1 of 6 images have no mask.*images/4\.png",
    ),
    "an image missing": (_masks(lambda r: (r / "images/4.png").unlink()), None, r"1 of 6 masks have no image.*masks/4"),
    "no masks": (_masks(lambda r: [p.unlink() for p in (r / "masks").iterdir()]), None, "no images in .*masks"),
    "val without masks": (
        _masks(lambda r: (r / "val/masks").rename(r / "m"), "train", "val"),
        None,
        "no folder .*val/masks",
    ),
    "masks of another size": (
        _masks(lambda r: Image.new("L", (9, 8)).save(r / "masks/2.png")),
        None,
        r"the size of its image. Received: .*masks/2\.png' of 9 x 8 pixels, and .* of 9 x 9",
    ),
    "masks of colours": (
        _masks(lambda r: Image.new("RGB", (9, 9), (1, 2, 3)).save(r / "masks/2.png")),
        None,
        "shows classes by colours.*channels RGB",
    ),
    "masks out of range": (
        _masks(lambda r: Image.new("L", (9, 9), 7).save(r / "masks/2.png")),
        SEGMENTER,
        r"from 0 to 2, and 255 .*Received: 7 in .*2\.png",
    ),
    "two images of one name": (
        _masks(lambda r: Image.new("L", (9, 9)).save(r / "images/2.bmp")),
        None,
        r"have one name.*2\.bmp' and .*2\.png",
    ),
    "text among images": (_masks(lambda r: (r / "images/a.txt").touch()), None, "something that isn't an image"),
    "CSV, empty": (_csv(), None, "lists no image"),
    "CSV, header alone": (_csv("path,label"), None, "lists no image"),
    "CSV, table of numbers": (
        _csv("time,value", "0.5,3", "0.6,4"),
        None,
        r"names no image in line 2.*'0.5'.*numpy.savez",
    ),
    "CSV, image missing": (_csv("a.png,0", "0.png,1"), None, r"An image isn't there in line 1.*a\.png"),
    "CSV, mask missing": (_csv("0.png,1.png", "1.png,m.png"), None, r"A mask isn't there in line 2.*m\.png"),
    "CSV, uneven lines": (_csv("0.png,1", "1.png"), None, r"as many cells as the first, 2. Received: 1 in line 2"),
    "CSV, label missing": (_csv(*_images("ant bee  cat ant bee")), None, "label in column 2 is missing in line 3"),
    "CSV, names and numbers": (_csv(*_images("1,2 1,b 1,2 1,2 1,2 1,2")), None, "must be numbers.*in line 2.*'b'"),
    "CSV, NaN": (_csv(*_images("1,2,3,4 nan,2,3,4 1,2,3,4 1,2,3,4 1,2,3,4 1,2,3,4")), REGRESSOR, "nan in sample 1"),
    "CSV, other numbers": (_csv(*_images("1,2 3,4 5,6 1,2 3,4 5,6")), REGRESSOR, r"of shape \(\?, 4\)"),
    "CSV, classes out of range": (_csv(*_images("0 1 2 9 0 1")), SEGMENTER, "doesn't fit the output"),
    "CSV, unknown part": (
        _csv("path,split,y", "0.png,train,1", "1.png,dev,1"),
        None,
        "part .* is unknown in line 3.*'dev'",
    ),
    "CSV, nothing judges": (
        _csv("path,split,y", *(f"{i}.png,val,1" for i in range(6))),
        None,
        "no part 'train'. Received: validation",
    ),
    "CSV, no text": (_csv("0.png", spoil=lambda r: (r / "d.csv").write_bytes(b"\xff\xfe\x00")), None, "Received: "),
    "CSV, broken image": (
        _csv(*_images("0 1 0 1 0 1"), spoil=lambda r: (r / "3.png").write_bytes(b"x")),
        None,
        r"Can't read the image .*3\.png",
    ),
}


@pytest.fixture(autouse=True)
def _little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream that never ends must not fill the memory of the tests."""
    from keras_qat.machine import Memory

    monkeypatch.setattr("keras_qat.data.arrays.stream_arrays.memory", lambda: Memory(2**26, 2**26))


def _require_readable(error: DataError, message: str) -> None:
    assert re.search(message, str(error), re.DOTALL), error
    assert "Received: " in str(error)
    assert str(error).rstrip().endswith((".", "load"))


@pytest.mark.parametrize("mistake", BY_NAME)
def test_a_mistake_in_a_name_is_found_before_anything_is_read(mistake: str, tmp_path: Path) -> None:
    write, _, message = BY_NAME[mistake]
    source = write(tmp_path)
    for check in (require_source, lambda s: load_data(s, RAW, seed=0), lambda s: load_validation(s, RAW, seed=0)):
        with pytest.raises(DataError) as raised:
            check(source)
        _require_readable(raised.value, message)


@pytest.mark.parametrize("mistake", READING)
def test_a_mistake_in_data_is_said_in_words(mistake: str, tmp_path: Path) -> None:
    write, signature, message = READING[mistake]
    with pytest.raises(DataError) as raised:
        load_data(write(tmp_path), RAW, seed=0, signature=signature)
    _require_readable(raised.value, message)


def test_a_number_that_is_not_finite_is_found_wherever_it_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the beginning of a large array is looked through before it is used."""
    monkeypatch.setattr("keras_qat.data.arrays.rows._MOST_SEEN", 5 * X[0].nbytes)
    data = ArraySet.from_arrays("d", _with(X, np.nan), Y, MODEL)
    with pytest.raises(DataError, match=r"input 0 of d holds a number .* nan in sample 13"):
        list(data.batches(4, shuffle_seed=0))


def test_arrays_larger_than_the_memory_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keras_qat.machine import Memory

    monkeypatch.setattr("keras_qat.data.arrays.files.memory", lambda: Memory(900, 900))
    with pytest.raises(DataError, match=r"need 1\.0 kB of memory, and 0\.9 kB .*Save them as \.npy"):
        load_data(_npz(x=X)(tmp_path), None, seed=0)
