"""Engines behind one contract: model files opened and run, engine files built, and the choice of a judge."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
