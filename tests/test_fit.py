"""How images of any shape become inputs of one shape, against Pillow and against arithmetic in float64."""

import math
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_qat.data import Augmentation, Fit, ImageSet, Interpolation, Preprocessing

IMAGES = [(150, 97), (97, 150), (64, 64), (33, 200), (20, 21)]
INPUTS = [(32, 32), (24, 40), (40, 24)]

_PILLOW = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos3": Image.Resampling.LANCZOS,
}


def picture(height: int, width: int) -> np.ndarray:
    coarse = np.random.default_rng(3).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def resized_by_pillow(pixels: np.ndarray, rows: int, columns: int, method: Image.Resampling) -> np.ndarray:
    """In float32, which Pillow has for single channels."""
    channels = [Image.fromarray(channel.astype(np.float32)) for channel in np.moveaxis(pixels, -1, 0)]
    return np.stack([np.asarray(channel.resize((columns, rows), method)) for channel in channels], -1)


def half_up(number: float) -> int:
    return math.floor(number + 0.5)


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("size", INPUTS)
@pytest.mark.parametrize("resize", [24, 32, 45])
def test_a_crop_is_the_centre_of_what_just_covers_the_frame(
    image: tuple[int, int], size: tuple[int, int], resize: int
) -> None:
    (height, width), shorter = image, min(size)
    resize = max(resize, shorter)
    frame = [half_up(side * resize / shorter) for side in size]
    scale = max(frame[0] / height, frame[1] / width)
    rows, columns = half_up(height * scale), half_up(width * scale)
    assert rows >= size[0]
    assert columns >= size[1]
    top, left = (rows - size[0]) // 2, (columns - size[1]) // 2
    whole = resized_by_pillow(picture(*image), rows, columns, Image.Resampling.BILINEAR)
    expected = whole[top : top + size[0], left : left + size[1]]

    ours = Preprocessing("raw", size, resize).prepare(picture(*image))

    np.testing.assert_allclose(ours, expected, atol=0.01)


@pytest.mark.parametrize("image", IMAGES)
@pytest.mark.parametrize("size", INPUTS)
def test_squashed_images_are_resized_to_the_input(image: tuple[int, int], size: tuple[int, int]) -> None:
    ours = Preprocessing("raw", size, min(size), fit="squash").prepare(picture(*image))
    np.testing.assert_allclose(ours, resized_by_pillow(picture(*image), *size, Image.Resampling.BILINEAR), atol=0.01)


@pytest.mark.parametrize("image", [*IMAGES, (1, 300)])
@pytest.mark.parametrize("size", INPUTS)
@pytest.mark.parametrize("fill", [0, 114])
def test_letterboxed_images_fit_inside_and_are_padded(image: tuple[int, int], size: tuple[int, int], fill: int) -> None:
    scale = min(size[0] / image[0], size[1] / image[1])
    rows, columns = (max(half_up(side * scale), 1) for side in image)
    top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
    expected = np.full((*size, 3), fill / 255, np.float32)
    inside = resized_by_pillow(picture(*image), rows, columns, Image.Resampling.BILINEAR) / 255
    expected[top : top + rows, left : left + columns] = inside

    # The padding is part of the image: it is normalized, too.
    preprocessing = Preprocessing("unit", size, min(size), fit="letterbox", fill=fill)

    ours = np.asarray(preprocessing.prepare(picture(*image)))
    assert ours.shape == (*size, 3)
    np.testing.assert_allclose(ours, expected, atol=0.01 / 255)


@pytest.mark.parametrize("interpolation", _PILLOW)
def test_interpolations_are_pillows(interpolation: Interpolation) -> None:
    preprocessing = Preprocessing("raw", (24, 40), 24, fit="squash", interpolation=interpolation)
    ours = np.asarray(preprocessing.prepare(picture(97, 150)))
    # TensorFlow's cubic kernel is that of Keys with a = -0.5, as Pillow's.
    np.testing.assert_allclose(ours, resized_by_pillow(picture(97, 150), 24, 40, _PILLOW[interpolation]), atol=0.1)


def test_without_antialiasing_four_pixels_count() -> None:
    """The value at a point between four pixels, as `keras.layers.Resizing` takes it."""
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    ours = Preprocessing("raw", (10, 15), 10, fit="squash", antialias=False).prepare(image)
    # Output pixel i lies at 4 · (i + 1/2) - 1/2 = 4 · i + 3/2: half way between two pixels in both directions.
    pixels = image.astype(np.float64)
    four = [pixels[row::4, column::4] for row in (1, 2) for column in (1, 2)]
    np.testing.assert_allclose(ours, np.mean(four, 0), atol=1e-3)


def test_what_a_keras_dataset_reads_can_be_said(tmp_path: Path) -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (31, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    dataset = keras.utils.image_dataset_from_directory(tmp_path, labels=None, image_size=(12, 20), verbose=False)
    ours = Preprocessing.parse("raw:12x20:squash:aliased").prepare(pixels)
    np.testing.assert_allclose(ours, next(iter(dataset))[0], atol=1e-3)


@pytest.mark.parametrize("fit", ["crop", "squash", "letterbox"])
@pytest.mark.parametrize("image", [(151, 97), (97, 151), (63, 65), (33, 201), (21, 21)])
def test_a_mask_lies_where_its_image_lies(fit: Fit, image: tuple[int, int]) -> None:
    size = (24, 40)  # With odd sides of the image, no position lies half way between two pixels.
    classes = np.random.default_rng(1).integers(0, 20, image, dtype=np.uint8)
    preprocessing = Preprocessing("raw", size, 24, fit=fit)
    ours = np.asarray(preprocessing.crop_mask(classes[..., None]))
    assert (ours.shape, ours.dtype) == ((*size, 1), np.int32)
    rows, columns, top, left = (int(number) for number in preprocessing.geometry(*image))
    whole = Image.fromarray(classes).resize((columns, rows), Image.Resampling.NEAREST)
    # Beyond its borders, Pillow's `crop` gives 0, which is a class here; so classes begin at 1 there.
    shifted = Image.fromarray(np.asarray(whole) + np.uint8(1)).crop((left, top, left + size[1], top + size[0]))
    np.testing.assert_array_equal(ours[..., 0], np.asarray(shifted).astype(int) - 1)
    padded = ours == -1
    assert padded.any() == (fit == "letterbox")
    # An image of the same numbers, resized by the same rule, differs in no pixel.
    nearest = Preprocessing("raw", size, 24, fit=fit, fill=255 * (fit == "letterbox"), interpolation="nearest")
    as_image = np.asarray(nearest.crop(np.repeat(classes[..., None], 3, -1)))[..., :1]
    np.testing.assert_array_equal(as_image, np.where(padded, 255, ours))


def test_sides_whose_product_passes_int32_are_scaled_right() -> None:
    covering = Preprocessing("raw", (8192, 16384), 8192).geometry(100_000, 300_000)
    assert [int(number) for number in covering] == [8192, 24576, 0, 4096]


@pytest.mark.parametrize("fit", ["crop", "squash", "letterbox"])
def test_varied_images_have_the_shape_of_the_input(fit: Fit) -> None:
    pictures = np.random.default_rng(2).integers(1, 256, (6, 30, 45, 3), dtype=np.uint8)
    data = ImageSet.from_arrays("noise", pictures, [0] * 6, Preprocessing("raw", (24, 16), 16, fit=fit))
    augment = Augmentation(crop_area=(0.2, 0.6))
    batch = next(iter(data.batches(6, shuffle_seed=1, augment=augment)))[0].numpy()
    assert batch.shape == (6, 24, 16, 3)
    assert (batch == 0).any() == (fit == "letterbox")


@pytest.mark.parametrize(("fit", "around"), [("crop", 40 / 24), ("squash", 300 / 200), ("letterbox", 300 / 200)])
def test_random_crops_are_distorted_as_those_of_a_square_input(fit: Fit, around: float) -> None:
    """A crop becomes the input: what was drawn is the aspect ratio relative to the shape that it has in evaluation."""
    # A ramp of 1 a pixel in both directions: its slopes in the input say how large the crop was.
    y, x = np.mgrid[0:200, 0:300]
    image = np.stack([y, x / 2, np.zeros_like(x)], -1).astype(np.uint8)
    preprocessing = Preprocessing("raw", (24, 40), 24, fit=fit)
    augment = Augmentation(crop_area=(0.2, 0.3), aspect=(0.9, 1.2), flip=False)
    ratios = []
    for index in range(20):
        out = np.asarray(augment.prepare(image, preprocessing, (1, 1, index)))
        middle = out[8:16, 14:26]
        rows, columns = np.diff(middle[..., 0], axis=0).mean(), 2 * np.diff(middle[..., 1], axis=1).mean()
        # A letterboxed crop is scaled alike in both directions; the others to all of the input.
        ratios.append(columns / rows * (1 if fit == "letterbox" else 40 / 24))
    low, high = (1, 1) if fit == "letterbox" else (0.9 * around, 1.2 * around)
    assert low * 0.95 < min(ratios)
    assert max(ratios) < high * 1.05
    assert fit == "letterbox" or max(ratios) - min(ratios) > 0.1
