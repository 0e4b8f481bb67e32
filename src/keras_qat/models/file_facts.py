"""What a model file expects of its data, and what its outputs mean, as is written into or beside it.

An ONNX file holds these facts in its metadata. Other files can't; theirs are in the `preprocessing.json` of their
folder.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from keras_qat.data import Preprocessing
from keras_qat.errors import UserError
from keras_qat.files import FACTS_FILE, from_json_value, parse_json, read_json, to_json_value
from keras_qat.onnx import read_onnx_file
from keras_qat.types import Normalization, OutputTask, ScoreMeaning, is_classifier

_KEYS: Mapping[str, str] = {name: f"keras_qat.{name}" for name in ("preprocessing", "classes", "scores", "tasks")}
"""The keys in an ONNX file's metadata, by those in `preprocessing.json`."""

_SAYS = frozenset({"preprocessing", "tasks"})
"""Keys of which a file has at least one if its facts are written down."""

_OF_KERAS = frozenset({".keras", ".h5", ""})
"""Suffixes of what Keras writes, a SavedModel's folder included. These always read normalized images."""


@dataclass(frozen=True)
class ModelFacts:
    """What to feed a model file, and what its scores mean.

    Args:
        preprocessing: what is done to an image; if `embedded`, the file itself does the normalization. `None` for a
            model that is fed arrays as they are.
        embedded: whether the file reads uint8 pixels, which are `preprocessing.raw()`.
        class_names: one name for each class, in the order of the scores.
        scores: what a classifier's scores mean; written down only if there is a single one.
        tasks: what each output says, in the order of the outputs; empty for a classifier with one output.

    Raises:
        ValueError: If there is no preprocessing to embed.

    Example:
        >>> facts = ModelFacts(Preprocessing("caffe", 224, 256), embedded=False, class_names=("cat", "dog"))
        >>> facts.metadata()["keras_qat.classes"]
        '["cat", "dog"]'
    """

    preprocessing: Preprocessing | None
    embedded: bool
    class_names: tuple[str, ...]
    scores: ScoreMeaning = "classes"
    tasks: tuple[OutputTask, ...] = ()

    def __post_init__(self) -> None:
        """Refuse to embed what there is not."""
        if self.embedded and self.preprocessing is None:
            raise ValueError("Only a known preprocessing can be embedded. Received: preprocessing=None, embedded=True.")

    @classmethod
    def of(
        cls,
        tasks: tuple[OutputTask, ...],
        preprocessing: Preprocessing | None,
        class_names: tuple[str, ...] = (),
        *,
        embedded: bool = False,
    ) -> "ModelFacts":
        """The facts of a model with these tasks; arguments as of the class.

        Example:
            >>> ModelFacts.of((OutputTask("scores", "classification", "logit"),), None).scores
            'logit'
        """
        if is_classifier(tasks):
            return cls(preprocessing, embedded, class_names, tasks[0].scores or "classes")
        return cls(preprocessing, embedded, class_names, tasks=tasks)

    @property
    def output_tasks(self) -> tuple[OutputTask, ...]:
        """What each output says, that of a classifier too."""
        return self.tasks or (OutputTask("scores", "classification", self.scores),)

    @property
    def reads(self) -> Preprocessing | None:
        """The preprocessing of what the file is fed; `None` for arrays as they are."""
        return self.preprocessing.raw() if self.embedded and self.preprocessing else self.preprocessing

    @property
    def normalize(self) -> Callable[[Any], Any] | None:
        """Computes what the Keras model is fed instead of what the file reads; `None` if they read the same."""
        return self.preprocessing.normalize if self.embedded and self.preprocessing else None

    @property
    def normalization(self) -> Normalization | None:
        """The normalization that the file does itself; `None` if it does none."""
        return self.preprocessing.normalization if self.embedded and self.preprocessing else None

    def metadata(self) -> dict[str, str]:
        """The facts as an ONNX file's metadata."""
        return {_KEYS[name]: json.dumps(value) for name, value in self.to_dict().items()}

    def to_dict(self) -> dict[str, Any]:
        """The facts as `preprocessing.json` holds them."""
        prepared = None if self.preprocessing is None else self.preprocessing.to_dict()
        facts: dict[str, Any] = {
            "preprocessing": None if prepared is None else {**prepared, "embedded": self.embedded},
            "classes": list(self.class_names),
            "scores": None if self.scores == "classes" else self.scores,
            "tasks": to_json_value(self.tasks) or None,
        }
        # A classifier that is fed arrays has neither preprocessing nor tasks to write, and says that it has none.
        none = {"preprocessing"} if not self.tasks else set()
        return {name: value for name, value in facts.items() if value is not None or name in none}


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
    if not isinstance(value, dict) or "classes" not in value or not _SAYS & set(value):
        raise _not_understood(path, value)
    return _facts(path, value)


def _from_metadata(path: Path) -> ModelFacts | None:
    metadata = read_onnx_file(path).metadata
    written = {name: metadata[key] for name, key in _KEYS.items() if key in metadata}
    if not _SAYS & set(written):
        return None
    try:
        value = {name: parse_json(text, f"The metadata of {path}") for name, text in written.items()}
    except UserError as error:
        raise _not_understood(
            path, next(written[name] for name in ("preprocessing", "tasks") if name in written)
        ) from error
    return _facts(path, value)


def _facts(path: Path, value: Mapping[str, Any]) -> ModelFacts:
    """The facts from their values in JSON."""
    scores, classes, preprocessing = (
        value.get("scores", "classes"),
        value.get("classes", []),
        value.get("preprocessing"),
    )
    if scores not in get_args(ScoreMeaning):
        raise UserError(
            f"Can't understand what the scores of {path} mean. Received: {scores!r}. Export the model again."
        )
    if not isinstance(classes, list):
        raise _not_understood(path, preprocessing)
    tasks = from_json_value(
        tuple[OutputTask, ...],
        value.get("tasks", []),
        problem=f"Can't understand what the outputs of {path} say",
        remedy="Export the model again.",
    )
    known, embedded = _prepared(path, preprocessing)
    return ModelFacts(known, embedded, tuple(map(str, classes)), scores, tasks)


def _prepared(path: Path, value: Any) -> tuple[Preprocessing | None, bool]:
    """The preprocessing from its value in JSON, and whether the file does the normalization."""
    if value is None:
        return None, False
    if not isinstance(value, Mapping):
        raise _not_understood(path, value)
    fields = dict(value)
    embedded = fields.pop("embedded", False)
    if not isinstance(embedded, bool):
        raise _not_understood(path, value)
    try:
        return Preprocessing.from_dict(fields), embedded
    except UserError as error:
        raise _not_understood(path, value) from error


def _not_understood(path: Path, received: Any) -> UserError:
    return UserError(
        f"Can't understand the preprocessing that {path} names. Received: {received!r}. Export the model again, or say "
        "how images are prepared."
    )
