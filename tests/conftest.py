"""What all tests share."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

# Before TensorFlow is imported, and test files import Keras first: its C++ log isn't for test output, and without
# oneDNN, which keras-qat switches on, CPUs before AVX512-VNNI convolve slowly and channels_last only.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

# A bug shows its traceback in the output of the test that met it.
os.environ.setdefault("KERAS_QAT_TRACEBACK", "1")

import pytest

_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and weights, which isn't part of the repository."""
    path = Path(os.environ.get("KERAS_QAT_DATA", _ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set KERAS_QAT_DATA to its folder")
    return path


@pytest.fixture(autouse=True, scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Baselines trained by tests don't touch the user's cache and data; all processes of pytest-xdist have the same."""
    path = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        path = path.parent
    path = path / "cache"
    path.mkdir(exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(path)
    os.environ["XDG_DATA_HOME"] = str(path.parent / "data")
    return path


@pytest.fixture(scope="module")
def eagerly() -> Iterator[None]:
    """TensorFlow runs each operation by itself: to make a graph of a small network takes longer than to run it."""
    tensorflow = pytest.importorskip("tensorflow")
    tensorflow.config.run_functions_eagerly(True)
    yield
    tensorflow.config.run_functions_eagerly(False)


def _register_network(name: str, strides: int) -> str:
    """Make a residual network small enough to train in seconds known to the zoo, its first layer with these strides."""
    import keras

    from keras_qat.data import Preprocessing
    from keras_qat.models import ZooEntry, register

    def build(*, size: int, num_classes: int) -> keras.Model:
        layers = keras.layers
        x = inputs = keras.Input((size, size, 3), name="image")
        x = layers.ZeroPadding2D(1, name="stem_pad")(x)
        x = layers.Conv2D(32, 3, strides=strides, name="stem_conv")(x)
        x = layers.BatchNormalization(name="stem_bn")(x)
        x = shortcut = layers.ReLU(name="stem_relu")(x)
        x = layers.Conv2D(32, 3, padding="same", name="block_conv")(x)
        x = layers.BatchNormalization(name="block_bn")(x)
        x = layers.Add(name="block_add")([shortcut, x])
        x = layers.ReLU(name="block_out")(x)
        x = layers.MaxPooling2D(2, name="pool")(x)
        x = layers.Conv2D(64, 3, activation="relu", name="head_conv")(x)
        x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
        return keras.Model(inputs, layers.Dense(num_classes, "softmax", name="predictions")(x), name=name)

    register(ZooEntry(name, build, Preprocessing("tf", 32, 32)))
    return name


@pytest.fixture(scope="session")
def tiny_network() -> str:
    """The name of a network with random weights."""
    return _register_network("tinyresnet", strides=2)


@pytest.fixture(scope="session")
def trained_network(cache_folder: Path) -> str:
    """The name of one whose digits baseline is in the cache: one process trains it, the others wait for that.

    The digits are of 8 x 8 pixels, enlarged; with larger strides it learns them sooner, and as well.
    """
    from keras_qat.run import Settings
    from keras_qat.run.start import open_start

    name = _register_network("tinydigits", strides=4)
    with (cache_folder / "baseline.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        open_start(Settings.of(model=name))
    return name
