"""Sets of arrays: what they hold, how they are cut and shuffled, and every form in which people keep them."""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qat.data import ArraySet, ArraySpec, ImageSet, Preprocessing, Signature, Splits, load_data, load_validation
from keras_qat.errors import DataError, UserError

N = 40
SENSOR = Signature((ArraySpec("sensor", (None, 6, 2)),), (ArraySpec("scores", (None, 4)),))
PAIR = Signature(
    (ArraySpec("left", (None, 3)), ArraySpec("right", (None, 2, 2, 1))),
    (ArraySpec("scores", (None, 4)), ArraySpec("box", (None, 2))),
)


def _sensors(n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Samples that say their number and class: x[i] is i everywhere, y[i] is i % 4."""
    y = np.arange(n) % 4
    return np.broadcast_to(np.arange(n, dtype=np.float32)[:, None, None], (n, 6, 2)).copy(), y


def _numbers(data: Any) -> list[int]:
    """The numbers of the samples of a set, in its order; each must come with the label of its number."""
    found: list[int] = []
    for x, y in data.arrays(7):
        assert (x.dtype, x.shape[1:], y.dtype) == (np.float32, (6, 2), np.int32)
        np.testing.assert_array_equal(x[:, 0, 0].astype(int) % 4, y)
        found += x[:, 0, 0].astype(int).tolist()
    return found


def _sets(splits: Splits) -> tuple[list[int], list[int], list[int]]:
    return _numbers(splits.train), _numbers(splits.selection), _numbers(splits.validation)


def _write_h5(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def _write_npy_folder(path: Path, arrays: Mapping[str, np.ndarray]) -> Path:
    path.mkdir()
    for name, array in arrays.items():
        np.save(path / f"{name}.npy", array)
    return path


def _write_samples(path: Path, x: np.ndarray, y: np.ndarray) -> Path:
    path.mkdir(parents=True)
    for i, (one, label) in enumerate(zip(x, y, strict=True)):
        np.savez(path / f"{i:04d}.npz", x=one, y=label)
    return path


def _savez(path: Path, *args: np.ndarray, **arrays: np.ndarray) -> Path:
    np.savez(path, *args, **arrays)
    return path


def _save_dataset(path: Path, x: np.ndarray, y: np.ndarray) -> Path:
    tf.data.Dataset.from_tensor_slices((x, y)).batch(9).save(str(path))
    return path


def _function(path: Path, body: str) -> str:
    file = path / "mine.py"
    file.write_text(
        "import numpy as np\n"
        "y = np.arange(40) % 4\n"
        "x = np.broadcast_to(np.arange(40, dtype=np.float32)[:, None, None], (40, 6, 2)).copy()\n"
        "batches = [(x[i : i + 8], y[i : i + 8]) for i in range(0, 40, 8)]\n"
        "class Loader:\n"
        "    def __len__(self): return 5\n"
        "    def __iter__(self): return iter([[Tensor(x), Tensor(y)] for x, y in batches])\n"
        "class Samples:\n"
        "    def __len__(self): return 40\n"
        "    def __getitem__(self, i): return x[i], y[i]\n"
        "class Tensor:\n"
        "    'As a tensor of torch that requires gradients: NumPy may not read it as it is.'\n"
        "    def __init__(self, a): self.a = a\n"
        "    shape = property(lambda self: self.a.shape)\n"
        "    def detach(self): return Detached(self.a)\n"
        "    def cpu(self): return self\n"
        "    def __array__(self, *_, **__): raise RuntimeError('requires grad')\n"
        "class Detached(Tensor):\n"
        "    def numpy(self): return self.a\n"
        f"def load():\n{body}\n"
    )
    return f"{file}:load"


UNCUT: dict[str, Callable[[Path, np.ndarray, np.ndarray], str | Path]] = {
    "npz": lambda root, x, y: _savez(root / "d.npz", x=x, y=y),
    "npz of positions": lambda root, x, y: _savez(root / "d.npz", x, y),
    "npz, named as the model": lambda root, x, y: _savez(root / "d.npz", sensor=x, scores=y, note=np.zeros(3)),
    "npz, one-hot labels": lambda root, x, y: _savez(root / "d.npz", x=x, y=np.eye(4)[y]),
    "npz, labels of floats in a column": lambda root, x, y: _savez(root / "d.npz", x=x, y=y[:, None].astype(float)),
    "npz, other types": lambda root, x, y: _savez(root / "d.npz", x=x.astype(">i2"), y=y.astype("uint8")),
    "npz, an axis of size 1": lambda root, x, y: _savez(root / "d.npz", x=x[..., None], y=y),
    "folder of .npy": lambda root, x, y: _write_npy_folder(root / "d", {"x": x, "y": y}),
    "HDF5": lambda root, x, y: _write_h5(root / "d.h5", {"images": x, "labels": y}),
    "samples in files": lambda root, x, y: _write_samples(root / "d", x, y),
    "saved tf.data": lambda root, x, y: _save_dataset(root / "d", x, y),
    "function, pair": lambda root, *_: _function(root, "    return x, y"),
    "function, dictionary": lambda root, *_: _function(root, "    return {'sensor': x, 'scores': y}"),
    "function, generator of batches": lambda root, *_: _function(root, "    yield from batches"),
    "function, generator of samples": lambda root, *_: _function(root, "    yield from zip(x, y)"),
    "function, generator of dictionaries": lambda root, *_: _function(
        root, "    for a, b in batches: yield {'x': a, 'y': b}"
    ),
    "function, weights": lambda root, *_: _function(root, "    return [(a, b, b) for a, b in batches]"),
    "function, DataLoader": lambda root, *_: _function(root, "    return Loader()"),
    "function, map-style samples": lambda root, *_: _function(root, "    return Samples()"),
    "function, tf.data of batches": lambda root, *_: _function(
        root, "    import tensorflow as tf\n    return tf.data.Dataset.from_tensor_slices((x, y)).batch(16)"
    ),
    "function, tf.data of samples": lambda root, *_: _function(
        root, "    import tensorflow as tf\n    return tf.data.Dataset.from_tensor_slices((x, y))"
    ),
    "function, PyDataset": lambda root, *_: _function(
        root,
        "    import keras\n    class Mine(keras.utils.PyDataset):\n"
        "        def __len__(self): return 5\n        def __getitem__(self, i): return batches[i]\n    return Mine()",
    ),
    "function, Keras tensors": lambda root, *_: _function(
        root, "    import keras\n    return keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)"
    ),
}


@pytest.mark.parametrize("form", UNCUT)
def test_every_form_gives_the_same_samples_cut_and_stratified(form: str, tmp_path: Path) -> None:
    source = UNCUT[form](tmp_path, *_sensors())
    splits = load_data(source, None, seed=3, signature=SENSOR)
    train, selection, validation = _sets(splits)
    assert sorted(train + selection + validation) == list(range(N))
    assert (len(validation), len(selection)) == (8, 3)
    assert np.bincount(splits.validation.labels).tolist() == [2, 2, 2, 2]
    assert (splits.num_classes, splits.class_names) == (4, ("0", "1", "2", "3"))
    assert splits.train.labelled
    assert splits.train.preprocessing is None
    judged = load_validation(source, None, seed=3, signature=SENSOR)
    assert _numbers(judged.images) == validation
    assert judged.class_names == splits.class_names
    assert judged.images.fingerprint() == splits.validation.fingerprint()
    assert sorted(_sets(load_data(source, None, seed=4, signature=SENSOR))[2]) != sorted(validation)


def _parts(names: str) -> dict[str, np.ndarray]:
    """Named arrays of three parts, of 20, 8 and 12 samples, from "train val test"."""
    x, y = _sensors()
    cut = dict(zip(names.split(), np.split(np.arange(N), [20, 28]), strict=False))
    arrays = {}
    for part, where in cut.items():
        arrays |= {f"x_{part}": x[where], f"y_{part}": y[where]}
    return arrays


def _by_part(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    parts: dict[str, dict[str, np.ndarray]] = {}
    for name, array in arrays.items():
        parts.setdefault(name[2:], {})[name[0]] = array
    return parts


def _write_part_files(path: Path, names: str) -> Path:
    path.mkdir()
    for part, arrays in _by_part(_parts(names)).items():
        np.savez(path / f"{part}.npz", **arrays)
    return path


def _write_part_folders(path: Path, names: str) -> Path:
    for part, arrays in _by_part(_parts(names)).items():
        _write_samples(path / part, arrays["x"], arrays["y"])
    return path


CUT: dict[str, tuple[Callable[[Path], str | Path], str]] = {
    "npz with test": (lambda root: _savez(root / "d.npz", **_parts("train test")), "test"),
    "npz with val": (lambda root: _savez(root / "d.npz", **_parts("train val")), "validation"),
    "npz with both": (lambda root: _savez(root / "d.npz", **_parts("train val test")), "both"),
    "names in front": (
        lambda root: _savez(
            root / "d.npz",
            **{f"{k[2:]}_{'images' if k[0] == 'x' else 'labels'}": v for k, v in _parts("train test").items()},
        ),
        "test",
    ),
    "groups of HDF5": (
        lambda root: _write_h5(root / "d.hdf5", {f"{k[2:]}/{k[0]}": v for k, v in _parts("train val").items()}),
        "validation",
    ),
    "folder of .npy": (lambda root: _write_npy_folder(root / "d", _parts("train val test")), "both"),
    "a file for each part": (lambda root: _write_part_files(root / "d", "train test"), "test"),
    "folders of samples": (lambda root: _write_part_folders(root / "d", "train val"), "validation"),
    "function, dictionary of parts": (
        lambda root: _function(root, "    return {'train': (x[:20], y[:20]), 'validation': batches[2:4][:1]}"),
        "validation",
    ),
    "function, as keras.datasets": (
        lambda root: _function(root, "    return (x[:20], y[:20]), (x[20:28], y[20:28])"),
        "validation",
    ),
}


@pytest.mark.parametrize("form", CUT)
def test_a_data_set_that_is_cut_keeps_its_cut(form: str, tmp_path: Path) -> None:
    write, judge = CUT[form]
    source = write(tmp_path)
    splits = load_data(source, None, seed=0, signature=SENSOR)
    train, selection, validation = _sets(splits)
    if judge == "both":
        assert (train, selection, validation) == (list(range(20)), list(range(20, 28)), list(range(28, 40)))
    else:
        assert sorted(train + selection) == list(range(20))
        assert len(selection) == 2
        assert validation == (list(range(20, 28)) if "function" not in form else validation)
        assert min(validation) >= 16
    assert splits.validation.name.endswith("/test" if judge != "validation" else "/validation")
    assert _numbers(load_validation(source, None, seed=9, signature=SENSOR).images) == validation


def test_what_judges_is_enough_to_judge_by(tmp_path: Path) -> None:
    source = _savez(tmp_path / "d.npz", **_parts("test"))
    assert _numbers(load_validation(source, None, seed=0, signature=SENSOR).images) == list(range(20))
    with pytest.raises(DataError, match=r"nothing that trains or calibrates\. Received: 'test'"):
        load_data(source, None, seed=0, signature=SENSOR)


def test_a_loader_that_shuffles_gives_the_same_cut_each_time(tmp_path: Path) -> None:
    """Else a sample that calibrated a run would judge it when it is evaluated later."""
    source = _function(
        tmp_path, "    order = np.random.default_rng().permutation(40)\n    yield from zip(x[order], y[order])"
    )
    first, second = (load_data(source, None, seed=0, signature=SENSOR) for _ in range(2))
    assert first.fingerprints() == second.fingerprints()
    assert _sets(first) == _sets(second)


def test_several_inputs_and_outputs_are_found_by_name_and_put_in_order(tmp_path: Path) -> None:
    index = np.arange(N, dtype=np.float32)
    arrays = {
        "box": np.stack([index, -index], 1),
        "right": np.broadcast_to(index[:, None, None], (N, 2, 2)),
        "scores": np.arange(N) % 4,
        "left": np.broadcast_to(index[:, None], (N, 3)),
    }
    file = f"def load():\n    import numpy as np\n    return dict(np.load({str(tmp_path / 'd.npz')!r}))\n"
    (tmp_path / "two.py").write_text(file)
    sources = [_savez(tmp_path / "d.npz", **arrays), _write_h5(tmp_path / "d.h5", arrays), f"{tmp_path}/two.py:load"]
    for source in sources:
        splits = load_data(source, None, seed=0, signature=PAIR)
        assert (splits.num_classes, splits.class_names) == (0, ())
        for (left, right), (scores, box) in splits.train.batches(9, shuffle_seed=1):
            assert (left.shape[1:], right.shape[1:]) == ((3,), (2, 2, 1))
            assert (scores.dtype, box.dtype) == (np.int32, np.float32)
            assert splits.train.label_kinds == ("classification", "regression")
            number = left[:, 0]
            np.testing.assert_array_equal(right[:, 1, 1, 0], number)
            np.testing.assert_array_equal(scores, number % 4)
            np.testing.assert_array_equal(box, np.stack([number, -number], 1))


def test_inputs_alone_are_a_set_without_labels(tmp_path: Path) -> None:
    x, _ = _sensors()
    np.save(tmp_path / "x.npy", np.asfortranarray(x))
    splits = load_data(tmp_path / "x.npy", None, seed=0, signature=SENSOR)
    assert (splits.train.labelled, splits.train.label_kinds) == (False, ())
    assert (splits.num_classes, splits.name) == (0, "x")
    for given, labels in splits.train.arrays(7):
        assert given.shape[1:] == (6, 2)
        assert labels.tolist() == [-1] * len(given)
        assert labels.dtype == np.int32


def test_memory_maps_and_hdf5_read_only_the_rows_that_are_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The files hold 1 GB of holes, which take no room on the disk, and more than `load_data` looks through."""
    monkeypatch.setattr("keras_qat.data.arrays.rows._MOST_SEEN", 2**20)
    rows = 2**18
    np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (rows, 1024))[-1] = 7
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("x", (rows, 1024), np.float32, chunks=(64, 1024))
        dataset[-1] = 7
    for name in ("x.npy", "x.h5"):
        validation = load_validation(tmp_path / name, None, seed=0).images.take(16, seed=0)
        x, _ = next(validation.arrays(16))
        assert x.shape == (16, 1024)
    last = ArraySet("last", validation.inputs, (), np.array([rows - 1, 0, rows - 1]))
    assert next(last.arrays(3))[0][:, 0].tolist() == [7, 0, 7]


LABELS: dict[str, tuple[tuple[int | None, ...], np.ndarray, np.ndarray]] = {
    # name: (shape of the output, labels as given, labels as fed)
    "classes": ((None, 3), np.array([2, 0, 1]), np.array([2, 0, 1], np.int32)),
    "two classes of one score": ((None, 1), np.array([[1.0], [0.0], [1.0]]), np.array([1, 0, 1], np.int32)),
    "booleans": ((None, 1), np.array([True, False, True]), np.array([1, 0, 1], np.int32)),
    "ages": ((None, 1), np.array([33, 4, 1]), np.array([[33], [4], [1]], np.float32)),
    "a number": ((None, 1), np.array([0.5, 4, 1]), np.array([[0.5], [4], [1]], np.float32)),
    "points": ((None, 2), np.array([[1, 2], [3, 4], [5, 6]]), np.array([[1, 2], [3, 4], [5, 6]], np.float32)),
    "class maps": (
        (None, 1, 2, 3),
        np.array([[[0, 2]], [[1, 255]], [[-1, 2]]]),
        np.array([[[0, 2]], [[1, 255]], [[-1, 2]]], np.int32),
    ),
    "class maps with an axis": (
        (None, None, None, 3),
        np.array([[[[0], [2]]]] * 3, np.uint8),
        np.array([[[0, 2]]] * 3, np.int32),
    ),
    "one-hot class maps": ((None, 2, 3), np.eye(3)[[[0, 1], [1, 2], [2, 0]]], np.array([[0, 1], [1, 2], [2, 0]], "i4")),
    "maps of one score": ((None, 2, 1), np.array([[[0.0], [1.0]]] * 3), np.array([[0, 1]] * 3, np.int32)),
    "black and white": ((None, 2, 1), np.array([[[0], [255]]] * 3, np.uint8), np.array([[0, 1]] * 3, np.int32)),
    "black and white, two scores": ((None, 2, 2), np.array([[0, 255]] * 3, np.uint8), np.array([[0, 1]] * 3, np.int32)),
    "depths": ((None, 2, 1), np.array([[0.25, 3]] * 3), np.array([[[0.25], [3]]] * 3, np.float32)),
    "reconstruction": ((None, 2, 3), np.full((3, 2, 3), 0.5), np.full((3, 2, 3), 0.5, np.float32)),
}


@pytest.mark.parametrize("case", LABELS)
def test_what_labels_say_is_told_by_the_output(case: str) -> None:
    shape, given, fed = LABELS[case]
    signature = Signature((ArraySpec("x", (None, 2)),), (ArraySpec("y", shape),))
    data = ArraySet.from_arrays("d", np.zeros((3, 2), "float32"), given, signature)
    _, y = next(data.arrays(3))
    assert y.dtype == fed.dtype
    np.testing.assert_array_equal(y, fed)
    np.testing.assert_array_equal(data.labels, fed if fed.dtype == np.int32 and fed.ndim == 1 else [-1, -1, -1])
    assert data.labelled
    kinds = {1: "classification"} if fed.dtype == np.int32 else {}
    maps = "segmentation" if fed.dtype == np.int32 else "regression"
    assert data.label_kinds == (kinds.get(fed.ndim, maps),)


def test_orders_are_those_of_image_sets_and_resume() -> None:
    x, y = _sensors(12)
    arrays = ArraySet.from_arrays("d", x, y)
    images = ImageSet.from_arrays("d", np.zeros((12, 4, 4, 3), np.uint8), np.arange(12), Preprocessing("raw", 4, 4))

    def passes(batches: Any, number: Callable[[Any, Any], Any]) -> list[list[int]]:
        return [[int(n) for a, b in batches for n in np.asarray(number(a, b))] for _ in range(3)]

    ours = passes(arrays.batches(5, shuffle_seed=7), lambda a, _: a[:, 0, 0])
    assert ours == passes(images.batches(5, shuffle_seed=7), lambda _, b: b)
    assert ours[1:] == passes(arrays.batches(5, shuffle_seed=7, first_pass=1), lambda a, _: a[:, 0, 0])[:2]
    assert ours[0] != ours[1]
    once = [int(n) for a, _ in arrays.arrays(5, shuffle_seed=7) for n in a[:, 0, 0]]
    assert once == ours[0]
    assert arrays.take(4, seed=1).labels.tolist() == arrays.take(8, seed=1).labels.tolist()[:4]
    assert sorted(arrays.take(4, seed=1).labels) == [0, 1, 2, 3]
    with pytest.raises(UserError, match="Images of files are mirrored and cropped, arrays are not"):
        arrays.batches(5, shuffle_seed=1, augment="flip")


def test_keras_trains_and_predicts_on_the_batches() -> None:
    x, y = _sensors(20)
    data = ArraySet.from_arrays("d", x, y)
    model = keras.Sequential([keras.Input((6, 2)), keras.layers.Flatten(), keras.layers.Dense(4)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = data.batches(8, shuffle_seed=0)
    history = model.fit(batches, epochs=2, verbose=0)
    assert len(history.history["loss"]) == 2
    assert next(iter(batches))[1].tolist() == next(iter(data.batches(8, shuffle_seed=0, first_pass=2)))[1].tolist()
    assert model.predict(data.batches(8), verbose=0).shape == (20, 4)


def test_a_fingerprint_changes_with_the_numbers_and_their_order_and_not_with_the_place(tmp_path: Path) -> None:
    x, y = _sensors()
    sources = {}
    for name, arrays in {
        "one": {"x": x, "y": y},
        "moved": {"x": x, "y": y},
        "labels": {"x": x, "y": y[::-1].copy()},
        "inputs": {"x": np.where(x == 39, 0, x), "y": y},
    }.items():
        sources[name] = load_data(_write_npy_folder(tmp_path / name, arrays), None, seed=0, signature=SENSOR)
    digests = {name: splits.fingerprints() for name, splits in sources.items()}
    assert digests["one"] == digests["moved"]
    assert len({str(d) for d in digests.values()}) == 3
    train = sources["one"].train
    assert train.fingerprint() != train.select(np.arange(len(train))[::-1].copy()).fingerprint()


_WITHOUT_TENSORFLOW = """
import sys
sys.modules["tensorflow"] = None
import numpy as np
from keras_qat.data import decode_errors, load_data, load_validation
np.savez("d.npz", x=np.zeros((20, 3), "float32"), y=np.arange(20) % 2)
np.save("x.npy", np.zeros((20, 3), "float32"))
open("mine.py", "w").write("import numpy as np\\ndef load():\\n    yield np.zeros((20, 3)), np.zeros(20, int)\\n")
for source in ("d.npz", "x.npy", "mine:load"):
    splits = load_data(source, None, seed=0)
    with decode_errors():
        assert sum(len(x) for x, y in splits.train.batches(4, shuffle_seed=1)) == 14
    assert len(load_validation(source, None, seed=0).images) == 4
"""


def test_arrays_need_no_tensorflow(tmp_path: Path) -> None:
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", _WITHOUT_TENSORFLOW]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
