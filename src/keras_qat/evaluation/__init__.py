"""Accuracy, agreement and latency of a model in any engine; where quantization loses accuracy."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
