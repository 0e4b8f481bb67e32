"""The results of a run: a frozen record, as a page, Markdown, JSON and on the terminal."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
