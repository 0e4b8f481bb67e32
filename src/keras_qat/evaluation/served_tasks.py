"""What each output of a model file says: written in or beside it, or shown by its last layers and by the labels.

A last softmax makes scores of classes, and a sigmoid that of the second of two. A linear one makes logits or numbers of
any other meaning: there the labels tell, which are whole numbers for classes.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from keras_qat import models, runtimes
from keras_qat.data import DataSet
from keras_qat.errors import UnsupportedModelError
from keras_qat.evaluation.single_score import last_operator, single_score
from keras_qat.types import OutputTask, ScoreMeaning

_AXES = 2
"""Axes of scores of whole inputs: (batch, classes)."""

ClassLabels = bool | None
"""Whether the labels of an output are classes; `None` where there are no labels."""


def class_labels(data: DataSet, outputs: int) -> tuple[ClassLabels, ...]:
    """Whether the labels of a data set are classes, for each output of a model.

    Args:
        data: the data set.
        outputs: the number of outputs.

    Returns:
        One value for each output; if there are no labels, or not as many as outputs, all are `None`.

    Example:
        >>> import numpy as np
        >>> from keras_qat.data import ArraySet
        >>> class_labels(ArraySet.from_arrays("noise", np.zeros((5, 4), "float32"), np.zeros((5, 2), "float32")), 1)
        (False,)
    """
    kinds = data.label_kinds
    return tuple(kind != "regression" for kind in kinds) if len(kinds) == outputs else (None,) * outputs


def served_tasks(
    path: Path, runtime: runtimes.Runtime, facts: models.ModelFacts | None, labels: Sequence[ClassLabels]
) -> tuple[OutputTask, ...]:
    """What each output of an opened file says.

    Args:
        path: the file.
        runtime: the opened file.
        facts: what is written in or beside it.
        labels: whether the labels of each output are classes.

    Raises:
        UnsupportedModelError: If labels are classes, and nothing shows what a single score means.
    """
    if facts is not None and _fit(facts.tasks, runtime):
        return facts.tasks
    written = facts.scores if facts is not None and not facts.tasks and len(runtime.outputs) == 1 else None
    return tuple(_task(path, runtime, i, labels[i], written) for i in range(len(runtime.outputs)))


def named_outputs(runtime: runtimes.Runtime, facts: models.ModelFacts | None) -> tuple[runtimes.TensorSpec, ...]:
    """The outputs of an opened file under the names that its tasks have, by which data name their labels."""
    if facts is None or not _fit(facts.tasks, runtime):
        return runtime.outputs
    return tuple(replace(spec, name=task.output) for spec, task in zip(runtime.outputs, facts.tasks, strict=True))


def _fit(tasks: Sequence[OutputTask], runtime: runtimes.Runtime) -> bool:
    """Whether tasks can be those of the file, since what lies beside it may be about another model."""
    return (
        bool(tasks)
        and len(tasks) == len(runtime.outputs)
        and all(
            (task.kind == "classification") <= (len(spec.shape) == _AXES)
            for task, spec in zip(tasks, runtime.outputs, strict=True)
        )
    )


def _task(
    path: Path, runtime: runtimes.Runtime, output: int, labels: ClassLabels, written: ScoreMeaning | None
) -> OutputTask:
    spec = runtime.outputs[output]
    scores = None if labels is False or len(spec.shape) < _AXES else _scores(path, runtime, output, labels, written)
    if scores is None:
        return OutputTask(spec.name, "regression")
    return OutputTask(spec.name, "classification" if len(spec.shape) == _AXES else "segmentation", scores)


def _scores(
    path: Path, runtime: runtimes.Runtime, output: int, labels: ClassLabels, written: ScoreMeaning | None
) -> ScoreMeaning | None:
    """What the numbers along the last axis mean as scores of classes; `None` if they aren't any."""
    spec = runtime.outputs[output]
    whole, width = len(spec.shape) == _AXES, spec.shape[-1]
    # One row of numbers for an image was always taken for a classifier's, and facts without tasks are those of one.
    told = labels is True or (whole and (written is not None or _reads_image(runtime)))
    if width != 1:
        shown = told or last_operator(path, runtime, output) == "Softmax"
        return "classes" if shown else None
    if written not in {None, "classes"}:
        return written
    if told:
        return single_score(path, runtime, output)
    if _is_reconstruction(spec, runtime):
        return None
    return "probability" if last_operator(path, runtime, output) == "Sigmoid" else None


def _reads_image(runtime: runtimes.Runtime) -> bool:
    shapes = [spec.shape for spec in runtime.inputs]
    return len(shapes) == 1 and len(shapes[0]) == 4 and shapes[0][3] in {1, 3, None}  # noqa: PLR2004


def _is_reconstruction(output: runtimes.TensorSpec, runtime: runtimes.Runtime) -> bool:
    """Whether an output of positions has the shape of an input."""
    return len(output.shape) > _AXES and any(output.shape[1:] == spec.shape[1:] for spec in runtime.inputs)


def require_alike(tasks: Sequence[Sequence[OutputTask]], paths: Sequence[Path]) -> None:
    """Refuse to compare files whose outputs say different things.

    Raises:
        UnsupportedModelError: If the number of outputs or a kind of task differs.
    """
    kinds = [tuple(task.kind for task in one) for one in tasks]
    if len(set(kinds)) > 1:
        found = "; ".join(f"{path}: {', '.join(kind)}" for path, kind in zip(paths, kinds, strict=True))
        raise UnsupportedModelError(
            f"Files are compared output by output, and these have different tasks. Received: {found}. Compare files of "
            "one model."
        )
