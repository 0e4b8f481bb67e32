from .making import run_command
from .program import app, main

__all__ = [
    "app",
    "main",
    "run_command",
]
