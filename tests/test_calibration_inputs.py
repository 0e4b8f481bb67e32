"""Calibration images in every form: the same numbers, the exact number of images, an error for unreadable data."""

import itertools
import logging
import re
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from keras_qat import apply_placement, calibrate, correct_bias, plan, progress, trace
from keras_qat.calibration import read_batches
from keras_qat.errors import DataError, UserError

layers = keras.layers


def images(count: int = 20, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2, (count, 6, 6, 3)).astype("float32")


X, Y = images(), np.arange(20)
LEFT, RIGHT = images(seed=2), images(seed=3)[:, :4, :4]


@pytest.fixture(scope="module")
def model() -> keras.Model:
    image = keras.Input((6, 6, 3), name="image")
    return keras.Model(image, layers.Conv2D(2, 3, name="conv")(image), name="network")


@pytest.fixture(scope="module")
def siamese() -> keras.Model:
    left, right = keras.Input((6, 6, 3), name="left"), keras.Input((4, 4, 3), name="right")
    tops = [layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(x)) for x in (left, right)]
    return keras.Model([left, right], layers.Concatenate()(tops), name="siamese")


def read(data: Any, model: keras.Model, **settings: Any) -> list[list[np.ndarray]]:
    return list(read_batches(data, model, description="reading", **settings))


def joined(batches: list[list[np.ndarray]]) -> list[np.ndarray]:
    return [np.concatenate(arrays) for arrays in zip(*batches, strict=True)]


def split(*arrays: np.ndarray, size: int = 8) -> list[Any]:
    pieces = [[a[i : i + size] for a in arrays] for i in range(0, len(arrays[0]), size)]
    return [piece[0] if len(arrays) == 1 else piece for piece in pieces]


class FakeTensor:
    """Behaves like a tensor of PyTorch, which must be detached and on the CPU before NumPy can read it."""

    def __init__(self, values: np.ndarray, *, attached: bool = True, device: str = "cuda") -> None:
        self.values, self.attached, self.device = values, attached, device

    def detach(self) -> "FakeTensor":
        return FakeTensor(self.values, attached=False, device=self.device)

    def cpu(self) -> "FakeTensor":
        return FakeTensor(self.values, attached=self.attached, device="cpu")

    def __array__(self, dtype: Any = None, *, copy: bool | None = None) -> np.ndarray:
        if self.attached:
            raise RuntimeError("Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead.")
        if self.device != "cpu":
            raise TypeError("can't convert cuda:0 device type tensor to numpy.")
        return np.array(self.values, dtype, copy=copy)


class FakeLoader:
    """Collates samples into lists, as a DataLoader does; its length may be unknown, as an IterableDataset's is."""

    def __init__(self, *arrays: np.ndarray, sized: bool = True, collate: Callable[..., Any] = list) -> None:
        self.arrays, self.sized, self.collate = arrays, sized, collate

    def __len__(self) -> int:
        if not self.sized:
            raise TypeError("object of type 'IterableDataset' has no len()")
        return len(split(*self.arrays))

    def __iter__(self) -> Iterator[Any]:
        for batch in split(*self.arrays):
            yield self.collate(map(FakeTensor, batch)) if isinstance(batch, list) else FakeTensor(batch)


class Batches(keras.utils.PyDataset):
    """Finite, unless `num_batches` is replaced."""

    def __init__(self, *arrays: np.ndarray) -> None:
        super().__init__()
        self.batches = split(*arrays)

    @property
    def num_batches(self) -> int | None:
        return len(self.batches)

    def __getitem__(self, index: int) -> Any:
        batch = self.batches[index % len(self.batches)]
        return tuple(batch) if isinstance(batch, list) else batch


class Endless(Batches):
    @property
    def num_batches(self) -> None:
        return None


class Unsized(keras.utils.PyDataset):
    """Has no length, which Keras takes for infinite."""

    def __getitem__(self, index: int) -> np.ndarray:
        return X[:8]


def hdf5(folder: Path) -> Any:
    file = h5py.File(folder / "images.h5", "w")
    return file.create_dataset("images", data=X)


def memory_map(folder: Path) -> np.ndarray:
    np.save(folder / "images.npy", X)
    return np.load(folder / "images.npy", mmap_mode="r")


FORMS: dict[str, Callable[[Path], Any]] = {
    "array": lambda _: X,
    "tensor": lambda _: tf.constant(X),
    "memory map": memory_map,
    "HDF5": hdf5,
    "dictionary": lambda _: {"image": X, "label": Y},
    "list of batches": lambda _: split(X),
    "tuple of batches": lambda _: tuple(split(X)),
    "list of (images, labels)": lambda _: [tuple(b) for b in split(X, Y)],
    "list of [images, labels]": lambda _: split(X, Y),
    "list of (images,)": lambda _: [(b,) for b in split(X)],
    "list of (images, labels, weights)": lambda _: [tuple(b) for b in split(X, Y, Y)],
    "list of ([images], labels)": lambda _: [([x], y) for x, y in split(X, Y)],
    "list of dictionaries": lambda _: [{"image": x, "label": y} for x, y in split(X, Y)],
    "list of (dictionary, labels)": lambda _: [({"image": x}, y) for x, y in split(X, Y)],
    "iterator": lambda _: iter(split(X)),
    "generator": lambda _: (tuple(b) for b in split(X, Y)),
    "tf.data": lambda _: tf.data.Dataset.from_tensor_slices(X).batch(8),
    "tf.data, labelled": lambda _: tf.data.Dataset.from_tensor_slices((X, Y)).batch(8),
    "tf.data of dictionaries": lambda _: tf.data.Dataset.from_tensor_slices({"image": X, "label": Y}).batch(8),
    "tf.data of unknown length": lambda _: tf.data.Dataset.from_tensor_slices(X).batch(8).filter(lambda _: True),
    "PyDataset": lambda _: Batches(X),
    "PyDataset, labelled": lambda _: Batches(X, Y),
    "loader": lambda _: FakeLoader(X),
    "loader, labelled": lambda _: FakeLoader(X, Y),
    "loader without a length": lambda _: FakeLoader(X, Y, sized=False),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images(model: keras.Model, tmp_path: Path, form: str) -> None:
    (array,) = joined(read(FORMS[form](tmp_path), model, batch_size=8))
    np.testing.assert_array_equal(array, X)
    assert array.dtype == np.float32


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("count", [1, 8, 13, 20])
def test_exact_number_of_images(
    model: keras.Model, tmp_path: Path, form: str, count: int, caplog: pytest.LogCaptureFixture
) -> None:
    (array,) = joined(read(FORMS[form](tmp_path), model, images=count, batch_size=8))
    np.testing.assert_array_equal(array, X[:count])
    assert not [record for record in caplog.records if record.name.startswith("keras_qat")]


@pytest.mark.parametrize("form", ["array", "tf.data, labelled", "PyDataset", "loader, labelled", "generator"])
def test_ranges_and_corrections_are_those_of_plain_batches(model: keras.Model, tmp_path: Path, form: str) -> None:
    placement = plan(trace(model).graph, "tensorrt")
    expected = calibrate(model, placement, split(X))
    ranges = calibrate(model, placement, FORMS[form](tmp_path))
    assert {name: r.images for name, r in ranges.items()} == dict.fromkeys(expected, 20)
    assert [r.amax for r in ranges.values()] == pytest.approx([r.amax for r in expected.values()], rel=1e-6)
    few = calibrate(model, placement, FORMS[form](tmp_path), images=5)
    assert few == calibrate(model, placement, [X[:5]])
    quantized = apply_placement(model, placement, expected)
    correction = correct_bias(model, quantized, FORMS[form](tmp_path), images=5)
    assert correction.images == 5
    np.testing.assert_array_equal(correction.shifts["conv"], correct_bias(model, quantized, [X[:5]]).shifts["conv"])


SEVERAL: dict[str, Callable[[], Any]] = {
    "dictionary": lambda: {"right": RIGHT, "left": LEFT, "label": Y},
    "lists": lambda: split(LEFT, RIGHT),
    "(list,)": lambda: [(b,) for b in split(LEFT, RIGHT)],
    "(list, labels)": lambda: [([a, b], y) for a, b, y in split(LEFT, RIGHT, Y)],
    "((left, right), labels)": lambda: [((a, b), y) for a, b, y in split(LEFT, RIGHT, Y)],
    "[[left, right], labels]": lambda: [[[a, b], y] for a, b, y in split(LEFT, RIGHT, Y)],
    "dictionaries": lambda: [{"right": b, "left": a} for a, b in split(LEFT, RIGHT)],
    "(dictionary, labels)": lambda: [({"right": b, "left": a}, y) for a, b, y in split(LEFT, RIGHT, Y)],
    "[dictionary, labels]": lambda: [[{"right": b, "left": a}, y] for a, b, y in split(LEFT, RIGHT, Y)],
    "tf.data": lambda: tf.data.Dataset.from_tensor_slices(({"right": RIGHT, "left": LEFT}, Y)).batch(8),
    "tf.data of tuples": lambda: tf.data.Dataset.from_tensor_slices(((LEFT, RIGHT), Y)).batch(8),
    "loader": lambda: FakeLoader(LEFT, RIGHT),
}


@pytest.mark.parametrize("form", SEVERAL)
def test_several_inputs(siamese: keras.Model, form: str) -> None:
    left, right = joined(read(SEVERAL[form](), siamese, images=13))
    np.testing.assert_array_equal(left, LEFT[:13])
    np.testing.assert_array_equal(right, RIGHT[:13])


def test_inputs_named_by_the_dictionary_that_the_model_was_built_from() -> None:
    """Keras puts such inputs into the order of their names."""
    right, left = keras.Input((6, 6, 3), name="right"), keras.Input((4, 4, 3), name="left")
    tops = [layers.GlobalAveragePooling2D()(x) for x in (right, left)]
    model = keras.Model({"right": right, "left": left}, layers.Concatenate()(tops))
    (batch,) = read({"right": LEFT, "left": RIGHT}, model)
    assert [a.shape[1:] for a in batch] == [i.shape[1:] for i in model.inputs]
    placement = plan(trace(model).graph, "onnxruntime")
    ranges = calibrate(model, placement, {"right": 0 * LEFT + 7, "left": 0 * RIGHT + 3}, method="minmax")
    assert (ranges["right"].amax, ranges["left"].amax) == (7, 3)


def test_unnamed_inputs_have_the_names_of_their_layers() -> None:
    """As in the placement, not as Keras calls the tensor."""
    image = keras.Input((6, 6, 3))
    model = keras.Model(image, layers.Conv2D(2, 3)(image))
    name = trace(model).graph.nodes[0].name
    np.testing.assert_array_equal(joined(read({name: X}, model))[0], X)
    with pytest.raises(DataError, match=f"'{name}' is not finite"):
        read(np.full_like(X, np.nan), model)


def test_sequential_model() -> None:
    model = keras.Sequential([keras.Input((6, 6, 3), name="image"), layers.Conv2D(2, 3)])
    np.testing.assert_array_equal(joined(read({"image": X}, model))[0], X)


@pytest.mark.parametrize("dtype", ["uint8", "int32", "float16", "float64", "bool"])
def test_types_are_left_to_the_model(model: keras.Model, dtype: str) -> None:
    x = np.abs(X).astype(dtype)
    (array,) = joined(read(x, model))
    assert array.dtype == dtype
    placement = plan(trace(model).graph, "tensorrt")
    assert calibrate(model, placement, x) == calibrate(model, placement, x.astype("float32"))


def test_bfloat16_tensors(model: keras.Model) -> None:
    (array,) = joined(read([tf.cast(X, tf.bfloat16)], model))
    np.testing.assert_allclose(array.astype("float32"), X, rtol=2.0**-8)


def test_torch_data_loader(model: keras.Model) -> None:
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    (array,) = joined(read(torch.utils.data.DataLoader(data, batch_size=8), model, images=13))
    np.testing.assert_array_equal(array, X[:13])


def test_nothing_is_read_after_the_last_image(model: keras.Model) -> None:
    given = iter(split(X, size=5))
    read(given, model, images=10)
    np.testing.assert_array_equal(next(given), X[10:15])


def test_fewer_images_than_wanted(model: keras.Model, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "keras_qat"):
        placement = plan(trace(model).graph, "tensorrt")
        ranges = calibrate(model, placement, X, images=100)
    assert ranges["image"].images == 20
    assert [r.message for r in caplog.records] == ["Calibrating with 20 images: the data has no more of the 100."]


ENDLESS: dict[str, Callable[[], Any]] = {
    "PyDataset": lambda: Endless(X, Y),
    "PyDataset without a length": Unsized,
    "tf.data": lambda: tf.data.Dataset.from_tensor_slices(X).batch(8).repeat(),
    "cycle": lambda: itertools.cycle(split(X)),
}


@pytest.mark.parametrize("form", ENDLESS)
def test_endless_data_needs_a_number(model: keras.Model, form: str) -> None:
    with pytest.raises(DataError, match=r"never end.*Received: .*`images=256`"):
        read(ENDLESS[form](), model)
    assert len(joined(read(ENDLESS[form](), model, images=50))[0]) == 50


BAD: dict[str, tuple[Any, str]] = {
    "text": ("photos/", r"must be numbers.*<U1"),
    "paths": (["a.jpg", "b.jpg"], r"must be numbers.*<U5.*Decode"),
    "objects": (np.array([None, None]), r"don't fit.*\(2,\)"),
    "objects in a batch": ([np.empty((2, 6, 6, 3), object)], r"must be numbers.*object"),
    "ragged": ([([X[0], X[1, :3]], None)], r"'network'.*one array"),
    "ragged rows": ([([[[1, 2], [3]]], None)], r"can't be read as an array.*Received: list"),
    "number": (3, r"can't be read from this.*Received: int"),
    "path": (Path("photos"), r"can't be read from this.*Received: .*Path"),
    "None": (None, r"can't be read from this.*NoneType"),
    "one image": (X[0], r"\(6, 6, 3\), where the model takes \(None, 6, 6, 3\).*one image.*np\.newaxis"),
    "unbatched": (list(X), r"one image without a batch axis"),
    "unbatched tf.data": (tf.data.Dataset.from_tensor_slices((X, Y)), r"one image.*`\.batch\(32\)`"),
    "scalar": (np.float32(1), r"a batch of shape \(\)"),
    "another size": (X[:, :5], r"\(20, 5, 6, 3\).*Resize"),
    "no such input": ({"picture": X}, r"input 'image'.*Received: a dictionary of 'picture'.*'image'"),
    "empty dictionary": ([{}], r"a dictionary of nothing"),
    "empty tuple": ([()], r"A batch is empty"),
    "two arrays": ([([X, X], Y)], r"Give one array of images"),
    "not a number": ([X, np.full_like(X, np.nan)], r"'image' is not finite.*nan.*preprocessing"),
    "infinite": ({"image": np.where(X > 3, -np.inf, X)}, r"'image' is not finite.*-inf"),
}


@pytest.mark.parametrize("form", BAD)
def test_bad_data(model: keras.Model, form: str) -> None:
    data, message = BAD[form]
    with pytest.raises(DataError, match=message) as caught:
        read(data, model)
    assert "Received: " in str(caught.value)


def test_a_fixed_batch_is_named_in_the_error() -> None:
    fixed = keras.Sequential([keras.Input(batch_shape=(4, 6, 6, 3)), keras.layers.Flatten()])
    with pytest.raises(DataError, match=r"\(20, 6, 6, 3\).*batches of exactly 4 images"):
        read(X, fixed)


BAD_SEVERAL: dict[str, tuple[Any, str]] = {
    # Keras reads a tuple as (images, labels) whatever the model.
    "tuple of inputs": ([(LEFT, RIGHT)], r"\[\(20, 6, 6, 3\)\].*as a list: \[left, right\]"),
    "whole arrays": ([LEFT, RIGHT], r"as a list: \[left, right\]"),
    "one missing": ({"left": LEFT}, r"input 'right'.*'left', 'right'"),
    "swapped": ([[RIGHT, LEFT]], r"don't fit the model 'siamese'"),
    "other lengths": ({"left": LEFT, "right": RIGHT[:7]}, r"same number of images.*\(7, 4, 4, 3\)"),
    "not finite": ([[LEFT, np.full_like(RIGHT, np.inf)]], r"'right' is not finite"),
}


@pytest.mark.parametrize("form", BAD_SEVERAL)
def test_bad_data_for_several_inputs(siamese: keras.Model, form: str) -> None:
    data, message = BAD_SEVERAL[form]
    with pytest.raises(DataError, match=message):
        read(data, siamese)


def test_images_that_are_not_finite_do_not_reach_the_biases(model: keras.Model) -> None:
    placement = plan(trace(model).graph, "tensorrt")
    quantized = apply_placement(model, placement, calibrate(model, placement, X))
    with pytest.raises(DataError, match="'image' is not finite"):
        correct_bias(model, quantized, np.full_like(X, np.nan))


@pytest.mark.parametrize("name", ["images", "batch_size"])
def test_numbers_under_1(model: keras.Model, name: str) -> None:
    with pytest.raises(UserError, match=f"`{name}` must be at least 1. Received: 0"):
        read(X, model, **{name: 0})


@pytest.mark.parametrize(
    ("data", "count", "shown"),
    [
        (X, None, r"3/3"),
        (X, 13, r"13/13"),
        (Endless(X), 50, r"50/50"),
        ((b for b in split(X)), None, r"3/\?"),
    ],
    ids=["array", "some of an array", "endless", "generator"],
)
def test_progress_bar(
    model: keras.Model, monkeypatch: pytest.MonkeyPatch, data: Any, count: int | None, shown: str
) -> None:
    screen = StringIO()
    monkeypatch.setattr(progress, "CONSOLE", Console(file=screen, force_terminal=True, width=120, color_system=None))
    read(data, model, images=count, batch_size=8)
    text = screen.getvalue()
    assert "reading" in text
    assert re.search(shown, text)
    assert "images/s" in text
