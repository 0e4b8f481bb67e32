"""The facts about targets and engines: one table file for each. No framework is imported."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
