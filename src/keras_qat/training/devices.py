"""Several GPUs that train together: each takes its share of a batch, and the gradients are added up.

TensorFlow does it (`tf.distribute.MirroredStrategy`); what is built in its scope has a copy on each device.
"""

import contextlib
import functools
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import keras

from keras_qat.errors import UserError
from keras_qat.training.recipe import Recipe


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
