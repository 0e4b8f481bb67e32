"""Batches and subsets of an image set."""

import itertools
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qat.data import ImageSet, Preprocessing
from keras_qat.data.stratified import stratified_order
from keras_qat.errors import DataError, UserError

_EIGHT = Preprocessing("tf", 8, 8)


def _numbered(labels: Any) -> ImageSet:
    """Image i has the gray level i, so that a batch tells which images it holds."""
    levels = np.arange(len(labels), dtype=np.uint8)
    images = np.broadcast_to(levels[:, None, None, None], (len(labels), 8, 8, 3))
    return ImageSet.from_arrays("numbered", images, labels, _EIGHT)


def _order(dataset: Any) -> list[int]:
    return [round((float(image[0, 0, 0]) + 1) * 127.5) for batch, _ in dataset for image in batch]


def test_batches_are_typed_ordered_and_whole() -> None:
    data = _numbered(np.arange(10) % 3)
    batches = list(data.batches(4))
    assert [x.shape.as_list() for x, _ in batches] == [[4, 8, 8, 3], [4, 8, 8, 3], [2, 8, 8, 3]]
    assert all(x.dtype == tf.float32 and y.dtype == tf.int32 for x, y in batches)
    assert _order(batches) == list(range(10))
    np.testing.assert_array_equal(np.concatenate([y for _, y in batches]), np.arange(10) % 3)
    assert len(data) == 10
    assert data.steps(4) == len(batches) == int(data.batches(4).cardinality())


def test_shuffling_is_new_in_each_pass_and_the_same_for_the_same_seed() -> None:
    data = _numbered([0] * 40)
    tf.random.set_seed(1)
    one = data.batches(7, shuffle_seed=5)
    passes = [_order(one) for _ in range(3)]
    tf.random.set_seed(2)
    again = data.batches(16, shuffle_seed=5)
    assert [_order(again) for _ in range(3)] == passes
    assert all(sorted(order) == list(range(40)) for order in passes)
    assert all(a != b for a, b in itertools.combinations([*passes, list(range(40))], 2))
    assert _order(data.batches(7, shuffle_seed=6)) != passes[0]
    assert _order(data.batches(7, shuffle_seed=5, first_pass=2)) == passes[2]
    assert int(one.cardinality()) == data.steps(7)


def test_labels_stay_with_their_images_when_shuffled() -> None:
    data = _numbered(np.arange(20))
    for images, labels in data.arrays(6, shuffle_seed=0):
        np.testing.assert_array_equal(np.rint((images[:, 0, 0, 0] + 1) * 127.5), labels)


def test_keras_fits_on_shuffled_batches() -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = _numbered(np.arange(10) % 2)
    history = model.fit(data.batches(4, shuffle_seed=0), epochs=2, shuffle=False, verbose=0)
    assert len(history.history["loss"]) == 2


def test_take_is_stratified_nested_and_seeded() -> None:
    labels = np.repeat([0, 1, 2], [50, 30, 20])
    data = _numbered(labels)
    taken = data.take(20, seed=0)
    np.testing.assert_array_equal(np.bincount(taken.labels), [10, 6, 4])
    chosen = _order(taken.batches(8))
    assert len(set(chosen)) == 20
    np.testing.assert_array_equal(labels[chosen], taken.labels)
    assert _order(data.take(20, seed=0).batches(8)) == chosen
    assert _order(data.take(20, seed=1).batches(8)) != chosen
    assert _order(data.take(9, seed=0).batches(8)) == chosen[:9]


def test_take_more_than_there_is_takes_all() -> None:
    assert sorted(_order(_numbered([0, 0, 1]).take(99, seed=0).batches(2))) == [0, 1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_every_prefix_is_within_one_of_proportional(seed: int) -> None:
    labels = np.repeat(np.arange(6), [1, 2, 7, 20, 30, 40]).astype(np.int32)
    order = stratified_order(labels, seed)
    assert sorted(order) == list(range(100))
    for n in range(1, 101):
        share = np.bincount(labels[order[:n]], minlength=6) - np.bincount(labels) * n / 100
        assert np.abs(share).max() < 2
    for n in (10, 50, 90):
        # Where a class divides evenly it is hit exactly, give or take the jitter of one image.
        assert abs(np.count_nonzero(labels[order[:n]] == 5) - 0.4 * n) <= 1


def test_one_image_a_class_is_a_plain_shuffle() -> None:
    orders = [tuple(stratified_order(np.arange(30, dtype=np.int32), seed)[:3]) for seed in range(20)]
    assert len(set(orders)) == 20


def test_misuse_is_refused() -> None:
    images = np.zeros((2, 8, 8, 3), np.uint8)
    with pytest.raises(DataError, match="one int32 label for each of its 2 images"):
        ImageSet.from_arrays("x", images, [0], _EIGHT)
    with pytest.raises(DataError, match="float32"):
        ImageSet.from_arrays("x", images.astype(np.float32), [0, 1], _EIGHT)
    with pytest.raises(UserError, match=r"`batch_size` must be at least 1\. Received: 0"):
        _numbered([0]).batches(0)
    with pytest.raises(UserError, match=r"`n` must be at least 1\. Received: 0"):
        _numbered([0]).take(0, seed=0)
