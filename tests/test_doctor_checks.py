"""Each check of `keras-qat doctor`, provoked once by one change to a sound file, and silent on the sound file."""

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from keras_qat.doctor import Severity, examine
from keras_qat.doctor.checks import CHECKS, integers
from keras_qat.errors import StorageError, UserError
from keras_qat.machine import Cpu
from keras_qat.onnx import ACTIVATIONS, CONVOLUTIONS, INTEGER, PAIR, read_onnx_file
from keras_qat.onnx.walk import MOVES, pair_above

Node = onnx.NodeProto


@dataclass(frozen=True)
class Sketch:
    """A file to be written: nodes by name, in order, and the numbers that they read."""

    nodes: dict[str, Node]
    numbers: dict[str, np.ndarray]
    shape: tuple[Any, ...] = ("batch", 3, 8, 8)
    opset: int = 17
    ir_version: int = 8
    float_type: int = TensorProto.FLOAT
    outputs: tuple[str, ...] = ("y",)
    domains: tuple[str, ...] = field(default=())

    def change(self, **numbers: Any) -> "Sketch":
        """With other numbers, or more of them."""
        return replace(self, numbers={**self.numbers, **{name: np.asarray(one) for name, one in numbers.items()}})

    def put(self, *nodes: Node, before: str | None = None) -> "Sketch":
        """With these nodes in the place of those of their names, or before another."""
        new = {node.name: node for node in nodes}
        kept = {name: new.pop(name, node) for name, node in self.nodes.items()}
        if before is None:
            return replace(self, nodes={**kept, **new})
        place = list(kept).index(before)
        items = list(kept.items())
        return replace(self, nodes=dict([*items[:place], *new.items(), *items[place:]]))

    def forget(self, *numbers: str) -> "Sketch":
        return replace(self, numbers={name: one for name, one in self.numbers.items() if name not in numbers})

    def drop(self, *names: str) -> "Sketch":
        return replace(self, nodes={name: node for name, node in self.nodes.items() if name not in names})

    def write(self, path: Path) -> Path:
        graph = helper.make_graph(
            list(self.nodes.values()),
            "sketch",
            [helper.make_tensor_value_info("x", self.float_type, self.shape)],
            [helper.make_tensor_value_info(name, self.float_type, [None] * len(self.shape)) for name in self.outputs],
            [numpy_helper.from_array(one, name) for name, one in self.numbers.items()],
        )
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(domain, 1) for domain in self.domains)]
        path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=self.ir_version).SerializeToString())
        return path


def node(op_type: str, inputs: str, outputs: str, name: str | None = None, **attributes: Any) -> Node:
    return helper.make_node(op_type, inputs.split(), outputs.split(), name=name or outputs, **attributes)


def pair(tensor: str, result: str, scale: str = "s", zero: str = "z") -> tuple[Node, Node]:
    return (
        node("QuantizeLinear", f"{tensor} {scale} {zero}", f"{result}_q"),
        node("DequantizeLinear", f"{result}_q {scale} {zero}", result),
    )


def kernel(name: str) -> Node:
    return node("DequantizeLinear", f"{name}_q {name}_s {name}_z", name, axis=0)


def _kernel_numbers(name: str, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {
        f"{name}_q": np.full(shape, 50, np.int8),
        f"{name}_s": np.full(shape[:1], 0.01, np.float32),
        f"{name}_z": np.zeros(shape[:1], np.int8),
    }


SOUND = Sketch(
    {
        one.name: one
        for one in (
            *pair("x", "a"),
            kernel("w"),
            node("Conv", "a w b", "c", "conv"),
            node("Relu", "c", "r"),
            *pair("r", "y"),
        )
    },
    {
        **_kernel_numbers("w", (4, 3, 3, 3)),
        "b": np.zeros(4, np.float32),
        "s": np.array(0.1, np.float32),
        "z": np.array(0, np.uint8),
    },
)
"""x → pair → convolution with int8 weights a channel → ReLU → pair: what ONNX Runtime and OpenVINO want."""

SIGNED = SOUND.change(z=np.int8(0))
"""The same in int8 around 0: what TensorRT wants."""

RESIDUAL = (
    SIGNED.drop("y_q", "y")
    .put(
        *pair("r", "t"),
        kernel("v"),
        node("Conv", "t v", "d", "second", pads=[1, 1, 1, 1]),
        node("Add", "t d", "e", "add"),
        *pair("e", "y"),
    )
    .change(**_kernel_numbers("v", (4, 4, 3, 3)))
)
"""A residual block as TensorRT wants it: the second convolution's branch without a pair."""


def _pointwise(stride: int) -> Sketch:
    strided = node("Conv", "a w b", "c", "conv", strides=[stride, stride], kernel_shape=[1, 1])
    return SOUND.put(strided).change(w_q=np.full((4, 3, 1, 1), 50, np.int8))


def _half() -> Sketch:
    halves = {name: one.astype(np.float16) for name, one in SOUND.numbers.items() if one.dtype == np.float32}
    return replace(SOUND.change(**halves), opset=19, ir_version=9, float_type=TensorProto.FLOAT16)


def _gemm() -> Sketch:
    dense = node("Gemm", "f w g", "y", "dense", transB=1)
    flat = replace(SOUND.drop("conv", "r", "y_q", "y"), shape=("batch", 3))
    gemm = flat.put(node("Identity", "a", "f"), dense)
    return gemm.change(w_q=np.full((4, 3), 50, np.int8), g=np.zeros(4, np.float32))


def _dynamic() -> Sketch:
    sketch = SOUND.drop("a_q", "a", "w", "conv", "r", "y_q", "y")
    return sketch.put(
        node("DynamicQuantizeLinear", "x", "q qs qz", "dynamic"),
        node("ConvInteger", "q w_q qz", "i", "conv"),
        node("Cast", "i", "y", to=TensorProto.FLOAT),
    )


def _max_pool(scale: str) -> Sketch:
    nodes = (*pair("r", "p"), node("MaxPool", "p", "m", "pool", kernel_shape=[2, 2]), *pair("m", "y", scale))
    return SOUND.drop("y_q", "y").put(*nodes).change(other=np.float32(0.2))


PROVOKED: dict[str, tuple[Sketch, Sketch, str]] = {
    "empty-graph": (replace(SOUND, nodes={}, numbers={}, outputs=("x",)), SOUND, "openvino"),
    "invalid-model": (SOUND.put(node("Conv", "nowhere w b", "c", "conv")), SOUND, "openvino"),
    "not-finite": (SOUND.change(b=np.array([0, np.nan, 0, 0], np.float32)), SOUND, "openvino"),
    "old-opset": (replace(SOUND, opset=12), SOUND, "openvino"),
    "new-opset": (replace(SOUND, ir_version=15), SOUND, "onnxruntime"),
    "unknown-operator": (
        replace(SOUND.put(node("Relu", "c", "r", domain="com.example")), domains=("com.example",)),
        SOUND,
        "onnxruntime",
    ),
    "refused-operator": (_dynamic(), SIGNED, "tensorrt"),
    "int32-bias": (
        SIGNED.forget("b")
        .put(node("DequantizeLinear", "b_q b_s", "b"), before="conv")
        .change(b_q=np.zeros(4, np.int32), b_s=np.float32(0.001)),
        SIGNED,
        "tensorrt",
    ),
    "bias-overflow": (
        SOUND.change(w_s=np.array([0.01, 1e-14, 0.01, 0.01], np.float32), b=np.array([1, 3, 1, 1], np.float32)),
        SOUND.change(w_s=np.array([0.01, 1e-7, 0.01, 0.01], np.float32), b=np.array([1, 3, 1, 1], np.float32)),
        "onnxruntime",
    ),
    "zero-point": (SIGNED.change(z=np.int8(3)), SIGNED, "tensorrt"),
    "uint8-activations": (SOUND, SIGNED, "tensorrt"),
    "bad-scale": (SOUND.change(s=np.float32(0)), SOUND, "openvino"),
    "float-file": (
        SOUND.drop("a_q", "a", "w", "y_q", "y").put(node("Conv", "x w b", "c", "conv"), node("Relu", "c", "y", "r")),
        SOUND,
        "openvino",
    ),
    "float-kernels": (SOUND.put(node("Conv", "x w b", "c", "conv")), SOUND, "tensorrt"),
    "float-output": (SIGNED, SOUND, "onnxruntime"),
    "float-bias": (
        _gemm(),
        _gemm()
        .forget("g")
        .put(node("DequantizeLinear", "b_q b_s", "g"), before="dense")
        .change(b_q=np.zeros(4, np.int32), b_s=np.float32(0.001)),
        "onnxruntime",
    ),
    "float-add": (RESIDUAL, SOUND, "onnxruntime"),
    "quantized-branch": (
        RESIDUAL.put(*pair("d", "h"), node("Add", "t h", "e", "add"), before="add"),
        RESIDUAL,
        "tensorrt",
    ),
    "strided-pointwise": (_pointwise(2), _pointwise(1), "openvino"),
    "parted-activation": (
        SOUND.put(*pair("c", "k"), node("Relu", "k", "r"), before="r"),
        SOUND,
        "tensorrt",
    ),
    "unfused-batch-norm": (
        SOUND.put(node("BatchNormalization", "c one b b one", "n", "norm"), node("Relu", "n", "r"), before="r").change(
            one=np.ones(4, np.float32)
        ),
        SOUND,
        "onnxruntime",
    ),
    "half-pair": (SOUND.put(node("Cast", "y_q", "y", to=TensorProto.FLOAT)), SOUND, "openvino"),
    "unlike-halves": (
        SOUND.put(node("DequantizeLinear", "a_q other z", "a")).change(other=np.float32(0.2)),
        SOUND,
        "openvino",
    ),
    "unequal-scales": (_max_pool("other"), _max_pool("s"), "onnxruntime"),
    "tiny-scale": (SOUND.change(s=np.float32(1e-40)), SOUND, "openvino"),
    "per-tensor-weights": (
        SOUND.change(w_s=np.float32(0.01), w_z=np.int8(0)),
        SOUND,
        "openvino",
    ),
    "shared-int8": (RESIDUAL, SIGNED, "onnxruntime"),
    "fp16-scales": (_half(), SOUND, "onnxruntime"),
    "dynamic-quantization": (_dynamic(), SOUND, "onnxruntime"),
    "dynamic-shape": (replace(SOUND, shape=("batch", 3, "height", 8)), SOUND, "openvino"),
    "float-between": (
        SOUND.put(node("GlobalAveragePool", "r", "g", "pool"), *pair("g", "y"), before="y_q"),
        SOUND,
        "onnxruntime",
    ),
    "float-weights": (
        SOUND.forget("w_q")
        .put(node("QuantizeLinear", "w_f w_s w_z", "w_q", axis=0), before="w")
        .change(w_f=np.ones((4, 3, 3, 3), np.float32)),
        SOUND,
        "tensorrt",
    ),
    "saturation": (SOUND.change(w_q=np.full((4, 3, 3, 3), 127, np.int8)), SOUND, "onnxruntime"),
    "nothing-weighted": (SOUND.drop("w", "conv").put(node("Relu", "a", "r")), SOUND, "openvino"),
}
"""{check: (a file that provokes it, one that is sound in that, the engine that it hurts)}."""


@pytest.fixture(autouse=True)
def _no_vnni(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(integers, "read_cpu", lambda: Cpu("an old one", vnni=False))


def _checks(path: Path, target: str) -> dict[str, Any]:
    return {finding.check: finding for finding in examine(path, [target]).findings}


@pytest.mark.parametrize("check", PROVOKED)
def test_one_change_provokes_the_check_and_the_sound_file_does_not(check: str, tmp_path: Path) -> None:
    sick, sound, target = PROVOKED[check]
    finding = _checks(sick.write(tmp_path / "sick.onnx"), target)[check]
    assert finding.engines == (target,)
    assert finding.problem
    assert finding.cost
    assert finding.remedy
    assert check not in _checks(sound.write(tmp_path / "sound.onnx"), target)


def test_every_check_is_provoked_and_documented() -> None:
    assert set(CHECKS) == {*PROVOKED, "missing-data"}
    page = (Path(__file__).parents[1] / "docs" / "doctor.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([\w-]+)` \|", page, re.MULTILINE) == list(CHECKS)


@pytest.mark.parametrize(("sketch", "target"), [(SOUND, "openvino"), (SOUND, "onnxruntime"), (SIGNED, "tensorrt")])
def test_a_sound_file_is_healthy_and_valid(sketch: Sketch, target: str, tmp_path: Path) -> None:
    path = sketch.write(tmp_path / "sound.onnx")
    onnx.checker.check_model(str(path))
    found = examine(path, [target])
    assert found.findings == ()
    assert found.verdict == "healthy: 2 Q/DQ pairs, 1 of 1 convolutions in int8"


def test_missing_external_data_is_named_and_present_data_are_read(tmp_path: Path) -> None:
    model = onnx.load(SOUND.write(tmp_path / "whole.onnx"))
    path = tmp_path / "split.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="split.data", size_threshold=16)
    assert examine(path, ["openvino"]).healthy
    assert examine(path).summary.size_bytes > path.stat().st_size
    (tmp_path / "split.data").unlink()
    found = _checks(path, "openvino")
    assert found["missing-data"].severity is Severity.ERROR
    assert found["missing-data"].count == len(model.graph.initializer)


def test_data_cut_short_are_missing(tmp_path: Path) -> None:
    model = onnx.load(SOUND.write(tmp_path / "whole.onnx"))
    onnx.save_model(model, tmp_path / "split.onnx", save_as_external_data=True, location="data", size_threshold=16)
    data = tmp_path / "data"
    data.write_bytes(data.read_bytes()[:20])
    assert "missing-data" in _checks(tmp_path / "split.onnx", "openvino")


def test_a_clip_is_a_relu(tmp_path: Path) -> None:
    clipped = SOUND.put(node("Clip", "c low high", "r")).change(low=np.float32(0), high=np.float32(6))
    assert examine(clipped.write(tmp_path / "relu6.onnx"), ["onnxruntime"]).healthy


def test_a_pair_that_others_read_too_parts_nothing(tmp_path: Path) -> None:
    parted, _, _ = PROVOKED["parted-activation"]
    shared = parted.put(node("Add", "r k", "t", "add"), node("QuantizeLinear", "t s z", "y_q"), before="y_q")
    assert "parted-activation" not in _checks(shared.write(tmp_path / "shared.onnx"), "tensorrt")


def test_a_function_of_the_file_is_no_unknown_operator(tmp_path: Path) -> None:
    sketch = replace(SOUND.put(node("MyRelu", "c", "r", domain="local")), domains=("local",))
    model = onnx.load(sketch.write(tmp_path / "model.onnx"))
    body = helper.make_function("local", "MyRelu", ["i"], ["o"], [node("Relu", "i", "o")], model.opset_import[:1])
    model.functions.append(body)
    onnx.save(model, tmp_path / "model.onnx")
    assert "unknown-operator" not in _checks(tmp_path / "model.onnx", "onnxruntime")


def test_weights_in_seven_bits_do_not_saturate_nor_any_with_vnni(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = SOUND.change(w_q=np.full((4, 3, 3, 3), -128, np.int8)).write(tmp_path / "full.onnx")
    seven = SOUND.change(w_q=np.full((4, 3, 3, 3), -64, np.int8)).write(tmp_path / "seven.onnx")
    assert "saturation" in _checks(full, "onnxruntime")
    assert "saturation" not in _checks(seven, "onnxruntime")
    monkeypatch.setattr(integers, "read_cpu", lambda: Cpu("a new one", vnni=True))
    assert "saturation" not in _checks(full, "onnxruntime")


def test_uint8_around_128_is_said_to_be_the_same_numbers(tmp_path: Path) -> None:
    middle = _checks(SOUND.change(z=np.uint8(128)).write(tmp_path / "middle.onnx"), "tensorrt")["zero-point"]
    aside = _checks(SOUND.change(z=np.uint8(120)).write(tmp_path / "aside.onnx"), "tensorrt")["zero-point"]
    assert "same numbers as int8" in middle.problem
    assert "same numbers" not in aside.problem


SEEN = (PAIR | MOVES | ACTIVATIONS | CONVOLUTIONS | INTEGER) - {"FusedConv", "QGemm"} | {
    *("Gemm", "MatMul", "Add", "Sum", "Mul", "Concat", "MaxPool", "GlobalMaxPool", "AveragePool", "GlobalAveragePool"),
    *("BatchNormalization", "Cast", "Constant", "DynamicQuantizeLinear"),
}
"""The operators of ONNX that checks look at."""

INPUTS = {
    "DequantizeLinear": "a_q s z",
    "QLinearConv": "a_q s z w_q w_s w_z s z",
    "QLinearMatMul": "a_q s z w_q w_s w_z s z",
    "ConvInteger": "a_q w_q z w_z",
    "MatMulInteger": "a_q w_q z w_z",
    "QuantizeLinear": "r s z",
}


def _with(op_type: str) -> Sketch:
    """The sound file with one more operator, before the last pair."""
    given = node(op_type, INPUTS.get(op_type, "r w b s z"), "extra")
    return SOUND.put(given, *pair("extra", "y"), before="y_q")


def _stripped(sketch: Sketch, name: str, inputs: int) -> tuple[Sketch, bool]:
    """With the first few inputs of one node alone, and whether ONNX's own definition wants more."""
    whole = sketch.nodes[name]
    changed = Node()
    changed.CopyFrom(whole)
    del changed.input[inputs:]
    known = not whole.domain
    return sketch.put(changed), known and inputs < onnx.defs.get_schema(whole.op_type, 17).min_input


@pytest.mark.parametrize(
    ("sketch", "name"),
    [
        *(pytest.param(_with(op_type), "extra", id=op_type) for op_type in sorted(SEEN)),
        *(pytest.param(RESIDUAL, name, id=f"residual block: {name}") for name in RESIDUAL.nodes),
        pytest.param(PROVOKED["parted-activation"][0], "r", id="ReLU behind a pair"),
        pytest.param(PROVOKED["unfused-batch-norm"][0], "norm", id="batch norm behind a convolution"),
        pytest.param(PROVOKED["strided-pointwise"][0], "conv", id="strided convolution"),
        pytest.param(PROVOKED["float-bias"][0], "dense", id="dense layer"),
    ],
)
def test_a_node_that_lacks_inputs_is_reported_as_invalid(sketch: Sketch, name: str, tmp_path: Path) -> None:
    for inputs in range(len(sketch.nodes[name].input)):
        stripped, invalid = _stripped(sketch, name, inputs)
        found = {finding.check for finding in examine(stripped.write(tmp_path / "model.onnx")).findings}
        assert "invalid-model" in found or not invalid, inputs


@pytest.mark.parametrize("op_type", sorted(PAIR | CONVOLUTIONS | INTEGER | ACTIVATIONS))
def test_operators_of_other_domains_may_have_any_inputs(op_type: str, tmp_path: Path) -> None:
    """Of these ONNX's checker says nothing."""
    domain = "com.microsoft"
    for inputs in ("", "a_q", "a_q s z w_q"):
        other = node(op_type, inputs, "extra", domain=domain)
        sketch = replace(SOUND.put(other, *pair("extra", "y"), before="y_q"), domains=(domain,))
        assert "invalid-model" not in _checks(sketch.write(tmp_path / "model.onnx"), "onnxruntime")


@pytest.mark.parametrize("op_type", sorted(PAIR | INTEGER - {"QGemm"} | {"Conv", "Relu", "Identity", "MaxPool", "Add"}))
def test_nodes_without_outputs_are_reported_as_invalid(op_type: str, tmp_path: Path) -> None:
    sketch = _with(op_type)
    mute = Node()
    mute.CopyFrom(sketch.nodes["extra"])
    del mute.output[:]
    assert "invalid-model" in {one.check for one in examine(sketch.put(mute).write(tmp_path / "mute.onnx")).findings}


@pytest.mark.parametrize("zero", [TensorProto.INT4, TensorProto.FLOAT8E4M3FN])
def test_zero_points_of_types_that_numpy_lacks(zero: int, tmp_path: Path) -> None:
    model = onnx.load(replace(SOUND, opset=21, ir_version=10).write(tmp_path / "model.onnx"))
    (z,) = (one for one in model.graph.initializer if one.name == "z")
    z.CopyFrom(helper.make_tensor("z", zero, [], [0]))
    onnx.save(model, tmp_path / "model.onnx")
    assert "float-output" in _checks(tmp_path / "model.onnx", "onnxruntime")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "holds no ONNX graph"),
        (np.random.default_rng(0).bytes(500), "can't be read as an ONNX model|holds no ONNX graph"),
        (None, "no such file"),
    ],
)
def test_what_is_no_model_is_refused(content: bytes | None, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StorageError, match=f"(?i){message}.*Received"):
        examine(path)


def test_a_file_cut_in_the_middle_and_a_folder_are_refused(tmp_path: Path) -> None:
    path = SOUND.write(tmp_path / "model.onnx")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(StorageError, match="can't be read"):
        examine(path)
    with pytest.raises(StorageError, match="That is a folder"):
        examine(tmp_path)


def test_a_file_beyond_protobufs_limit_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate(2**31)  # Sparse: it takes no room on the disk.
    with pytest.raises(StorageError, match=r"2 GiB.*save_as_external_data"):
        read_onnx_file(path)


def test_an_unknown_target_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="Unknown target"):
        examine(SOUND.write(tmp_path / "model.onnx"), ["tpu"])


def test_findings_name_three_and_count_all(tmp_path: Path) -> None:
    shifted = _checks(RESIDUAL.change(z=np.int8(1)).write(tmp_path / "model.onnx"), "tensorrt")["zero-point"]
    assert shifted.where == ("a", "t", "y")
    assert shifted.count == 3
    bias = RESIDUAL.change(w_z=np.ones(4, np.int8), v_z=np.ones(4, np.int8), z=np.int8(1))
    more = _checks(bias.write(tmp_path / "more.onnx"), "tensorrt")["zero-point"]
    assert (len(more.where), more.count) == (3, 5)
    assert more.place.endswith("and 2 more")


def test_a_dequantize_without_inputs_is_no_pair() -> None:
    """A malformed file may have such a node; no integers come through it."""
    assert pair_above(ir.node("DequantizeLinear", []).outputs[0]) is None
