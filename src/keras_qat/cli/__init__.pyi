from .making import run_command
from .process import main
from .program import app

__all__ = [
    "app",
    "main",
    "run_command",
]
