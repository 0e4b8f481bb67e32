"""Imported before TensorFlow: let it use oneDNN's convolutions on every x86 CPU, and keep its start-up notes to itself.

TensorFlow turns them on by itself only on CPUs with AVX512-VNNI or newer. On an AVX2 machine a training step of
ResNet50 at 32 x 32, batch 64, took 4.1 s without and 1.1 s with them. Values that the user has set stay.
"""

import os
import sys
from pathlib import Path

IS_COMMAND_LINE = Path(next(iter(getattr(sys, "argv", [])), "")).name in {"keras-qat", "keras-qat.exe"}
"""Whether this process is the program `keras-qat`, and not one that imports the package."""

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
