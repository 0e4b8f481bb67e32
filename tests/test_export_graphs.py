"""Graphs of every shape: `keras.ops` calls, both data formats, several inputs and outputs, nested and shared layers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_qat import apply_placement, calibrate, export_onnx, plan, quantize, trace
from keras_qat.errors import DataError, UnsupportedModelError
from keras_qat.runtimes import OnnxRuntime
from keras_qat.types import OpKind
from keras_qat.verify import tensor_errors, tensor_miss

layers = keras.layers
FIRST = {"data_format": "channels_first"}

Block = Callable[[Any], Any]


def _conv(filters: int, size: int = 3, **kwargs: Any) -> Any:
    return layers.Conv2D(filters, size, padding="same", **kwargs)


def _hard_swish(x: Any) -> Any:
    y = _conv(4)(x)
    return y * ops.relu6(y + 3.0) * (1 / 6)


def _residual(x: Any) -> Any:
    y = _conv(4)(x)
    return _conv(2)(ops.relu(y + _conv(4)(y)))


OPERATIONS: dict[str, Block] = {
    "affine, folded": lambda x: _conv(4)(_conv(4)(x) * 2.0 + np.array([1, 2, 3, 4], "float32")),
    "hard swish": _hard_swish,
    "residual": _residual,
    "mean of an image": lambda x: layers.Dense(2)(ops.mean(_conv(4)(x), axis=(1, 2))),
    "mean of an axis": lambda x: layers.Dense(2)(layers.Flatten()(ops.mean(_conv(4)(x), axis=2))),
    "max of channels": lambda x: _conv(4)(x) - ops.max(x, axis=-1, keepdims=True),
    "sum": lambda x: layers.Dense(2)(ops.sum(_conv(4)(x), axis=(1, 2))),
    "slices": lambda x: _conv(4)(x[:, 1:-1, ::2, :]),
    "single indices": lambda x: layers.Dense(2)(x[:, 1, -1]),
    "backwards": lambda x: _conv(4)(x[:, ::-1]),
    "ellipsis": lambda x: _conv(4)(x[..., :2]),
    "transpose": lambda x: _conv(4)(ops.transpose(x, (0, 2, 1, 3))),
    "concatenate": lambda x: _conv(4)(ops.concatenate([_conv(4)(x), x], axis=-1)),
    "reshape": lambda x: layers.Dense(4)(ops.reshape(_conv(4)(x), (-1, 6 * 8 * 4))),
    "squeeze": lambda x: layers.Dense(4)(ops.squeeze(layers.GlobalAveragePooling2D(keepdims=True)(x), axis=(1, 2))),
    "division": lambda x: _conv(2)(1.0 / (1.0 + ops.exp(_conv(3)(x)))),
    "maximum": lambda x: _conv(2)(ops.maximum(_conv(3)(x), x)),
    "power": lambda x: _conv(2)(ops.power(ops.absolute(_conv(3)(x)), 2.0)),
    "square": lambda x: _conv(2)(ops.square(_conv(3)(x))),
    "tanh": lambda x: _conv(2)(ops.tanh(_conv(3)(x))),
    "gelu": lambda x: _conv(2)(ops.gelu(_conv(3)(x), approximate=False)),
    "leaky relu": lambda x: _conv(2)(ops.leaky_relu(_conv(3)(x), 0.3)),
    "softmax": lambda x: ops.softmax(_conv(3)(x)),
    "permute": lambda x: _conv(2)(layers.Permute((3, 1, 2))(_conv(3)(x))),
    "average layer": lambda x: _conv(2)(layers.Average()([_conv(3)(x), x])),
    "subtract layer": lambda x: _conv(2)(layers.Subtract()([_conv(3)(x), x])),
}


def _channels_first(x: Any) -> Any:
    """Everything whose meaning depends on where the channels are."""
    y = layers.Conv2D(4, 3, **FIRST)(layers.ZeroPadding2D(((1, 0), (2, 1)), **FIRST)(x))
    y = layers.ReLU()(layers.BatchNormalization(axis=1)(y))
    y = shortcut = layers.MaxPooling2D(2, **FIRST)(y)
    y = layers.DepthwiseConv2D(3, padding="same", **FIRST)(y)
    y = layers.ReLU()(layers.Add()([layers.Conv2D(4, 1, **FIRST)(y), shortcut]))
    y = layers.Cropping2D(((0, 0), (1, 0)), **FIRST)(layers.Concatenate(axis=1)([y, shortcut]))
    return layers.SeparableConv2D(4, 2, **FIRST)(y)


SOFTMAX = "softmax over channels"

HEADS: dict[str, Block] = {
    "pooled": lambda x: layers.Dense(3, name="pooled")(layers.GlobalAveragePooling2D(**FIRST)(x)),
    "flattened, channels last": lambda x: layers.Dense(3, name="channels_last")(layers.Flatten(**FIRST)(x)),
    "flattened as it is": lambda x: layers.Dense(3, name="as_it_is")(layers.Flatten()(x)),
    "reshaped": lambda x: layers.Dense(3, name="reshaped")(layers.Flatten()(layers.Reshape((2, -1, 2))(x))),
    SOFTMAX: layers.Softmax(axis=1),
}


def _model(block: Block, shape: tuple[int, ...]) -> keras.Model:
    keras.utils.set_random_seed(1)
    x = keras.Input(shape, name="image")
    return keras.Model(x, block(x))


def _images(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(4, *shape)).astype("float32")


def _check(model: keras.Model, inputs: list[np.ndarray], folder: Path) -> None:
    """The float file against Keras; each target's INT8 file against its simulation, and again after `.keras`."""
    given = inputs if len(inputs) > 1 else inputs[0]
    with OnnxRuntime(export_onnx(model, folder / "float.onnx")) as runtime:
        deployed = runtime.run(*inputs)
    expected = keras.tree.flatten(model(given))
    for ours, theirs in zip(deployed, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * float(np.max(np.abs(theirs))))
    for target in ("onnxruntime", "openvino", "tensorrt"):
        placement = plan(trace(model).graph, target)
        quantized = apply_placement(model, placement, calibrate(model, placement, [(given, None)]))
        path = export_onnx(quantized, folder / f"{target}.onnx", target=target)
        for error in tensor_errors(quantized, path, [(given, None)]):
            # Some hundred numbers a tensor: one of them may stand on a border.
            assert error.worst <= 1, error
            assert error.differing <= 0.02, error
        quantized.save(folder / "model.keras")
        loaded = keras.models.load_model(folder / "model.keras")
        for ours, theirs in zip(*(keras.tree.flatten(m(given)) for m in (loaded, quantized)), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_of_keras_ops(name: str, tmp_path: Path) -> None:
    _check(_model(OPERATIONS[name], (6, 8, 3)), [_images(6, 8, 3)], tmp_path)


def test_channels_first(tmp_path: Path) -> None:
    def dense_heads(x: Any) -> list[Any]:
        y = _channels_first(x)
        return [head(y) for name, head in HEADS.items() if name != SOFTMAX]

    for heads in (dense_heads, lambda x: HEADS[SOFTMAX](_channels_first(x))):
        _check(_model(heads, (3, 8, 10)), [_images(3, 8, 10)], tmp_path)


def test_a_convolution_that_a_dense_and_a_float_operation_read(tmp_path: Path) -> None:
    def heads(x: Any) -> list[Any]:
        y = layers.Conv2D(4, 1)(x)
        return [layers.Dense(3)(layers.Flatten()(y)), layers.Softmax()(y)]

    _check(_model(heads, (6, 8, 3)), [_images(6, 8, 3)], tmp_path)


READERS: dict[str, Block] = {
    "square": lambda y: _conv(2)(ops.square(y)),
    "sum with itself": lambda y: _conv(2)(ops.add(y, y)),
    "product with itself": lambda y: _conv(2)(ops.multiply(y, y)),
    "sigmoid and convolution": lambda y: [_conv(2)(ops.sigmoid(y)), _conv(2)(y)],
    "two float operations": lambda y: [ops.exp(y), ops.abs(y)],
    "float operation and output": lambda y: [ops.tanh(y), y],
}
WITHOUT_BIAS: dict[str, Callable[[], Any]] = {
    "convolution": lambda: layers.Conv2D(3, 3, use_bias=False),
    "bias of zeros": lambda: layers.Conv2D(3, 3),
    "depthwise": lambda: layers.DepthwiseConv2D(3, use_bias=False),
}


@pytest.mark.parametrize(
    ("name", "precision"), [*((name, "fp32") for name in WITHOUT_BIAS), ("convolution", "fp16"), ("depthwise", "fp16")]
)
def test_openvino_computes_a_convolution_without_a_bias_for_each_of_its_readers(
    name: str, precision: Any, tmp_path: Path
) -> None:
    """OpenVINO 2026.4 computed 0 for one of two readers, and for x · x."""

    def heads(x: Any) -> list[Any]:
        return keras.tree.flatten([reader(WITHOUT_BIAS[name]()(x)) for reader in READERS.values()])

    model, images = _model(heads, (6, 8, 3)), _images(6, 8, 3)
    for weight in model.weights:
        if weight.name == "bias":
            weight.assign(np.zeros(weight.shape))
    quantized = quantize(model, images, "openvino", bias_correction=False).model
    path = export_onnx(quantized, tmp_path / "model.onnx", target="openvino", precision=precision)
    _check_in_openvino(quantized, path, images)


NORMALIZATIONS: dict[str, Callable[[], Any]] = {
    "tokens": lambda: layers.LayerNormalization(epsilon=0.1),
    "spelled out": lambda: layers.LayerNormalization(epsilon=0.1, axis=1),
    "groups": lambda: layers.GroupNormalization(groups=2, epsilon=0.1),
    "root mean square": lambda: layers.RMSNormalization(epsilon=0.1),
}


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_openvino_adds_the_epsilon_of_a_normalization_to_numbers_and_not_to_integers(
    precision: Any, tmp_path: Path
) -> None:
    """OpenVINO 2026.4 moved the scale behind a normalization of what a quantized MatMul reads, too."""

    def heads(x: Any) -> list[Any]:
        y = layers.Concatenate()([x, ops.tanh(x)])
        return [layers.Attention()([y, y]), *(norm()(y) for norm in NORMALIZATIONS.values())]

    model = _model(heads, (9, 3))
    images = np.random.default_rng(0).normal(size=(16, 9, 3)).astype("float32")
    quantized = quantize(model, images, "openvino").model
    path = export_onnx(quantized, tmp_path / "model.onnx", target="openvino", precision=precision)
    _check_in_openvino(quantized, path, images)


def _pooled_twice(x: Any) -> Any:
    y = layers.AveragePooling2D((3, 2))(x)
    return ops.multiply(y, y)


def _shrunk(x: Any) -> Any:
    y = ops.soft_shrink(layers.Rescaling(1 / 127.5, -1)(x), threshold=0.35)
    return [layers.Identity()(y), layers.Dense(3)(y)]


@pytest.mark.parametrize(("head", "dtype"), [(_pooled_twice, "float32"), (_shrunk, "uint8")])
def test_openvino_rounds_nothing_without_a_pair(head: Block, dtype: str, tmp_path: Path) -> None:
    """OpenVINO 2026.4 rounded a mean that two operations read, and constants behind a cast of an image."""
    x = keras.Input((9, 8, 3), dtype=dtype)
    model = keras.Model(x, head(x))
    images = (np.random.default_rng(0).uniform(0, 255, (16, 9, 8, 3))).astype(dtype)
    quantized = quantize(model, images, "openvino", bias_correction=False).model
    path = export_onnx(quantized, tmp_path / "model.onnx", target="openvino")
    assert tensor_miss("INT8", tensor_errors(quantized, path, [(images, None)])) is None


def _check_in_openvino(quantized: keras.Model, path: Path, images: np.ndarray) -> None:
    import openvino

    expected = [np.asarray(y) for y in quantized.predict_on_batch(images)]
    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    for y, made in zip(expected, compiled([images]).values(), strict=True):
        np.testing.assert_allclose(made, y, atol=0.05 * np.abs(y).max())


def test_channels_first_file_needs_no_transpose(tmp_path: Path) -> None:
    import onnx

    file = onnx.load(
        export_onnx(_model(lambda x: HEADS["pooled"](_channels_first(x)), (3, 8, 10)), tmp_path / "m.onnx")
    )
    assert "Transpose" not in {node.op_type for node in file.graph.node}


def test_several_inputs_and_outputs_nested_and_shared_layers(tmp_path: Path) -> None:
    keras.utils.set_random_seed(2)
    left, right = keras.Input((6, 6, 3), name="left"), keras.Input((6, 6, 3), name="right")
    tower = keras.Sequential([keras.Input((6, 6, 3)), _conv(4, name="a"), layers.ReLU(name="r")], name="tower")
    shared = _conv(4, name="shared")
    x, y = shared(tower(left)), shared(tower(right))
    merged = layers.Concatenate(name="merged")([x, y])
    outputs = {"mask": _conv(1, 1, name="mask")(merged), "pooled": layers.GlobalAveragePooling2D(name="pooled")(merged)}
    model = keras.Model([left, right], outputs)
    _check(model, [_images(6, 6, 3), _images(6, 6, 3, seed=1)], tmp_path)


def test_a_constant_operand_is_no_residual() -> None:
    kinds = {node.name: node.kind for node in trace(_model(_hard_swish, (6, 8, 3))).graph.nodes}
    counts = [list(kinds.values()).count(kind) for kind in (OpKind.ADD, OpKind.MULTIPLY, OpKind.SCALE)]
    assert counts == [0, 1, 2]


def test_calibration_names_every_input_that_does_not_fit() -> None:
    left, right = keras.Input((6, 6, 3)), keras.Input((6, 6, 3))
    model = keras.Model([left, right], layers.Add()([_conv(3)(left), right]))
    placement = plan(trace(model).graph, "onnxruntime")
    with pytest.raises(DataError, match=r"Received: a batch of shape \[\(4, 6, 6, 3\)\], where the model takes \[\("):
        calibrate(model, placement, [(_images(6, 6, 3), None)])


@pytest.mark.parametrize(
    ("block", "message"),
    [
        (lambda x: layers.Add()([x, np.ones((1, 6, 6, 6), "float32")]), "1 constants among 2 inputs.*by an operator"),
        (lambda x: ops.max(x, axis=(1, 2), initial=5.0), "initial=5.0"),
        (ops.cumsum, "axis=None.*Name the axis"),
        (lambda x: x[0], "Keep the batch axis as it is"),
        (lambda x: ops.median(x, axis=1), "a Median, for which no converter"),
        (lambda x: layers.Conv2D(2, 3)(layers.MaxPooling2D(2, **FIRST)(x)), "one data_format"),
    ],
)
def test_what_cannot_be_exported_is_refused_with_a_remedy(block: Block, message: str, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"(?s){message}"):
        export_onnx(_model(block, (6, 6, 6)), tmp_path / "model.onnx")


def test_slices_of_an_image_of_any_size(tmp_path: Path) -> None:
    x = keras.Input((None, None, 4), name="image")
    model = keras.Model(x, _conv(2)(x[:, ::2, ::2]))
    images = _images(6, 8, 4)
    with OnnxRuntime(export_onnx(model, tmp_path / "model.onnx")) as runtime:
        np.testing.assert_allclose(runtime.run(images)[0], model(images), rtol=1e-4, atol=1e-5)


def test_one_tensor_may_leave_the_model_twice(tmp_path: Path) -> None:
    x = keras.Input((4, 4, 2), name="image")
    y = layers.ReLU(name="y")(x)
    images = _images(4, 4, 2)
    with OnnxRuntime(export_onnx(keras.Model(x, [y, y]), tmp_path / "model.onnx")) as runtime:
        first, second = runtime.run(images)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, np.maximum(images, 0))


def test_rescaling_by_channel_in_channels_first(tmp_path: Path) -> None:
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_first")
    try:
        model = _model(layers.Rescaling([1.0, 2.0, 3.0], offset=[0.0, 1.0, 2.0]), (3, 8, 3))
        images = _images(3, 8, 3)
        with OnnxRuntime(export_onnx(model, tmp_path / "model.onnx")) as runtime:
            (actual,) = runtime.run(images)
    finally:
        keras.config.set_image_data_format(before)
    expected = images * np.array([1, 2, 3], "float32")[:, None, None] + np.array([0, 1, 2], "float32")[:, None, None]
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
