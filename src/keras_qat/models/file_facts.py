"""What a model file expects of its images, and what its scores mean, as is written into or beside it.

An ONNX file holds these facts in its metadata. Other files can't; theirs are in the `preprocessing.json` of their
folder.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from keras_qat.data import Preprocessing
from keras_qat.errors import UserError
from keras_qat.files import FACTS_FILE, parse_json, read_json
from keras_qat.onnx import read_onnx_file
from keras_qat.types import ScoreMeaning

_PREPROCESSING, _CLASSES, _SCORES = "keras_qat.preprocessing", "keras_qat.classes", "keras_qat.scores"
"""The keys in an ONNX file's metadata."""

_OF_KERAS = frozenset({".keras", ".h5", ""})
"""Suffixes of what Keras writes, a SavedModel's folder included. These always read normalized images."""


@dataclass(frozen=True)
class ModelFacts:
    """What to feed a model file, and what its scores mean.

    Args:
        preprocessing: what is done to an image; if `embedded`, the file itself does the normalization.
        embedded: whether the file reads uint8 pixels, which are `preprocessing.raw()`.
        class_names: one name for each class, in the order of the scores.
        scores: what the scores mean; written down only if there is a single one.

    Example:
        >>> facts = ModelFacts(Preprocessing("caffe", 224, 256), embedded=False, class_names=("cat", "dog"))
        >>> facts.metadata()["keras_qat.classes"]
        '["cat", "dog"]'
    """

    preprocessing: Preprocessing
    embedded: bool
    class_names: tuple[str, ...]
    scores: ScoreMeaning = "classes"

    @property
    def reads(self) -> Preprocessing:
        """The preprocessing of what the file is fed."""
        return self.preprocessing.raw() if self.embedded else self.preprocessing

    def metadata(self) -> dict[str, str]:
        """The facts as an ONNX file's metadata."""
        facts = self.to_dict()
        keys = {"preprocessing": _PREPROCESSING, "classes": _CLASSES, "scores": _SCORES}
        return {keys[name]: json.dumps(value) for name, value in facts.items()}

    def to_dict(self) -> dict[str, Any]:
        """The facts as `preprocessing.json` holds them."""
        single = {} if self.scores == "classes" else {"scores": self.scores}
        return {
            "preprocessing": {**self.preprocessing.to_dict(), "embedded": self.embedded},
            "classes": list(self.class_names),
            **single,
        }


def read_model_facts(path: Path) -> ModelFacts | None:
    """Read what a model file expects.

    Args:
        path: an ONNX file, whose metadata is read, or any other model file or folder, which may have a
            `preprocessing.json` beside it.

    Returns:
        The facts; `None` if they aren't written down.

    Raises:
        StorageError: If the file can't be read.
        UserError: If the facts can't be understood.
    """
    if path.suffix == ".onnx":
        return _from_metadata(path)
    facts = read_facts_file(path.parent)
    # Engines are built from the run's ONNX files, and read what those read.
    return facts and replace(facts, embedded=facts.embedded and path.suffix not in _OF_KERAS)


def read_facts_file(folder: Path) -> ModelFacts | None:
    """Read the `preprocessing.json` of a folder.

    Returns:
        The facts; `None` if the folder has no such file.

    Raises:
        StorageError: If the file can't be read.
        UserError: If its content can't be understood.
    """
    path = folder / FACTS_FILE
    if not path.is_file():
        return None
    value = read_json(path)
    if not isinstance(value, dict) or not {"preprocessing", "classes"} <= set(value):
        raise _not_understood(path, value)
    return _facts(path, value["preprocessing"], value["classes"], value.get("scores", "classes"))


def _from_metadata(path: Path) -> ModelFacts | None:
    metadata = read_onnx_file(path).metadata
    if _PREPROCESSING not in metadata:
        return None
    name = f"The metadata of {path}"
    try:
        preprocessing, classes = (parse_json(metadata.get(key, "[]"), name) for key in (_PREPROCESSING, _CLASSES))
        scores = parse_json(metadata.get(_SCORES, '"classes"'), name)
    except UserError as error:
        raise _not_understood(path, metadata[_PREPROCESSING]) from error
    return _facts(path, preprocessing, classes, scores)


def _facts(path: Path, preprocessing: Any, classes: Any, scores: Any) -> ModelFacts:
    """The facts from their values in JSON."""
    if scores not in get_args(ScoreMeaning):
        raise UserError(
            f"Can't understand what the scores of {path} mean. Received: {scores!r}. Export the model again."
        )
    if not isinstance(preprocessing, Mapping) or not isinstance(classes, list):
        raise _not_understood(path, preprocessing)
    fields = dict(preprocessing)
    embedded = fields.pop("embedded", False)
    if not isinstance(embedded, bool):
        raise _not_understood(path, preprocessing)
    try:
        return ModelFacts(Preprocessing.from_dict(fields), embedded, tuple(map(str, classes)), scores)
    except UserError as error:
        raise _not_understood(path, preprocessing) from error


def _not_understood(path: Path, received: Any) -> UserError:
    return UserError(
        f"Can't understand the preprocessing that {path} names. Received: {received!r}. Export the model again, or say "
        "how images are prepared."
    )
