"""One table per engine: what it wants quantized, in which integers, and what it can't read."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
