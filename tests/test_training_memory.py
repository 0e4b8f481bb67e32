"""The check that a training step fits in memory."""

import errno
import logging
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qat.errors import StorageError, UserError
from keras_qat.files import atomic_path
from keras_qat.machine import hardware, memory
from keras_qat.training import Recipe, fine_tune
from keras_qat.training.callbacks import memory_explained
from keras_qat.training.devices import activation_bytes, available_memory, require_memory

layers = keras.layers


def make_model() -> keras.Model:
    """Numbers per image, counted by hand: conv 6·6·4 = 144, relu 144, pool 3·3·4 = 36, flatten 36, dense 2: 362."""
    image = keras.Input((8, 8, 1))
    x = layers.ReLU()(layers.Conv2D(4, 3)(image))
    return keras.Model(image, layers.Dense(2, "softmax")(layers.Flatten()(layers.MaxPooling2D()(x))))


BYTES = 4 * 362


def test_the_outputs_of_all_layers_are_counted() -> None:
    assert activation_bytes(make_model()) == BYTES


def test_sequential_inner_and_shared_models_count_by_their_layers() -> None:
    sequential = keras.Sequential([keras.Input((3,)), layers.Dense(5), layers.Dense(2)])
    assert activation_bytes(sequential) == 4 * 7
    image = keras.Input((3,))
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(10), layers.Dense(3)])
    functional_image = keras.Input((3,))
    functional = keras.Model(functional_image, layers.Dense(20)(functional_image))
    # `inner` is called twice.
    assert activation_bytes(keras.Model(image, functional(inner(inner(image))))) == 4 * (13 + 13 + 20)


def test_a_layer_that_is_called_twice_counts_twice_and_an_unknown_size_as_1() -> None:
    image, shared = keras.Input((None, 6)), layers.ReLU()
    assert activation_bytes(keras.Model(image, shared(shared(image)))) == 4 * 12


def test_a_batch_that_cannot_fit_is_refused_with_advice() -> None:
    """The smallest measured memory of a step is 0.6 of the sum."""
    needed = 64 * BYTES
    require_memory(make_model(), 64, 1, int(0.61 * needed))
    with pytest.raises(UserError, match=r"Received: batch_size=64, .* batch_size=32 with accumulate=2: .*batch of 64"):
        require_memory(make_model(), 64, 1, int(0.59 * needed))
    with pytest.raises(UserError, match=r"Received: batch_size=8, .* batch_size=4 with accumulate=8: .*batch of 32"):
        require_memory(make_model(), 8, 4, 1)
    with pytest.raises(UserError, match=r"batch_size=1, .* more memory"):
        require_memory(make_model(), 1, 1, 1)


@pytest.mark.parametrize(("share", "warns"), [(0.7, True), (0.99, True), (1.01, False), (None, False)])
def test_in_between_is_a_warning(share: float | None, warns: bool, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        require_memory(make_model(), 64, 1, None if share is None else int(share * 64 * BYTES))
    assert ("may not fit" in caplog.text) == warns
    assert ("batch_size=32 with accumulate=2" in caplog.text) == warns


def test_the_advice_holds() -> None:
    """Half the batch with twice the steps passes if the whole batch doesn't."""
    available = int(0.4 * 64 * BYTES)
    with pytest.raises(UserError, match="doesn't fit"):
        require_memory(make_model(), 64, 1, available)
    require_memory(make_model(), 32, 2, available)


def test_fine_tuning_asks_before_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras_qat.training.devices.available_memory", lambda: 1000)

    class NoTraining(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            raise AssertionError((batch, logs))

    data = tf.data.Dataset.from_tensor_slices((np.zeros((4, 8, 8, 1), "float32"), [0, 1, 0, 1])).batch(4)
    # The batch size of the data counts, not that of the recipe.
    recipe = Recipe(distillation=None, epochs=1, batch_size=32)
    with pytest.raises(UserError, match=r"batch_size=4, .*batch_size=2 with accumulate=2"):
        fine_tune(make_model(), lambda _: data, data, recipe, progress=False, callbacks=[NoTraining()])


def test_half_precision_takes_half() -> None:
    available = int(0.31 * 64 * BYTES)
    require_memory(make_model(), 64, 1, available, "mixed_bfloat16")
    with pytest.raises(UserError, match="doesn't fit"):
        require_memory(make_model(), 64, 1, available)


@pytest.mark.parametrize(("frozen", "refused"), [("conv2d", False), ("batch_normalization", True), ("re_lu", True)])
def test_a_model_that_is_partly_frozen_may_need_less(
    frozen: str, refused: bool, caplog: pytest.LogCaptureFixture
) -> None:
    image = keras.Input((8, 8, 1))
    x = layers.BatchNormalization(name="batch_normalization")(layers.Conv2D(4, 3, name="conv2d")(image))
    model = keras.Model(image, layers.Dense(2, "softmax")(layers.Flatten()(layers.ReLU(name="re_lu")(x))))
    model.get_layer(frozen).trainable = False
    if refused:
        with pytest.raises(UserError, match="doesn't fit"):
            require_memory(model, 64, 1, 1)
    else:
        with caplog.at_level(logging.WARNING):
            require_memory(model, 64, 1, 1)
        assert "may not fit" in caplog.text


def test_what_is_available_here() -> None:
    found = available_memory()
    assert found is None or 10**7 < found < 10**14
    if not tf.config.list_physical_devices("GPU") and Path("/proc/meminfo").exists():
        assert found is not None


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"memory.max": "8000\n", "memory.current": "5000\n"}, 3000),
        # What was read from files lately is given back for the asking.
        ({"memory.max": "8000", "memory.current": "7900", "memory.stat": "anon 100\ninactive_file 4000\n"}, 4100),
        ({"memory.max": "max\n", "memory.current": "5000\n"}, None),
        ({"memory/memory.limit_in_bytes": "8000\n", "memory/memory.usage_in_bytes": "5000\n"}, 3000),
        (
            {
                "memory/memory.limit_in_bytes": "8000",
                "memory/memory.usage_in_bytes": "7900",
                "memory/memory.stat": "inactive_file 1\ntotal_inactive_file 4000\n",
            },
            4100,
        ),
        # That is how the first version writes that there is no limit.
        ({"memory/memory.limit_in_bytes": str(2**63 - 4096), "memory/memory.usage_in_bytes": "5000\n"}, None),
        ({}, None),
    ],
)
def test_a_containers_limit(
    files: dict[str, str], expected: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = memory().available
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(hardware, "_CGROUPS", tmp_path)
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["cpu:0"])
    found = available_memory()
    if expected is None:
        assert found is not None
        assert found >= 0.5 * machine
    else:
        assert found == expected
        assert memory() == (8000, expected)


@pytest.mark.parametrize(
    ("own", "limited"),
    [
        ("0::/job/step\n", ("job/step", "memory.max", "memory.current")),
        ("0::/job/step\n", ("job", "memory.max", "memory.current")),
        (
            "5:cpu,cpuacct:/\n4:memory:/job/step\n0::/\n",
            ("memory/job", "memory.limit_in_bytes", "memory.usage_in_bytes"),
        ),
    ],
)
def test_the_limit_of_a_group_around_the_process(
    own: str, limited: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, limit, used = limited
    (tmp_path / folder).mkdir(parents=True)
    (tmp_path / folder / limit).write_text("8000")
    (tmp_path / folder / used).write_text("5000")
    (tmp_path / "own").write_text(own)
    monkeypatch.setattr(hardware, "_CGROUPS", tmp_path)
    monkeypatch.setattr(hardware, "_OWN_CGROUPS", tmp_path / "own")
    assert memory() == (8000, 3000)


def test_on_an_accelerator_nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0", "gpu:1"])
    assert available_memory() is None


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("RESOURCE_EXHAUSTED: out of memory"),
        tf.errors.ResourceExhaustedError(None, None, "OOM"),
    ],
)
def test_every_kind_of_no_memory_is_explained(error: Exception) -> None:
    with (
        pytest.raises(UserError, match=r"batch_size=6.*batch_size=3 with accumulate=4") as caught,
        memory_explained(6, 2),
    ):
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [
        tf.errors.ResourceExhaustedError(None, None, "/logs/events.v2; No space left on device"),
        OSError(errno.ENOSPC, "No space left on device", "/logs/events.v2"),
        RuntimeError("Can't write /logs/events.v2: Disk quota exceeded"),
    ],
)
def test_a_full_disk_is_not_a_full_memory(error: Exception, tmp_path: Path) -> None:
    with (
        pytest.raises(StorageError, match=r"A disk is full.*Received: .*/logs/events\.v2.*Make room"),
        memory_explained(6),
    ):
        raise error
    with (
        pytest.raises(StorageError, match=r"Can't write .*model: .*disk with room left"),
        atomic_path(tmp_path / "model"),
    ):
        raise error
    assert not list(tmp_path.iterdir())


def test_other_errors_pass() -> None:
    with pytest.raises(ValueError, match="else"), memory_explained(6):
        raise ValueError("something else")
