"""The outputs of a file compared with its model's: the SQNR in dB, also where there is no signal."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from keras_qat.verify.outputs import compare_outputs


def _sqnr(deployed: list[float], simulated: list[float]) -> float | None:
    """The SQNR of two models that give these numbers for every input."""
    image = np.zeros((1, 2), np.float32)
    inputs: Any = SimpleNamespace(batches=lambda: [[image]], for_keras=lambda batch: batch)
    specs = (SimpleNamespace(dtype="float32", name="image", shape=(None, 2)),)
    models: list[Any] = [
        SimpleNamespace(inputs=specs, run=lambda *_, numbers=numbers: (np.array([numbers], np.float32),))
        for numbers in (deployed, simulated)
    ]
    return compare_outputs(*models, inputs, None).sqnr


@pytest.mark.parametrize(
    ("deployed", "simulated", "sqnr"),
    [
        ([0.9, 0.0], [1.0, 0.0], 20.0),
        ([1.0, 2.0], [1.0, 2.0], 200.0),
        ([0.0, 0.0], [0.0, 0.0], 200.0),
        ([0.1, 0.0], [0.0, 0.0], None),
        ([np.nan, 0.0], [1.0, 0.0], None),
        ([np.inf, 0.0], [1.0, 0.0], None),
        ([np.inf, 0.0], [np.inf, 0.0], None),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in subtract:RuntimeWarning")
def test_signal_to_noise(deployed: list[float], simulated: list[float], sqnr: float | None) -> None:
    assert _sqnr(deployed, simulated) == (None if sqnr is None else pytest.approx(sqnr, abs=1e-4))
