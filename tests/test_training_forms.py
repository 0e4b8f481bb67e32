"""Training data in every form: the same batches, the same weights, and errors for what can't be read again."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from interrupts import InterruptAt
from keras_qat.errors import DataError, UserError
from keras_qat.training import FineTuned, Recipe, fine_tune
from keras_qat.training.batches import EpochData, read_data
from keras_qat.training.session import open_session

layers = keras.layers
COUNT, SIZE = 20, 8
RNG = np.random.default_rng(0)
IMAGE, EXTRA = RNG.normal(size=(COUNT, 4, 4, 1)).astype("float32"), RNG.normal(size=(COUNT, 3)).astype("float32")
KIND, BOX = RNG.integers(0, 3, COUNT), RNG.normal(size=(COUNT, 2)).astype("float32")
RECIPE = Recipe(
    distillation=None, optimizer="sgd-momentum", schedule="constant", learning_rate=0.05, epochs=2, batch_size=SIZE
)


def model() -> keras.Model:
    """Two inputs, "image" and "extra", and two outputs, "kind" and "box"."""
    keras.utils.set_random_seed(1)
    image, extra = keras.Input((4, 4, 1), name="image"), keras.Input((3,), name="extra")
    x = layers.Concatenate()([layers.Flatten()(layers.Conv2D(2, 3, activation="relu")(image)), extra])
    outputs = [layers.Dense(3, "softmax", name="kind")(x), layers.Dense(2, name="box")(x)]
    return keras.Model([image, extra], outputs)


def single() -> keras.Model:
    keras.utils.set_random_seed(1)
    image = keras.Input((4, 4, 1), name="image")
    return keras.Model(image, layers.Dense(3, "softmax", name="kind")(layers.Flatten()(image)))


def cut(*arrays: Any) -> list[tuple[Any, ...]]:
    return [tuple(array[i : i + SIZE] for array in arrays) for i in range(0, COUNT, SIZE)]


class Batches(keras.utils.PyDataset):
    """Counts what it is told of epochs."""

    def __init__(self, batches: list[Any], *, endless: bool = False) -> None:
        super().__init__()
        self.batches, self.endless, self.told = batches, endless, [0, 0]

    @property
    def num_batches(self) -> int | None:
        return None if self.endless else len(self.batches)

    def __getitem__(self, index: int) -> Any:
        return self.batches[index % len(self.batches)]

    def on_epoch_begin(self) -> None:
        self.told[0] += 1

    def on_epoch_end(self) -> None:
        self.told[1] += 1


class Loader:
    """Collates into lists, as a DataLoader does, and can be iterated again."""

    def __init__(self, batches: list[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        return (list(batch) for batch in self.batches)


PARTS = cut(IMAGE, EXTRA, KIND, BOX)
LISTS = [([a, b], (k, x)) for a, b, k, x in PARTS]
NAMED = [({"extra": b, "image": a, "id": a}, {"box": x, "kind": k}) for a, b, k, x in PARTS]
FORMS: dict[str, Callable[[], Any]] = {
    "list of batches": lambda: LISTS,
    "batches by name": lambda: NAMED,
    "tf.data by name": lambda: tf.data.Dataset.from_tensor_slices(
        ({"extra": EXTRA, "image": IMAGE}, {"box": BOX, "kind": KIND})
    ).batch(SIZE),
    "tf.data by order": lambda: tf.data.Dataset.from_tensor_slices(((IMAGE, EXTRA), (KIND, BOX))).batch(SIZE),
    "PyDataset": lambda: Batches(LISTS),
    "loader": lambda: Loader(LISTS),
    "function of the epoch": lambda: lambda epoch: iter(LISTS) if epoch else None,
    "function of nothing": lambda: lambda: (batch for batch in NAMED),
}


def read(given: Any, network: keras.Model | None = None, recipe: Recipe = RECIPE, selection: Any = None) -> EpochData:
    return read_data(given, LISTS if selection is None else selection, recipe, network or model())


def arrays(batches: Any) -> list[list[np.ndarray]]:
    return [[np.asarray(array) for array in keras.tree.flatten(batch)] for batch in batches]


def assert_same(left: list[list[np.ndarray]], right: list[list[np.ndarray]]) -> None:
    assert [len(batch) for batch in left] == [len(batch) for batch in right]
    for a, b in zip(itertools.chain(*left), itertools.chain(*right), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_batches_from_any_step_on(form: str) -> None:
    data = read(FORMS[form]())
    assert (data.steps, data.batch_size) == (3, SIZE)
    assert_same(arrays(data.train(1, 0)), [list(batch) for batch in PARTS])
    assert_same(arrays(data.train(2, 1)), [list(batch) for batch in PARTS[1:]])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_chooses_the_epoch(form: str) -> None:
    given = FORMS[form]()
    selection = (lambda: given(1)) if form == "function of the epoch" else given
    data = read(LISTS, selection=selection)
    assert_same(arrays(data.selection()), [list(batch) for batch in PARTS])


def test_equal_batches_give_equal_weights() -> None:
    """On TensorFlow from its own data and from Python's."""
    tuned = [fine_tune(model(), FORMS[form](), LISTS, RECIPE, progress=False) for form in ("tf.data by name", "loader")]
    assert tuned[0].history[-1].train_loss == tuned[1].history[-1].train_loss
    for a, b in zip(*(each.model.get_weights() for each in tuned), strict=True):
        np.testing.assert_array_equal(a, b)
    assert tuned[0].best_epoch > 0


# --- whole arrays -----------------------------------------------------------------------------------------------------


def hdf5(folder: Path) -> tuple[Any, Any]:
    file = h5py.File(folder / "data.h5", "w")
    return file.create_dataset("x", data=IMAGE), file.create_dataset("y", data=KIND)


WHOLE: dict[str, Callable[[Path], Any]] = {
    "arrays": lambda _: (IMAGE, KIND),
    "lists": lambda _: (IMAGE, KIND.tolist()),
    "tensors": lambda _: (tf.constant(IMAGE), tf.constant(KIND)),
    "by name": lambda _: ({"image": IMAGE}, {"kind": KIND}),
    "float64": lambda _: (IMAGE.astype("float64"), KIND.astype("uint8")),
    "HDF5": hdf5,
}


@pytest.mark.parametrize("form", WHOLE)
def test_whole_arrays_are_shuffled_by_seed_and_epoch_and_not_for_the_selection(form: str, tmp_path: Path) -> None:
    given = WHOLE[form](tmp_path)
    data = read(given, single(), selection=given)
    for epoch in (1, 2):
        order = np.random.default_rng((RECIPE.seed, epoch)).permutation(COUNT)
        assert_same(arrays(data.train(epoch, 1)), [list(batch) for batch in cut(IMAGE[order], KIND[order])[1:]])
    assert_same(arrays(data.selection()), [list(batch) for batch in cut(IMAGE, KIND)])


def test_a_fixed_batch_size_is_the_models() -> None:
    image = keras.Input(batch_shape=(6, 4, 4, 1))
    network = keras.Model(image, layers.Dense(3, "softmax")(layers.Flatten()(image)))
    data = read((IMAGE, KIND), network, selection=(IMAGE, KIND))
    assert [len(x) for x, _ in arrays(data.train(1, 0))] == [6, 6, 6]
    assert data.steps == data.selection_steps == 3


def test_sample_weights_reach_the_loss() -> None:
    """Of the labels: images of weight 0 don't count."""
    weights = (np.arange(COUNT) % 2).astype("float32")
    given = (IMAGE, KIND, weights)
    recipe = Recipe.from_dict({**RECIPE.to_dict(), "epochs": 1, "batch_size": COUNT})
    data = read_data(given, given, recipe, single())
    session = open_session(single(), recipe, data.steps, objectives=data.objectives)
    loss = session.trainer.evaluate(data.selection(), steps=1, verbose=0, return_dict=True)["loss"]
    p = np.asarray(single()(IMAGE), np.float64)
    assert loss == pytest.approx((-np.log(p[np.arange(COUNT), KIND]) * weights).mean(), rel=1e-4)


def test_images_alone_have_no_labels() -> None:
    for given in (IMAGE, {"image": IMAGE}, [IMAGE[:8], IMAGE[8:]], tf.data.Dataset.from_tensor_slices(IMAGE).batch(8)):
        data = read(given, single(), Recipe(batch_size=8), selection=given)
        assert not data.form.labelled
        for _, labels in data.selection():
            np.testing.assert_array_equal(labels, -1)


def test_sizes_that_the_model_leaves_open_may_change() -> None:
    image = keras.Input((None, None, 1))
    network = keras.Model(image, layers.Conv2D(2, 1, activation="softmax")(image))
    sizes = [(4, 4), (4, 4), (6, 5)]
    batches = [(np.zeros((2, *size, 1), "float32"), np.zeros((2, *size), "int32")) for size in sizes]
    tuned = fine_tune(network, batches, batches, RECIPE, progress=False)
    assert len(tuned.history) == 3


# --- resuming ---------------------------------------------------------------------------------------------------------


def go(folder: Path | None, train: Any, **options: Any) -> FineTuned:
    selection = (IMAGE, KIND)
    return fine_tune(single(), train, selection, RECIPE, folder=folder, progress=False, keep_every_s=0, **options)


@pytest.mark.parametrize("form", ["arrays", "PyDataset"])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(form: str, tmp_path: Path) -> None:
    train = (IMAGE, KIND) if form == "arrays" else Batches(cut(IMAGE, KIND))
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, train, callbacks=[InterruptAt(2, 1)])
    cut_short, whole = go(tmp_path, train), go(None, train)
    for a, b in zip(cut_short.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert [r.train_loss for r in cut_short.history] == [r.train_loss for r in whole.history]


def test_another_loss_starts_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, (IMAGE, KIND), callbacks=[InterruptAt(2, 1)])
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, (IMAGE, KIND), loss="sparse_categorical_crossentropy", callbacks=[InterruptAt(1, 1)])
    assert "it belongs to another run (objectives differs)" in caplog.text


def test_a_py_dataset_is_told_of_each_epoch() -> None:
    given = Batches(cut(IMAGE, KIND))
    go(None, given)
    assert given.told == [2, 2]


def test_data_without_an_end_goes_on_from_epoch_to_epoch() -> None:
    recipe = Recipe.from_dict({**RECIPE.to_dict(), "steps_per_epoch": 2})
    endless = Batches(cut(IMAGE, KIND), endless=True)
    data = read(endless, single(), recipe, selection=(IMAGE, KIND))
    batches = [[np.asarray(x) for x, _ in data.train(epoch, 0)] for epoch in (1, 2)]
    assert_same(batches, [[IMAGE[:8], IMAGE[8:16]], [IMAGE[16:], IMAGE[:8]]])
    with pytest.raises(UserError, match=r"training data never ends\. .*`steps_per_epoch`"):
        read(endless, single(), selection=(IMAGE, KIND))


# --- what can't be read -----------------------------------------------------------------------------------------------


BAD: dict[str, tuple[Any, str]] = {
    "a generator": (
        (batch for batch in LISTS),
        r"read only once.*Received: generator.*`lambda epoch: batches\(epoch\)`",
    ),
    "an iterator": (iter(LISTS), r"read only once.*Received: list_iterator"),
    "nothing": ([], r"training data holds no batch"),
    "empty arrays": (([IMAGE[:0], EXTRA[:0]], (KIND[:0], BOX[:0])), r"training data holds no batch"),
    "an empty generator": (lambda _: iter(()), r"training data holds no batch"),
    "a path": (Path("images"), r"Images can't be read from this. Received: PosixPath"),
    "a function of two": (lambda epoch, step: (epoch, step), r"takes the epoch, or nothing.*\(epoch, step\)"),
    "arrays of other lengths": (([IMAGE, EXTRA], (KIND, BOX[:7])), r"one length. Received: 7 and 20"),
    "a tuple of batches": (tuple(LISTS), r"a tuple, which is \(images, labels\).*batches in a list"),
    "images of another size": ([([IMAGE[:, :3], EXTRA], (KIND, BOX))], r"don't fit the model"),
    "an image that is not finite": ([([IMAGE * np.nan, EXTRA], (KIND, BOX))], r"'image' is not finite"),
    "an object with batches": (SimpleNamespace(batches=len), r"Use its `\.batches\(64\)`"),
}


@pytest.mark.parametrize("name", BAD)
def test_data_that_can_not_be_read(name: str) -> None:
    given, message = BAD[name]
    with pytest.raises((UserError, DataError), match=message) as caught:
        read(given)
    assert "Received: " in str(caught.value)


def test_a_generator_that_ends_early() -> None:
    def train(epoch: int) -> Iterator[Any]:
        return iter(cut(IMAGE, KIND)[: 4 - epoch])

    with pytest.raises(DataError, match=r"training data ended early\. Received: 2 batches, where the first pass had 3"):
        go(None, train)


def test_an_error_of_the_users_own_data_is_raised_as_it_is() -> None:
    def train(_: int) -> Iterator[Any]:
        yield from cut(IMAGE, KIND)[:2]
        raise OSError("the disk is gone")

    recipe = Recipe.from_dict({**RECIPE.to_dict(), "steps_per_epoch": 3})
    data = Recipe.from_dict({**recipe.to_dict(), "steps_per_epoch": 2})
    fine_tune(single(), train, (IMAGE, KIND), data, progress=False)
    with pytest.raises(OSError, match="the disk is gone"):
        fine_tune(single(), train, (IMAGE, KIND), recipe, progress=False)
