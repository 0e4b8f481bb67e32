"""Layers that nobody registered, subclasses and nested models: what is read computes what Keras computes.

Each float file is compared with `model.predict`, in ONNX Runtime.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from keras_qat import export_onnx, quantize
from keras_qat.errors import UnsupportedModelError
from keras_qat.graph import Graph, non_negative_tensors, trace
from keras_qat.graph.kinds import _BUILT_IN, _EXPANSIONS
from keras_qat.onnx.emission import CONVERTERS
from keras_qat.transform import rebuild
from keras_qat.types import OpKind

layers, ops = keras.layers, keras.ops

SHAPE = (8, 8, 3)


def relu(x: Any) -> Any:
    """Named like a function of Keras, and not the same."""
    return ops.relu(x) - 0.5


class LearnedScale(layers.Layer):
    """A weight on the left of an operator, and a reshape with the open batch size."""

    def build(self, shape: Any) -> None:
        self.scale = self.add_weight(shape=(shape[-1],), initializer="random_normal", name="scale")

    def call(self, x: Any) -> Any:
        batch, height, width, channels = ops.shape(x)
        rows = ops.reshape(1.0 - self.scale * x, (batch, height * width, channels))
        rows = ops.reshape(self.scale + rows, (batch, -1, 2 * channels))
        return ops.reshape(rows, (-1, height, width, channels))


class ShiftedReLU(layers.ReLU):
    def call(self, inputs: Any) -> Any:
        return super().call(inputs) - 0.5


class DepthwiseOfOldFiles(layers.DepthwiseConv2D):
    """What people write to load files of an earlier Keras."""

    def __init__(self, *args: Any, groups: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.groups_of_the_file = groups


class Doubled(keras.Model):
    """A functional model that does more than its graph says."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return 2.0 * super().call(inputs, training=training) + 1.0


class Trained(keras.Model):
    """A functional model that is trained otherwise, and computes what its graph says."""

    def train_step(self, data: Any) -> Any:
        return super().train_step(data)


class Gain(layers.Layer):
    """A weight of its own, used in `keras.ops`."""

    def build(self, shape: Any) -> None:
        self.gain = self.add_weight(shape=(shape[-1],), initializer="random_normal", name="gain")

    def call(self, x: Any) -> Any:
        return ops.relu(x) * self.gain

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


class OwnConvolutions(layers.Layer):
    """Kernels of its own, used in `keras.ops`."""

    def build(self, shape: Any) -> None:
        self.kernel = self.add_weight(shape=(3, 3, shape[-1], 6), name="kernel")
        self.depthwise = self.add_weight(shape=(3, 3, 6, 1), name="depthwise")
        self.matrix = self.add_weight(shape=(6, 4), name="matrix")
        self.bias = self.add_weight(shape=(6,), name="bias")

    def call(self, x: Any) -> Any:
        x = ops.relu(ops.conv(x, self.kernel, strides=2, padding="same") + self.bias)
        x = ops.depthwise_conv(ops.depthwise_conv(x, self.depthwise), self.depthwise, padding="same")
        return ops.matmul(x, self.matrix)


class Block(layers.Layer):
    """Sublayers in attributes and lists, a dropout, a nested layer and an operator."""

    def __init__(self, filters: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.convs = [layers.Conv2D(filters, 3, padding="same"), layers.Conv2D(filters, 1, name="pointwise")]
        self.norm, self.drop, self.gain = layers.BatchNormalization(), layers.Dropout(0.5), Gain()

    def build(self, shape: Any) -> None:
        for layer in (self.convs[0], self.norm, self.convs[1], self.gain):
            layer.build(shape)
            shape = (*shape[:-1], 4)

    def call(self, x: Any, training: bool | None = None) -> Any:
        y = self.norm(self.convs[0](x), training=training)
        y = self.drop(ops.silu(y), training=training)
        return {"sum": self.gain(self.convs[1](y)) + y, "first": y}

    def compute_output_shape(self, shape: Any) -> Any:
        return {"sum": (*shape[:-1], 4), "first": (*shape[:-1], 4)}


class Branches(layers.Layer):
    """Several inputs, one by keyword."""

    def call(self, pair: Any, scale: Any = None) -> Any:
        return ops.maximum(pair[0], pair[1]) * scale


class Subclassed(keras.Model):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.body = keras.Sequential([layers.Conv2D(4, 3), layers.ReLU()])

    def call(self, x: Any) -> Any:
        return self.body(x) * 0.5


class AroundAModel(layers.Layer):
    """Calls a functional model, in which Keras replaces `training=True` by that of `predict`."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        inner = keras.Input((8, 8, 4))
        self.part = keras.Model(inner, layers.Dropout(0.5)(layers.Conv2D(4, 3)(inner), training=True))

    def call(self, x: Any) -> Any:
        return ops.relu(self.part(x))


def network(body: Callable[[Any], Any]) -> keras.Model:
    """A convolution, the body, and a classifier; weights and statistics are random."""
    keras.utils.set_random_seed(0)
    image = keras.Input(SHAPE, name="image")
    x = body(layers.Conv2D(4, 3, padding="same", name="stem")(image))
    model = keras.Model(image, layers.Dense(2, name="head")(layers.GlobalAveragePooling2D()(x)))
    random = np.random.default_rng(0)
    for weight in model.weights:
        if weight.dtype == "float32":
            weight.assign(random.uniform(0.1, 1, weight.shape) * random.choice([1.0, 1.0, -0.3], weight.shape))
        if "variance" in weight.path:
            weight.assign(random.uniform(0.3, 2, weight.shape))
    return model


def functional_part(kind: type) -> Any:
    inner = keras.Input((8, 8, 4))
    return kind(inner, layers.Conv2D(4, 3, padding="same", name="inner")(inner), name="part")


def in_time(layer: Any, x: Any) -> Any:
    both = ops.concatenate([ops.expand_dims(x, 1), ops.expand_dims(x * 0.5, 1)], 1)
    made = layers.TimeDistributed(layer, name="steps")(both)
    return made[:, 0] - made[:, 1] * 2


def called_twice(block: Block, x: Any) -> Any:
    return block(block(x)["first"])["sum"]


BODIES: dict[str, Callable[[Any], Any]] = {
    "a function called relu in a convolution": layers.Conv2D(4, 3, activation=relu, name="conv"),
    "a function called relu in a dense layer": layers.Dense(4, activation=relu, name="dense"),
    "a function called relu as a layer": layers.Activation(relu, name="act"),
    "a lambda": layers.Lambda(lambda x: ops.sigmoid(x) * 2 - 1, name="lambda"),
    "a subclass with its own call": ShiftedReLU(name="shifted"),
    "a subclass with its own arguments": DepthwiseOfOldFiles(3, groups=1, name="depthwise"),
    "a functional subclass with its own call": functional_part(Doubled),
    "a functional subclass with its own training": functional_part(Trained),
    "a weight on the left": LearnedScale(name="scale"),
    "a weight of its own": Gain(name="gain"),
    "kernels of its own": OwnConvolutions(name="own"),
    "steps in time": lambda x: in_time(layers.Conv2D(4, 3, name="conv"), x),
    "a custom layer in time": lambda x: in_time(Gain(name="gain"), x),
    "a block": lambda x: Block(4, name="block")(x)["sum"],
    "a block called twice": lambda x: called_twice(Block(4, name="block"), x),
    "several inputs": lambda x: Branches(name="branches")([x, x * 0.5 - 0.25], scale=ops.relu(x)),
    "a subclassed model": Subclassed(name="subclassed"),
    "a layer around a functional model": AroundAModel(name="around"),
    "spectral normalization": layers.SpectralNormalization(layers.Conv2D(4, 3), name="spectral"),
}


def run(path: Path, images: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"image": images})
    return np.asarray(found)


def images(count: int = 4) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, *SHAPE)).astype("float32")


@pytest.mark.parametrize("name", BODIES)
def test_the_file_computes_what_keras_computes(name: str, tmp_path: Path) -> None:
    model = network(BODIES[name])
    export_onnx(model, tmp_path / "float.onnx")
    expected = np.asarray(model(images(), training=False))
    np.testing.assert_allclose(run(tmp_path / "float.onnx", images()), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.asarray(rebuild(trace(model))(images())), expected, rtol=1e-4, atol=1e-5)


def layer_names(graph: Graph) -> list[str]:
    return [node.layer for node in graph.nodes]


def test_parts_are_named_after_the_attributes_that_hold_them() -> None:
    """Keras numbers automatic names anew in each process; the names of attributes and of the user's stay."""
    graph = trace(network(BODIES["a block"])).graph
    parts = ["convs_0", "norm", "silu", "drop", "pointwise", "gain_relu", "gain"]
    assert layer_names(graph)[2:-2] == [*(f"block_{part}" for part in parts), "block"]
    assert graph.by_name["block"].inputs == ("block_gain", "block_drop")


def test_parts_of_a_block_in_a_quantized_model_have_the_same_names(tmp_path: Path) -> None:
    model = network(BODIES["a block called twice"])
    quantized = quantize(model, images(), "onnxruntime")
    assert {"block_convs_0", "block_pointwise"} <= {decision.layer for decision in quantized.placement.weights}
    names = [node.name for node in trace(quantized.model).graph.nodes if node.kind is not OpKind.FAKE_QUANTIZE]
    assert names == [node.name for node in trace(model).graph.nodes]
    export_onnx(quantized.model, tmp_path / "int8.onnx", target="onnxruntime")
    simulated = np.asarray(quantized.model(images()))
    np.testing.assert_allclose(run(tmp_path / "int8.onnx", images()), simulated, atol=0.05 * np.abs(simulated).max())


def test_signs_come_from_what_is_computed() -> None:
    assert "stem" not in non_negative_tensors(trace(network(BODIES["a function called relu as a layer"])).graph)
    found = non_negative_tensors(trace(network(BODIES["a function called relu as a layer"])).graph)
    assert found == {"act_relu"}
    assert "shifted" not in non_negative_tensors(trace(network(BODIES["a subclass with its own call"])).graph)


def test_reading_through_changes_nothing() -> None:
    model = network(BODIES["a block"])
    block = model.get_layer("block")
    before = [len(layer._inbound_nodes) for layer in (block, *block._flatten_layers())]
    weights = [np.array(weight) for weight in model.weights]
    assert trace(model).graph == trace(model).graph
    assert [len(layer._inbound_nodes) for layer in (block, *block._flatten_layers())] == before
    for weight, value in zip(model.weights, weights, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_own_kernels_and_steps_in_time_get_integer_weights() -> None:
    kinds = {node.layer: node.kind for node in trace(network(BODIES["kernels of its own"])).graph.nodes}
    assert kinds["own_conv"] is OpKind.CONV
    assert kinds["own_depthwise_conv"] is OpKind.DEPTHWISE_CONV
    assert kinds["own"] is OpKind.DENSE
    graph = trace(network(BODIES["kernels of its own"])).graph
    assert {"own_depthwise_conv", "own_depthwise_conv_2"} <= graph.by_name.keys()
    steps = trace(network(BODIES["steps in time"])).graph
    assert [node.name for node in steps.nodes if node.layer == "conv"] == ["conv", "conv#2"]


def test_every_layer_with_a_converter_is_one_node_before_the_converters_are_imported() -> None:
    """Otherwise a layer would be read through, or not, depending on what was imported."""
    with_converter = {kind for kind in CONVERTERS if issubclass(kind, layers.Layer) and kind.__module__[:6] == "keras."}
    assert with_converter - _EXPANSIONS.keys() <= _BUILT_IN.keys()


# --- shapes -----------------------------------------------------------------------------------------------------------


def test_a_model_of_any_size_has_the_shapes_of_its_call() -> None:
    inner = keras.Input((None, None, 3))
    body = keras.Model(inner, layers.Conv2D(4, 3, strides=2, name="conv")(inner), name="body")
    image = keras.Input(batch_shape=(2, 9, 11, 3))
    traced = trace(keras.Model(image, [body(image), body(image[:, 1:8])]))
    assert traced.shape("conv") == (2, 4, 5, 4)
    assert traced.shape("conv#2") == (2, 3, 5, 4)


@pytest.mark.parametrize("filters", [2, 24])
def test_a_shared_kernel_is_stored_once(filters: int, tmp_path: Path) -> None:
    image = keras.Input((16, 16, 3), name="image")
    head = layers.Conv2D(filters, 3, padding="same", name="head")
    model = keras.Model(image, [head(image), head(layers.MaxPooling2D()(image)), head(image * 0.5)])
    export_onnx(model, tmp_path / "float.onnx")
    kernels = [t for t in onnx.load(tmp_path / "float.onnx").graph.initializer if len(t.dims) == 4]
    assert [list(kernel.dims) for kernel in kernels] == [[filters, 3, 3, 3]]


# --- what is refused --------------------------------------------------------------------------------------------------


class DecidesByNumbers(layers.Layer):
    def call(self, x: Any) -> Any:
        return x if float(ops.sum(x)) > 0 else -x

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


class Never:
    """Images that must not be read."""

    def __iter__(self) -> Any:
        raise AssertionError("an image was read")


def test_what_cannot_be_read_is_named_with_its_path_before_an_image_is_read() -> None:
    inner = keras.Input((8, 8, 4))
    part = keras.Model(inner, DecidesByNumbers(name="decides")(inner), name="part")
    with pytest.raises(
        UnsupportedModelError, match=r"'part/decides'.*Received: a DecidesByNumbers.*can't be read"
    ) as e:
        quantize(network(part), Never(), bias_correction=False)
    assert "keras.ops" in str(e.value)


class AlwaysTraining(layers.Layer):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.drop = layers.Dropout(0.5, name="drop")

    def call(self, x: Any) -> Any:
        return self.drop(x, training=True)


def test_a_layer_that_another_calls_in_training_mode_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match=r"'dropped/dropped_drop' is called with training=True"):
        trace(network(AlwaysTraining(name="dropped")))


class Dissembles(layers.Layer):
    def call(self, x: Any) -> Any:
        return x if keras.utils.is_keras_tensor(x) else x - 0.5

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


class CallsNumPy(layers.Layer):
    def call(self, x: Any) -> Any:
        return ops.relu(x) if keras.utils.is_keras_tensor(x) else ops.relu(ops.convert_to_tensor(np.asarray(x)))

    def compute_output_shape(self, shape: Any) -> Any:
        return shape


@pytest.mark.parametrize(("kind", "why"), [(Dissembles, "something else"), (CallsNumPy, "can't be compiled")])
def test_what_differs_on_numbers_is_not_read(kind: type[layers.Layer], why: str) -> None:
    """File and simulation are both made from what was read, so that nothing else could tell."""
    calls = trace(network(kind(name="layer"))).calls
    assert why in str(calls["layer"].unread)
    with pytest.raises(UnsupportedModelError, match=f"'layer'.*{why}"):
        quantize(network(kind(name="layer")), Never(), bias_correction=False)


def test_a_mask_is_refused() -> None:
    signal = keras.Input((6, 4), name="signal")
    pooled = layers.GlobalAveragePooling1D(name="pool")(layers.Masking()(signal))
    with pytest.raises(UnsupportedModelError, match=r"'pool' reads a mask"):
        trace(keras.Model(signal, pooled))
