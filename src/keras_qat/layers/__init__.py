"""Fake quantization: the arithmetic, the layer on an edge, and the layers with quantized weights."""

import keras  # noqa: F401  (before the layers: importing Keras imports them, see keras_qat/__init__.py)
import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
