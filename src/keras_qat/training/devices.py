"""The devices of a training: whether a step fits in their memory, and several GPUs that share a batch.

On a CPU the system kills a process that takes too much memory without a message, so a batch is judged before the first
step. A training step keeps the output of nearly every layer until its gradient is known:

    bytes ≈ 4 · batch · Σ_layers outputs of an image

to which weights, gradients and the optimizer's state come. Measured on ResNet50 (224 x 224, batch 16), the step takes
0.6 to 0.9 of that: some outputs are never read again.

Of several GPUs each takes its share of a batch, and the gradients are added up. TensorFlow does it
(`tf.distribute.MirroredStrategy`); what is built in its scope has a copy on each device.
"""

import contextlib
import functools
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras

from keras_qat import layers, machine
from keras_qat.errors import UserError, require_whole
from keras_qat.training import callbacks, cloning
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
    """Refuse a batch that can't fit in memory, and warn of one that may not.

    Args:
        model: the model to train.
        batch_size: images of one step.
        accumulate: steps whose gradients are averaged, for the message.
        available: bytes; with `None` nothing is checked.
        precision: of the layers' outputs; bfloat16 halves them.

    Raises:
        UserError: If the step needs more memory than is available, and all layers train.
    """
    if available is None:
        return
    needed = batch_size * activation_bytes(model) // (1 if precision == "float32" else 2)
    figures = f"batch_size={batch_size}, about {needed / 1e9:.1f} GB for {available / 1e9:.1f} GB available"
    # Nothing needs to be kept before the first layer that trains; how much that saves isn't known here.
    if _LEAST * needed > available and not _partly_frozen(model):
        raise UserError(
            f"A training step doesn't fit in memory. Received: {figures}. "
            f"{callbacks.smaller_batch(batch_size, accumulate)}"
        )
    if needed > available:
        _logger.warning(
            "A training step may not fit in memory (%s). %s", figures, callbacks.smaller_batch(batch_size, accumulate)
        )


def activation_bytes(model: keras.Model) -> int:
    """The bytes of all layers' outputs for one image, in float32; a dimension that isn't fixed counts as 1.

    The layers of a nested model count once for each call of it. A model without a graph counts as 0.
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
    """Whether a layer with weights doesn't train.

    Batch norms and FakeQuantize layers don't count: what they read is kept for the layers before them.
    """
    others = (keras.layers.BatchNormalization, layers.FakeQuantize)
    return any(
        layer.weights and not layer.trainable and not isinstance(layer, others) for layer in cloning.all_layers(model)
    )


_DEVICES: Mapping[str, Callable[[], Sequence[Any]]] = {"torch": lambda: [keras.ops.zeros(()).device]}
"""The devices on which Keras trains, where `keras.distribution` doesn't know a backend's: the one of a new tensor."""


def available_memory() -> int | None:
    """The bytes that this process may still take where Keras trains on the CPU, else `None`."""
    devices = _DEVICES.get(keras.backend.backend(), keras.distribution.list_devices)
    if any(not str(device).startswith("cpu") for device in devices()):
        return None
    return machine.memory().available


def find_devices(count: int, *, kind: str = "GPU") -> tuple[str, ...]:
    """The names of the devices to train on together; empty where training stays on Keras's default device.

    Args:
        count: how many; 1 gives an empty tuple, 0 all devices.
        kind: `"GPU"`, or `"CPU"` for logical ones.

    Raises:
        UserError: If `count` isn't a whole number, there are fewer devices, or Keras's backend isn't TensorFlow.

    Example:
        >>> find_devices(1)
        ()
    """
    if require_whole("devices", count, least=0) == 1:
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
    """The scope in which `fine_tune` trains on several devices.

    The devices share each batch: of 64 images, each of four GPUs sees 16. No batch may have fewer images than there are
    devices (`shareable`). A device's share of an epoch's last batch counts as much as the others', even if it is
    smaller by an image. Batch norms that train take the statistics of one share; by default they are frozen.

    Args:
        devices: from `find_devices`; if empty, the scope changes nothing.
    """
    return _strategy(tuple(devices)).scope() if devices else contextlib.nullcontext()


@functools.cache
def _strategy(devices: tuple[str, ...]) -> Any:
    # One strategy for the whole process: the collective operations of a second one would mix with those of the first.
    import tensorflow as tf

    return tf.distribute.MirroredStrategy(list(devices))


def require_device_recipe(recipe: Recipe, devices: Sequence[str]) -> None:
    """Refuse a recipe that would train otherwise on several devices than on one.

    Args:
        recipe: the settings.
        devices: from `find_devices`.

    Raises:
        UserError: If a setting needs the whole batch on one device.
    """
    if not devices:
        return
    conflicts = {
        "accumulate": (recipe.accumulate > 1, "TensorFlow can't accumulate on several devices; lower `batch_size`"),
        "clip_norm": (recipe.clip_norm is not None, "each device would clip its own share; leave it out"),
        "range_mode": (recipe.range_mode == "ema", "each device would follow its own share; use 'fixed' or 'learned'"),
    }
    for name, (is_set, why) in conflicts.items():
        if is_set:
            raise UserError(
                f"`{name}` doesn't go with several devices: {why}. Received: {name}={getattr(recipe, name)!r} with "
                f"{len(devices)} devices. Or train on one."
            )


def shareable(images: int, batch_size: int, devices: int) -> int:
    """The number of images to train on so that each device gets at least one image of every batch.

    Args:
        images: the number of images.
        batch_size: images of one batch, which all devices share.
        devices: the number of devices.

    Raises:
        UserError: If `batch_size` is smaller than `devices`.

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
