"""Where does quantization lose accuracy? The error of every quantized tensor and kernel, alone and accumulated.

End to end a quantized network is a single figure, and nothing says which of its hundred roundings spoils it. So each is
measured by itself, on the float network's numbers: a range that clips, a range blown up by outliers or a kernel that
int8 doesn't hold shows at its own tensor. The accumulated error beside it shows what the layers make of it.
"""

from typing import Any

import keras
import numpy as np

from keras_qat.calibration.inputs import read_batches
from keras_qat.calibration.pairs import kernel_calls, require_made_of
from keras_qat.errors import DataError, UnsupportedModelError, UserError
from keras_qat.evaluation.diagnosis import Diagnosis, KernelDiagnosis, OutputDiagnosis, TensorDiagnosis, sqnr_db
from keras_qat.evaluation.error_probe import (
    KERNELS,
    OUTPUTS,
    TENSORS,
    build_error_probe,
    fake_quantize_nodes,
)
from keras_qat.graph import Node, Trace, trace


def diagnose(
    model: Any, quantized: Any, batches: Any, *, images: int | None = None, total: int | None = None
) -> Diagnosis:
    """Measure the error of every quantized tensor, kernel and output.

    One pass, streaming: the sums are computed in the compiled forward pass, in float64 (float32 on JAX), so memory
    doesn't grow with the images, and neither their order nor their batches matter.

    Args:
        model: the float model. It is not changed.
        quantized: what `apply_placement` made of it, corrected or fine-tuned or not. It is not changed.
        batches: as for `calibrate`; some dozen images are plenty, best such that calibration didn't see. Both networks
            run at once, so take batches of half the size.
        images: take exactly so many images; all if not given.
        total: number of batches, for the progress bar, where the data can't say.

    Returns:
        The figures, in the order of the graph. `advise` says what to try.

    Raises:
        DataError: there are no images, or they don't fit the model's input.
        UnsupportedModelError: a tensor or an output is NaN or infinite; the first is named.
        UserError: `quantized` has nothing quantized, or was made of another model.

    Example:
        >>> from keras_qat import apply_placement, calibrate, plan
        >>> x = keras.Input((8, 8, 3), name="image")
        >>> model = keras.Model(x, keras.layers.Conv2D(4, 3, name="conv")(x))
        >>> images = [np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")]
        >>> placement = plan(trace(model).graph, "tensorrt")
        >>> quantized = apply_placement(model, placement, calibrate(model, placement, images))
        >>> diagnosis = diagnose(model, quantized, images)
        >>> [tensor.name for tensor in diagnosis.tensors], [kernel.name for kernel in diagnosis.kernels]
        (['image'], ['conv'])
        >>> 35 < diagnosis.tensors[0].alone < 45
        True
    """
    exact, simulated = trace(model), trace(quantized)
    if not fake_quantize_nodes(simulated) and not kernel_calls(simulated):
        raise UserError(
            f"There is nothing quantized to diagnose. Received: the model {simulated.name!r}. "
            "Give the float model, then what `apply_placement` made of it."
        )
    require_made_of(exact, simulated)
    probe = build_error_probe(exact, simulated)
    sums, seen = None, 0
    for x in read_batches(batches, model, images=images, description="diagnosing", total=total):
        seen += len(x[0])
        found = keras.tree.map_structure(_float64, probe.predict_on_batch(x))
        sums = found if sums is None else keras.tree.map_structure(np.add, sums, found)
    if sums is None:
        raise DataError("There is nothing to diagnose on. Received: 0 images. Give at least one batch.")
    fakes, calls = fake_quantize_nodes(simulated), kernel_calls(simulated)
    return Diagnosis(
        tensors=tuple(_tensor(exact, simulated, *pair) for pair in zip(fakes, sums[TENSORS], strict=True)),
        kernels=tuple(_kernel(simulated, *pair) for pair in zip(calls.values(), sums[KERNELS], strict=True)),
        outputs=tuple(
            OutputDiagnosis(name, _sqnr(name, errors))
            for name, errors in zip(exact.graph.outputs, sums[OUTPUTS], strict=True)
        ),
        images=seen,
    )


def _float64(sums: Any) -> np.ndarray:
    return np.asarray(sums, np.float64)


def _tensor(exact: Trace, simulated: Trace, node: Node, sums: Any) -> TensorDiagnosis:
    (name,), fake = node.inputs, simulated.calls[node.name].operation
    alone, cumulative, (beyond, numbers, beyond_error) = sums
    return TensorDiagnosis(
        name=name,
        producer=exact.graph.producer(name).name,
        spec=fake.spec,
        amax=float(fake.amax),
        alone=_sqnr(name, alone),
        cumulative=_sqnr(name, cumulative),
        saturated=float(beyond / numbers),
        clipping=float(beyond_error / alone[1]) if alone[1] else 0.0,
    )


def _kernel(simulated: Trace, nodes: tuple[Node, ...], sums: Any) -> KernelDiagnosis:
    name, layer = nodes[0].layer, simulated.calls[nodes[0].name].operation
    kernel = getattr(layer, "kernel", None)
    return KernelDiagnosis(name, layer.weight_spec, _sqnr(name, sums), None if kernel is None else _weights(layer))


def _weights(layer: Any) -> float:
    """SQNR of the kernel's own numbers."""
    w, w_hat = (
        np.asarray(keras.ops.convert_to_numpy(k), np.float64)
        for k in (layer.kernel, layer.quantized_kernel(keras.ops.convert_to_tensor(layer.kernel)))
    )
    return sqnr_db(float(np.sum(w**2)), float(np.sum((w - w_hat) ** 2)))


def _sqnr(name: str, sums: np.ndarray) -> float:
    if not np.all(np.isfinite(sums)):
        raise UnsupportedModelError(
            f"{name!r} is not finite on these images. Received: sums of squares {sums.tolist()}. "
            "Check the weights before this layer and the preprocessing of the images."
        )
    return sqnr_db(*map(float, sums))
