"""ImageNet's 1000 classes: their WordNet ids and names, in Keras's order."""

import csv
import functools
import re
from importlib import resources

_WNID = re.compile(r"n\d{8}")


def is_wnid(name: str) -> bool:
    """Whether `name` has the form of a WordNet id, such as `n01440764`."""
    return _WNID.fullmatch(name) is not None


@functools.cache
def imagenet_classes() -> dict[str, str]:
    """The 1000 classes in the order of the network's outputs: WordNet id → name.

    Example:
        >>> list(imagenet_classes().items())[:2]
        [('n01440764', 'tench'), ('n01443537', 'goldfish')]
    """
    text = resources.files("keras_qat.data").joinpath("imagenet_classes.csv").read_text(encoding="utf-8")
    return {row["wnid"]: row["name"] for row in csv.DictReader(text.splitlines())}
