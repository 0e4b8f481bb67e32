"""ONNX: the emitter from the Keras graph to a Q/DQ file, and the one reader of files."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
