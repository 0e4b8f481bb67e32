"""Imported before TensorFlow: let it use oneDNN's convolutions on every x86 CPU.

TensorFlow turns them on by itself only on CPUs with AVX512-VNNI or newer. On an AVX2 machine a training step of
ResNet50 at 32 x 32, batch 64, took 4.1 s without and 1.1 s with them. A value that the user has set stays.
"""

import os

os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
