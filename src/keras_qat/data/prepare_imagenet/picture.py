"""An image file of ImageNet as it goes into a record.

ILSVRC 2012 has a PNG that is named .JPEG (n02105855_2933.JPEG) and 22 JPEGs in CMYK, which JPEG decoders such as
`tf.io.decode_jpeg` refuse. They are told by their content, and encoded anew; all other files are kept byte for byte.
"""

import io
from dataclasses import dataclass

from keras_qat.data.decode import opened, to_rgb

# Pillow calls a JPEG with further pictures behind it MPO.
_JPEG = frozenset({"JPEG", "MPO"})
_MODES = frozenset({"RGB", "L"})
_QUALITY = 100
# Colours in full resolution, as a PNG and CMYK have them.
_EVERY_COLOUR = 0


@dataclass(frozen=True)
class Picture:
    """A JPEG file.

    Args:
        data: its bytes.
        width: in pixels.
        height: in pixels.
        was: what it was before it was encoded anew, such as `"CMYK JPEG"`; `None` where the bytes are as they were.
    """

    data: bytes
    width: int
    height: int
    was: str | None = None


def to_picture(data: bytes, name: str) -> Picture:
    """Look at the header of an image file; encode it anew as RGB JPEG if it is no JPEG in RGB or gray.

    Raises:
        DataError: the content is no image, or what must be decoded can't be; `name` is what the error calls it.
    """
    with opened(io.BytesIO(data), name) as image:
        width, height = image.size
        if image.format in _JPEG and image.mode in _MODES:
            return Picture(data, width, height)
        encoded = io.BytesIO()
        to_rgb(image).save(encoded, "JPEG", quality=_QUALITY, subsampling=_EVERY_COLOUR)
        return Picture(encoded.getvalue(), width, height, f"{image.mode} {image.format}")
