"""Float models: networks known by name, a user's own, and what a model file says of itself."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
