"""A runtime that notes how long its runs take: what an evaluation says of speed, without reading the images."""

import time

import numpy as np

from keras_qat.runtimes import Runtime


class TimedRuntime(Runtime):
    """Runs another runtime, which the caller closes.

    Args:
        runtime: the model in an engine.
    """

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime.engine, runtime.device, runtime.inputs, runtime.outputs)
        self._runtime = runtime
        self._rates: list[float] = []

    @property
    def images_per_second(self) -> float | None:
        """The median over the runs, so that the first, which prepares, hardly counts; `None` before any run."""
        return float(np.median(self._rates)) if self._rates else None

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        start = time.perf_counter()
        outputs = self._runtime.run(*inputs)
        # A clock may not have moved during the run of a tiny model.
        self._rates.append(len(inputs[0]) / max(time.perf_counter() - start, 1e-9))
        return outputs
