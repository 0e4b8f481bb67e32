"""Whether a batch fits in memory, before the first step: on a CPU the system kills what doesn't, without a word.

A training step keeps the output of nearly every layer until its gradient is known:

    bytes ≈ 4 · batch · Σ_layers outputs of an image

to which weights, gradients and the optimizer's state come. Measured on ResNet50 (224 x 224, batch 16), the step takes
0.6 to 0.9 of that: some outputs are never read again.

Several GPUs that train together: each takes its share of a batch, and the gradients are added up.

TensorFlow does it (`tf.distribute.MirroredStrategy`); what is built in its scope has a copy on each device.
"""

import contextlib
import functools
import logging
import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras

from keras_qat.errors import UserError
from keras_qat.layers import FakeQuantize
from keras_qat.machine import memory
from keras_qat.training.callbacks import smaller_batch
from keras_qat.training.cloning import all_layers
from keras_qat.training.recipe import Recipe
from keras_qat.types import TrainingPrecision

_LEAST = 0.6
_FLOAT_BYTES = 4

_logger = logging.getLogger(__name__)


def require_memory(
    model: keras.Model,
    batch_size: int,
    accumulate: int,
    available: int | None,
    precision: TrainingPrecision = "float32",
) -> None:
    """Refuse a batch that can't fit, warn of one that may not.

    Args:
        model: what is trained.
        batch_size: images of one step.
        accumulate: steps whose gradients are averaged, for the message.
        available: bytes; `None` where it isn't known, and nothing is checked.
        precision: of the layers' outputs; bfloat16 halves them.

    Raises:
        UserError: the step needs more memory than there is, and all layers train.
    """
    if available is None:
        return
    needed = batch_size * activation_bytes(model) // (1 if precision == "float32" else 2)
    figures = f"batch_size={batch_size}, about {needed / 1e9:.1f} GB for {available / 1e9:.1f} GB available"
    # Before a layer that doesn't train nothing need be kept: how much less that is, isn't known here.
    if _LEAST * needed > available and not _partly_frozen(model):
        raise UserError(
            f"A training step doesn't fit in memory. Received: {figures}. {smaller_batch(batch_size, accumulate)}"
        )
    if needed > available:
        _logger.warning(
            "A training step may not fit in memory (%s). %s", figures, smaller_batch(batch_size, accumulate)
        )


def activation_bytes(model: keras.Model) -> int:
    """The bytes of all layers' outputs for one image, in float32; sizes that aren't fixed count as 1.

    A model within the model counts by its layers, once for each call. Of one without a graph nothing is known.
    """
    graph = getattr(model, "_functional", model)  # a Sequential model keeps its graph there
    total = 0
    for operation in getattr(graph, "operations", ()):
        nodes = operation._inbound_nodes  # noqa: SLF001 - as Keras's own walks do
        if isinstance(operation, keras.Model):
            total += len(nodes) * activation_bytes(operation)
        elif not isinstance(operation, keras.layers.InputLayer):
            shapes = [tensor.shape[1:] for node in nodes for tensor in node.output_tensors]
            total += _FLOAT_BYTES * sum(math.prod(size or 1 for size in shape) for shape in shapes)
    return total


def _partly_frozen(model: keras.Model) -> bool:
    """Whether a layer with weights doesn't train, other than those whose inputs are kept for the layers before."""
    others = (keras.layers.BatchNormalization, FakeQuantize)
    return any(layer.weights and not layer.trainable and not isinstance(layer, others) for layer in all_layers(model))


def available_memory() -> int | None:
    """The bytes that this process may still take where Keras trains on the CPU, else `None`."""
    if any(not str(device).startswith("cpu") for device in keras.distribution.list_devices()):
        return None
    return memory().available


def find_devices(count: int, *, kind: str = "GPU") -> tuple[str, ...]:
    """The devices to train on; none to train wherever Keras does.

    Args:
        count: how many; 1 gives none, 0 takes all there are.
        kind: `"GPU"`, or `"CPU"` for logical ones.

    Raises:
        UserError: there aren't so many, or Keras's backend isn't TensorFlow.

    Example:
        >>> find_devices(1)
        ()
    """
    if count == 1:
        return ()
    if keras.backend.backend() != "tensorflow":
        raise UserError(
            f"Only TensorFlow trains on several devices here. Received: devices={count} with Keras on "
            f"{keras.backend.backend()}. Set KERAS_BACKEND=tensorflow, or train on one device."
        )
    import tensorflow as tf

    names = tuple(device.name for device in tf.config.list_logical_devices(kind))
    if not 0 <= count <= len(names):
        raise UserError(
            f"There are {len(names)} {kind}s to train on. Received: devices={count}. Give at most as many, 0 for all; "
            "CUDA_VISIBLE_DEVICES may hide some."
        )
    chosen = names[: count or len(names)]
    return chosen if len(chosen) > 1 else ()


def device_scope(devices: Sequence[str]) -> AbstractContextManager[Any]:
    """Call `fine_tune` in this scope to train on several devices.

    A batch is that of all together: with 64 images and four GPUs each sees 16. No batch may have fewer images than
    there are devices (`shareable`). A device's share of an epoch's last batch counts as much as the others', even if it
    is smaller by an image. Statistics of batch norms that train are those of a share; the default freezes them.

    Args:
        devices: from `find_devices`; with none, the scope changes nothing.
    """
    return _strategy(tuple(devices)).scope() if devices else contextlib.nullcontext()


@functools.cache
def _strategy(devices: tuple[str, ...]) -> Any:
    # One for all the process: a second one's collective operations would take the first one's for their own.
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(list(devices))


def require_device_recipe(recipe: Recipe, devices: Sequence[str]) -> None:
    """Refuse a recipe by which several devices wouldn't train as one does.

    Args:
        recipe: the settings.
        devices: from `find_devices`.

    Raises:
        UserError: a setting needs all of a batch in one place.
    """
    if not devices:
        return
    in_the_way = {
        "accumulate": (recipe.accumulate > 1, "TensorFlow can't accumulate on several devices; lower `batch_size`"),
        "clip_norm": (recipe.clip_norm is not None, "each device would clip its own share; leave it out"),
        "range_mode": (recipe.range_mode == "ema", "each device would follow its own share; use 'fixed' or 'learned'"),
    }
    for name, (found, why) in in_the_way.items():
        if found:
            raise UserError(
                f"`{name}` doesn't go with several devices: {why}. Received: {name}={getattr(recipe, name)!r} with "
                f"{len(devices)} devices. Or train on one."
            )


def shareable(images: int, batch_size: int, devices: int) -> int:
    """How many of the images make batches of which each device gets at least one.

    Args:
        images: how many there are.
        batch_size: of all devices together.
        devices: how many.

    Raises:
        UserError: a whole batch is too small.

    Example:
        >>> shareable(101, 25, 4), shareable(104, 25, 4), shareable(101, 25, 1)
        (100, 104, 101)
    """
    if batch_size < devices:
        raise UserError(
            f"A batch is shared by all devices. Received: batch_size={batch_size} for {devices} devices. Give a larger "
            "batch, best a multiple of their number."
        )
    last = images % batch_size
    return images - last if last < devices else images
