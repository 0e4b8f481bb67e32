"""A Keras model read as a graph: what it holds, and which models are refused."""

from collections import Counter

import keras
import pytest

from keras_qat.errors import UnsupportedModelError
from keras_qat.graph import OUTPUT, Edge, Graph, Node, kind_of, non_negative_tensors, register_kind, trace
from keras_qat.types import OpKind

layers = keras.layers


@pytest.fixture(scope="module")
def resnet50() -> keras.Model:
    return keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=10)


def small_base(name: str) -> keras.Model:
    """A model to nest; its layers have the same names in each copy."""
    inputs = keras.Input((8, 8, 3), name="pixels")
    x = layers.Conv2D(4, 3, name="conv")(inputs)
    return keras.Model(inputs, layers.ReLU(name="relu")(x), name=name)


def kinds(graph: Graph) -> dict[str, OpKind]:
    return {node.name: node.kind for node in graph.nodes}


def assert_topological(graph: Graph) -> None:
    known: set[str] = set()
    for node in graph.nodes:
        assert set(node.inputs) <= known, f"{node.name} comes before what it reads"
        known.update(node.outputs)
    assert set(graph.outputs) <= known


# --- what is read -----------------------------------------------------------------------------------------------------


def test_resnet50_has_the_layers_of_the_paper(resnet50: keras.Model) -> None:
    """16 bottlenecks of 3 convolutions, 4 projection shortcuts and the stem are 53, each with a batch norm."""
    graph = trace(resnet50).graph
    assert Counter(node.kind for node in graph.nodes) == {
        OpKind.INPUT: 1,
        OpKind.CONV: 53,
        OpKind.BATCH_NORM: 53,
        OpKind.RELU: 1 + 16 * 3,
        OpKind.ADD: 16,
        OpKind.ZERO_PAD: 2,
        OpKind.MAX_POOL: 1,
        OpKind.AVERAGE_POOL: 1,
        OpKind.DENSE: 1,
    }
    assert len(graph.nodes) == len(resnet50.layers)
    assert {node.name for node in graph.nodes} == {layer.name for layer in resnet50.layers}
    # One input edge for each layer but the image; one more for each Add; one out of the model.
    assert len(graph.edges) == (len(graph.nodes) - 1) + 16 + 1
    assert_topological(graph)


def test_resnet50_block_is_wired_as_in_keras(resnet50: keras.Model) -> None:
    graph = trace(resnet50).graph
    assert graph.by_name["conv2_block1_add"].inputs == ("conv2_block1_0_bn", "conv2_block1_3_bn")
    assert graph.by_name["conv2_block2_add"].inputs == ("conv2_block1_out", "conv2_block2_3_bn")
    assert set(graph.consumers("pool1_pool")) == {
        Edge("pool1_pool", "conv2_block1_0_conv", 0),
        Edge("pool1_pool", "conv2_block1_1_conv", 0),
    }
    assert graph.outputs == ("predictions",)
    assert graph.consumers("predictions") == (Edge("predictions", OUTPUT, 0),)


def test_shapes_are_those_of_keras(resnet50: keras.Model) -> None:
    read = trace(resnet50)
    for layer in resnet50.layers:
        assert read.shape(layer.name) == tuple(layer.output.shape)


def test_sequential_is_a_chain() -> None:
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            layers.Conv2D(4, 3, name="conv"),
            layers.Dropout(0.5, name="dropout"),
            layers.Flatten(name="flatten"),
            layers.Dense(2, name="dense"),
        ]
    )
    graph = trace(model).graph
    assert kinds(graph) == {
        "image": OpKind.INPUT,
        "conv": OpKind.CONV,
        "dropout": OpKind.IDENTITY,
        "flatten": OpKind.RESHAPE,
        "dense": OpKind.DENSE,
    }
    assert graph.edges == (
        Edge("image", "conv", 0),
        Edge("conv", "dropout", 0),
        Edge("dropout", "flatten", 0),
        Edge("flatten", "dense", 0),
        Edge("dense", OUTPUT, 0),
    )


def test_sequential_built_by_shape_is_read() -> None:
    model = keras.Sequential([layers.Dense(2, name="dense")])
    model.build((None, 3))
    assert [node.kind for node in trace(model).graph.nodes] == [OpKind.INPUT, OpKind.DENSE]


def test_transfer_learning_model_is_read_flat() -> None:
    """The usual transfer learning with `keras.applications`: Sequential([base, pooling, classifier])."""
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3), name="image"),
            small_base("base"),
            layers.GlobalAveragePooling2D(name="pool"),
            layers.Dense(2, name="head"),
        ]
    )
    graph = trace(model).graph
    assert [node.name for node in graph.nodes] == ["image", "conv", "relu", "pool", "head"]
    assert graph.by_name["conv"].inputs == ("image",)
    assert graph.by_name["pool"].inputs == ("relu",)


def test_two_nested_models_with_the_same_layer_names_keep_apart() -> None:
    inputs = keras.Input((8, 8, 3), name="image")
    merged = layers.Add(name="add")([small_base("left")(inputs), small_base("right")(inputs)])
    graph = trace(keras.Model(inputs, merged)).graph
    names = [node.name for node in graph.nodes]
    assert len(set(names)) == len(names) == 1 + 2 * 2 + 1
    assert len({node.layer for node in graph.nodes}) == len(names)
    left, right = (graph.producer(tensor) for tensor in graph.by_name["add"].inputs)
    assert left.kind is right.kind is OpKind.RELU
    assert {left.name, right.name} in ({"relu", "right_relu"}, {"left_relu", "relu"})
    assert_topological(graph)


def test_models_nested_two_deep() -> None:
    inner = small_base("inner")
    middle = keras.Sequential([keras.Input((8, 8, 3)), inner, layers.MaxPooling2D(name="pool")], name="middle")
    image = keras.Input((8, 8, 3), name="image")
    graph = trace(keras.Model(image, layers.Flatten(name="flatten")(middle(image)))).graph
    assert [node.name for node in graph.nodes] == ["image", "conv", "relu", "pool", "flatten"]


def test_shared_layer_makes_a_node_for_each_call() -> None:
    image = keras.Input((8, 8, 3), name="image")
    shared = layers.Conv2D(3, 3, padding="same", name="shared")
    graph = trace(keras.Model(image, shared(shared(image)))).graph
    assert [(node.name, node.layer, node.inputs) for node in graph.nodes] == [
        ("image", "image", ()),
        ("shared", "shared", ("image",)),
        ("shared#2", "shared", ("shared",)),
    ]


def test_nested_model_called_twice_shares_its_layers() -> None:
    """Siamese: one base, two images."""
    base = small_base("base")
    a, b = keras.Input((8, 8, 3), name="a"), keras.Input((8, 8, 3), name="b")
    graph = trace(keras.Model([a, b], layers.Add(name="add")([base(a), base(b)]))).graph
    assert [node.layer for node in graph.nodes].count("conv") == 2
    assert {node.name for node in graph.nodes} == {"a", "b", "conv", "conv#2", "relu", "relu#2", "add"}
    sources = [graph.producer(tensor).inputs[0] for tensor in graph.by_name["add"].inputs]
    assert [graph.producer(tensor).inputs for tensor in sources] == [("a",), ("b",)]


def test_several_inputs_and_outputs_keep_their_order() -> None:
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    total = layers.Add(name="total")([right, left])
    model = keras.Model({"right": right, "left": left}, {"sum": total, "left": layers.ReLU(name="positive")(left)})
    read = trace(model)
    assert read.graph.by_name["total"].inputs == ("right", "left")
    assert sorted(read.graph.outputs) == ["positive", "total"]
    assert {key: ref.name for key, ref in read.inputs.items()} == {"right": "right", "left": "left"}
    assert {key: ref.name for key, ref in read.outputs.items()} == {"sum": "total", "left": "positive"}


def test_layer_with_two_outputs_names_the_second() -> None:
    class Halves(keras.layers.Layer):
        def call(self, x: keras.KerasTensor) -> tuple[keras.KerasTensor, keras.KerasTensor]:
            return x[:, :2], x[:, 2:]

    register_kind(Halves, OpKind.OTHER)
    inputs = keras.Input((4,), name="image")
    first, second = Halves(name="halves")(inputs)
    graph = trace(keras.Model(inputs, layers.Add(name="add")([second, first]))).graph
    assert graph.by_name["halves"].outputs == ("halves", "halves:1")
    assert graph.by_name["add"].inputs == ("halves:1", "halves")


def test_model_cut_out_of_another_holds_only_its_own_layers() -> None:
    base = small_base("base")
    graph = trace(keras.Model(base.input, base.get_layer("conv").output)).graph
    assert [node.name for node in graph.nodes] == ["pixels", "conv"]


@pytest.mark.parametrize(
    ("layer", "inner"),
    [
        (layers.Conv2D(2, 3, activation="relu"), "relu"),
        (layers.Conv2D(2, 3, activation="linear"), None),
        (layers.Conv2D(2, 3), None),
        (layers.DepthwiseConv2D(3, activation="sigmoid"), "sigmoid"),
        (layers.Activation("relu"), None),
        (layers.BatchNormalization(), None),
    ],
)
def test_activation_inside_a_layer_is_recorded(layer: keras.layers.Layer, inner: str | None) -> None:
    inputs = keras.Input((8, 8, 3))
    assert trace(keras.Model(inputs, layer(inputs))).graph.nodes[-1].activation == inner


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        (layers.Activation("relu"), OpKind.RELU),
        (layers.Activation("relu6"), OpKind.RELU),
        (layers.Activation("swish"), OpKind.ACTIVATION),
        (layers.Activation("linear"), OpKind.IDENTITY),
        (layers.ReLU(), OpKind.RELU),
        (layers.ReLU(max_value=6.0), OpKind.RELU),
        (layers.ReLU(threshold=1.0), OpKind.ACTIVATION),
        (layers.DepthwiseConv2D(3), OpKind.DEPTHWISE_CONV),
        (layers.GlobalMaxPooling2D(), OpKind.MAX_POOL),
        (layers.Concatenate(), OpKind.CONCAT),
        (layers.UpSampling2D(), OpKind.RESIZE),
        (layers.UpSampling2D(interpolation="bilinear"), OpKind.OTHER),
        (layers.Conv1D(2, 3), OpKind.CONV),
        (layers.Conv2DTranspose(2, 3), OpKind.CONV_TRANSPOSE),
        (layers.GaussianNoise(0.1), OpKind.IDENTITY),
    ],
)
def test_kind_of_layer(layer: keras.layers.Layer, kind: OpKind) -> None:
    assert kind_of(layer) is kind


def test_registered_kind_is_inherited() -> None:
    class Parent(keras.layers.Layer):
        pass

    class Child(Parent):
        pass

    class MyConv(keras.layers.Conv2D):
        pass

    assert kind_of(Child()) is OpKind.OTHER
    register_kind(Parent, OpKind.IDENTITY)
    assert kind_of(Child()) is OpKind.IDENTITY
    assert kind_of(MyConv(2, 3)) is OpKind.CONV


def test_calls_of_keras_ops_are_nodes_and_unknown_ones_are_other() -> None:
    image = keras.Input((8, 8, 3), name="image")
    model = keras.Model(image, layers.ReLU(name="relu")(keras.ops.sin(image) * 2.0))
    graph = trace(model).graph
    assert [node.kind for node in graph.nodes] == [OpKind.INPUT, OpKind.OTHER, OpKind.SCALE, OpKind.RELU]
    assert_topological(graph)


def test_reading_changes_nothing(resnet50: keras.Model) -> None:
    before = [(id(layer), len(layer._inbound_nodes)) for layer in resnet50.layers]
    first, second = trace(resnet50).graph, trace(resnet50).graph
    assert first == second
    assert [(id(layer), len(layer._inbound_nodes)) for layer in resnet50.layers] == before


# --- what is refused --------------------------------------------------------------------------------------------------


class Subclassed(keras.Model):
    """The forward pass is Python code."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(**kwargs)
        self.dense = layers.Dense(2)

    def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
        return self.dense(x)


def test_subclassed_model_is_refused_with_the_remedy() -> None:
    model = Subclassed(name="mine")
    model(keras.ops.ones((1, 4)))
    with pytest.raises(UnsupportedModelError, match=r"Received: Subclassed \(model 'mine'\).*functional API"):
        trace(model)


def test_unbuilt_sequential_is_refused_with_the_remedy() -> None:
    with pytest.raises(UnsupportedModelError, match=r"'chain'.*keras\.Input.*model\.build"):
        trace(keras.Sequential([layers.Dense(2)], name="chain"))


def test_subclassed_model_inside_a_functional_one_is_read_through() -> None:
    """Otherwise the layers of the nested model would silently stay float."""
    inputs = keras.Input((4,))
    graph = trace(keras.Model(inputs, Subclassed(name="mine")(inputs))).graph
    assert [(node.name, node.kind) for node in graph.nodes[1:]] == [("mine_dense", OpKind.DENSE)]


def test_an_object_that_is_not_a_model_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="Received: Dense"):
        trace(layers.Dense(2))


# --- signs ------------------------------------------------------------------------------------------------------------


def test_non_negative_tensors_by_hand() -> None:
    """Signs follow the flow: ReLU makes a tensor non-negative, a convolution or the image makes it unknown."""

    def node(name: str, kind: OpKind, *inputs: str, activation: str | None = None) -> Node:
        return Node(name, kind, name, inputs, (name,), activation)

    graph = Graph(
        (
            node("image", OpKind.INPUT),
            node("pad", OpKind.ZERO_PAD, "image"),
            node("conv", OpKind.CONV, "pad"),
            node("relu", OpKind.RELU, "conv"),
            node("pool", OpKind.MAX_POOL, "relu"),
            node("padded", OpKind.ZERO_PAD, "pool"),
            node("fused", OpKind.CONV, "padded", activation="relu"),
            node("tanh", OpKind.CONV, "padded", activation="tanh"),
            node("both", OpKind.ADD, "fused", "padded"),
            node("one", OpKind.ADD, "tanh", "padded"),
            node("mean", OpKind.AVERAGE_POOL, "both"),
            node("norm", OpKind.BATCH_NORM, "mean"),
            node("leaky", OpKind.ACTIVATION, "mean"),
            node("probabilities", OpKind.DENSE, "mean", activation="softmax"),
        ),
        ("probabilities",),
    )
    assert non_negative_tensors(graph) == {
        "relu",
        "pool",
        "padded",
        "fused",
        "both",
        "mean",
        "probabilities",
    }


def test_sigmoid_of_its_own_layer_is_non_negative() -> None:
    """`Activation("sigmoid")` makes the same numbers as `Dense(activation="sigmoid")`."""
    inputs = keras.Input((4,), name="image")
    graph = trace(keras.Model(inputs, layers.Activation("sigmoid", name="gate")(inputs))).graph
    assert non_negative_tensors(graph) == {"gate"}


def test_clipped_and_plain_relu_are_non_negative_but_leaky_is_not() -> None:
    inputs = keras.Input((4,), name="image")
    outputs = [
        layers.ReLU(name="plain")(inputs),
        layers.ReLU(max_value=6.0, name="six")(inputs),
        layers.ReLU(negative_slope=0.1, name="leaky")(inputs),
        layers.LeakyReLU(name="leaky2")(inputs),
    ]
    assert non_negative_tensors(trace(keras.Model(inputs, outputs)).graph) == {"plain", "six"}


def test_a_registered_layer_of_the_user_may_go_on_after_its_activation() -> None:
    class Offset(layers.Dense):
        def call(self, x: keras.KerasTensor) -> keras.KerasTensor:
            return super().call(x) - 1.0

    register_kind(Offset, OpKind.DENSE)
    inputs = keras.Input((4,), name="image")
    graph = trace(keras.Model(inputs, Offset(2, activation="relu", name="offset")(inputs))).graph
    assert graph.by_name["offset"].kind is OpKind.DENSE
    assert non_negative_tensors(graph) == frozenset()


def test_sole_consumer() -> None:
    inputs = keras.Input((4,), name="image")
    a, b = layers.ReLU(name="a")(inputs), layers.ReLU(name="b")(inputs)
    graph = trace(keras.Model(inputs, [layers.Add(name="add")([a, b]), b])).graph
    consumer = graph.sole_consumer("a")
    assert consumer is not None
    assert consumer.name == "add"
    assert graph.sole_consumer("b") is None, "it also leaves the model"
    assert graph.sole_consumer("image") is None, "two nodes read it"
    assert graph.sole_consumer("add") is None, "no node reads it"


@pytest.mark.parametrize("structure", ["list", "dictionary"])
def test_nested_model_called_with_a_dictionary_gets_its_inputs_by_name(structure: str) -> None:
    """Keras passes the inputs by key, in any order."""
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    inputs = [b, a] if structure == "list" else {"b": b, "a": a}
    inner = keras.Model(inputs, layers.Subtract(name="difference")([b, a]), name="inner")
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    graph = trace(keras.Model([left, right], inner({"a": left, "b": right}))).graph
    assert graph.by_name["difference"].inputs == ("right", "left")
