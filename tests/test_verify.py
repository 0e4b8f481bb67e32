"""A right file of any target, opset and precision is found right; each way to break one is found, at its layer."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from keras_qat import apply_placement, calibrate, export_onnx, plan, trace
from keras_qat.errors import GateMissedError, StorageError, UserError
from keras_qat.models import build_model, find
from keras_qat.run import Settings
from keras_qat.targets import find_target
from keras_qat.types import Placement
from keras_qat.verify import FileVerification, require_verified, verify_file

layers = keras.layers
TARGETS = ("tensorrt", "onnxruntime", "openvino")


def _everything() -> keras.Model:
    """Every way in which file and placement are cut differently."""
    image = keras.Input((12, 12, 3), name="image")
    x = layers.Rescaling(0.5, name="rescale")(image)
    x = layers.ZeroPadding2D(1, name="pad")(x)
    left = layers.BatchNormalization(name="left_bn")(layers.Conv2D(8, 3, name="left")(x))
    right = layers.BatchNormalization(name="right_bn")(layers.Conv2D(8, 3, name="right")(x))
    x = layers.ReLU(name="merged")(layers.Add(name="add")([left, right]))
    x = layers.Dropout(0.5, name="drop")(x)
    x = layers.ReLU(name="relu")(layers.BatchNormalization(name="lone_bn")(x))
    x = layers.Conv2D(8, 3, activation="silu", padding="same", name="silu")(x)
    shared = layers.Conv2D(8, 1, name="shared")
    x = layers.Concatenate(name="concat")([shared(x), shared(layers.ReLU(name="again")(x))])
    x = layers.Add(name="double")([x, x])
    x = layers.SeparableConv2D(6, 3, name="separable")(x)
    x = layers.MaxPooling2D(2, name="pool")(x)
    flat = layers.Flatten(name="flatten")(x)
    return keras.Model(image, [layers.Dense(4, "softmax", name="output")(flat), x])


def _randomized(model: keras.Model) -> keras.Model:
    rng = np.random.default_rng(7)
    for weight in model.weights:
        values = rng.normal(size=weight.shape) * 0.3
        weight.assign(np.abs(values) + 0.3 if "variance" in weight.name else values)
    return model


@dataclass(frozen=True)
class Exported:
    model: keras.Model
    placement: Placement
    path: Path

    def verify(self, path: Path | None = None) -> FileVerification:
        return verify_file(path or self.path, self.placement, model=self.model)


def _quantized(model: keras.Model, target: str) -> tuple[keras.Model, Placement]:
    shape = (8, *model.input_shape[1:])
    images = np.random.default_rng(7).uniform(-1, 1, shape).astype("float32")
    placement = plan(trace(model).graph, target)
    return apply_placement(model, placement, calibrate(model, placement, [images])), placement


@cache
def _everything_quantized(target: str) -> tuple[keras.Model, Placement]:
    return _quantized(_randomized(_everything()), target)


@pytest.fixture(scope="module", params=TARGETS)
def exported(request: pytest.FixtureRequest, tiny_network: str, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    keras.utils.set_random_seed(3)
    float_model = _randomized(build_model(find(tiny_network), weights=None, num_classes=10, size=32))
    model, placement = _quantized(float_model, request.param)
    path = tmp_path_factory.mktemp("files") / f"{request.param}.onnx"
    return Exported(model, placement, export_onnx(model, path, target=request.param))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize(("opset", "precision"), [(13, "fp32"), (17, "fp32"), (19, "fp16"), (21, "fp32"), (21, "fp16")])
def test_right_file_is_found_right(target: str, opset: int, precision: Any, tmp_path: Path) -> None:
    model, placement = _everything_quantized(target)
    path = export_onnx(model, tmp_path / "model.onnx", target=target, opset=opset, precision=precision)
    verification = verify_file(path, placement, model=model)
    assert verification.findings == ()
    assert verification.ok
    assert verification.edges == len(placement.edges)


@pytest.mark.parametrize("target", TARGETS)
def test_float_file_has_no_pair_where_one_was_planned(target: str, tmp_path: Path) -> None:
    float_model = _randomized(_everything())
    _, placement = _everything_quantized(target)
    findings = verify_file(export_onnx(float_model, tmp_path / "float.onnx"), placement).findings

    kernels = [f.layer for f in findings if "weights should be int8" in f.problem]
    # The shared convolution stands in the file twice.
    assert sorted({*kernels}) == sorted(w.layer for w in placement.weights)
    unpaired = {f.layer for f in findings if "the file has none there" in f.problem}
    # What the placement quantizes between two nodes that the file has.
    assert {"silu", "double", "separable_depthwise", "separable", "flatten"} <= unpaired


def test_layer_named_output_is_a_layer(tmp_path: Path) -> None:
    image = keras.Input((8, 8, 3), name="image")
    conv = layers.Conv2D(4, 3, name="output")
    model, placement = _quantized(keras.Model(image, layers.ReLU(name="relu")(conv(image))), "tensorrt")
    assert placement.quantized_edges == {("image", "output", 0)}
    path = export_onnx(model, tmp_path / "model.onnx", target="tensorrt")
    assert verify_file(path, placement, model=model).ok
    file = File(path)
    file.read_instead("output", 0, "image/to_nchw/output")
    assert [f.layer for f in verify_file(file.save(tmp_path), placement).findings] == ["output"]


class File:
    """A file to break."""

    def __init__(self, path: Path) -> None:
        self.proto = onnx.load(path)

    def node(self, name: str) -> onnx.NodeProto:
        (found,) = (node for node in self.proto.graph.node if node.name == name)
        return found

    def constant(self, name: str) -> np.ndarray:
        (found,) = (i for i in self.proto.graph.initializer if i.name == name)
        return numpy_helper.to_array(found).copy()

    def store(self, name: str, array: np.ndarray) -> None:
        kept = [i for i in self.proto.graph.initializer if i.name != name]
        del self.proto.graph.initializer[:]
        self.proto.graph.initializer.extend([*kept, numpy_helper.from_array(array, name)])

    def read_instead(self, node: str, index: int, value: str) -> None:
        self.node(node).input[index] = value

    def insert_pair(self, node: str, index: int, scale: np.ndarray, zero_point: np.ndarray) -> None:
        """Put a Q/DQ pair on one input of one node."""
        consumer = self.node(node)
        self.store("new/scale", scale)
        self.store("new/zero_point", zero_point)
        common = ["new/scale", "new/zero_point"]
        pair = [
            helper.make_node("QuantizeLinear", [consumer.input[index], *common], ["new/q"], "new/QuantizeLinear"),
            helper.make_node("DequantizeLinear", ["new/q", *common], ["new/dq"], "new/DequantizeLinear"),
        ]
        position = list(self.proto.graph.node).index(consumer)
        nodes = list(self.proto.graph.node)
        nodes[position].input[index] = "new/dq"
        del self.proto.graph.node[:]
        self.proto.graph.node.extend([*nodes[:position], *pair, *nodes[position:]])

    def save(self, folder: Path) -> Path:
        onnx.save(self.proto, folder / "broken.onnx")
        return folder / "broken.onnx"


Break = Callable[[File], None]


def _remove_pair(file: File) -> None:
    file.read_instead("block_conv", 0, file.node("stem_relu_quantize/QuantizeLinear").input[0])


def _pair_between_conv_and_relu(file: File) -> None:
    _insert(file, "stem_relu")


def _second_pair(file: File) -> None:
    _insert(file, "block_conv")


def _insert(file: File, node: str) -> None:
    scale, zero_point = (file.constant(f"image_quantize/{key}") for key in ("scale", "zero_point"))
    file.insert_pair(node, 0, scale, zero_point)


def _change(name: str, change: Callable[[np.ndarray], Any]) -> Break:
    def apply(file: File) -> None:
        array = file.constant(name)
        file.store(name, np.asarray(change(array), array.dtype))

    return apply


def _float_weights(file: File) -> None:
    q, s = file.constant("head_conv/kernel"), file.constant("head_conv/kernel_scale")
    file.store("float_kernel", q.astype(np.float32) * s[:, None, None, None])
    file.read_instead("head_conv", 1, "float_kernel")


def _one_scale_for_the_kernel(file: File) -> None:
    dequantize = file.node("head_conv/kernel/DequantizeLinear")
    del dequantize.attribute[:]
    file.store("head_conv/kernel_scale", np.float32(0.01))
    file.store("head_conv/kernel_zero_point", np.int8(0))


def _wrong_axis(file: File) -> None:
    # The block's kernel has as many inputs as outputs, so that ONNX's checker sees nothing wrong.
    file.node("block_conv/kernel/DequantizeLinear").attribute[0].i = 1


def _different_scales_in_one_pair(file: File) -> None:
    file.store("other_scale", file.constant("image_quantize/scale") * 2)
    file.read_instead("image_quantize/DequantizeLinear", 1, "other_scale")


def _quantized_output(file: File) -> None:
    _insert(file, "predictions/softmax")


def _rewired(file: File) -> None:
    file.read_instead("block_add", 0, file.node("block_add").input[1])


def _nameless(file: File) -> None:
    node = file.node("block_add")
    node.name = ""
    del node.metadata_props[:]


BREAKS: dict[str, tuple[Break, str, str]] = {
    "pair removed": (_remove_pair, "block_conv", "'stem_relu' through a Q/DQ pair; the file has none there"),
    "pair between conv and relu": (_pair_between_conv_and_relu, "stem_relu", r"in float \(fused: conv \+ batch norm"),
    "two pairs": (_second_pair, "block_conv", "through 1 Q/DQ pairs; the file has 2"),
    "pair inside a layer": (_quantized_output, "predictions", "stands inside it, before the node 'predictions/soft"),
    "wrong scale": (_change("stem_relu_quantize/scale", lambda s: s * 1.001), "block_conv", "the simulated"),
    "NaN scale": (_change("stem_relu_quantize/scale", lambda s: s * np.nan), "block_conv", "finite; the file has nan"),
    "zero scale": (_change("stem_relu_quantize/scale", lambda s: s * 0), "block_conv", "positive and finite"),
    "scale of shape (1,)": (
        _change("stem_relu_quantize/scale", lambda s: s.reshape(1)),
        "block_conv",
        r"one number, of shape \(\); the file has shape \(1,\)",
    ),
    "wrong zero-point": (_change("stem_relu_quantize/zero_point", lambda z: z + 3), "block_conv", "zero-point should"),
    "zero-point of shape (1,)": (
        _change("stem_relu_quantize/zero_point", lambda z: z.reshape(1)),
        "block_conv",
        r"of shape \(1,\)",
    ),
    "two scales in a pair": (_different_scales_in_one_pair, "stem_pad", "differ in scale or zero-point"),
    "float weights": (_float_weights, "head_conv", "int8 behind a DequantizeLinear; the file has them in float"),
    "one scale for all channels": (_one_scale_for_the_kernel, "head_conv", r"each output channel, of shape \(64,\)"),
    "scale along the wrong axis": (_wrong_axis, "block_conv", "along axis 0; the file has .* along axis 1"),
    "negative weight scale": (_change("head_conv/kernel_scale", lambda s: -s), "head_conv", "channel 0 is not"),
    "weights of -128": (_change("head_conv/kernel", lambda q: np.full_like(q, -128)), "head_conv", "from -127 to 127"),
    "weight zero-point": (_change("head_conv/kernel_zero_point", lambda z: z + 1), "head_conv", "should be 0 in int8"),
    "rewired": (_rewired, "block_add", "'stem_relu', and doesn't|should read 'stem_relu'"),
    "node without a name": (_nameless, "block_add", "no node of the file stands for it"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_broken_file_is_found_at_its_layer(name: str, exported: Exported, tmp_path: Path) -> None:
    break_it, layer, problem = BREAKS[name]
    file = File(exported.path)
    break_it(file)
    broken = file.save(tmp_path)
    first = exported.verify(broken).findings[0]
    assert first.layer == layer
    with pytest.raises(GateMissedError, match=rf"first at '{layer}': .*{problem}"):
        require_verified(broken, exported.placement, model=exported.model)


def test_shared_layer_keeps_the_numbers_of_its_calls(tmp_path: Path) -> None:
    image = keras.Input((8, 8, 3), name="image")
    shared = layers.Conv2D(3, 1, name="shared")
    deep = shared(layers.Softmax(name="softmax")(layers.LeakyReLU(name="leaky")(image)))
    model = keras.Model(image, layers.Add(name="add")([shared(image), deep]))
    for target in TARGETS:
        quantized, placement = _quantized(model, target)
        assert [n.name for n in trace(quantized).graph.nodes if n.layer == "shared"] == ["shared", "shared#2"]
        path = export_onnx(quantized, tmp_path / f"{target}.onnx", target=target)
        assert verify_file(path, placement, model=quantized).findings == ()


def test_calls_inside_a_nested_model_keep_their_numbers_once_it_is_flat(tmp_path: Path) -> None:
    """The nested model makes its first output from the first call; the outer model wants the second output first."""
    pixels = keras.Input((8, 8, 3), name="pixels")
    shared = layers.Conv2D(3, 1, name="shared")
    first, second = shared(layers.ReLU(name="relu")(pixels)), shared(layers.LeakyReLU(name="leaky")(pixels))
    inner = keras.Model(pixels, [first, second], name="inner")
    image = keras.Input((8, 8, 3), name="image")
    a, b = inner(image)
    model = keras.Model(image, layers.Subtract(name="difference")([layers.Conv2D(3, 1, name="after")(b), a]))
    calls = {node.name: node.inputs for node in trace(model).graph.nodes if node.layer == "shared"}
    assert calls == {"shared": ("leaky",), "shared#2": ("relu",)}
    for target in TARGETS:
        quantized, placement = _quantized(model, target)
        path = export_onnx(quantized, tmp_path / f"{target}.onnx", target=target)
        assert verify_file(path, placement, model=quantized).findings == ()


def test_pair_that_the_plan_refused_for_weights(exported: Exported) -> None:
    def refuse(weights: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(replace(w, spec=None) if w.layer == "head_conv" else w for w in weights)

    other = replace(exported.placement, weights=refuse(exported.placement.weights))
    findings = verify_file(exported.path, other).findings
    assert [f.layer for f in findings] == ["head_conv"]
    assert "its weights should be float" in findings[0].problem
    without = replace(exported.placement, weights=exported.placement.weights[:-1])
    assert [f.layer for f in verify_file(exported.path, without).findings] == ["predictions"] * (
        2 if exported.placement.target == "onnxruntime" else 1
    )


def test_int32_bias_must_have_the_scale_of_its_products(exported: Exported, tmp_path: Path) -> None:
    if not find_target(exported.placement.target).int32_dense_bias:
        pytest.skip("a target with float biases")
    file = File(exported.path)
    file.store("predictions/bias_scale", file.constant("predictions/bias_scale") * np.float32(1.01))
    findings = exported.verify(file.save(tmp_path)).findings
    assert [str(f) for f in findings] == [
        "predictions: the scale of its int32 bias should be that of its input times that of its weights"
    ]


def test_checker_and_shape_inference_are_asked(exported: Exported, tmp_path: Path) -> None:
    file = File(exported.path)
    file.node("stem_relu").op_type = "Rleu"
    findings = exported.verify(file.save(tmp_path)).findings
    assert [f.layer for f in findings] == ["the file"]
    assert "ONNX's checker refuses it" in findings[0].problem
    file = File(exported.path)
    file.store("head_conv/bias", np.zeros(3, np.float32))
    file.proto.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 11
    assert "ONNX's checker refuses it" in exported.verify(file.save(tmp_path)).findings[0].problem


def test_scales_are_compared_only_with_the_model_at_hand(exported: Exported, tmp_path: Path) -> None:
    file = File(exported.path)
    file.store("stem_relu_quantize/scale", file.constant("stem_relu_quantize/scale") * np.float32(1.5))
    assert verify_file(file.save(tmp_path), exported.placement).ok


def test_bad_input(exported: Exported, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"There is no such file\. Received: .*none\.onnx"):
        exported.verify(tmp_path / "none.onnx")
    (tmp_path / "half.onnx").write_bytes(exported.path.read_bytes()[:5000])
    with pytest.raises(StorageError, match=r"Received: .*half\.onnx"):
        exported.verify(tmp_path / "half.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(StorageError, match=r"Received: .*empty\.onnx"):
        exported.verify(tmp_path / "empty.onnx")
    node = helper.make_node("Relu", ["x"], ["y"])
    x, y = (helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy")
    onnx.save(helper.make_model(helper.make_graph([node], "foreign", [x], [y])), tmp_path / "foreign.onnx")
    with pytest.raises(StorageError, match=r"doesn't say which Keras layers.*Received: .*with 1 nodes"):
        exported.verify(tmp_path / "foreign.onnx")
    with pytest.raises(UserError, match="Unknown target"):
        verify_file(exported.path, exported.placement, "tpu")


def test_file_of_another_model_names_its_first_layer(exported: Exported, tmp_path: Path) -> None:
    model, _ = _everything_quantized(exported.placement.target)
    other = export_onnx(model, tmp_path / "other.onnx", target=exported.placement.target)
    with pytest.raises(GateMissedError, match="first at 'stem_"):
        require_verified(other, exported.placement)


def test_run_fails_at_the_first_layer_that_is_not_as_planned(
    trained_network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from keras_qat.cli.program import app, run_program

    original = export_onnx

    def export_broken(*arguments: Any, **options: Any) -> Path:
        path = original(*arguments, **options)
        if path.name == "ptq.onnx":
            file = File(path)
            _float_weights(file)
            onnx.save(file.proto, path)
        return path

    monkeypatch.setattr("keras_qat.export.export_onnx", export_broken)
    arguments = ["--model", trained_network, "--skip-fine-tuning", "--skip-saved-model", "--calibration-images", "32"]
    assert run_program(["run", *arguments, "--output", str(tmp_path)], app) == 3
    assert "isn't quantized as was planned, first at 'head_conv'" in " ".join(capfd.readouterr().err.split())
    assert (Settings.of(model=trained_network, output=tmp_path).folder / "ptq.onnx").is_file()
