"""The architectures of Keras's examples: the float file is the network, and each INT8 file its simulation."""

from pathlib import Path

import pytest

from architectures import ARCHITECTURES, build
from file_checks import TARGETS, check_float_file, check_quantized_file, predict, weighted_operators

pytestmark = pytest.mark.usefixtures("eagerly")

IN_FLOAT: dict[str, int] = {
    "super-resolution, sub-pixel": 1,
    "super-resolution, EDSR": 1,
    "MobileViT": 4,
    "point cloud": 2,
    "DeepLabV3+": 1,
    "next frame": 14,
}
"""How many weighted operators ONNX Runtime runs in float, if any.

These are a last convolution, whose result leaves the model; the steps of a convolutional LSTM; products in a Dot layer;
and attention over two axes of patches, whose softmax is a formula.
"""


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_float_and_int8_files_of_an_architecture(name: str, tmp_path: Path) -> None:
    model, inputs = build(name)
    expected = predict(model, inputs)
    check_float_file(model, inputs, expected, tmp_path)
    check_quantized_file(model, inputs, expected, "onnxruntime", tmp_path)
    integers, floats = weighted_operators(tmp_path / "optimized.onnx")
    assert floats <= IN_FLOAT.get(name, 0), (integers, floats)
    assert integers > 0


@pytest.mark.slow
@pytest.mark.parametrize("target", [target for target in TARGETS if target != "onnxruntime"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_int8_file_of_an_architecture_for_the_other_targets(name: str, target: str, tmp_path: Path) -> None:
    model, inputs = build(name)
    check_quantized_file(model, inputs, predict(model, inputs), target, tmp_path)
