"""Data in any form that Keras knows → its batches, as arrays in the order of a model's inputs."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
