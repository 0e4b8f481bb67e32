"""Run models over a data set and judge every output by its task, batch by batch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from keras_qat.errors import DataError, UnsupportedModelError
from keras_qat.evaluation.feeding import arrays_of_inputs, run_batch
from keras_qat.evaluation.judges import JUDGES, Pair, TaskJudge
from keras_qat.evaluation.output_scores import OutputScores
from keras_qat.progress import track
from keras_qat.runtimes import Runtime
from keras_qat.types import BASELINE, UNLABELLED, OutputTask

_AXES = {"classification": 2}
"""The number of axes that an output must have, where the task demands one."""


def judge(
    runtimes: Mapping[str, Runtime],
    batches: Iterable[tuple[Any, Any]],
    tasks: Sequence[OutputTask],
    reference: str = BASELINE,
    *,
    description: str = "evaluating",
    total: int = 0,
) -> Mapping[str, tuple[OutputScores, ...]]:
    """Judge each output of several models on the same data.

    Args:
        runtimes: The models by name, each in an engine.
        batches: Pairs (x, y). x is an array of shape (batch, …), or a tuple of arrays in the order of the inputs; y is
            an array of labels, or a tuple of arrays in the order of the outputs:

            - classification: integers, shape (batch,), from 0 to classes - 1;
            - segmentation: integers, shape (batch, …) of the positions; those of -1 or 255 aren't counted;
            - regression: as many numbers as the output has.

            int32 labels of shape (batch,) that are all -1 stand for unknown ones, of one output or of all.
        tasks: What each output says, in the order of the outputs.
        reference: The name of the model that the others are compared with, if it is among `runtimes`.
        description: What is being done, for the progress bar.
        total: The number of batches, for the progress bar.

    Returns:
        The figures of each output of each model.

    Raises:
        DataError: If there are no data, or they don't fit the models or their outputs.
        UnsupportedModelError: If a model has other outputs than there are tasks.

    Example:
        >>> import keras
        >>> from keras_qat.runtimes import KerasRuntime
        >>> runtime = KerasRuntime(keras.Sequential([keras.Input((2,)), keras.layers.Rescaling(2.0)]))
        >>> data = [(np.ones((4, 2), "float32"), np.full((4, 2), 2.5))]
        >>> scores = judge({"twice": runtime}, data, [OutputTask("rescaling", "regression")])
        >>> scores["twice"][0].value("mae")
        0.5
    """
    pairs = [(name, reference if reference in runtimes and name != reference else None) for name in runtimes]
    found = judge_pairs(runtimes, batches, tasks, pairs, description=description, total=total)
    return {pair[0]: scores for pair, scores in found.items()}


def judge_pairs(
    runtimes: Mapping[str, Runtime],
    batches: Iterable[tuple[Any, Any]],
    tasks: Sequence[OutputTask],
    pairs: Sequence[Pair],
    *,
    description: str = "evaluating",
    total: int = 0,
) -> Mapping[Pair, tuple[OutputScores, ...]]:
    """Judge models as `judge` does, each against any other in one pass over the data.

    Args:
        runtimes: As for `judge`, like `batches`, `tasks` and the rest.
        batches: The data.
        tasks: What each output says.
        pairs: (model, the model that it is compared with, or `None`), by their names.
        description: What is being done.
        total: The number of batches.

    Returns:
        The figures of each output, by the pair.
    """
    runs = (
        ({name: partial(run_batch, runtime, x) for name, runtime in runtimes.items()}, y)
        for x, y in batches
        if len(arrays_of_inputs(x)[0])
    )
    return judge_outputs(track(runs, description, total or None), tasks, pairs)


def judge_outputs(
    batches: Iterable[tuple[Mapping[str, Callable[[], tuple[np.ndarray, ...]]], Any]],
    tasks: Sequence[OutputTask],
    pairs: Sequence[Pair],
) -> Mapping[Pair, tuple[OutputScores, ...]]:
    """Judge what models compute that may be fed differently.

    Args:
        batches: ({name of a model: computes its outputs}, y) of each batch.
        tasks: What each output says.
        pairs: As for `judge_pairs`.

    Returns:
        The figures of each output, by the pair.

    Raises:
        DataError: If there are no data, or the labels don't fit the outputs.
        UnsupportedModelError: If a model has other outputs than there are tasks.
    """
    judges = [JUDGES[task.kind](task, pairs) for task in tasks]
    for runs, y in batches:
        # What isn't needed of an output is dropped before the next model runs.
        outputs = {name: _read(judges, name, run(), tasks) for name, run in runs.items()}
        labels = labels_of(y, tasks, len(next(iter(outputs.values()))[0]))
        for i, one in enumerate(judges):
            one.add({name: made[i] for name, made in outputs.items()}, labels[i])
    if not all(one.images for one in judges):
        raise DataError("There is nothing to evaluate on. Received: 0 images. Give at least one batch.")
    return {(name, other): tuple(one.scores(name, other) for one in judges) for name, other in pairs}


def _read(
    judges: Sequence[TaskJudge], name: str, outputs: tuple[np.ndarray, ...], tasks: Sequence[OutputTask]
) -> tuple[np.ndarray, ...]:
    if len(outputs) != len(tasks):
        raise UnsupportedModelError(
            f"Every output needs a task. Received: {len(tasks)} tasks for {name}, which writes arrays of shapes "
            f"{', '.join(str(output.shape) for output in outputs)}. Give one task for each output, in this order."
        )
    for task, output in zip(tasks, outputs, strict=True):
        if output.ndim != _AXES.get(task.kind, output.ndim):
            raise UnsupportedModelError(
                f"Scores of classes have shape (batch, classes). Received: the output {task.output!r} of {name}, of "
                f"shape {output.shape}. Judge it as a segmentation or a regression (`OutputTask.kind`)."
            )
    return tuple(one.read(output) for one, output in zip(judges, outputs, strict=True))


def labels_of(y: Any, tasks: Sequence[OutputTask], images: int) -> list[np.ndarray | None]:
    """Return the labels of each output in one batch.

    Args:
        y: One array, or a tuple or list of arrays in the order of the outputs.
        tasks: The tasks of the outputs.
        images: The number of images in the batch.

    Returns:
        An array for each output; `None` where all labels are -1, which stands for unknown ones.

    Raises:
        DataError: If there are more or fewer arrays than outputs.

    Example:
        >>> tasks = [OutputTask("mask", "segmentation", "classes"), OutputTask("box", "regression")]
        >>> labels_of(np.full(8, -1, "int32"), tasks, 8)
        [None, None]
    """
    arrays = [np.asarray(one) for one in (y if isinstance(y, tuple | list) else [y])]
    if len(arrays) == 1 and _unknown(arrays[0], images):
        return [None] * len(tasks)
    if len(arrays) != len(tasks):
        raise DataError(
            f"The model has {len(tasks)} output(s), {', '.join(repr(task.output) for task in tasks)}. Received: "
            f"{len(arrays)} array(s) of labels. Give one array for each output, in this order."
        )
    return [None if _unknown(array, images) else array for array in arrays]


def _unknown(labels: np.ndarray, images: int) -> bool:
    return labels.dtype.kind == "i" and labels.shape == (images,) and bool(np.all(labels == UNLABELLED))
