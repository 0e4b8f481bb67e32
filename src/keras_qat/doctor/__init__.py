"""What is wrong with this machine or with an ONNX file, what it costs, and what to do. Nothing is run."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
