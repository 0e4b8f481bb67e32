"""Placements derived by hand, and the rules that every placement follows."""

from collections.abc import Callable

import keras
import pytest

from keras_qat.errors import UserError
from keras_qat.graph import OUTPUT, Graph, Node, trace
from keras_qat.placement import Overrides, Rule, explain, plan
from keras_qat.targets import find_target
from keras_qat.types import OpKind, Placement, QuantSpec

layers = keras.layers
TARGETS = ("tensorrt", "onnxruntime", "openvino")
INT8 = QuantSpec(signed=True, storage="int8")
UINT8_SIGNED = QuantSpec(signed=True, storage="uint8")
UINT8 = QuantSpec(signed=False, storage="uint8")


def residual_block() -> keras.Model:
    """conv-bn-relu, conv-bn, identity shortcut, add, relu, pooling, classifier."""
    x = image = keras.Input((8, 8, 4), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="conv_a")(x)
    x = layers.BatchNormalization(name="bn_a")(x)
    x = layers.ReLU(name="relu_a")(x)
    x = layers.Conv2D(4, 3, padding="same", name="conv_b")(x)
    x = layers.BatchNormalization(name="bn_b")(x)
    x = layers.Add(name="add")([image, x])
    x = layers.ReLU(name="relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(image, layers.Dense(3, activation="softmax", name="classes")(x))


def two_conv_branches() -> keras.Model:
    """A projection shortcut: both branches of the Add are convolutions with batch norm."""
    image = keras.Input((8, 8, 3), name="image")
    left = layers.BatchNormalization(name="bn_l")(layers.Conv2D(4, 1, name="conv_l")(image))
    right = layers.BatchNormalization(name="bn_r")(layers.Conv2D(4, 1, name="conv_r")(image))
    return keras.Model(image, layers.ReLU(name="relu")(layers.Add(name="add")([left, right])))


def max_pool_stem() -> keras.Model:
    """Pad, conv, relu, pad, max-pool, conv: the stem of a ResNet."""
    x = image = keras.Input((8, 8, 3), name="image")
    x = layers.ZeroPadding2D(1, name="pad")(x)
    x = layers.Conv2D(4, 3, name="conv")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.ZeroPadding2D(1, name="pool_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="max_pool")(x)
    return keras.Model(image, layers.Conv2D(2, 1, name="last")(x))


def branching_conv() -> keras.Model:
    """A second layer reads the convolution that feeds the Add, so the Add can't run inside its kernel."""
    image = keras.Input((8, 8, 4), name="image")
    conv = layers.Conv2D(4, 1, name="conv")(image)
    add = layers.Add(name="add")([image, conv])
    other = layers.Conv2D(2, 1, name="other")(conv)
    return keras.Model(image, [add, other])


def nested_two_outputs() -> keras.Model:
    image = keras.Input((4, 4, 2), name="image")
    flat = layers.Flatten(name="flat")(layers.ReLU(name="relu")(image))
    return keras.Model(image, [flat, layers.Dense(2, name="dense")(flat)])


MODELS = [residual_block, two_conv_branches, max_pool_stem, branching_conv, nested_two_outputs]


@pytest.fixture(scope="module")
def resnets() -> dict[str, Graph]:
    """The graphs of ResNet50 and ResNet50V2."""
    builders = {"v1": keras.applications.ResNet50, "v2": keras.applications.ResNet50V2}
    return {
        version: trace(build(weights=None, input_shape=(32, 32, 3), classes=10)).graph
        for version, build in builders.items()
    }


def specs_of(placement: Placement) -> dict[str, QuantSpec]:
    return dict(placement.specs)


# --- plans by hand ----------------------------------------------------------------------------------------------------


def test_residual_block_for_tensorrt() -> None:
    """Inputs of conv, dense and average pooling; of the Add only the shortcut, since conv_b takes the Add in."""
    placement = plan(trace(residual_block()).graph, "tensorrt")
    assert placement.quantized_edges == {
        ("image", "conv_a", 0),
        ("relu_a", "conv_b", 0),
        ("image", "add", 0),
        ("relu", "pool", 0),
        ("pool", "classes", 0),
    }
    assert specs_of(placement) == dict.fromkeys(["image", "relu_a", "relu", "pool"], INT8)
    assert {(w.layer, w.spec) for w in placement.weights} == {
        ("conv_a", QuantSpec(narrow=True, axis=3)),
        ("conv_b", QuantSpec(narrow=True, axis=3)),
        ("classes", QuantSpec(narrow=True, axis=1)),
    }


def test_residual_block_for_onnxruntime() -> None:
    """All of TensorRT's, and the Add's convolution branch."""
    placement = plan(trace(residual_block()).graph, "onnxruntime")
    assert placement.quantized_edges == {
        ("image", "conv_a", 0),
        ("relu_a", "conv_b", 0),
        ("image", "add", 0),
        ("bn_b", "add", 1),
        ("relu", "pool", 0),
        ("pool", "classes", 0),
    }
    assert specs_of(placement) == {
        "image": UINT8_SIGNED,
        "relu_a": UINT8,
        "bn_b": UINT8_SIGNED,
        "relu": UINT8,
        "pool": UINT8,
    }


def test_stem_for_tensorrt() -> None:
    """The pair stands before the pad; max-pool commutes with Q/DQ, so only what follows it asks for a pair."""
    placement = plan(trace(max_pool_stem()).graph, "tensorrt")
    assert placement.quantized_edges == {("image", "pad", 0), ("max_pool", "last", 0)}
    assert {t.tensor: t.range_of for t in placement.tensors} == {"image": "image", "max_pool": "max_pool"}


def test_stem_for_onnxruntime() -> None:
    """Max-pool is an integer kernel with one scale on both sides; the pairs stand before both pads."""
    placement = plan(trace(max_pool_stem()).graph, "onnxruntime")
    assert placement.quantized_edges == {("image", "pad", 0), ("relu", "pool_pad", 0), ("max_pool", "last", 0)}
    assert {t.tensor: t.range_of for t in placement.tensors} == {"image": "image", "relu": "relu", "max_pool": "relu"}
    assert placement.observed == ("image", "relu"), "the shared range is observed once"
    assert placement.specs["max_pool"] == placement.specs["relu"] == UINT8


def test_depthwise_and_inner_activation() -> None:
    """A depthwise kernel (h, w, in, multiplier) has its channels on axis 2; an activation inside a layer is no edge."""
    x = image = keras.Input((8, 8, 3), name="image")
    x = layers.DepthwiseConv2D(3, depth_multiplier=2, activation="relu", name="depthwise")(x)
    model = keras.Model(image, layers.Conv2D(2, 1, name="pointwise")(x))
    placement = plan(trace(model).graph, "onnxruntime")
    assert placement.quantized_edges == {("image", "depthwise", 0), ("depthwise", "pointwise", 0)}
    assert specs_of(placement) == {"image": UINT8_SIGNED, "depthwise": UINT8}
    assert {w.layer: w.spec.axis for w in placement.weights if w.spec} == {"depthwise": 2, "pointwise": 3}


# --- rules ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("build", MODELS)
def test_every_edge_is_decided_with_a_reason(build: Callable[[], keras.Model], target: str) -> None:
    graph = trace(build()).graph
    placement = plan(graph, target)
    assert [(e.tensor, e.consumer, e.index) for e in placement.edges] == [
        (e.tensor, e.consumer, e.index) for e in graph.edges
    ]
    assert all(edge.reason.strip() for edge in placement.edges)
    assert all(weight.reason.strip() for weight in placement.weights)
    quantized = {edge.tensor for edge in placement.edges if edge.quantized}
    assert {t.tensor for t in placement.tensors} == quantized
    assert len(placement.tensors) == len(quantized), "one pair for each tensor"
    assert {t.range_of for t in placement.tensors} <= quantized


@pytest.mark.parametrize("target", TARGETS)
def test_no_pair_inside_a_fused_kernel(target: str) -> None:
    placement = plan(trace(residual_block()).graph, target)
    inside = {("conv_a", "bn_a"), ("bn_a", "relu_a"), ("conv_b", "bn_b"), ("add", "relu")}
    decisions = {(e.tensor, e.consumer): e for e in placement.edges}
    for edge in inside:
        assert not decisions[edge].quantized
        assert "fused" in decisions[edge].reason


def test_tensorrt_leaves_exactly_the_last_of_two_conv_branches() -> None:
    placement = plan(trace(two_conv_branches()).graph, "tensorrt")
    into_add = {(e.tensor, e.quantized) for e in placement.edges if e.consumer == "add"}
    assert into_add == {("bn_l", True), ("bn_r", False)}


def test_onnxruntime_quantizes_both_conv_branches() -> None:
    placement = plan(trace(two_conv_branches()).graph, "onnxruntime")
    assert {(e.tensor, e.quantized) for e in placement.edges if e.consumer == "add"} == {("bn_l", True), ("bn_r", True)}


def test_tensorrt_leaves_the_conv_branch_wherever_it_stands() -> None:
    image = keras.Input((8, 8, 4), name="image")
    conv = layers.Conv2D(4, 1, name="conv")(image)
    placement = plan(trace(keras.Model(image, layers.Add(name="add")([conv, image]))).graph, "tensorrt")
    assert placement.quantized_edges == {("image", "conv", 0), ("image", "add", 1)}


def test_tensorrt_quantizes_a_conv_that_is_read_twice() -> None:
    """Its result must exist outside the kernel, so the addition can't run inside."""
    placement = plan(trace(branching_conv()).graph, "tensorrt")
    assert {("image", "add", 0), ("conv", "add", 1), ("conv", "other", 0)} <= placement.quantized_edges


@pytest.mark.parametrize("after", ["relu", "inner relu", "output"])
def test_tensorrt_quantizes_a_branch_that_ends_in_more_than_a_conv(after: str) -> None:
    """Only conv → Add runs as one kernel: not conv → relu → Add, and not a conv whose result leaves the model."""
    image = keras.Input((8, 8, 4), name="image")
    conv = layers.Conv2D(4, 1, activation="relu" if after == "inner relu" else None, name="conv")(image)
    branch = layers.ReLU(name="relu")(conv) if after == "relu" else conv
    add = layers.Add(name="add")([image, branch])
    model = keras.Model(image, [add, conv] if after == "output" else add)
    placement = plan(trace(model).graph, "tensorrt")
    assert {(e.index, e.quantized) for e in placement.edges if e.consumer == "add"} == {(0, True), (1, True)}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("build", MODELS)
def test_model_output_stays_float(build: Callable[[], keras.Model], target: str) -> None:
    """No pair on the way out: neither on the edge itself, nor before an operation that only moves numbers."""
    graph = trace(build()).graph
    placement = plan(graph, target)
    quantized = placement.quantized_edges
    assert not any(consumer == OUTPUT for _, consumer, _ in quantized)
    for tensor in graph.outputs:
        node = graph.producer(tensor)
        while node.kind in {OpKind.ZERO_PAD, OpKind.RESHAPE, OpKind.IDENTITY}:
            assert (node.inputs[0], node.name, 0) not in quantized, f"the output {tensor!r} would be rounded"
            node = graph.producer(node.inputs[0])


@pytest.mark.parametrize("target", TARGETS)
def test_moving_operations_are_seen_through_in_a_row(target: str) -> None:
    """ReLU → dropout → flatten → dense: one pair, on the edge out of the ReLU, where the engine can fuse it."""
    x = image = keras.Input((4, 4, 2), name="image")
    x = layers.Conv2D(2, 3, name="conv")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.Flatten(name="flatten")(layers.Dropout(0.1, name="dropout")(x))
    placement = plan(trace(keras.Model(image, layers.Dense(2, name="dense")(x))).graph, target)
    assert placement.quantized_edges == {("image", "conv", 0), ("relu", "dropout", 0)}
    behind = {(e.tensor, e.consumer): e.reason for e in placement.edges}
    assert "'relu'" in behind["dropout", "flatten"]
    assert "'relu'" in behind["flatten", "dense"]


@pytest.mark.parametrize(
    ("target", "expected"),
    [("tensorrt", {"relu": INT8, "image": INT8}), ("onnxruntime", {"relu": UINT8, "image": UINT8_SIGNED})],
)
def test_unsigned_for_non_negative_tensors_on_onnxruntime_only(target: str, expected: dict[str, QuantSpec]) -> None:
    x = image = keras.Input((8, 8, 3), name="image")
    x = layers.ReLU(name="relu")(layers.Conv2D(2, 3, name="conv")(x))
    assert specs_of(plan(trace(keras.Model(image, layers.Conv2D(2, 3)(x))).graph, target)) == expected


@pytest.mark.parametrize("target", TARGETS)
def test_shared_layer_has_one_weight_decision(target: str) -> None:
    image = keras.Input((8, 8, 3), name="image")
    shared = layers.Conv2D(3, 1, name="shared")
    placement = plan(trace(keras.Model(image, shared(shared(image)))).graph, target)
    assert [weight.layer for weight in placement.weights] == ["shared"]
    assert placement.quantized_edges == {("image", "shared", 0), ("shared", "shared#2", 0)}


def test_operation_without_a_rule_stays_float() -> None:
    image = keras.Input((8, 8, 3), name="image")
    model = keras.Model(image, layers.Activation("tanh", name="tanh")(keras.ops.sin(image)))
    placement = plan(trace(model).graph, "tensorrt")
    assert placement.tensors == ()
    assert placement.quantized_edges == frozenset()


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weight_bits(bits: int) -> None:
    placement = plan(trace(residual_block()).graph, "tensorrt", weight_bits=bits)
    assert {weight.spec.bits for weight in placement.weights if weight.spec} == {bits}
    assert {t.spec.bits for t in placement.tensors} == {8}


def test_unknown_target_lists_the_known() -> None:
    with pytest.raises(UserError, match=r"Received: 'tensorrrt'.*onnxruntime.*tensorrt"):
        plan(trace(residual_block()).graph, "tensorrrt")


def test_target_may_be_a_table() -> None:
    graph = trace(residual_block()).graph
    assert plan(graph, find_target("tensorrt")) == plan(graph, "tensorrt")


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("build", MODELS)
def test_explain_has_a_line_for_each_edge_and_weight(build: Callable[[], keras.Model], target: str) -> None:
    placement = plan(trace(build()).graph, target)
    lines = explain(placement).splitlines()[2:]
    assert len(lines) == len(placement.edges) + len(placement.weights)
    for line, edge in zip(lines, placement.edges, strict=False):
        assert f"{edge.tensor} → {edge.consumer}[{edge.index}]" in line
        assert edge.reason in line
        assert ("| float |" in line) is not edge.quantized
    for line, weight in zip(lines[len(placement.edges) :], placement.weights, strict=True):
        assert weight.layer in line


def test_explain_names_the_integers() -> None:
    text = explain(plan(trace(residual_block()).graph, "onnxruntime", weight_bits=4))
    assert "| image → conv_a[0] | uint8 zero-point 128 |" in text
    assert "| relu_a → conv_b[0] | uint8 zero-point 0 |" in text
    assert "| weights of conv_a | int8 zero-point 0 in 4 bits per channel (axis 3) |" in text


def test_graph_made_by_hand_needs_no_keras() -> None:
    graph = Graph(
        (
            Node("image", OpKind.INPUT, "image", (), ("image",)),
            Node("conv", OpKind.CONV, "conv", ("image",), ("conv",)),
        ),
        ("conv",),
    )
    assert plan(graph, "tensorrt").quantized_edges == {("image", "conv", 0)}


# --- ResNet50 ---------------------------------------------------------------------------------------------------------

CONVS = 1 + 16 * 3 + 4
"""The stem, three in each of 16 bottlenecks, four projection shortcuts (the first block of each stage)."""


def test_resnet50_v1_counts(resnets: dict[str, Graph]) -> None:
    """Each number from the architecture.

    TensorRT, edges: the inputs of 53 convolutions, of the classifier and of the average pooling, and one of each of 16
    Adds. Tensors: the image (the pad is seen through), the max-pool's output, two ReLUs within each block, 16 block
    outputs (each read by the next block's convolutions and its Add), four projection shortcuts, the pooled features.

    ONNX Runtime adds the other branch of each Add (16 edges, 16 tensors) and the max-pool's input (1, 1); OpenVINO adds
    the max-pool's input alone.
    """
    edges = CONVS + 1 + 1 + 16
    tensors = 1 + 1 + 16 * 2 + 16 + 4 + 1
    assert (edges, tensors) == (71, 55)
    tensorrt, onnxruntime, openvino = (plan(resnets["v1"], target) for target in TARGETS)
    assert (len(tensorrt.tensors), len(tensorrt.quantized_edges)) == (tensors, edges)
    assert (len(onnxruntime.tensors), len(onnxruntime.quantized_edges)) == (tensors + 17, edges + 17) == (72, 88)
    # The max-pool's two sides share a range; all else has its own.
    assert (len(tensorrt.observed), len(onnxruntime.observed)) == (55, 71)
    assert (len(openvino.tensors), len(openvino.quantized_edges), len(openvino.observed)) == (56, 72, 55)
    assert openvino.quantized_edges - tensorrt.quantized_edges == {("conv1_relu", "pool1_pad", 0)}
    assert len(tensorrt.weights) == len(onnxruntime.weights) == CONVS + 1
    assert tensorrt.quantized_edges < onnxruntime.quantized_edges


def test_resnet50_v2_counts(resnets: dict[str, Graph]) -> None:
    """Each number from the architecture: batch norm and ReLU come before the convolutions, so nothing folds them away.

    TensorRT, edges: as in V1, and the input of the batch norm that opens each of 16 blocks and of the last one.
    Tensors: the image, the stem's max-pool, 16 block outputs, 16 opening ReLUs, two ReLUs within each block, four
    projection shortcuts, three max-pool shortcuts (stages one to three end with a stride), the last ReLU, the features.

    ONNX Runtime adds the other branch of each Add (16 edges, 16 tensors) and the input of four max-pools; of those the
    shortcuts' are block outputs, which have their pair already, so that is 4 edges and 1 tensor. OpenVINO adds the
    max-pools' inputs alone.
    """
    edges = CONVS + 1 + 1 + 16 + 17
    tensors = 1 + 1 + 16 + 16 + 16 * 2 + 4 + 3 + 1 + 1
    assert (edges, tensors) == (88, 75)
    tensorrt, onnxruntime, openvino = (plan(resnets["v2"], target) for target in TARGETS)
    assert (len(tensorrt.tensors), len(tensorrt.quantized_edges)) == (tensors, edges)
    assert (len(onnxruntime.tensors), len(onnxruntime.quantized_edges)) == (tensors + 17, edges + 20) == (92, 108)
    # Four max-pools share a range with their input.
    assert (len(tensorrt.observed), len(onnxruntime.observed)) == (75, 88)
    assert (len(openvino.tensors), len(openvino.quantized_edges), len(openvino.observed)) == (76, 92, 72)
    assert len(tensorrt.weights) == len(onnxruntime.weights) == CONVS + 1


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_tensorrt_leaves_one_branch_of_each_resnet_add(resnets: dict[str, Graph], version: str) -> None:
    graph = resnets[version]
    quantized = plan(graph, "tensorrt").quantized_edges
    for node in graph.nodes:
        if node.kind is OpKind.ADD:
            left = [tensor for i, tensor in enumerate(node.inputs) if (tensor, node.name, i) not in quantized]
            assert left == [node.inputs[-1]], "the residual branch, which Keras adds last"


def _concatenated() -> keras.Model:
    """A concatenation of a signed and a non-negative tensor, and a max-pool behind it."""
    image = keras.Input((8, 8, 3), name="image")
    signed = layers.Conv2D(2, 1, name="signed")(image)
    positive = layers.Conv2D(2, 1, activation="relu", name="positive")(image)
    joined = layers.Concatenate(name="joined")([signed, positive])
    pooled = layers.MaxPooling2D(2, name="pooled")(joined)
    return keras.Model(image, layers.Conv2D(2, 1, name="last")(pooled))


def test_concatenation_has_one_scale_where_the_engine_needs_it() -> None:
    """OpenVINO: the range of both inputs, and a sign since one of them has it. ONNX Runtime requantizes each input."""
    graph = trace(_concatenated()).graph
    openvino, onnxruntime = plan(graph, "openvino"), plan(graph, "onnxruntime")
    shared = ["signed", "positive", "joined", "pooled"]
    assert {t.tensor: (t.range_of, t.joined) for t in openvino.tensors if t.tensor in shared} == dict.fromkeys(
        shared, ("signed", ("positive",))
    )
    assert openvino.sources == {"image": ("image",), "signed": ("signed", "positive")}
    assert {openvino.specs[name] for name in shared} == {UINT8_SIGNED}
    assert {t.tensor: t.range_of for t in onnxruntime.tensors if t.tensor in shared} == {
        "signed": "signed",
        "positive": "positive",
        "joined": "joined",
        "pooled": "joined",
    }
    assert onnxruntime.specs["positive"] == UINT8


def test_concatenations_that_meet_share_one_scale() -> None:
    """As in a dense block: a tensor that two concatenations read ties the others of both to one scale."""
    image = keras.Input((4, 4, 2), name="image")
    a, b, c = (layers.Conv2D(2, 1, name=name)(image) for name in "abc")
    first = layers.Concatenate(name="first")([a, b])
    second = layers.Concatenate(name="second")([b, c])
    outputs = [layers.Conv2D(1, 1, name=f"read_{i}")(x) for i, x in enumerate((first, second))]
    placement = plan(trace(keras.Model(image, outputs)).graph, "openvino")
    assert placement.sources == {"image": ("image",), "a": ("a", "b", "c")}


def test_range_of_a_concatenation_holds_an_input_that_stays_float() -> None:
    """`b` has no pair, so its numbers are seen in the concatenation alone."""
    image = keras.Input((4, 4, 2), name="image")
    a, b = (layers.Conv2D(2, 1, name=name)(image) for name in "ab")
    joined = layers.Concatenate(name="joined")([a, b])
    graph = trace(keras.Model(image, layers.Conv2D(1, 1, name="last")(joined))).graph
    placement = plan(graph, "openvino", overrides=Overrides(rules=(Rule("b", output=False),)))
    assert placement.sources == {"image": ("image",), "a": ("a", "joined")}


def residual_with_dropout(*behind: object) -> keras.Model:
    """MBConv's residual: the convolution's branch goes through dropout before the Add."""
    image = keras.Input((8, 8, 4), name="image")
    x = layers.BatchNormalization(name="bn")(layers.Conv2D(4, 1, name="conv")(image))
    for layer in behind:
        x = layer(x)  # type: ignore[operator]
    return keras.Model(image, layers.Add(name="add")([x, image]))


@pytest.mark.parametrize("target", ["tensorrt", "openvino"])
def test_the_residual_add_sees_past_dropout(target: str) -> None:
    dropout = (layers.Dropout(0.2, name="drop", noise_shape=(None, 1, 1, 1)), layers.Activation("linear", name="same"))
    placement = plan(trace(residual_with_dropout(*dropout)).graph, target)
    assert placement.quantized_edges == {("image", "conv", 0), ("image", "add", 1)}
    (branch,) = (edge for edge in placement.edges if (edge.consumer, edge.index) == ("add", 0))
    assert "runs inside the kernel of this convolution" in branch.reason


@pytest.mark.parametrize("target", ["tensorrt", "openvino"])
def test_dropout_with_a_second_reader_is_no_branch_of_the_kernel(target: str) -> None:
    model = residual_with_dropout(layers.Dropout(0.2, name="drop"))
    other = layers.Conv2D(2, 1, name="other")(model.get_layer("drop").output)
    placement = plan(trace(keras.Model(model.input, [model.output, other])).graph, target)
    assert ("bn", "drop", 0) in placement.quantized_edges
    assert ("image", "add", 1) in placement.quantized_edges


def gated(activation: str) -> keras.Model:
    """A convolution with an activation of its own, and a depthwise one."""
    x = image = keras.Input((8, 8, 4), name="image")
    x = layers.Conv2D(4, 3, activation=activation, name="conv")(x)
    return keras.Model(image, layers.DepthwiseConv2D(3, activation=activation, name="depth")(x))


@pytest.mark.parametrize("activation", ["swish", "sigmoid", "gelu", "leaky_relu", "tanh"])
def test_a_convolutions_own_activation_is_placed_as_a_layer_behind_it(activation: str) -> None:
    """ONNX Runtime convolves in integers only between two pairs; the other engines need none behind it."""
    image = keras.Input((8, 8, 4), name="image")
    x = layers.Activation(activation, name="conv_activation")(layers.Conv2D(4, 3, name="conv")(image))
    x = layers.Activation(activation, name="depth_activation")(layers.DepthwiseConv2D(3, name="depth")(x))
    for target in TARGETS:
        placement, expected = (plan(trace(m).graph, target) for m in (gated(activation), keras.Model(image, x)))
        assert placement == expected
        assert (("conv", "conv_activation", 0) in placement.quantized_edges) == (target == "onnxruntime")
        assert ("conv_activation", "depth", 0) in placement.quantized_edges


@pytest.mark.parametrize("activation", ["relu", "relu6", "linear", None])
def test_an_activation_that_runs_inside_the_kernel_stays_there(activation: str) -> None:
    assert [node.name for node in trace(gated(activation)).graph.nodes] == ["image", "conv", "depth"]
