"""Files and paths: what stands at a path, and writing that is never left half done."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
