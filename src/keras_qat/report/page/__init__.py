"""The page: what is on it, computed here, and the template, style and scripts that only lay it out and draw it."""

from keras_qat.report.page.render import render

__all__ = ["render"]
