"""Inputs whose size is left open."""

from collections.abc import Iterator

from keras_qat.doctor.engines import Engine
from keras_qat.doctor.finding import Severity, Symptom
from keras_qat.doctor.onnx_file import OnnxFile


def dynamic_shape(file: OnnxFile, _: Engine) -> Iterator[Symptom]:
    """Dimensions but the batch that are known only when the file runs.

    Source: https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-dynamic-shapes.html.
    """
    stored = file.model.graph.initializers
    names = [
        str(value.name)
        for value in file.model.graph.inputs
        if value.name not in stored
        and (value.shape is None or any(not isinstance(size, int) for size in list(value.shape)[1:]))
    ]
    if names:
        yield Symptom(
            Severity.WARNING,
            "dimensions of inputs besides the batch are dynamic",
            "engines plan memory and kernels at each size; TensorRT wants a profile of sizes before it builds",
            "Export with the size that you deploy: keras-qat does. python -m "
            "onnxruntime.tools.make_dynamic_shape_fixed --input_name NAME --input_shape 1,3,224,224 IN OUT.",
            tuple(names),
        )
