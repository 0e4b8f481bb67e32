"""Model files of earlier Keras versions, whose layers had arguments that they no longer have.

Keras refuses an argument that it doesn't know, though a value such as `groups=1` in a depthwise convolution says
nothing.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

_SAYS_NOTHING: Mapping[str, Mapping[str, Any]] = {"DepthwiseConv2D": {"groups": 1}}
"""{class: {argument: the value that changes nothing}} of the arguments that were dropped from Keras."""

_CONFIG = "config.json"
"""The file in a `.keras` archive that describes the layers."""


class _DepthwiseConv2D:
    """What an `.h5` file's DepthwiseConv2D is made by; it makes Keras's own."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Any:
        import keras

        return keras.layers.DepthwiseConv2D.from_config(_without(config, "DepthwiseConv2D"))


OLD_CLASSES: Mapping[str, type] = {"DepthwiseConv2D": _DepthwiseConv2D}
"""The `custom_objects` with which Keras reads the `.h5` files of earlier versions; `.keras` files ignore them."""


@contextmanager
def readable_file(path: Path) -> Iterator[Path]:
    """A file that this version of Keras reads, for as long as the block lasts.

    Args:
        path: a `.keras` or `.h5` file.

    Yields:
        The file itself, or for a `.keras` file with arguments that were dropped a copy without them.
    """
    config = _config_of(path)
    cleaned = _cleaned(config)
    if cleaned == config:
        yield path
        return
    with TemporaryDirectory(prefix="keras-qat-") as folder:
        copy = Path(folder) / path.name
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w") as written:
            for item in archive.infolist():
                content = json.dumps(cleaned) if item.filename == _CONFIG else archive.read(item)
                written.writestr(item.filename, content)
        yield copy


def _config_of(path: Path) -> Any:
    """The description of a `.keras` file's layers; `None` for any other file."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(_CONFIG)) if _CONFIG in archive.namelist() else None


def _cleaned(value: Any) -> Any:
    """A description of layers, at any depth, without the arguments that say nothing."""
    if isinstance(value, list):
        return [_cleaned(item) for item in value]
    if not isinstance(value, dict):
        return value
    made = {key: _cleaned(item) for key, item in value.items()}
    if isinstance(made.get("config"), dict) and made.get("class_name") in _SAYS_NOTHING:
        made["config"] = _without(made["config"], made["class_name"])
    return made


def _without(config: Mapping[str, Any], class_name: str) -> dict[str, Any]:
    nothing = _SAYS_NOTHING[class_name]
    return {key: value for key, value in config.items() if key not in nothing or value != nothing[key]}
