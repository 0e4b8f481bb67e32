"""keras-qat: take a trained Keras 3 CNN to INT8 in production.

    from keras_qat import export_onnx, quantize

    quantized = quantize(model, images, target="onnxruntime")
    export_onnx(quantized.model, "model.onnx", target="onnxruntime")

In one call:

    quantize            float model + images → Quantized
    Quantized           the quantized Keras model, its placement and its ranges

Stage by stage, each a function that changes nothing of yours:

    trace               Keras model → its graph
    plan                graph + target → Placement
    explain             Placement → a table or a picture, with the reason of every edge
    calibrate           model + Placement + images → Ranges
    apply_placement     model + Placement + Ranges → a quantized model, which trains, saves and loads like any other
    correct_bias        take back the shift that rounding puts on the mean of each layer
    fine_tune           train the quantized model with the float one as teacher; never worse than before
    export_onnx         model, float or quantized → an ONNX file for a target
    export_keras        model → a .keras file

What you say:

    Overrides           what to place otherwise than the target's table: Rules in order
    Rule                one of them: which layers, and what of them is quantized
    Recipe              the settings of fine_tune
    register_converter  tell how a layer of your own becomes ONNX

What you get, all frozen:

    Placement           every edge and kernel: quantized or not, and why
    QuantSpec           the integers of a tensor: bits, sign, type, zero-point
    Ranges              the range of every tensor: a mapping that can be saved, loaded and compared
    TensorRange         one of them: its largest magnitude, how it was chosen, what was seen

Importing the package also makes Keras able to load quantized `.keras` files. Below are packages for those who extend it
or judge files: targets, calibration, training, export, runtimes, evaluation, data.
"""

import importlib.util
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import lazy_loader

from keras_qat._version import __version__ as __version__

# TensorFlow reads these when it is imported; a value that the user has set stays. TensorFlow turns oneDNN's
# convolutions on by itself only on CPUs with AVX512-VNNI or newer. On an AVX2 machine a training step of ResNet50 at
# 32 x 32, batch 64, took 4.1 s without them and 1.1 s with them. Level 3 hides lines of TensorFlow's C++ log such as
# "failed call to cuInit" on a machine without a GPU; real errors are raised in Python, too.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


_KERAS = "keras"
_REGISTERED = ("layers.quantized", "training.optimizers")
"""The modules that register classes with Keras. Their imports of this package must not import Keras first."""


def _register() -> None:
    """Make Keras able to load quantized `.keras` files."""
    for module in _REGISTERED:
        importlib.import_module(f"keras_qat.{module}")


class _KerasImport:
    """Registers as soon as Keras has been imported, which takes seconds by itself.

    A finder of `sys.meta_path`. `wrapt.when_imported` does the same, but to import wrapt takes longer than all else
    that the program does before it can be interrupted in an orderly way.
    """

    @classmethod
    def find_spec(
        cls, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Keras as the other finders find it, with `_register` after it."""
        if name != _KERAS:
            return None
        others = (finder for finder in sys.meta_path if finder is not cls)
        spec = next((spec for finder in others if (spec := finder.find_spec(name, path, target)) is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_register(module: ModuleType) -> None:
                execute(module)
                sys.meta_path[:] = [finder for finder in sys.meta_path if finder is not cls]
                _register()

            spec.loader.exec_module = execute_and_register  # type: ignore[method-assign]
        return spec


if _KERAS in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _KerasImport)


# Each name is imported when it is first asked for, so that `keras-qat --help` does not wait for Keras.
_exported, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    """A name of `__all__`, or a package such as `keras_qat.targets`."""
    if name in __all__ or name.startswith("_") or importlib.util.find_spec(f"{__name__}.{name}") is None:
        return _exported(name)
    return importlib.import_module(f"{__name__}.{name}")
