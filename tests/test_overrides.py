"""Overrides: placements derived by hand, the order of rules, refused rules, JSON, and the exported file."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

from keras_qat import Overrides, Rule, apply_placement, calibrate, export_onnx, plan, trace
from keras_qat.errors import StorageError, UserError
from keras_qat.graph import OUTPUT, Edge, Graph, Node
from keras_qat.runtimes import OnnxRuntime
from keras_qat.types import EdgeDecision, OpKind, Placement, QuantSpec

layers = keras.layers
Triples = frozenset[tuple[str, str, int]]

RESIDUAL_TENSORRT: Triples = frozenset(
    {
        ("image", "conv_a", 0),
        ("relu_a", "conv_b", 0),
        ("image", "add", 0),
        ("relu", "pool", 0),
        ("pool", "classes", 0),
    }
)
"""The quantized edges of the block without overrides, as derived in `tests/test_placement.py`."""


@pytest.fixture(scope="module")
def residual() -> Graph:
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
    return trace(keras.Model(image, layers.Dense(3, activation="softmax", name="classes")(x))).graph


def stem_model() -> keras.Model:
    """Pad, conv, relu, pad, max-pool, conv, and a conv beside the pool that reads the relu."""
    x = image = keras.Input((8, 8, 3), name="image")
    x = layers.ZeroPadding2D(1, name="pad")(x)
    x = layers.Conv2D(4, 3, name="conv")(x)
    x = relu = layers.ReLU(name="relu")(x)
    x = layers.ZeroPadding2D(1, name="pool_pad")(x)
    x = layers.MaxPooling2D(3, 2, name="max_pool")(x)
    return keras.Model(image, [layers.Conv2D(2, 1, name="last")(x), layers.Conv2D(2, 1, name="beside")(relu)])


@pytest.fixture(scope="module")
def stem() -> Graph:
    return trace(stem_model()).graph


def planned(graph: Graph, target: str, *rules: Rule, **options: object) -> Placement:
    return plan(graph, target, overrides=Overrides(rules, **options))  # type: ignore[arg-type]


def reason(placement: Placement, tensor: str, consumer: str) -> str:
    return next(e.reason for e in placement.edges if (e.tensor, e.consumer) == (tensor, consumer))


def float_weights(placement: Placement) -> set[str]:
    return {weight.layer for weight in placement.weights if weight.spec is None}


# --- plans by hand ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime", "openvino"])
def test_no_overrides_change_nothing(residual: Graph, target: str) -> None:
    assert planned(residual, target) == plan(residual, target)


def test_first_and_last_layer_stay_float(residual: Graph) -> None:
    placement = planned(residual, "tensorrt", Rule.keep_float("conv_a", "classes"))
    assert placement.quantized_edges == RESIDUAL_TENSORRT - {("image", "conv_a", 0), ("pool", "classes", 0)}
    assert float_weights(placement) == {"conv_a", "classes"}
    assert reason(placement, "image", "conv_a") == "rule 1, 'conv_a', 'classes': inputs=False, weights=False"


def test_a_tensor_float_for_one_reader_and_quantized_for_another(residual: Graph) -> None:
    placement = planned(residual, "tensorrt", Rule("conv_a", inputs=False))
    assert ("image", "add", 0) in placement.quantized_edges
    assert ("image", "conv_a", 0) not in placement.quantized_edges
    assert float_weights(placement) == set(), "inputs and weights are separate"


def test_both_inputs_of_a_residual_add(residual: Graph) -> None:
    placement = planned(residual, "tensorrt", Rule(layers.Add, inputs=True))
    assert placement.quantized_edges == RESIDUAL_TENSORRT | {("bn_b", "add", 1)}
    assert reason(placement, "bn_b", "add") == "rule 1, type Add: inputs=True"


def test_indices_are_exactly_the_inputs(residual: Graph) -> None:
    placement = planned(residual, "tensorrt", Rule(OpKind.ADD, inputs=(1,)))
    assert placement.quantized_edges == (RESIDUAL_TENSORRT - {("image", "add", 0)}) | {("bn_b", "add", 1)}


def test_max_pool_of_tensorrt(stem: Graph) -> None:
    """TensorRT's table leaves the max-pool's input float; a user may want the pair, which stands before the padding."""
    assert ("relu", "pool_pad", 0) not in plan(stem, "tensorrt").quantized_edges
    placement = planned(stem, "tensorrt", Rule(layers.MaxPooling2D, inputs=True))
    assert ("relu", "pool_pad", 0) in placement.quantized_edges
    assert "already quantized at 'relu'" in reason(placement, "pool_pad", "max_pool")


def test_output_of_a_member_is_the_output_of_the_kernel(residual: Graph) -> None:
    """conv_b, bn_b: what leaves the kernel is bn_b's tensor, read by the Add alone."""
    for member in ("conv_b", "bn_b"):
        placement = planned(residual, "tensorrt", Rule(member, output=True))
        assert placement.quantized_edges == RESIDUAL_TENSORRT | {("bn_b", "add", 1)}


def test_output_false_is_for_every_reader(residual: Graph) -> None:
    placement = planned(residual, "tensorrt", Rule("image", output=False))
    assert placement.quantized_edges == {e for e in RESIDUAL_TENSORRT if e[0] != "image"}


def test_partial_quantization(residual: Graph) -> None:
    placement = planned(residual, "tensorrt", Rule.as_target("conv_b"), mode="partial")
    assert placement.quantized_edges == {("relu_a", "conv_b", 0)}
    assert float_weights(placement) == {"conv_a", "classes"}
    assert reason(placement, "image", "conv_a") == "partial quantization: no rule asks for a pair here"
    assert reason(placement, "relu_a", "conv_b").startswith("rule 1, 'conv_b'")


def test_partial_quantization_without_rules_is_the_float_model(residual: Graph) -> None:
    placement = planned(residual, "onnxruntime", mode="partial")
    assert placement.tensors == ()
    assert float_weights(placement) == {"conv_a", "conv_b", "classes"}


def test_weights_and_their_width(residual: Graph) -> None:
    placement = planned(residual, "tensorrt", Rule("conv_*", weight_bits=4), Rule("conv_b", weights=False))
    specs = {weight.layer: weight.spec for weight in placement.weights}
    assert specs == {
        "conv_a": QuantSpec(bits=4, narrow=True, axis=3),
        "conv_b": None,
        "classes": QuantSpec(narrow=True, axis=1),
    }
    assert placement.quantized_edges == RESIDUAL_TENSORRT
    assert "rule 1, 'conv_*': weight_bits=4" in placement.weights[0].reason


def test_a_float_layer_needs_no_quantized_output() -> None:
    """ONNX Runtime wants a convolution's output quantized for its integer kernel; a float convolution has none."""
    x = image = keras.Input((4, 4, 3), name="image")
    x = layers.Conv2D(4, 1, name="conv")(x)
    graph = trace(keras.Model(image, layers.Softmax(name="softmax")(x))).graph
    assert ("conv", "softmax", 0) in plan(graph, "onnxruntime").quantized_edges
    for rule in (Rule("conv", inputs=False), Rule("conv", weights=False)):
        assert ("conv", "softmax", 0) not in planned(graph, "onnxruntime", rule).quantized_edges


def test_predicate(residual: Graph) -> None:
    def many_inputs(node: Node) -> bool:
        return len(node.inputs) > 1

    placement = planned(residual, "tensorrt", Rule(many_inputs, inputs=False))
    assert placement.quantized_edges == RESIDUAL_TENSORRT - {("image", "add", 0)}
    assert "predicate many_inputs" in reason(placement, "image", "add")


def test_subclasses_are_of_the_type() -> None:
    class Squeeze(layers.Conv2D):
        pass

    image = keras.Input((4, 4, 3), name="image")
    graph = trace(keras.Model(image, Squeeze(2, 1, name="squeeze")(image))).graph
    assert planned(graph, "tensorrt", Rule(layers.Conv2D, inputs=False)).tensors == ()
    with pytest.raises(UserError, match="matches no layer"):
        planned(graph, "tensorrt", Rule(layers.DepthwiseConv2D, inputs=False))


def test_one_call_of_a_shared_layer() -> None:
    image = keras.Input((8, 8, 3), name="image")
    shared = layers.Conv2D(3, 1, name="shared")
    graph = trace(keras.Model(image, shared(shared(image)))).graph
    assert planned(graph, "tensorrt", Rule("shared#2", inputs=False)).quantized_edges == {("image", "shared", 0)}
    assert planned(graph, "tensorrt", Rule("shared", inputs=False)).quantized_edges == frozenset()
    assert float_weights(planned(graph, "tensorrt", Rule("shared#2", weights=False))) == {"shared"}


@pytest.fixture(scope="module")
def resnet50() -> Graph:
    return trace(keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=10)).graph


@pytest.mark.parametrize(
    ("overrides", "tensors", "edges", "kernels"),
    [
        # Each from the 55 tensors, 71 edges and 54 kernels of tests/test_placement.py.
        # The convolution branch of each of 16 Adds.
        (Overrides((Rule(layers.Add, inputs=True),)), 55 + 16, 71 + 16, 54),
        # The image and the pooled features.
        (Overrides((Rule.keep_float("conv1_conv", "predictions"),)), 55 - 2, 71 - 2, 54 - 2),
        # The stem's.
        (Overrides((Rule(layers.MaxPooling2D, inputs=True),)), 55 + 1, 71 + 1, 54),
        # Three blocks of three convolutions and a projection. Tensors: the max-pool's, two within each block, the
        # projection's, and the outputs of the first two blocks. Edges: into ten convolutions and three Adds.
        (Overrides((Rule.as_target("conv2_*"),), mode="partial"), 1 + 3 * 2 + 1 + 2, 10 + 3, 10),
    ],
    ids=["adds", "first and last", "max-pool", "partial"],
)
def test_resnet50_counts(resnet50: Graph, overrides: Overrides, tensors: int, edges: int, kernels: int) -> None:
    placement = plan(resnet50, "tensorrt", overrides=overrides)
    quantized = sum(weight.spec is not None for weight in placement.weights)
    assert (len(placement.tensors), len(placement.quantized_edges), quantized) == (tensors, edges, kernels)


# --- order ------------------------------------------------------------------------------------------------------------


def test_the_last_rule_wins_setting_by_setting(residual: Graph) -> None:
    everything, one = Rule("*", inputs=False, weights=False), Rule("conv_b", inputs=True)
    assert planned(residual, "tensorrt", everything, one).quantized_edges == {("relu_a", "conv_b", 0)}
    assert float_weights(planned(residual, "tensorrt", everything, one)) == {"conv_a", "conv_b", "classes"}
    assert planned(residual, "tensorrt", one, everything).quantized_edges == frozenset()


@pytest.mark.parametrize("consumer_last", [True, False])
def test_of_both_ends_of_an_edge_the_later_rule_wins(residual: Graph, consumer_last: bool) -> None:
    ends = [Rule("relu_a", output=False), Rule("conv_b", inputs=True)]
    placement = planned(residual, "tensorrt", *(ends if consumer_last else reversed(ends)))
    assert (("relu_a", "conv_b", 0) in placement.quantized_edges) is consumer_last


def test_within_a_rule_inputs_win_over_output(residual: Graph) -> None:
    placement = planned(residual, "tensorrt", Rule("*", inputs=True, output=False))
    assert ("relu_a", "conv_b", 0) in placement.quantized_edges


def test_a_rule_can_be_taken_back(residual: Graph) -> None:
    placement = planned(residual, "tensorrt", Rule.keep_float("*"), Rule.as_target("*"))
    assert placement.quantized_edges == RESIDUAL_TENSORRT
    assert float_weights(placement) == set()


# --- operations that only move numbers, shared ranges -----------------------------------------------------------------


def branching_pad(*, output: bool = False) -> Graph:
    """Two convolutions read one padded tensor, which with `output` also leaves the model through a reshape."""
    x = image = keras.Input((4, 4, 3), name="image")
    x = layers.ZeroPadding2D(1, name="pad")(x)
    made = [layers.Conv2D(2, 3, name=name)(x) for name in ("left", "right")]
    return trace(keras.Model(image, [*made, layers.Flatten(name="flat")(x)] if output else made)).graph


def test_pair_stands_behind_the_padding_where_one_reader_stays_float() -> None:
    """A pair before the padding would round the input of both."""
    assert plan(branching_pad(), "tensorrt").quantized_edges == {("image", "pad", 0)}
    placement = planned(branching_pad(), "tensorrt", Rule("left", inputs=False))
    assert placement.quantized_edges == {("pad", "right", 0)}


def test_pair_stands_behind_the_padding_where_the_output_needs_it_float() -> None:
    placement = plan(branching_pad(output=True), "tensorrt")
    assert placement.quantized_edges == {("pad", "left", 0), ("pad", "right", 0)}


def test_partial_quantization_rounds_for_no_other_reader() -> None:
    placement = planned(branching_pad(), "tensorrt", Rule.as_target("right"), mode="partial")
    assert placement.quantized_edges == {("pad", "right", 0)}


def test_no_pair_before_the_padding_if_the_user_says_so() -> None:
    placement = planned(branching_pad(), "tensorrt", Rule("pad", inputs=False))
    assert placement.quantized_edges == {("pad", "left", 0), ("pad", "right", 0)}


def test_pair_before_the_padding_and_float_behind_it_is_settled_by_order() -> None:
    before, behind = Rule("pad", inputs=True), Rule("left", inputs=False)
    assert planned(branching_pad(), "tensorrt", behind, before).quantized_edges == {("image", "pad", 0)}
    placement = planned(branching_pad(), "tensorrt", before, behind)
    assert placement.quantized_edges == {("pad", "right", 0)}
    assert "'left' behind it stays float: rule 2" in reason(placement, "image", "pad")


def test_max_pool_shares_its_range_only_where_its_input_is_quantized(stem: Graph) -> None:
    def owner(placement: Placement, tensor: str) -> str:
        return next(t.range_of for t in placement.tensors if t.tensor == tensor)

    assert owner(plan(stem, "onnxruntime"), "max_pool") == "relu"
    # `relu` stays quantized for `beside`, but what the max-pool reads is float.
    placement = planned(stem, "onnxruntime", Rule("pool_pad", inputs=False), Rule("max_pool", inputs=False))
    assert ("relu", "beside", 0) in placement.quantized_edges
    assert owner(placement, "max_pool") == "max_pool"
    assert set(placement.observed) == {"image", "relu", "max_pool"}
    # Input quantized, output not.
    placement = planned(stem, "onnxruntime", Rule("max_pool", output=False))
    assert ("relu", "pool_pad", 0) in placement.quantized_edges
    assert "max_pool" not in placement.specs


# --- the function of edges --------------------------------------------------------------------------------------------


def test_function_adds_and_removes_edges(residual: Graph) -> None:
    def swap(graph: Graph, edge: Edge, decision: EdgeDecision) -> EdgeDecision | None:
        if edge.consumer != OUTPUT and graph.by_name[edge.consumer].kind is OpKind.ADD:
            return replace(decision, quantized=not decision.quantized, reason="the other branch")
        return None

    placement = planned(residual, "tensorrt", Rule("add", inputs=(0,)), edges=swap)
    assert placement.quantized_edges == (RESIDUAL_TENSORRT - {("image", "add", 0)}) | {("bn_b", "add", 1)}
    assert reason(placement, "bn_b", "add") == "function swap: the other branch"
    assert {t.tensor for t in placement.tensors} == {"image", "relu_a", "bn_b", "relu", "pool"}


def test_function_that_returns_the_decision_changes_nothing(residual: Graph, stem: Graph) -> None:
    for graph in (residual, stem):
        assert planned(graph, "onnxruntime", edges=lambda _graph, _edge, decision: decision) == plan(
            graph, "onnxruntime"
        )


def test_function_must_answer_about_the_edge(residual: Graph) -> None:
    with pytest.raises(UserError, match=r"Received: True from.*dataclasses.replace"):
        planned(residual, "tensorrt", edges=lambda *_: True)
    with pytest.raises(UserError, match="the edge it is asked about"):
        planned(residual, "tensorrt", edges=lambda _graph, _edge, d: replace(d, consumer="elsewhere"))


def test_function_can_not_part_a_kernel(residual: Graph) -> None:
    with pytest.raises(UserError, match=r"'conv_a' and 'bn_a': conv \+ batch norm \+ relu run as one kernel"):
        planned(residual, "tensorrt", edges=lambda _graph, _edge, d: replace(d, quantized=True))


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "parts"),
    [
        (Rule("conv_aa", inputs=False), ["Rule 1 matches no layer", "Did you mean 'conv_a'"]),
        (Rule("Conv_*", inputs=False), ["Did you mean 'conv_"]),
        (Rule(("conv_a", "zzz"), inputs=False), ["matches no layer", "Layers: image, conv_a"]),
        (Rule(layers.DepthwiseConv2D, inputs=False), ["type DepthwiseConv2D", "Layer types", "GlobalAveragePooling2D"]),
        (Rule(OpKind.CONCAT, inputs=False), ["kind 'concat'", "Kinds in this model", "average pool"]),
        (Rule(lambda _: False, inputs=False), ["predicate", "optional=True"]),
        (Rule("add", weights=True), ["'add' (add) has no kernel", "rule 1, 'add': weights=True"]),
        (Rule(layers.ReLU, weight_bits=4), ["no kernel"]),
        (Rule("bn_a", inputs=True), ["conv + batch norm + relu run as one kernel", "Set `inputs` of its first layer"]),
        (Rule("add", inputs=(0, 2)), ["'add' has 2 inputs"]),
        (Rule("image", inputs=True), ["'image' has 0 inputs"]),
        (Rule("classes", output=True), ["model's output", "stays float"]),
    ],
    ids=str,
)
def test_impossible_rule_is_refused(residual: Graph, rule: Rule, parts: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        planned(residual, "tensorrt", rule)
    message = str(refused.value)
    assert "Received:" in message
    for part in parts:
        assert part in message


def test_width_of_float_weights_is_refused(residual: Graph) -> None:
    with pytest.raises(UserError, match=r"'conv_a' stay float.*Add weights=True"):
        planned(residual, "tensorrt", Rule("conv_a", weight_bits=4), mode="partial")


def test_input_of_a_reshape_before_the_output_is_refused() -> None:
    image = keras.Input((4, 4, 2), name="image")
    graph = trace(keras.Model(image, layers.Flatten(name="flat")(layers.ReLU(name="relu")(image)))).graph
    with pytest.raises(UserError, match="the model's output stays float"):
        planned(graph, "tensorrt", Rule("flat", inputs=True))


def test_a_glob_passes_over_layers_that_can_not_have_the_setting(residual: Graph) -> None:
    """Batch norms and ReLUs inside kernels match too, but the rule is possible for other layers."""
    placement = planned(residual, "tensorrt", Rule("*", inputs=True, weights=True))
    assert placement.quantized_edges == RESIDUAL_TENSORRT | {("bn_b", "add", 1)}


def test_optional_rule_may_match_nothing(residual: Graph) -> None:
    assert planned(residual, "tensorrt", Rule("top_*", inputs=False, optional=True)) == plan(residual, "tensorrt")


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({}, "must set one of"),
        ({"inputs": 1}, "`inputs` must be"),
        ({"inputs": (-1,)}, "counted from 0"),
        ({"inputs": (True,)}, "counted from 0"),
        ({"output": (0,)}, "`output` must be"),
        ({"weights": "yes"}, "`weights` must be"),
        ({"weight_bits": 9}, "`weight_bits` must be at most 8"),
        ({"weight_bits": 4.0}, "`weight_bits` must be a whole number"),
        ({"weights": False, "weight_bits": 4}, "no bits"),
    ],
)
def test_settings_that_mean_nothing(settings: dict[str, object], part: str) -> None:
    with pytest.raises(UserError, match=part):
        Rule("conv", **settings)  # type: ignore[arg-type]


def test_mode_must_be_known() -> None:
    with pytest.raises(UserError, match="mode='half'"):
        Overrides(mode="half")  # type: ignore[arg-type]


# --- JSON -------------------------------------------------------------------------------------------------------------

SAVED = Overrides(
    (
        Rule(("conv1_*", "predictions"), inputs=False, weights=False),
        Rule(layers.GlobalAveragePooling2D, inputs=True),
        Rule(OpKind.ADD, inputs=(0, 1), output="target"),
        Rule("dense", weight_bits=4, optional=True),
    ),
    mode="partial",
)


def test_json_round_trip(tmp_path: Path) -> None:
    assert Overrides.from_json(SAVED.to_json()) == SAVED
    SAVED.save(tmp_path / "overrides.json")
    assert Overrides.load(tmp_path / "overrides.json") == SAVED


def test_json_is_what_a_person_would_write() -> None:
    text = '{"rules": [{"select": {"type": "MaxPooling2D"}, "inputs": true}, {"select": "add", "inputs": [0]}]}'
    assert Overrides.from_json(text) == Overrides((Rule(layers.MaxPooling2D, inputs=True), Rule("add", inputs=(0,))))


def test_registered_layer_type_of_the_user() -> None:
    @keras.saving.register_keras_serializable(package="test_overrides")
    class Mine(layers.Layer):
        pass

    overrides = Overrides((Rule(Mine, inputs=False),))
    assert '"test_overrides>Mine"' in overrides.to_json()
    assert Overrides.from_json(overrides.to_json()) == overrides


def test_code_can_not_be_saved() -> None:
    class Dense(layers.Layer):
        """Another class than Keras's Dense, with the same name."""

    for overrides, part in (
        (Overrides((Rule(lambda _: True, inputs=True),)), "Select by name, glob, layer type or OpKind"),
        (Overrides(edges=lambda *_: None), "Say it in rules"),
        (Overrides((Rule(Dense, inputs=True),)), "register_keras_serializable"),
    ):
        with pytest.raises(UserError, match=part):
            overrides.to_json()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "isn't JSON"),
        ("[]", "keys mode, rules"),
        ('{"rule": []}', "keys mode, rules"),
        ('{"rules": {}}', "must be a list"),
        ('{"rules": [{"select": "a", "input": true}]}', "inputs, optional, output"),
        ('{"rules": [{"inputs": true}]}', "must select something"),
        ('{"rules": [{"select": {"type": "Conv9D"}, "inputs": true}]}', "Received: 'Conv9D'"),
        ('{"rules": [{"select": {"kind": "conv9"}, "inputs": true}]}', "Known: input, conv"),
        ('{"rules": [{"select": {"name": "a"}, "inputs": true}]}', "A rule selects by"),
        ('{"rules": [{"select": "a", "inputs": "yes"}]}', "`inputs` must be"),
    ],
)
def test_bad_json(text: str, part: str) -> None:
    with pytest.raises(UserError, match=part):
        Overrides.from_json(text)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="Can't read"):
        Overrides.load(tmp_path / "none.json")


# --- to the file ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "overrides"),
    [
        ("tensorrt", Overrides((Rule.keep_float("conv"), Rule(layers.MaxPooling2D, inputs=True, output=True)))),
        ("onnxruntime", Overrides((Rule("max_pool", output=False), Rule("last", weight_bits=4)))),
        ("tensorrt", Overrides((Rule.as_target("last"),), mode="partial")),
    ],
)
def test_file_has_the_pairs_that_were_planned(target: str, overrides: Overrides, tmp_path: Path) -> None:
    """Plan, calibrate, apply, export: as many Q as tensors; as many DQ as tensors and quantized kernels."""
    keras.utils.set_random_seed(0)
    model = stem_model()
    images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype("float32")
    placement = plan(trace(model).graph, target, overrides=overrides)
    quantized = apply_placement(model, placement, calibrate(model, placement, [images]))
    path = export_onnx(quantized, tmp_path / "model.onnx", target=target)
    file = onnx.load(path)
    count = Counter(node.op_type for node in file.graph.node)
    kernels = sum(weight.spec is not None for weight in placement.weights)
    assert placement.tensors
    assert count["QuantizeLinear"] == len(placement.tensors)
    assert count["DequantizeLinear"] == len(placement.tensors) + kernels
    with OnnxRuntime(path) as runtime:
        deployed, _ = runtime.run(images)
    # The first of the two outputs; a sum in another order may round to the neighbouring step now and then.
    assert np.median(np.abs(quantized.predict(images, verbose=0)[0] - deployed)) < 1e-5
