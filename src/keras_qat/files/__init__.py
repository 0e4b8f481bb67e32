"""Files and paths: checks of paths, reading and atomic writing, and frozen values as JSON."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
