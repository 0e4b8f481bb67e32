"""The quantized file of every layer that engines run in integers computes in ONNX Runtime what was simulated."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from keras import ops

from keras_qat import Overrides, Rule, quantize
from keras_qat.export import export_onnx
from keras_qat.verify import tensor_errors, verify_file
from test_export_operations import build, draw, run_file

layers = keras.layers

IMAGE, SERIES, VOLUME, VECTOR = (12, 10, 3), (16, 4), (6, 8, 8, 2), (24,)


def _stem(x: Any) -> Any:
    return layers.Conv2D(8, 3, padding="same", activation="relu")(x)


def _headed(y: Any) -> Any:
    """With a last layer that ONNX Runtime can run in integers, as it can't a convolution that ends the model."""
    return y if len(y.shape) == 2 else layers.Dense(3)(layers.Flatten()(y))


def _attention(x: Any) -> Any:
    tokens = ops.reshape(layers.Conv2D(8, 2, strides=2, activation="relu")(x), (-1, 30, 8))
    q, k, v = (layers.EinsumDense("abc,cde->abde", (None, 2, 4), bias_axes="de")(tokens) for _ in range(3))
    scores = ops.softmax(ops.einsum("btnh,bsnh->bnts", q * 0.5, k), axis=-1)
    mixed = ops.einsum("bnts,bsnh->btnh", scores, v)
    out = layers.EinsumDense("abcd,cde->abe", (None, 8), bias_axes="e")(mixed)
    return layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.Add()([out, tokens])))


def _attention_layer(x: Any) -> Any:
    tokens = ops.reshape(layers.Conv2D(8, 2, strides=2, activation="relu")(x), (-1, 30, 8))
    mixed = layers.Add()([layers.MultiHeadAttention(2, 4)(tokens, tokens), tokens])
    return layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.LayerNormalization()(mixed)))


ROWS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...]]] = {
    "series": (
        lambda x: layers.Dense(3)(
            layers.GlobalAveragePooling1D()(
                layers.SeparableConv1D(6, 3, activation="relu")(
                    layers.MaxPooling1D(2)(layers.ReLU()(layers.BatchNormalization()(layers.Conv1D(8, 3)(x))))
                )
            )
        ),
        SERIES,
    ),
    "causal": (
        lambda x: layers.Dense(2)(
            layers.Flatten()(
                layers.Add()([layers.Conv1D(5, 3, padding="causal", activation="relu")(x), layers.Conv1D(5, 1)(x)])
            )
        ),
        SERIES,
    ),
    "transposed1d": (
        lambda x: layers.Conv1D(3, 1)(layers.Conv1DTranspose(6, 3, strides=2, activation="relu")(x)),
        SERIES,
    ),
    "volume": (
        lambda x: layers.Dense(2)(
            layers.GlobalAveragePooling3D()(
                layers.Conv3D(4, 2)(layers.MaxPooling3D(2)(layers.Conv3D(6, 3, activation="relu")(x)))
            )
        ),
        VOLUME,
    ),
    "volume_transposed": (
        lambda x: layers.Conv3D(2, 1)(layers.Conv3DTranspose(4, 2, strides=2)(layers.Conv3D(4, 2)(x))),
        VOLUME,
    ),
    "transposed": (
        lambda x: layers.Conv2D(4, 1)(
            layers.Conv2DTranspose(6, 3, strides=2, padding="same", activation="relu")(_stem(x))
        ),
        IMAGE,
    ),
    "transposed_normalized": (
        lambda x: layers.Conv2D(4, 1)(
            layers.ReLU()(
                layers.BatchNormalization()(layers.Conv2DTranspose(6, 2, strides=2, use_bias=False)(_stem(x)))
            )
        ),
        IMAGE,
    ),
    "nearest": (lambda x: layers.Conv2D(4, 3)(layers.UpSampling2D(2)(layers.MaxPooling2D(2)(_stem(x)))), IMAGE),
    "bilinear": (lambda x: layers.Conv2D(4, 3)(layers.UpSampling2D(2, interpolation="bilinear")(_stem(x))), IMAGE),
    "splits": (
        lambda x: layers.Concatenate()([(y := ops.split(_stem(x), 2, axis=-1))[0], layers.Conv2D(4, 1)(y[1])]),
        IMAGE,
    ),
    "merges": (
        lambda x: layers.Conv2D(4, 1)(
            layers.Concatenate()(
                [layers.Subtract()([(y := _stem(x)), (z := layers.Conv2D(8, 1)(x))]), layers.Maximum()([y, z])]
            )
        ),
        IMAGE,
    ),
    "group_norm": (lambda x: layers.Conv2D(4, 3)(layers.ReLU()(layers.GroupNormalization(groups=4)(_stem(x)))), IMAGE),
    "prelu": (
        lambda x: layers.Conv2D(4, 1)(layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(6, 3)(layers.ELU()(x)))),
        IMAGE,
    ),
    "mish": (lambda x: layers.Conv2D(4, 1)(layers.Conv2D(6, 3, activation="mish")(x)), IMAGE),
    "identities": (
        lambda x: layers.Conv2D(4, 1)(
            layers.AlphaDropout(0.1)(_stem(layers.GaussianNoise(0.1)(layers.RandomFlip()(x))))
        ),
        IMAGE,
    ),
    "dense_normalized": (
        lambda x: layers.Dense(3)(
            layers.ReLU()(layers.BatchNormalization()(layers.Dense(8)(layers.ReLU()(layers.Dense(8)(x)))))
        ),
        VECTOR,
    ),
    "attention": (_attention, IMAGE),
    "attention_layer": (_attention_layer, IMAGE),
    "depth_to_space": (
        lambda x: layers.Conv2D(4, 1)(ops.depth_to_space(layers.Conv2D(8, 3, activation="relu")(x), 2)),
        IMAGE,
    ),
    "integers": (
        lambda x: layers.Conv2D(4, 3)(layers.Rescaling(1 / 255)(ops.cast(ops.clip(x * 50 + 128, 0, 255), "uint8"))),
        IMAGE,
    ),
}

WEIGHTED = {"Conv", "FusedConv", "ConvTranspose", "Gemm", "MatMul"}


def _sqnr(y: np.ndarray, made: np.ndarray) -> float:
    return float(10 * np.log10(np.sum(y**2) / max(float(np.sum((made - y) ** 2)), 1e-30)))


@pytest.mark.parametrize("target", ["onnxruntime", "openvino", "tensorrt"])
@pytest.mark.parametrize("row", ROWS)
def test_quantized_file_is_the_simulation(row: str, target: str, tmp_path: Path) -> None:
    function, shape = ROWS[row]
    model = build(lambda x: _headed(function(x)), (shape,))
    (x,) = draw(model, batch=8)
    quantized = quantize(model, x, target, bias_correction=False, weight_method="absmax")
    path = export_onnx(quantized.model, tmp_path / "model.onnx", target=target)
    assert verify_file(path, quantized.placement, target, model=quantized.model).findings == ()
    assert all(error.worst <= 1.01 for error in tensor_errors(quantized.model, path, [(x, None)]))
    expected, exact = (np.asarray(m.predict_on_batch(x)) for m in (quantized.model, model))
    least = min(25.0, _sqnr(exact, expected) + 10)
    for optimize in (False, True):
        (made,) = run_file(path, [x], optimize=optimize)
        assert _sqnr(expected, made) >= least
    if target == "onnxruntime":
        assert _sqnr(exact, expected) > 12
        floats = _optimized(path, tmp_path / "optimized.onnx")
        assert not floats


FLOAT = ("float_conv", "float_depthwise", "float_transposed", "float_dense")


def test_float_weights_between_pairs_stay_float(tmp_path: Path) -> None:
    """ONNX Runtime rounds a float kernel behind a DequantizeLinear to int8, unless its bias is dequantized, too."""

    def between_pairs(x: Any) -> Any:
        y = layers.Conv2D(8, 3, activation="relu", use_bias=False, name="float_conv")(_stem(x))
        y = layers.DepthwiseConv2D(3, activation="relu", name="float_depthwise")(y)
        y = layers.MaxPooling2D(2)(layers.Conv2DTranspose(6, 3, activation="relu", name="float_transposed")(y))
        return layers.Dense(3)(layers.Dense(8, activation="relu", name="float_dense")(layers.Flatten()(y)))

    model = build(between_pairs, (IMAGE,))
    bias = np.array([0, 1e-30, -3.3e-12, 1 / 3, -1 / 7, 5e-7, 0.1, -0.25], np.float32)
    model.get_layer("float_depthwise").bias.assign(bias)
    (x,) = draw(model, batch=8)
    overrides = Overrides((Rule(FLOAT, weights=False),))
    quantized = quantize(model, x, "onnxruntime", overrides=overrides, bias_correction=False)
    path = export_onnx(quantized.model, tmp_path / "model.onnx", target="onnxruntime")
    assert _optimized(path, tmp_path / "optimized.onnx") == {"Conv": 2, "ConvTranspose": 1, "Gemm": 1}
    assert verify_file(path, quantized.placement, "onnxruntime", model=quantized.model).findings == ()
    assert all(error.worst <= 1 for error in tensor_errors(quantized.model, path, [(x, None)]))
    stored = {i.name: onnx.numpy_helper.to_array(i) for i in onnx.load(path).graph.initializer}
    made = stored["float_depthwise/bias_int32"].astype(np.float32) * stored["float_depthwise/bias_scale"]
    np.testing.assert_array_equal(made, bias)
    expected = np.asarray(quantized.model.predict_on_batch(x))
    assert _sqnr(expected, run_file(path, [x], optimize=True)[0]) > 35


def _optimized(path: Path, optimized: Path) -> Counter[str]:
    """The weighted operators that ONNX Runtime runs in float."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(optimized)
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(optimized).graph.node if node.op_type in WEIGHTED)
