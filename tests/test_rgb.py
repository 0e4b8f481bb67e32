"""Image files with more than 8 bits, TIFF files, and what of them is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from keras_qat.data import Preprocessing, decode_file, load_data
from keras_qat.errors import BrokenImageError

LEVELS = np.arange(256 * 256, dtype=np.uint16).reshape(256, 256)


def rounded(levels: np.ndarray, white: int) -> np.ndarray:
    return np.floor(levels.astype(np.float64) * 255 / white + 0.5).astype(np.uint8)


def tags(**values: int) -> Any:
    made = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in values.items():
        made[{"photometric": 262, "kind": 254}[name]] = value
    return made


@pytest.mark.parametrize("name", ["x.png", "x.tif", "x.tiff", "big_endian.tif", "x.pgm"])
def test_gray_of_16_bits_is_scaled_to_8(name: str, tmp_path: Path) -> None:
    levels = LEVELS.astype(">u2") if name == "big_endian.tif" else LEVELS
    path = tmp_path / name
    Image.fromarray(levels).save(path)
    expected = rounded(LEVELS, 65535)
    np.testing.assert_array_equal(decode_file(path), np.repeat(expected[..., None], 3, -1))


def tiff_of_12_bits(levels: np.ndarray) -> bytes:
    """Two numbers in three bytes, a strip for the whole image; Pillow writes no such file."""
    first, second = levels[:, 0::2].astype(int), levels[:, 1::2].astype(int)
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], -1).astype(np.uint8).tobytes()
    height, width = levels.shape
    fields = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(packed)}
    head = b"II*\0" + (8 + len(packed)).to_bytes(4, "little")
    entries = b"".join(
        tag.to_bytes(2, "little") + b"\4\0" + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
        for tag, value in fields.items()
    )
    return head + packed + len(fields).to_bytes(2, "little") + entries + bytes(4)


def test_gray_of_12_bits_has_its_white_at_4095(tmp_path: Path) -> None:
    levels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    path = tmp_path / "x.tif"
    path.write_bytes(tiff_of_12_bits(levels))
    np.testing.assert_array_equal(decode_file(path)[..., 0], rounded(levels, 4095))


def test_16_bits_of_which_0_is_white_are_inverted(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    Image.fromarray(LEVELS).save(path, tiffinfo=tags(photometric=0))
    with Image.open(path) as image:
        assert image.tag_v2[262] == 0  # type: ignore[attr-defined]
    np.testing.assert_array_equal(decode_file(path)[..., 0], rounded(65535 - LEVELS, 65535))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "L", "P", "CMYK", "1", "YCbCr"])
def test_tiff_files_of_8_bits_are_read_as_pillow_converts_them(mode: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    image = Image.fromarray(noise).convert(mode)
    path = tmp_path / "x.tif"
    image.save(path)
    np.testing.assert_array_equal(decode_file(path), np.asarray(image.convert("RGB")))


def test_transparency_is_dropped_not_blended(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (5, 6, 4), dtype=np.uint8)
    for name in ("x.png", "x.tif", "x.webp"):
        Image.fromarray(pixels).save(tmp_path / name, **({"lossless": True, "exact": True} if "webp" in name else {}))
        np.testing.assert_array_equal(decode_file(tmp_path / name), pixels[..., :3])


@pytest.mark.parametrize(
    ("pixels", "name", "message"),
    [
        (np.zeros((4, 4), np.float32), "x.tif", "its pixels are floating-point numbers; save it as RGB or gray"),
        (np.zeros((4, 4), np.float32), "x.pfm", "its pixels are floating-point numbers"),
        (np.zeros((4, 4), np.int32), "x.tif", "its pixels are integers with a sign, or of 32 bits"),
    ],
)
def test_pixels_of_an_unknown_range_are_refused(pixels: np.ndarray, name: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / name
    Image.fromarray(pixels).save(path)
    with pytest.raises(BrokenImageError, match=rf"Can't read the image .*{name}: {message}.*Received: "):
        decode_file(path)


def pages(path: Path, *kinds: int) -> Path:
    """A TIFF with a page of each kind: 1 is a thumbnail, 4 a transparency."""
    images = [Image.new("L", (8 - i, 8 - i), 10 * (i + 1)) for i in range(len(kinds))]
    with TiffImagePlugin.AppendingTiffWriter(str(path), new=True) as file:
        for image, kind in zip(images, kinds, strict=True):
            image.save(file, format="TIFF", tiffinfo=tags(kind=kind))
            file.newFrame()
    return path


def test_a_thumbnail_or_a_transparency_is_no_page(tmp_path: Path) -> None:
    path = pages(tmp_path / "x.tif", 0, 1, 4, 5)
    np.testing.assert_array_equal(decode_file(path), np.full((8, 8, 3), 10, np.uint8))


@pytest.mark.parametrize("kinds", [(0, 0), (0, 1, 0), (2, 2)])
def test_nothing_says_which_of_several_pages_is_meant(kinds: tuple[int, ...], tmp_path: Path) -> None:
    path = pages(tmp_path / "x.tif", *kinds)
    with pytest.raises(BrokenImageError, match=r"x\.tif: it has several pages; save the page that is meant"):
        decode_file(path)


def test_folders_of_tiff_files_are_photos(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(5):
            Image.new("RGB", (9, 8), (20 * i, 0, 0)).save(tmp_path / name / f"{i}.TIF")
    pages(tmp_path / "dog" / "scan.tiff", 0, 0)
    eight = Preprocessing("raw", 8, 8)
    with pytest.raises(BrokenImageError, match=r"scan\.tiff: it has several pages"):
        load_data(tmp_path, eight, seed=0)
    splits = load_data(tmp_path, eight, seed=0, skip_bad=True)
    assert sum(len(part) for part in (splits.train, splits.selection, splits.validation)) == 10
