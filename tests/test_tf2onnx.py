"""The manual path, SavedModel and `python -m tf2onnx.convert`, has the pairs, scales and integers of `export_onnx`.

Both files are read as plain ONNX and compared by structure: an edge goes from the operation that makes a tensor to one
that computes with it, seen through nodes that only move numbers and through the affine nodes of an unfolded batch norm.
"""

import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from keras_qat import apply_placement, calibrate, plan, trace
from keras_qat.data import load_data
from keras_qat.export import export_onnx, export_saved_model
from keras_qat.layers import FakeQuantize
from keras_qat.models import build_model, find
from keras_qat.types import QuantSpec

pytest.importorskip("tf2onnx")

OPSET = 13
MOVES = {"Transpose", "Pad", "Squeeze", "Reshape", "Identity"}
COMPUTES = {"Conv", "Gemm", "MatMul", "MaxPool", "GlobalAveragePool", "Softmax"}

_LAST_BIT = 2.0**-23
"""The last bit of a float32, relative to it."""

Edge = tuple[str, bool, str]
"""(layer that makes the tensor, whether a ReLU follows it, layer that reads it)."""

Grid = tuple[float, int, int]
"""(scale, least and largest integer, zero-point not counted): the same numbers in int8 and in uint8."""


@dataclass
class File:
    """An ONNX file, with the lookups of the comparison."""

    path: Path
    model: onnx.ModelProto
    constants: dict[str, np.ndarray]
    makers: dict[str, onnx.NodeProto]
    edges: dict[Edge, Grid | None] = field(default_factory=dict)
    dequantized: dict[Edge, str] = field(default_factory=dict)

    def is_affine(self, node: onnx.NodeProto) -> bool:
        """Whether the node is part of a batch norm or a bias: a Mul or Add with a constant."""
        return node.op_type in {"Mul", "Add"} and any(i in self.constants for i in node.input)

    def layer(self, node: onnx.NodeProto) -> str:
        """The Keras layer: the name itself in our files, `StatefulPartitionedCall/MODEL_1/LAYER_1/…` in tf2onnx's."""
        parts = node.name.split("/")
        return parts[2].removesuffix("_1") if parts[0] == "StatefulPartitionedCall" else parts[0]


def _read(path: Path) -> File:
    model = onnx.load(path)
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    file = File(path, model, constants, {o: n for n in model.graph.node for o in n.output})
    for node in model.graph.node:
        if node.op_type in COMPUTES or (node.op_type == "Add" and not file.is_affine(node)):
            for value in node.input[: 2 if node.op_type == "Add" else 1]:
                _add_edge(file, value, file.layer(node))
    return file


def _add_edge(file: File, value: str, consumer: str) -> None:
    grid, dequantized, relu = None, None, False
    while (node := file.makers.get(value)) is not None:
        if node.op_type == "DequantizeLinear":
            assert grid is None, f"two pairs before {consumer}"
            dequantized, grid = value, _grid(file, node)
        elif node.op_type == "QuantizeLinear":
            assert grid == _grid(file, node), f"Q and DQ before {consumer} have different parameters"
        elif node.op_type == "Relu":
            relu = True
        elif node.op_type not in MOVES and not file.is_affine(node):
            break
        value = next(i for i in node.input if i not in file.constants)
    edge = ("image" if node is None else file.layer(node), relu, consumer)
    file.edges[edge] = grid
    if dequantized is not None:
        file.dequantized[edge] = dequantized


def _grid(file: File, node: onnx.NodeProto) -> Grid:
    scale, zero_point = (file.constants[i] for i in node.input[1:3])
    limits = np.iinfo(zero_point.dtype)
    return float(scale), limits.min - int(zero_point), limits.max - int(zero_point)


@dataclass(frozen=True)
class Kernel:
    """Integers, their scales, and the affine map of each channel that follows: y = g · Σ s q x + h."""

    q: np.ndarray
    s: np.ndarray
    g: np.ndarray
    h: np.ndarray
    h_step: np.ndarray


def _kernels(file: File) -> dict[str, Kernel]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in file.model.graph.node:
        for value in node.input:
            readers.setdefault(value, []).append(node)
    kernels = {}
    for weighted in file.model.graph.node:
        if weighted.op_type not in {"Conv", "Gemm", "MatMul"}:
            continue
        dequantize = file.makers[weighted.input[1]]
        s = file.constants[dequantize.input[1]]
        axis = next(a.i for a in dequantize.attribute if a.name == "axis")
        g, h, h_step = np.ones(len(s)), np.zeros(len(s)), np.zeros(len(s))
        if len(weighted.input) > 2:
            h, h_step = _bias(file, weighted.input[2])
        after = readers[weighted.output[0]]
        while len(after) == 1 and file.is_affine(after[0]):
            c = next(file.constants[i] for i in after[0].input if i in file.constants).astype(np.float64).reshape(-1)
            g, h = (g * c, h * c) if after[0].op_type == "Mul" else (g, h + c)
            after = readers[after[0].output[0]]
        kernels[file.layer(weighted)] = Kernel(_integers(file, dequantize, axis), s, g, h, h_step)
    return kernels


def _integers(file: File, dequantize: onnx.NodeProto, axis: int) -> np.ndarray:
    """What the DequantizeLinear reads: stored int8, or float weights of a QuantizeLinear, rounded as ONNX specifies."""
    if dequantize.input[0] in file.constants:
        return file.constants[dequantize.input[0]]
    quantize = file.makers[dequantize.input[0]]
    weights, s = (file.constants[i] for i in quantize.input[:2])
    assert np.array_equal(s, file.constants[dequantize.input[1]])
    spread = s.reshape([-1 if a == axis else 1 for a in range(weights.ndim)])
    return np.clip(np.round(weights / spread), -128, 127).astype(np.int8)


def _bias(file: File, value: str) -> tuple[np.ndarray, np.ndarray]:
    """The bias and its step, which is 0 for a float bias."""
    if value in file.constants:
        h = file.constants[value].astype(np.float64)
        return h, np.zeros_like(h)
    q, s = (file.constants[i].astype(np.float64) for i in file.makers[value].input[:2])
    return q * s, s


def _run(
    file: File, images: np.ndarray, fed: dict[Edge, np.ndarray] | None = None
) -> tuple[np.ndarray, dict[Edge, Any]]:
    """Scores, and the result of each pair. With `fed`, every section between pairs reads these numbers instead.

    Optimizations are off, since they would make integer kernels of the pairs of one file and not of the other's.
    """
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    names = dict.fromkeys(file.dequantized.values())
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    feeds = {model.graph.input[0].name: images}
    if fed is not None:
        for edge, name in file.dequantized.items():
            feeds[f"{name}/fed"] = fed[edge]
        for node in model.graph.node:
            node.input[:] = [f"{i}/fed" if i in names else i for i in node.input]
        model.graph.input.extend(
            helper.make_tensor_value_info(f"{name}/fed", onnx.TensorProto.FLOAT, None) for name in names
        )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    scores, *pairs = session.run(None, feeds)
    arrays = dict(zip(names, pairs, strict=True))
    return scores, {edge: arrays[name] for edge, name in file.dequantized.items()}


_COMMAND = f"python -m tf2onnx.convert --saved-model {{0}}/saved --opset {OPSET} --output {{0}}/tf2onnx.onnx"
"""The documented command."""

_RUN_COMMANDS = """
import runpy, sys

for command in sys.argv[1:]:
    _, _, module, *sys.argv[1:] = command.split()
    runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
"""What `python -m` does, for several commands in one process: importing TensorFlow takes longer than a conversion."""


def _convert(models: Mapping[str, tuple[Any, str]], folder: Path) -> dict[str, tuple[File, File]]:
    """For each model, quantized for a target, the file of `export_onnx` and the one of the manual path."""
    for name, (model, target) in models.items():
        export_onnx(model, folder / name / "ours.onnx", target=target, opset=OPSET)
        export_saved_model(model, folder / name / "saved")
    commands = [_COMMAND.format(folder / name) for name in models]
    called = [sys.executable, "-c", _RUN_COMMANDS, *commands]
    done = subprocess.run(called, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode == 0, done.stderr
    return {name: (_read(folder / name / "ours.onnx"), _read(folder / name / "tf2onnx.onnx")) for name in models}


def _assert_same(ours: File, theirs: File, images: np.ndarray) -> None:
    # Every edge: quantized or not, and its integers; tf2onnx divides by 127, which may differ in the last bit.
    assert theirs.edges.keys() == ours.edges.keys()
    for edge, grid in ours.edges.items():
        assert theirs.edges[edge] == (None if grid is None else (pytest.approx(grid[0], rel=_LAST_BIT), *grid[1:])), (
            edge
        )
    _assert_same_kernels(_kernels(ours), _kernels(theirs))
    _, fed = _run(ours, images)
    expected, actual = (_run(file, images, fed)[1] for file in (ours, theirs))
    for edge, (scale, *_) in ((e, g) for e, g in ours.edges.items() if g is not None):
        steps = np.abs(expected[edge] - actual[edge]) / np.float32(scale)
        assert steps.max() < 1.01, edge
        assert np.mean(steps > 0.5) < 0.001, edge


def _assert_same_kernels(ours: dict[str, Kernel], theirs: dict[str, Kernel]) -> None:
    assert set(ours) == set(theirs)
    for name, a in ours.items():
        b = theirs[name]
        if np.all(b.g == 1):
            np.testing.assert_allclose(a.s, b.s, rtol=_LAST_BIT, err_msg=name)
        # A channel that its batch norm multiplies by 0 has the integers 0 in the file of `export_onnx`.
        kept = b.g != 0
        np.testing.assert_allclose(a.s[kept], (b.s * np.abs(b.g))[kept], rtol=1e-6, err_msg=name)
        axis = a.q.shape.index(len(a.s)) if a.q.ndim == 2 else 0
        q, folded = (np.moveaxis(k.q.astype(int), axis, -1) for k in (b, a))
        np.testing.assert_array_equal((q * np.sign(b.g).astype(int))[..., kept], folded[..., kept], err_msg=name)
        assert np.all(np.abs(a.h - b.h) <= 1e-5 * np.abs(b.h).max() + 0.501 * a.h_step), name


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(2).uniform(-1, 1, size=(64, 32, 32, 3)).astype("float32")


TARGETS = ("tensorrt", "onnxruntime")
SATURATING = "saturating"


@pytest.fixture(scope="module")
def network(tiny_network: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    model = build_model(find(tiny_network), weights=None, num_classes=10, size=32)
    rng = np.random.default_rng(1)
    for norm in (layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)):
        gamma = rng.normal(size=norm.gamma.shape)
        gamma[0] = 0
        norm.set_weights([gamma, rng.normal(size=gamma.shape), rng.normal(size=gamma.shape), np.ones(gamma.shape)])
    return model


@pytest.fixture(scope="module")
def one_step() -> keras.Model:
    inputs = keras.Input((2,), name="x")
    return keras.Model(inputs, FakeQuantize(QuantSpec(), amax=127.0, name="x_quantize")(inputs))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tf2onnx")


@pytest.fixture(scope="module")
def converted(
    network: keras.Model, one_step: keras.Model, images: np.ndarray, work: Path
) -> dict[str, tuple[File, File]]:
    models = {SATURATING: (one_step, "tensorrt")}
    for target in TARGETS:
        placement = plan(trace(network).graph, target)
        models[target] = apply_placement(network, placement, calibrate(network, placement, [images])), target
    return _convert(models, work)


@pytest.mark.parametrize("target", TARGETS)
def test_manual_path_gives_our_pairs_scales_and_numbers(
    target: str, network: keras.Model, converted: dict[str, tuple[File, File]], images: np.ndarray
) -> None:
    ours, theirs = converted[target]
    placement = plan(trace(network).graph, target)
    assert len({e[:2] for e, grid in ours.edges.items() if grid is not None}) == len(placement.tensors)
    _assert_same(ours, theirs, images)
    # End to end a number on the border of two steps may move others over borders, in single images.
    a, b = (_run(file, images)[0] for file in (ours, theirs))
    assert np.median(np.abs(a - b)) < 1e-5
    assert np.mean(a.argmax(1) == b.argmax(1)) > 0.98


def test_another_scale_and_a_missing_pair_are_seen(tiny_network: str, images: np.ndarray, tmp_path: Path) -> None:
    model = build_model(find(tiny_network), weights=None, num_classes=10, size=32)
    placement = plan(trace(model).graph, "tensorrt")
    quantized = apply_placement(model, placement, calibrate(model, placement, [images]))
    edges = _read(export_onnx(quantized, tmp_path / "right.onnx", opset=OPSET)).edges
    layer = quantized.get_layer("stem_relu_quantize")
    layer.amax.assign(layer.amax * (1 + 2e-7))
    assert _read(export_onnx(quantized, tmp_path / "scale.onnx", opset=OPSET)).edges != edges
    assert _read(export_onnx(model, tmp_path / "float.onnx", opset=OPSET)).edges.keys() == edges.keys()
    assert not any(_read(tmp_path / "float.onnx").edges.values())


def test_only_the_saved_model_saturates_one_step_earlier(
    one_step: keras.Model, converted: dict[str, tuple[File, File]], work: Path
) -> None:
    """TensorFlow's operation is symmetric, -127 to 127; tf2onnx's int8 is not, nor are the simulation and its file."""
    import tensorflow as tf

    ours, theirs = converted[SATURATING]
    x = np.array([[-300.0, 300.0]], np.float32)
    assert tf.saved_model.load(work / SATURATING / "saved").serve(x).numpy().tolist() == [[-127, 127]]
    for scores in (_run(ours, x)[0], _run(theirs, x)[0], one_step(x).numpy()):
        assert scores.tolist() == [[-128, 127]]


@pytest.mark.slow
def test_manual_path_of_a_real_resnet50(shared_data: Path, tmp_path: Path) -> None:
    entry = find("resnet50")
    weights = shared_data / "resnet50_imagenet.weights.h5"
    model = build_model(entry, weights=weights, num_classes=1000, size=224)
    data = load_data(shared_data / "imagenet-mini", entry.preprocessing, seed=0)
    x = next(data.validation.arrays(4))[0]
    placement = plan(trace(model).graph, "onnxruntime")
    quantized = apply_placement(model, placement, calibrate(model, placement, [x], method="minmax"))
    files = _convert({"resnet50": (quantized, "onnxruntime")}, tmp_path)
    _assert_same(*files["resnet50"], x)
