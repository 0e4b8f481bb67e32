"""The files of every converter compute in ONNX Runtime what Keras computes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest

from keras_qat.errors import StorageError, UnsupportedModelError, UserError
from keras_qat.export import export_onnx
from keras_qat.onnx import register_converter
from keras_qat.runtimes import OnnxRuntime

layers = keras.layers


def _parity(model: keras.Model, path: Path) -> float:
    """The largest difference between file and Keras, relative to the largest output."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        values = rng.normal(size=weight.shape).astype("float32")
        weight.assign(np.abs(values) + 0.1 if "variance" in weight.name else values)
    x = rng.normal(size=(3, *model.input_shape[1:])).astype("float32")
    expected = np.asarray(model(x))
    with OnnxRuntime(export_onnx(model, path)) as runtime:
        (actual,) = runtime.run(x)
        assert actual.shape == expected.shape
        # The batch is dynamic.
        np.testing.assert_allclose(runtime.run(x[:1])[0], actual[:1], rtol=1e-4, atol=1e-5)
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def _sequence(*stack: Any, shape: tuple[int, ...] = (9, 7, 4)) -> keras.Model:
    return keras.Sequential([keras.Input(shape, name="image"), *stack])


IMAGE_LAYERS: dict[str, Callable[[], list[Any]]] = {
    "conv valid": lambda: [layers.Conv2D(5, 3)],
    "conv same stride 2": lambda: [layers.Conv2D(5, (3, 2), strides=2, padding="same")],
    "conv dilated same": lambda: [layers.Conv2D(5, 3, dilation_rate=2, padding="same")],
    "conv grouped, no bias": lambda: [layers.Conv2D(6, 3, groups=2, use_bias=False)],
    "conv with activation": lambda: [layers.Conv2D(5, 3, activation="silu")],
    "depthwise multiplier 2": lambda: [layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", strides=2)],
    "conv + batch norm": lambda: [layers.Conv2D(5, 3), layers.BatchNormalization(), layers.ReLU()],
    "conv without bias + batch norm": lambda: [layers.Conv2D(5, 3, use_bias=False), layers.BatchNormalization()],
    "depthwise + batch norm": lambda: [layers.DepthwiseConv2D(3), layers.BatchNormalization(scale=False)],
    "batch norm alone": lambda: [layers.BatchNormalization(center=False)],
    "conv with activation + batch norm": lambda: [layers.Conv2D(5, 3, activation="tanh"), layers.BatchNormalization()],
    "pad + conv": lambda: [layers.ZeroPadding2D(((1, 2), (3, 0))), layers.Conv2D(5, 3)],
    "pad + max pool, any sign": lambda: [layers.ZeroPadding2D(1), layers.MaxPooling2D(3, 2)],
    "relu + pad + max pool": lambda: [layers.ReLU(), layers.ZeroPadding2D(1), layers.MaxPooling2D(3, 2)],
    "relu + crop + pad + max pool": lambda: [
        *(layers.ReLU(), layers.Cropping2D(1), layers.ZeroPadding2D(1), layers.MaxPooling2D(3, 2)),
    ],
    "max pool same": lambda: [layers.MaxPooling2D(3, 2, padding="same")],
    "average pool same": lambda: [layers.AveragePooling2D(3, 2, padding="same")],
    "global average": lambda: [layers.GlobalAveragePooling2D()],
    "global max, kept dims": lambda: [layers.GlobalMaxPooling2D(keepdims=True)],
    "flatten + dense": lambda: [layers.Flatten(), layers.Dense(3, "softmax")],
    "dense on an image": lambda: [layers.Dense(3)],
    "reshape": lambda: [layers.Reshape((7, 18, 2)), layers.Conv2D(3, 3)],
    "dropout": lambda: [layers.Dropout(0.5), layers.Conv2D(3, 3)],
    "relu with a maximum": lambda: [layers.ReLU(max_value=1.5)],
    "relu with a slope": lambda: [layers.ReLU(negative_slope=0.1)],
    "leaky relu": lambda: [layers.LeakyReLU(0.3)],
    "softmax over channels": lambda: [layers.Softmax()],
    "dense, no bias": lambda: [layers.GlobalAveragePooling2D(), layers.Dense(3, use_bias=False)],
}


@pytest.mark.parametrize("name", IMAGE_LAYERS)
def test_file_computes_what_keras_does(name: str, tmp_path: Path) -> None:
    assert _parity(_sequence(*IMAGE_LAYERS[name]()), tmp_path / "model.onnx") < 1e-4


ACTIVATIONS = (
    *("elu", "exponential", "hard_sigmoid", "hard_silu", "leaky_relu", "relu", "relu6", "selu", "sigmoid", "silu"),
    *("softmax", "softplus", "softsign", "tanh"),
)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activation(activation: str, tmp_path: Path) -> None:
    assert _parity(_sequence(layers.Activation(activation)), tmp_path / "model.onnx") < 1e-4


def test_several_inputs_and_merges(tmp_path: Path) -> None:
    a, b = keras.Input((6, 6, 3), name="a"), keras.Input((6, 6, 3), name="b")
    merged = layers.Concatenate()([layers.Add()([a, b, a]), layers.Multiply()([a, b])])
    model = keras.Model([a, b], {"image": merged, "pooled": layers.GlobalAveragePooling2D(name="pooled")(merged)})
    path = export_onnx(model, tmp_path / "model.onnx")
    x = [np.random.default_rng(i).normal(size=(2, 6, 6, 3)).astype("float32") for i in range(2)]
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    actual = session.run(None, {"a": x[0], "b": x[1]})
    expected = np.concatenate([2 * x[0] + x[1], x[0] * x[1]], axis=-1)
    np.testing.assert_allclose(actual[0], expected, rtol=1e-5)
    np.testing.assert_allclose(actual[1], expected.mean(axis=(1, 2)), rtol=1e-4, atol=1e-6)


def test_nodes_carry_keras_names_and_batch_is_dynamic(tmp_path: Path) -> None:
    model = _sequence(layers.Conv2D(3, 3, name="my_conv"), layers.ReLU(name="my_relu"))
    file = onnx.load(export_onnx(model, tmp_path / "model.onnx"))
    assert {"my_conv", "my_relu"} <= {node.name for node in file.graph.node}
    assert file.graph.input[0].name == "image"
    assert [d.dim_param or d.dim_value for d in file.graph.input[0].type.tensor_type.shape.dim] == ["batch", 9, 7, 4]
    assert file.graph.output[0].name == "my_relu"


@pytest.mark.parametrize("opset", [13, 17, 21])
def test_opset_is_the_one_asked_for(opset: int, tmp_path: Path) -> None:
    file = onnx.load(export_onnx(_sequence(layers.Conv2D(3, 3)), tmp_path / "model.onnx", opset=opset))
    assert file.opset_import[0].version == opset


def test_opset_out_of_range_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"from 13 to 21.*Received: opset=12"):
        export_onnx(_sequence(layers.Conv2D(3, 3)), tmp_path / "model.onnx", opset=12)


class Negate(layers.Layer):
    """A layer that only a test knows."""

    def call(self, x: Any) -> Any:
        return -x


def test_layer_without_converter_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    class Unknown(layers.Layer):
        def call(self, x: Any) -> Any:
            return keras.ops.convert_to_tensor(x) if float(x[0, 0]) > 0 else -x

        def compute_output_shape(self, shape: Any) -> Any:
            return shape

    with pytest.raises(UnsupportedModelError, match=r"'mystery'.*Received: a Unknown.*register_converter"):
        export_onnx(_sequence(Unknown(name="mystery")), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_registered_converter_is_used(tmp_path: Path) -> None:
    @register_converter(Negate)
    def convert(emission: Any, step: Any) -> Any:
        return emission.op("Neg", step.inputs, step.name, step.output_shape)

    assert _parity(_sequence(Negate(name="negate")), tmp_path / "model.onnx") == 0


@pytest.mark.parametrize(
    ("stack", "message"),
    [
        ([layers.Activation("glu")], "Call `keras.ops.glu`"),
        (
            [layers.MaxPooling2D(2, data_format="channels_first"), layers.MaxPooling2D(2)],
            "one data_format.*channels_first",
        ),
    ],
)
def test_settings_that_onnx_cannot_express_are_refused(stack: list[Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=message):
        export_onnx(_sequence(*stack), tmp_path / "model.onnx")


def test_unwritable_path_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageError, match="Can't write"):
        export_onnx(_sequence(layers.Conv2D(3, 3)), tmp_path / "file" / "model.onnx")
