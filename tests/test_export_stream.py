"""The file that is written tensor by tensor holds the message that protobuf itself would have written."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from keras_qat.export.onnx_file import save_and_release
from keras_qat.models import build_model, find
from keras_qat.onnx import emit


def test_file_is_what_protobuf_writes(tmp_path: Path, tiny_network: str) -> None:
    model = build_model(find(tiny_network), weights=None, num_classes=10, size=32)
    expected = ir.to_proto(emit(model))
    # An initializer has its type and shape itself; their repetition in value_info is left out.
    stored = {tensor.name for tensor in expected.graph.initializer}
    described = [info for info in expected.graph.value_info if info.name not in stored]
    del expected.graph.value_info[:]
    expected.graph.value_info.extend(described)
    save_and_release(emit(model), tmp_path / "model.onnx")
    assert onnx.load(tmp_path / "model.onnx") == expected


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8", "uint8", "int32", "int64"])
@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 200)])
def test_every_type_and_shape_comes_back(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    array = (np.random.default_rng(0).normal(size=shape) * 50).astype(dtype)
    value = ir.val("constant", const_value=ir.tensor(array, name="constant"))
    graph = ir.Graph([], [], nodes=[], initializers=[value], opset_imports={"": 17}, name="graph")
    save_and_release(ir.Model(graph, ir_version=8), tmp_path / "model.onnx")
    read = onnx.numpy_helper.to_array(onnx.load(tmp_path / "model.onnx").graph.initializer[0])
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)
