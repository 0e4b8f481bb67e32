"""From float model and placement to quantized model: what changes, and what must stay."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_qat.errors import UserError
from keras_qat.graph import trace
from keras_qat.layers import FakeQuantize, QuantizedConv2D, QuantizedDense, QuantizedDepthwiseConv2D
from keras_qat.placement import plan
from keras_qat.transform import apply_placement, copy_layer, rebuild
from keras_qat.types import OpKind, Placement, TensorRange

layers = keras.layers
TARGETS = ("tensorrt", "onnxruntime", "openvino")


def residual() -> keras.Model:
    x = image = keras.Input((8, 8, 3), name="image")
    x = shortcut = layers.Conv2D(4, 3, padding="same", activation="relu", name="stem")(x)
    x = layers.Conv2D(4, 3, padding="same", name="conv")(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = layers.ReLU(name="out")(layers.Add(name="add")([shortcut, x]))
    x = layers.MaxPooling2D(name="max_pool")(x)
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    return keras.Model(image, layers.Dense(3, activation="softmax", name="classes")(x), name="residual")


def nested() -> keras.Model:
    """A user's transfer-learning model."""
    inputs = keras.Input((8, 8, 3), name="pixels")
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 3, name="conv")(inputs))
    base = keras.Model(inputs, layers.ReLU(name="relu")(x), name="base")
    base.trainable = False
    return keras.Sequential(
        [keras.Input((8, 8, 3), name="image"), base, layers.GlobalAveragePooling2D(name="pool"), layers.Dense(3)],
        name="nested",
    )


def twins() -> keras.Model:
    """Two nested models whose layers have the same names, but not the same weights."""
    image = keras.Input((8, 8, 3), name="image")

    def base(name: str) -> keras.Model:
        inputs = keras.Input((8, 8, 3))
        return keras.Model(inputs, layers.Conv2D(2, 3, name="conv")(inputs), name=name)

    return keras.Model(image, layers.Add(name="add")([base("left")(image), base("right")(image)]), name="twins")


def shared_layer() -> keras.Model:
    image = keras.Input((8, 8, 3), name="image")
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    return keras.Model(image, layers.Conv2D(2, 1, name="last")(shared(shared(image))), name="shared_layer")


def with_operation() -> keras.Model:
    """A call of `keras.ops` among the layers."""
    image = keras.Input((8, 8, 3), name="image")
    x = keras.ops.tanh(layers.Conv2D(4, 3, name="conv")(image)) * 2.0
    return keras.Model(image, layers.Conv2D(2, 1, name="last")(x), name="with_operation")


MODELS = [residual, nested, twins, shared_layer, with_operation]
by_model = pytest.mark.parametrize("build", MODELS, ids=lambda f: f.__name__)
by_target = pytest.mark.parametrize("target", TARGETS)


def randomize(model: keras.Model, seed: int = 0) -> keras.Model:
    """Weights of a network in use: batch norm statistics and biases too."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        positive = "variance" in weight.name or "gamma" in weight.name
        values = rng.uniform(0.5, 1.5, weight.shape) if positive else rng.normal(0, 0.3, weight.shape)
        weight.assign(values)
    return model


def images(count: int = 4, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, (count, 8, 8, 3)).astype("float32")


def quantize(model: keras.Model, target: str, amax: float | None = None) -> tuple[keras.Model, Placement]:
    placement = plan(trace(model).graph, target)
    ranges = {
        name: TensorRange(3.0 + 0.5 * i if amax is None else amax, "minmax", 1)
        for i, name in enumerate(placement.observed)
    }
    return apply_placement(model, placement, ranges), placement


def fakes(model: keras.Model) -> list[FakeQuantize]:
    return [layer for layer in model.layers if isinstance(layer, FakeQuantize)]


def predict(model: keras.Model, x: Any) -> Any:
    return keras.tree.map_structure(np.asarray, model(x))


# --- the new model ----------------------------------------------------------------------------------------------------


@by_model
@by_target
def test_one_fake_quantize_for_each_tensor(build: Callable[[], keras.Model], target: str) -> None:
    """Shared by its consumers, with the spec of the plan and the range of the tensor that owns it."""
    model, placement = quantize(build(), target)
    assert len(fakes(model)) == len(placement.tensors)
    order = {name: 3.0 + 0.5 * i for i, name in enumerate(placement.observed)}
    by_tensor = {layer.name.removesuffix("_quantize"): layer for layer in fakes(model)}
    for planned in placement.tensors:
        layer = by_tensor[planned.tensor.replace("#", ".")]
        assert layer.spec == planned.spec
        assert float(layer.amax) == pytest.approx(order[planned.range_of])
        # One call of the layer, whatever reads its result.
        assert len(layer._inbound_nodes) == 1


@by_model
@by_target
def test_pairs_stand_on_the_planned_edges_and_nowhere_else(build: Callable[[], keras.Model], target: str) -> None:
    """Without its FakeQuantize nodes the new model has the old graph; with them it has the planned pairs."""
    source = build()
    model, placement = quantize(source, target)
    graph = trace(model).graph
    pairs = {node.outputs[0]: node.inputs[0] for node in graph.nodes if node.kind is OpKind.FAKE_QUANTIZE}
    quantized = {(pairs[edge.tensor], edge.consumer, edge.index) for edge in graph.edges if edge.tensor in pairs}
    assert quantized == placement.quantized_edges
    plain = [
        (node.name, node.kind, node.layer, tuple(pairs.get(tensor, tensor) for tensor in node.inputs))
        for node in graph.nodes
        if node.kind is not OpKind.FAKE_QUANTIZE
    ]
    expected = [(node.name, node.kind, node.layer, node.inputs) for node in trace(source).graph.nodes]
    assert sorted(plain) == sorted(expected)


@by_target
def test_layers_keep_their_names_and_get_quantized_weights(target: str) -> None:
    source = residual()
    model, _ = quantize(source, target)
    assert model.name == "residual"
    assert {layer.name for layer in source.layers} <= {layer.name for layer in model.layers}
    types = {layer.name: type(layer) for layer in model.layers}
    assert types["stem"] is types["conv"] is QuantizedConv2D
    assert types["depthwise"] is QuantizedDepthwiseConv2D
    assert types["classes"] is QuantizedDense
    assert types["bn"] is layers.BatchNormalization


@by_model
@by_target
def test_fine_grid_gives_the_float_model(build: Callable[[], keras.Model], target: str) -> None:
    """With ranges that nothing exceeds, only rounding is left, and the outputs follow the float model closely."""
    source = randomize(build())
    model, _ = quantize(source, target, amax=20.0)
    exact, rounded = predict(source, images()), predict(model, images())
    noise = np.sqrt(np.mean((exact - rounded) ** 2)) / np.std(exact)
    assert 0 < noise < 0.2


@by_model
def test_rebuilt_without_a_change_is_the_same_function(build: Callable[[], keras.Model]) -> None:
    source = randomize(build())
    again = rebuild(trace(source), copy_layer, lambda _, tensor: tensor)
    np.testing.assert_array_equal(predict(again, images()), predict(source, images()))
    assert again.count_params() == source.count_params()
    assert not {id(v) for v in again.variables} & {id(v) for v in source.variables}


def test_quantized_model_by_hand() -> None:
    """Conv 1x1 → relu → conv 1x1 in NumPy float64: input, weights and activation rounded, bias and output not."""
    image = keras.Input((4, 4, 2), name="image")
    x = layers.ReLU(name="relu")(layers.Conv2D(3, 1, name="first")(image))
    source = randomize(keras.Model(image, layers.Conv2D(2, 1, name="second")(x)))
    placement = plan(trace(source).graph, "onnxruntime")
    ranges = {"image": TensorRange(2.0, "minmax", 1), "relu": TensorRange(1.5, "minmax", 1)}
    model = apply_placement(source, placement, ranges)

    def grid(v: np.ndarray, amax: Any, low: int, high: int) -> np.ndarray:
        s = np.asarray(amax) / high
        return s * np.clip(np.rint(v / s), low, high)

    def conv(v: np.ndarray, name: str) -> np.ndarray:
        kernel, bias = (w.astype(np.float64) for w in source.get_layer(name).get_weights())
        kernel = kernel[0, 0]
        return v @ grid(kernel, np.abs(kernel).max(axis=0), -127, 127) + bias

    x = images()[:, :4, :4, :2]
    hidden = np.maximum(conv(grid(x.astype(np.float64), 2.0, -128, 127), "first"), 0)
    expected = conv(grid(hidden, 1.5, 0, 255), "second")
    # A hidden number next to a rounding boundary may fall on its other side in float32: one step, rarely.
    difference = np.abs(predict(model, x) - expected) / (1.5 / 255)
    assert np.median(difference) < 1e-3
    assert difference.max() < 1


@by_target
def test_absurd_range_rounds_every_activation_to_zero(target: str) -> None:
    """Nothing but the classifier's bias is left of the logits."""
    source = randomize(residual())
    model, _ = quantize(source, target, amax=1e6)
    bias = source.get_layer("classes").get_weights()[1].astype(np.float64)
    expected = np.exp(bias) / np.exp(bias).sum()
    np.testing.assert_allclose(predict(model, images()), np.broadcast_to(expected, (4, 3)), atol=1e-5)


def test_trainable_flags_are_kept() -> None:
    source = nested()
    model, _ = quantize(source, "tensorrt")
    flags = {layer.name: layer.trainable for layer in model.layers}
    assert flags["conv"] is flags["bn"] is False
    assert flags[source.layers[-1].name] is True
    assert len(model.trainable_weights) == len(source.trainable_weights) == 2


def test_it_trains_like_any_other() -> None:
    model, _ = quantize(randomize(residual()), "onnxruntime")
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = {layer.name: layer.get_weights() for layer in model.layers}
    model.fit(images(8), np.arange(8) % 3, batch_size=4, epochs=1, verbose=0)
    assert all(np.isfinite(w).all() for w in model.get_weights())
    for name in ("stem", "conv", "depthwise", "classes"):
        assert np.abs(model.get_layer(name).get_weights()[0] - before[name][0]).max() > 0, name
    for layer in fakes(model):
        assert float(layer.amax) == before[layer.name][0], "the range stays where calibration put it"


# --- structure --------------------------------------------------------------------------------------------------------


def two_in_two_out() -> keras.Model:
    left, right = keras.Input((8, 8, 3), name="left"), keras.Input((8, 8, 3), name="right")
    a = layers.Conv2D(2, 3, name="conv_l")(left)
    b = layers.Conv2D(2, 3, name="conv_r")(right)
    merged = layers.Add(name="merged")([a, b])
    outputs = {"sum": layers.GlobalAveragePooling2D(name="pool")(merged), "raw": b}
    return keras.Model({"right": right, "left": left}, outputs, name="two")


@by_target
def test_dictionaries_of_inputs_and_outputs_are_kept(target: str) -> None:
    source = randomize(two_in_two_out())
    model, _ = quantize(source, target, amax=8.0)
    feed = {"left": images(seed=2), "right": images(seed=3)}
    exact, rounded = predict(source, feed), predict(model, feed)
    assert set(rounded) == set(exact) == {"sum", "raw"}
    for key in exact:
        assert rounded[key].shape == exact[key].shape
        # Swapped inputs or outputs would differ by as much as the numbers themselves.
        assert np.abs(rounded[key] - exact[key]).mean() < 0.2 * np.abs(exact[key]).mean()


def test_lists_of_inputs_and_outputs_are_kept() -> None:
    a, b = keras.Input((8, 8, 3), name="a"), keras.Input((8, 8, 3), name="b")
    conv = layers.Conv2D(2, 3, name="conv")(a)
    source = randomize(keras.Model([a, b], [layers.ReLU(name="relu")(b), conv]))
    model, _ = quantize(source, "tensorrt")
    x = [images(seed=2), images(seed=3)]
    relu, made = predict(model, x)
    np.testing.assert_array_equal(relu, np.maximum(x[1], 0))
    assert made.shape == (4, 6, 6, 2)


def test_integer_input_stays_integer() -> None:
    image = keras.Input((8, 8, 3), dtype="uint8", name="image")
    x = layers.Rescaling(1 / 255, name="scale")(image)
    model, _ = quantize(keras.Model(image, layers.Conv2D(2, 3, name="conv")(x)), "tensorrt")
    assert model.inputs[0].dtype == "uint8"


# --- the caller's model -----------------------------------------------------------------------------------------------


@by_model
@by_target
def test_the_callers_model_is_untouched(build: Callable[[], keras.Model], target: str) -> None:
    """Weights, layers, flags, and what Keras knows of each layer: `layer.output` is of a layer called once only."""
    source = randomize(build())
    operations = list(dict.fromkeys(call.operation for call in trace(source).calls.values()))
    weights = source.get_weights()
    before = [(op.name, type(op), getattr(op, "trainable", None), len(op._inbound_nodes)) for op in operations]
    config = str(source.get_config())
    outputs = predict(source, images())
    quantize(source, target)
    after = [(op.name, type(op), getattr(op, "trainable", None), len(op._inbound_nodes)) for op in operations]
    assert after == before
    assert str(source.get_config()) == config
    for old, new in zip(weights, source.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
    np.testing.assert_array_equal(predict(source, images()), outputs)
    if build is residual:
        assert all(layer.output is not None for layer in source.layers)


def test_weights_are_not_shared_with_the_callers_model() -> None:
    source = randomize(residual())
    model, _ = quantize(source, "tensorrt")
    kernel = source.get_layer("conv").get_weights()[0]
    np.testing.assert_array_equal(model.get_layer("conv").get_weights()[0], kernel)
    model.get_layer("conv").kernel.assign(kernel + 1)
    np.testing.assert_array_equal(source.get_layer("conv").get_weights()[0], kernel)


# --- save and load ----------------------------------------------------------------------------------------------------


@by_model
@by_target
def test_keras_file_round_trip(build: Callable[[], keras.Model], target: str, tmp_path: Path) -> None:
    """The loaded model has bit for bit the same outputs, ranges and structure, without `custom_objects`."""
    model, _ = quantize(randomize(build()), target)
    # A range that is not the one in the layer's configuration, as after training.
    fakes(model)[0].amax.assign(1.2345)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.models.load_model(path)
    assert [(layer.name, type(layer)) for layer in loaded.layers] == [(lay.name, type(lay)) for lay in model.layers]
    assert [(f.name, f.spec, float(f.amax)) for f in fakes(loaded)] == [
        (f.name, f.spec, float(f.amax)) for f in fakes(model)
    ]
    assert trace(loaded).graph == trace(model).graph
    np.testing.assert_array_equal(predict(loaded, images()), predict(model, images()))


# --- errors -----------------------------------------------------------------------------------------------------------


def test_missing_range_names_the_tensor() -> None:
    source = residual()
    placement = plan(trace(source).graph, "tensorrt")
    ranges = {name: TensorRange(1.0, "minmax", 1) for name in placement.observed if name != "pool"}
    with pytest.raises(UserError, match=r"'pool'.*Calibrate"):
        apply_placement(source, placement, ranges)


def test_placement_of_another_model_is_refused() -> None:
    placement = plan(trace(residual()).graph, "tensorrt")
    ranges = {name: TensorRange(1.0, "minmax", 1) for name in placement.observed}
    with pytest.raises(UserError, match=r"placement was planned for another model. Received: the edge '"):
        apply_placement(nested(), placement, ranges)


def test_placement_of_a_model_with_the_same_tensors_but_other_edges_is_refused() -> None:
    """Otherwise the pairs on missing edges would silently be left out."""

    def build(*, swapped: bool) -> keras.Model:
        image = keras.Input((8, 8, 3), name="image")
        conv = layers.Conv2D(3, 1, name="conv")(image)
        inputs = [conv, image] if swapped else [image, conv]
        return keras.Model(image, layers.Add(name="add")(inputs))

    placement = plan(trace(build(swapped=False)).graph, "tensorrt")
    ranges = {name: TensorRange(1.0, "minmax", 1) for name in placement.observed}
    with pytest.raises(UserError, match="placement"):
        apply_placement(build(swapped=True), placement, ranges)


def test_impossible_range_is_refused() -> None:
    source = residual()
    placement = plan(trace(source).graph, "tensorrt")
    ranges = {name: TensorRange(float("nan"), "minmax", 1) for name in placement.observed}
    with pytest.raises(ValueError, match="must be finite"):
        apply_placement(source, placement, ranges)
