"""The package's version, read by the build and by every file we write."""

__version__ = "0.1.0"
