"""What all tests share."""

import os
from pathlib import Path

# Before TensorFlow is imported: its C++ log isn't for test output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

_ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real images and weights, which isn't part of the repository."""
    path = Path(os.environ.get("KERAS_QAT_DATA", _ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no real data at {path}; set KERAS_QAT_DATA to its folder")
    return path
