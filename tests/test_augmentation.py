"""Random cuts and mirrorings: their distribution against the closed form, and that a seed says all about them."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from scipy import stats

from keras_qat.data import AUGMENTATIONS, Augmentation, ImageSet, Preprocessing, Splits, find_augmentation
from keras_qat.errors import UserError
from keras_qat.run import Settings, train_quantized
from keras_qat.run.start import epochs_of
from keras_qat.training import Recipe
from keras_qat.types import AugmentationName

_TINY = Preprocessing("tf", 16, 16)
_CROP = Augmentation(crop_area=(0.35, 1.0))
_DRAWS = 1000
_LARGE = 20_000
"""Pixels of a side: what rounding a cut to whole pixels moves is far below what a test sees."""

_SIGNIFICANT = 1e-3


def _windows(augmentation: Augmentation, height: int, width: int) -> np.ndarray:
    """Top, left, rows and columns of many draws."""

    def draw(index: Any) -> Any:
        return tf.stack(augmentation.window(tf.constant(height), tf.constant(width), (3, 1, index)))

    drawn = tf.data.Dataset.range(_DRAWS).map(draw).batch(_DRAWS)
    return next(iter(drawn)).numpy().astype(np.float64).T


def _pictures(count: int, height: int = 20, width: int = 28) -> ImageSet:
    random = np.random.default_rng(1)
    pixels = random.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    return ImageSet.from_arrays("random", pixels, np.arange(count), _TINY)


def _plain(data: ImageSet) -> np.ndarray:
    """The images as evaluation reads them."""
    return np.concatenate([x for x, _ in data.arrays(4)])


def _epoch(data: ImageSet, epoch: int, augmentation: Augmentation | None = _CROP) -> dict[int, np.ndarray]:
    """The images of one epoch by their labels, which are their indices."""
    batches = epochs_of(data, 4, 0, augmentation)(epoch)
    return {int(label): image for x, y in batches.as_numpy_iterator() for image, label in zip(x, y, strict=True)}


def test_area_is_uniform_and_aspect_log_uniform() -> None:
    least, most = 0.2, 0.6
    _, _, rows, columns = _windows(Augmentation(crop_area=(least, most)), _LARGE, _LARGE)
    area, aspect = rows * columns / _LARGE**2, np.log(columns / rows)
    # The widest cut, of 0.6 · 4/3 = 0.8 of the image's squared side, always fits: no draw was thrown away.
    assert stats.kstest(area, stats.uniform(least, most - least).cdf).pvalue > _SIGNIFICANT
    low, high = math.log(3 / 4), math.log(4 / 3)
    assert stats.kstest(aspect, stats.uniform(low, high - low).cdf).pvalue > _SIGNIFICANT
    assert abs(stats.pearsonr(area, aspect).statistic) < 4 / math.sqrt(_DRAWS)
    assert abs(area.mean() - 0.4) < 4 * (most - least) / math.sqrt(12 * _DRAWS)


def test_place_is_uniform_among_those_where_the_cut_fits() -> None:
    height, width = 15_000, _LARGE
    top, left, rows, columns = _windows(Augmentation(crop_area=(0.1, 0.5)), height, width)
    assert (top >= 0).all()
    assert (left >= 0).all()
    for place, free in ((top, height - rows), (left, width - columns)):
        assert (place <= free).all()
        assert stats.kstest(place / free, stats.uniform().cdf).pvalue > _SIGNIFICANT


def test_every_whole_place_of_a_small_image_is_taken_equally_often() -> None:
    top, left, rows, columns = _windows(Augmentation(crop_area=(0.25, 0.25), aspect=(1.0, 1.0)), 8, 8)
    assert set(rows) == set(columns) == {4.0}
    for place in (top, left):
        counts = np.bincount(place.astype(int), minlength=5)
        assert len(counts) == 5
        assert stats.chisquare(counts).pvalue > _SIGNIFICANT


@pytest.mark.parametrize(("height", "width", "expected"), [(10, 90, (0, 39, 10, 13)), (90, 10, (39, 0, 13, 10))])
def test_where_no_cut_fits_the_centre_is_taken(height: int, width: int, expected: tuple[int, ...]) -> None:
    # At least 0.8 of an image nine times as long as wide can't have an aspect ratio of 3/4 to 4/3; 4/3 · 10 is 13.
    windows = _windows(Augmentation(crop_area=(0.8, 1.0)), height, width)
    np.testing.assert_array_equal(windows.T, np.broadcast_to(expected, (_DRAWS, 4)))


@pytest.mark.parametrize("side", [1, 2])
def test_images_of_a_pixel_or_two(side: int) -> None:
    _, _, rows, columns = _windows(Augmentation(), side, side)
    assert min(rows.min(), columns.min()) == 1
    assert max(rows.max(), columns.max()) == side


def test_every_other_image_is_mirrored() -> None:
    count = 400
    ramp = np.broadcast_to(np.linspace(0, 255, 16).astype(np.uint8)[:, None], (count, 16, 16, 3))
    data = ImageSet.from_arrays("ramp", ramp, np.arange(count), _TINY)
    images = _epoch(data, 1, AUGMENTATIONS["flip"])
    plain = np.asarray(_TINY.normalize(ramp[0]))
    mirrored = [np.array_equal(images[i], plain[:, ::-1]) for i in range(count)]
    assert all(mirrored[i] or np.array_equal(images[i], plain) for i in range(count))
    assert stats.binomtest(sum(mirrored), count, 0.5).pvalue > _SIGNIFICANT
    again = _epoch(data, 2, AUGMENTATIONS["flip"])
    both = sum(m and not np.array_equal(again[i], plain) for i, m in enumerate(mirrored))
    assert stats.binomtest(both, count, 0.25).pvalue > _SIGNIFICANT  # the epochs are independent


def test_the_cut_is_resized_and_normalized() -> None:
    """Of an image that is a plane in x and y, a cut is that plane again: which one, the window says."""
    y, x = np.mgrid[0:64, 0:64]
    image = np.stack([x * 2, y * 2, np.full_like(x, 200)], -1).astype(np.uint8)
    preprocessing = Preprocessing("caffe", 16, 16)
    augmentation = replace(_CROP, flip=False)
    for index in range(5):
        seed = (1, 2, index)
        top, left, rows, columns = (int(v) for v in augmentation.window(tf.constant(64), tf.constant(64), seed))
        out = np.asarray(augmentation.prepare(image, preprocessing, seed)) + np.array([103.939, 116.779, 123.68])
        # The centre of output pixel i lies at (i + 1/2) · rows / 16 - 1/2 of the cut.
        vertical, horizontal = ((np.arange(16) + 0.5) * n / 16 - 0.5 for n in (rows, columns))
        inner = slice(2, -2)  # at the border antialiasing has fewer pixels to average
        np.testing.assert_allclose(out[inner, inner, 0], 200, atol=1e-3)
        np.testing.assert_allclose(out[inner, 8, 1], 2 * (top + vertical)[inner], atol=0.1)
        np.testing.assert_allclose(out[8, inner, 2], 2 * (left + horizontal)[inner], atol=0.1)


def test_whole_pixels_stay_whole() -> None:
    data = replace(_pictures(6), preprocessing=_TINY.raw())
    for image in _epoch(data, 1).values():
        np.testing.assert_array_equal(image, np.rint(image))
        assert image.max() <= 255


def test_an_epoch_is_the_same_whenever_it_is_read_and_epochs_differ() -> None:
    data = _pictures(12)
    tf.random.set_seed(1)
    first, second = _epoch(data, 1), _epoch(data, 2)
    tf.random.set_seed(2)
    again = _epoch(data, 1)
    for index in range(12):
        np.testing.assert_array_equal(first[index], again[index])
        assert not np.array_equal(first[index], second[index])
    assert first[0].shape == (16, 16, 3)


def test_passes_over_one_dataset_differ_and_can_be_resumed() -> None:
    data = _pictures(12)

    def images(**options: int) -> list[np.ndarray]:
        dataset = data.batches(5, shuffle_seed=4, augment=_CROP, **options)
        return [np.concatenate([x for x, _ in dataset.as_numpy_iterator()]) for _ in range(3)]

    passes = images()
    assert not np.array_equal(np.sort(passes[0], 0), np.sort(passes[1], 0))
    np.testing.assert_array_equal(images(first_pass=2)[0], passes[2])
    whole = data.batches(5, shuffle_seed=4, augment=_CROP)
    rest = np.concatenate([x for x, _ in whole.skip(1).as_numpy_iterator()])
    np.testing.assert_array_equal(rest, passes[0][5:])


def test_batch_size_and_threads_make_no_difference() -> None:
    data = _pictures(12)
    one = data.batches(12, shuffle_seed=4, augment=_CROP)
    options = tf.data.Options()
    options.threading.private_threadpool_size = 1
    two = data.batches(1, shuffle_seed=4, augment=_CROP).with_options(options)
    np.testing.assert_array_equal(next(iter(one))[0], np.concatenate([x for x, _ in two]))


def test_a_run_varies_training_images_alone_and_never_goes_on_with_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: dict[AugmentationName, dict[str, Any]] = {}
    data = Splits("random", _pictures(8), _pictures(4), _pictures(4), 8, tuple("abcdefgh"))
    for name in AUGMENTATIONS:

        def look(_: Any, train: Any, selection: Any, recipe: Recipe, key: Any = name, **options: Any) -> None:
            calls[key] = {"train": train, "selection": selection, "recipe": recipe, **options}

        monkeypatch.setattr("keras_qat.training.fine_tune", look)
        model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Flatten()])
        train_quantized(model, model, data, (), Settings.of(augment=name, output=tmp_path, batch_size=8))

    first = {name: next(iter(call["train"](1))) for name, call in calls.items()}
    plain = dict(zip(first["none"][1].numpy(), first["none"][0].numpy(), strict=True))
    assert all(np.array_equal(plain[i], image) for i, image in enumerate(_plain(data.train)))
    assert not np.array_equal(first["crop"][0], first["none"][0])
    assert not np.array_equal(first["flip"][0], first["none"][0])
    for call in calls.values():
        np.testing.assert_array_equal(np.concatenate([x for x, _ in call["selection"]]), _plain(data.selection))
    # `fine_tune` compares recipes and models, not data: what differs in images must differ in its folder.
    assert len({call["folder"] for call in calls.values()}) == len(calls)
    assert len({call["recipe"] for call in calls.values()}) == 1


@pytest.mark.parametrize(
    "fields",
    [
        *({"crop_area": area} for area in ((0.0, 1.0), (0.5, 0.4), (0.5, 1.1), (math.nan, 1.0))),
        *({"aspect": aspect} for aspect in ((0.0, 1.0), (2.0, 1.0), (1.0, math.inf))),
    ],
)
def test_ranges_that_no_image_has_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"`{next(iter(fields))}` must be two .*Received: {next(iter(fields))}="):
        Augmentation(**fields)


def test_misuse_is_refused() -> None:
    with pytest.raises(UserError, match="augment without shuffle_seed"):
        _pictures(2).batches(2, augment=_CROP)
    with pytest.raises(UserError, match=r"Unknown augmentation\. Received: 'mixup'\. Use one of: none, flip, crop"):
        find_augmentation("mixup")
