"""Data in any form → what `fit` reads on any backend: (x, y) batches, x in the order of the inputs, y of the outputs.

    whole arrays               cut into batches; those of training in an order drawn from (seed, epoch)
    tf.data.Dataset            passed on, with another structure where the model needs it
    anything else              batches of NumPy arrays, checked one by one

Only a `tf.data.Dataset` needs TensorFlow. On its backend, Keras reads Python's batches through one of ours, whose types
are those of the model and not those of the first batches.
"""

import itertools
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from keras_qat import feed
from keras_qat.errors import DataError, UserError
from keras_qat.training.label_checks import labels_missing, require_labels
from keras_qat.training.model_outputs import Outputs
from keras_qat.training.objectives import Objective
from keras_qat.types import UNLABELLED

_PARTS = 3
"""The most parts of whole data, as `fit` takes them: (x, y, sample_weight)."""

_logger = logging.getLogger(__name__)

Batch = tuple[list[Any], list[Any], Any]
"""The arrays of x in the order of the inputs, those of y in the order of the outputs, and the sample weights."""


@dataclass(frozen=True)
class Stream:
    """The batches of one epoch, or of the selection.

    Args:
        source: the batches, as the data gives them.
        what: how messages name them, for example "training data".
        dataset: the data itself, if it is a `tf.data.Dataset`.
        passed: the data itself, if it is told when an epoch begins and ends, as a `keras.utils.PyDataset` is.
    """

    source: feed.Source
    what: str
    dataset: Any = None
    passed: Any = None


def open_stream(
    data: Any, model: keras.Model, outputs: Outputs, batch_size: int, what: str, order: Sequence[int] | None = None
) -> Stream:
    """Return the batches of data in any form that `calibrate` takes, and of whole arrays (x, y).

    Args:
        data: arrays, in a tuple (x, y) or (x, y, sample_weight), or x alone; or batches of them.
        model: the model that will read them.
        outputs: its outputs.
        batch_size: the number of images in a batch of whole arrays.
        what: how messages name the data.
        order: the seeds of the order of whole arrays; `None` leaves the order.

    Raises:
        UserError: If an object was given that makes batches, in place of its batches.
        DataError: If the data can't be read, or its arrays don't fit the model.
    """
    if feed.is_array(data) or isinstance(data, Mapping):
        return Stream(_cut((data,), model, outputs, batch_size, what, order), what)
    if isinstance(data, tuple) and 0 < len(data) <= _PARTS:
        return Stream(_cut(data, model, outputs, batch_size, what, order), what)
    if hasattr(data, "batches") and not isinstance(data, Iterable | keras.utils.PyDataset):
        raise UserError(
            f"The {what} must be arrays or batches. Received: {type(data).__name__}. Use its `.batches(64)`, and for "
            "training `lambda epoch: images.batches(64, shuffle_seed=epoch)`."
        )
    source = feed.open_source(data, model, batch_size)
    return Stream(
        source,
        what,
        data if feed.is_tf_dataset(data) else None,
        data if isinstance(data, keras.utils.PyDataset) else None,
    )


def _cut(
    data: tuple[Any, ...],
    model: keras.Model,
    outputs: Outputs,
    batch_size: int,
    what: str,
    order: Sequence[int] | None,
) -> feed.Source:
    """Whole arrays, cut into batches. A model of a fixed batch size gets no smaller batch at the end."""
    x, y, weights = (*data, None, None)[:_PARTS]
    _require_apart(y, outputs, what)
    if any(isinstance(array, tuple | list | Mapping) for array in feed.in_order(x, model)):
        raise DataError(
            f"The {what} are a tuple, which is (images, labels) of whole arrays. Received: a tuple of {len(data)} "
            "batches or lists. Give batches in a list, and images as an array."
        )
    arrays = [_sliced(array) for array in feed.in_order(x, model)]
    labels = [None if array is None else _sliced(array) for array in outputs.labels(y)]
    given = [*arrays, *(array for array in labels if array is not None)]
    lengths = sorted({len(array) for array in given if array.ndim})
    if len(lengths) > 1:
        raise DataError(
            f"The arrays of the {what} must have one length. Received: {' and '.join(map(str, lengths))}. Give a label "
            "for each image; batches go into a list, since a tuple is (images, labels)."
        )
    fixed = model.inputs[0].shape[0]
    feed.check_shapes([(fixed or len(a), *a.shape[1:]) if a.ndim else a.shape for a in arrays], model)
    count, size = lengths[0], fixed or batch_size
    places = np.arange(count) if order is None else np.random.default_rng(order).permutation(count)
    starts = range(0, count - size + 1 if fixed else count, size)
    weighted = None if weights is None else _sliced(weights)

    def batch(start: int) -> tuple[Any, ...]:
        rows = places[start : start + size]
        pieces = [None if array is None else _rows(array, rows) for array in (*arrays, *labels, weighted)]
        return pieces[: len(arrays)], tuple(pieces[len(arrays) : -1]), pieces[-1]

    return feed.Source(lambda first: map(batch, starts[first:]), len(starts))


def _sliced(array: Any) -> Any:
    """An array that gives rows by their numbers: of NumPy, or in an HDF5 file, which is not read as a whole."""
    return array if type(array).__module__.startswith("h5py") else feed.to_numpy(array)


def _rows(array: Any, rows: np.ndarray) -> np.ndarray:
    """The rows of an array. HDF5 gives them in ascending order only, and a file is read fastest so."""
    ascending = np.sort(rows)
    return np.asarray(array[ascending])[np.searchsorted(ascending, rows)]


def take_apart(batch: Any, model: keras.Model, outputs: Outputs) -> Batch:
    """Return the parts of a batch by input and output. Only its structure is looked at, so tensors remain tensors."""
    x, y, weights = feed.split_batch(batch, len(model.inputs))
    return feed.in_order(x, model), outputs.labels(y), weights


def first_batch(stream: Stream, model: keras.Model, outputs: Outputs) -> tuple[Any, list[np.ndarray], list[Any]]:
    """Return the first batch that isn't empty, and its x and labels by output as NumPy arrays.

    Raises:
        DataError: If there is no such batch, or it doesn't fit the model.
    """
    for batch in stream.source.read(0):
        _, labels, _ = take_apart(batch, model, outputs)
        _require_apart(feed.split_batch(batch, len(model.inputs))[1], outputs, stream.what)
        x = feed.arrays_of(batch, model)
        if len(x[0]):
            return batch, x, [None if y is None else feed.to_numpy(y) for y in labels]
    raise DataError(f"The {stream.what} holds no batch. Received: no image. Check the folder and the split.")


def _require_apart(y: Any, outputs: Outputs, what: str) -> None:
    """Refuse one array of labels for several outputs, unless it marks all images as unlabelled."""
    if len(outputs.names) == 1 or y is None or isinstance(y, tuple | list | Mapping):
        return
    if not labels_missing(feed.to_numpy(y)):
        raise DataError(
            f"The model has {len(outputs.names)} outputs, and the labels of the {what} are one array. Received: shape "
            f"{tuple(y.shape)}. Give a tuple in the order {', '.join(map(repr, outputs.names))}, or a dictionary by "
            "these names."
        )


def count_steps(stream: Stream, limit: int | None) -> int:
    """Return the number of batches in one pass, at most `limit`; data of unknown length is read once to count.

    Raises:
        UserError: If the data never ends and there is no limit.
        DataError: If there is no batch.
    """
    steps = stream.source.steps
    if stream.source.endless:
        if limit is None:
            training = stream.what.startswith("training")
            advice = "Set `steps_per_epoch`" if training else "Use a part of it, `dataset.take(n)`"
            raise UserError(f"The {stream.what} never ends. Received: no length. {advice}, or drop the `repeat()`.")
        return limit
    if steps is None:
        _logger.info("Counting the batches of the %s, whose length is unknown.", stream.what)
        steps = sum(1 for _ in itertools.islice(stream.source.read(0), limit))
    if steps == 0:
        raise DataError(f"The {stream.what} holds no batch. Received: no image. Check the folder and the split.")
    return steps if limit is None else min(steps, limit)


@dataclass(frozen=True)
class Form:
    """What Keras reads: the types of its arrays, and which outputs have labels.

    Args:
        model: the model that trains.
        outputs: its outputs.
        objectives: what each output is trained for.
        label_types: the type of each output's labels.
        errors: what went wrong in Python's batches, which TensorFlow would report as an error of its own.
    """

    model: keras.Model
    outputs: Outputs
    objectives: tuple[Objective, ...]
    label_types: tuple[str, ...]
    errors: list[Exception] = field(default_factory=list)

    @property
    def labelled(self) -> bool:
        """Whether any output has labels."""
        return any(objective.labelled for objective in self.objectives)

    def arrays(self, batch: Any, what: str) -> tuple[Any, ...]:
        """Return a batch as checked NumPy arrays in the structure that Keras reads."""
        x = feed.arrays_of(batch, self.model)
        _, labels, weights = take_apart(batch, self.model, self.outputs)
        inputs = [np.asarray(a, spec.dtype) for a, spec in zip(x, self.model.inputs, strict=True)]
        arrays = []
        for objective, given, dtype in zip(self.objectives, labels, self.label_types, strict=True):
            if objective.labelled:
                array = _required(given, objective, len(x[0]), what)
                require_labels(objective, array, what)
                arrays.append(np.asarray(array, dtype))
            else:
                arrays.append(np.full(len(x[0]), UNLABELLED, "int32"))
        packed = self._packed(inputs, arrays)
        return packed if weights is None else (*packed, np.asarray(feed.to_numpy(weights), "float32"))

    def _packed(self, x: list[Any], y: list[Any]) -> tuple[Any, Any]:
        return (x[0] if len(x) == 1 else tuple(x)), (y[0] if len(y) == 1 or not self.labelled else tuple(y))

    def example(self, batch: Any, what: str) -> Any:
        """Return the types and shapes of a batch, as arrays that take no memory."""
        return keras.tree.map_structure(
            lambda array: np.broadcast_to(np.zeros((), array.dtype), array.shape), self.arrays(batch, what)
        )

    def open(self, stream: Stream, first: int, steps: int, example: Any) -> Any:
        """Return the batches of a stream from batch `first` on, as `fit` and `evaluate` take them.

        Args:
            stream: the data.
            first: number of the first batch, from 0.
            steps: the number of batches that must follow.
            example: a batch of it.
        """
        if stream.dataset is not None:
            dataset = self._restructured(stream.dataset)
            return dataset.skip(first) if first else dataset
        read = self._reader(stream, first, steps)
        return self._as_dataset(read, example) if keras.backend.backend() == "tensorflow" else read()

    def _reader(self, stream: Stream, first: int, steps: int) -> Callable[[], Iterator[Any]]:
        def read() -> Iterator[Any]:
            taken = 0
            try:
                if stream.passed is not None:
                    stream.passed.on_epoch_begin()
                for batch in itertools.islice(stream.source.read(first), steps):
                    taken += 1
                    arrays = self.arrays(batch, stream.what)
                    # Keras asks for no batch after the last.
                    if taken == steps and stream.passed is not None:
                        stream.passed.on_epoch_end()
                    yield arrays
                if taken < steps:
                    raise DataError(  # noqa: TRY301
                        f"The {stream.what} ended early. Received: {first + taken} batches, where the first pass had "
                        f"{first + steps}. Give as many in each epoch, or set `steps_per_epoch` to the fewest."
                    )
            except Exception as error:
                self.errors.append(error)
                raise

        return read

    def _as_dataset(self, read: Callable[[], Iterator[Any]], example: Any) -> Any:
        """Python's batches for TensorFlow; sizes that the model leaves open may differ from batch to batch."""
        import tensorflow as tf

        given = keras.tree.flatten((example[0],))
        fixed = all(size is not None for spec in self.model.inputs for size in spec.shape[1:])

        def spec(array: np.ndarray, shape: Sequence[int | None]) -> Any:
            return tf.TensorSpec((None, *shape[1:]), array.dtype)

        x = [spec(array, tensor.shape) for array, tensor in zip(given, self.model.inputs, strict=True)]
        rest = [spec(array, array.shape if fixed else [None] * array.ndim) for array in keras.tree.flatten(example[1:])]
        signature = keras.tree.pack_sequence_as(example, [*x, *rest])
        dataset = tf.data.Dataset.from_generator(read, output_signature=signature)
        return dataset.prefetch(tf.data.AUTOTUNE)

    def _restructured(self, dataset: Any) -> Any:
        """A `tf.data.Dataset` in the structure that Keras reads: the same, if it has that."""
        tf = sys.modules["tensorflow"]
        spec = dataset.element_spec
        plain = isinstance(spec, tuple) and len(spec) > 1 and not any(map(keras.tree.is_nested, spec))
        if plain and len(self.model.inputs) == len(self.objectives) == 1:
            return dataset

        def pack(*parts: Any) -> tuple[Any, ...]:
            x, labels, weights = take_apart(parts if isinstance(spec, tuple) else parts[0], self.model, self.outputs)
            missing = tf.fill(tf.shape(x[0])[:1], UNLABELLED)
            y = [
                given if objective.labelled and given is not None else missing
                for objective, given in zip(self.objectives, labels, strict=True)
            ]
            packed = self._packed(x, y)
            return packed if weights is None else (*packed, weights)

        return dataset.map(pack, tf.data.AUTOTUNE, deterministic=True)

    @contextmanager
    def errors_as_raised(self) -> Iterator[None]:
        """Raise what went wrong in Python's batches, in place of TensorFlow's report of it."""
        try:
            yield
        except Exception as error:
            if self.errors and error is not self.errors[-1]:
                raise self.errors[-1] from None
            raise


def _required(labels: Any, objective: Objective, images: int, what: str) -> np.ndarray:
    """The labels of a batch, one for each of its images."""
    array = None if labels is None else feed.to_numpy(labels)
    if array is None or array.ndim == 0 or len(array) != images:
        received = "none" if array is None else f"labels of shape {array.shape}"
        raise DataError(
            f"A batch of the {what} needs a label for each image, for the output {objective.name!r}. Received: "
            f"{received} for {images} images. Give as many in each batch."
        )
    return array
