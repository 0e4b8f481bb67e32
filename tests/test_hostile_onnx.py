"""ONNX files that are damaged or hostile end in a message or a finding, at once; those with external data are read."""

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from keras_qat import doctor
from keras_qat.errors import DataError, StorageError, UserError
from keras_qat.evaluation import benchmark_files, random_inputs
from keras_qat.onnx import read_onnx_file
from keras_qat.runtimes import TensorSpec, build_engine, engine_failure, open_runtime

node = helper.make_node
KERNEL = np.ones((4, 3, 3, 3), np.float32)
ENGINES = ("onnxruntime", "openvino")


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """End a test that hangs, instead of all tests."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def save(path: Path, nodes: list[onnx.NodeProto], stored: list[TensorProto] | None = None) -> Path:
    """Write a model from x to y."""
    shape = (1, 3, 8, 8)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, tuple("abcd"))
    graph = helper.make_graph(nodes, "graph", [x], [y], stored or [])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return path


def tensor(*dims: int, kind: int = TensorProto.FLOAT, raw: bytes = bytes(4), **external: object) -> TensorProto:
    """A kernel named w, with these sizes, in the file or in external data."""
    made = TensorProto(name="w", data_type=kind, dims=dims)
    if external:
        made.data_location = TensorProto.EXTERNAL
        made.external_data.extend(onnx.StringStringEntryProto(key=key, value=str(v)) for key, v in external.items())
    else:
        made.raw_data = raw
    return made


def convolution(path: Path, kernel: TensorProto) -> Path:
    return save(path, [node("Conv", ["x", "w"], ["y"])], [kernel])


def external(path: Path, **entries: object) -> Path:
    return convolution(path, tensor(*KERNEL.shape, **entries))


CYCLES = {
    "two nodes": [node("Relu", ["b"], ["a"]), node("Relu", ["a"], ["b"]), node("Add", ["a", "x"], ["y"])],
    "one node": [node("Transpose", ["a"], ["a"]), node("Add", ["a", "x"], ["y"])],
    "Identity": [node("Identity", ["b"], ["a"]), node("Identity", ["a"], ["b"]), node("Add", ["a", "x"], ["y"])],
}


@pytest.mark.parametrize("nodes", CYCLES.values(), ids=CYCLES)
def test_a_cycle_is_named(tmp_path: Path, nodes: list[onnx.NodeProto]) -> None:
    with pytest.raises(StorageError, match=r"has a cycle.*Received: .*a\.onnx' with .*a → "):
        doctor.examine(save(tmp_path / "a.onnx", nodes))


def test_ever_more_paths_between_two_nodes_take_no_more_time(tmp_path: Path) -> None:
    doubled = [node("Concat", [f"c{i}", f"c{i}"], [f"c{i + 1}"], axis=1) for i in range(60)]
    quantize, dequantize = node("QuantizeLinear", ["x", "s"], ["c0"]), node("DequantizeLinear", ["c60", "s"], ["y"])
    scale = numpy_helper.from_array(np.float32(1), "s")
    examined = doctor.examine(save(tmp_path / "a.onnx", [quantize, *doubled, dequantize], [scale]))
    assert "half-pair" not in {finding.check for finding in examined.findings}


@pytest.mark.parametrize("kind", ["Transpose", "Identity"])
def test_thousands_of_nodes_in_a_row(tmp_path: Path, kind: str) -> None:
    row = [node(kind, ["c" if i == 0 else f"c{i}"], [f"c{i + 1}"]) for i in range(3000)]
    nodes = [node("Conv", ["x", "w"], ["c"]), *row, node("Add", ["c3000", "c3000"], ["y"])]
    examined = doctor.examine(save(tmp_path / "a.onnx", nodes, [numpy_helper.from_array(KERNEL, "w")]))
    assert examined.summary.convolutions.total == 1


TENSORS = {
    "a negative size": tensor(-1, 3, 3, 3),
    "sizes beyond any memory": tensor(2**62, 3, 3, 3),
    "too few numbers": tensor(*KERNEL.shape),
    "no such type": tensor(1, kind=99),
    "external data before the file": tensor(*KERNEL.shape, location="ok.data", offset=-4),
    "external data at no number": tensor(*KERNEL.shape, location="ok.data", offset="abc"),
}


@pytest.mark.parametrize("stored", TENSORS.values(), ids=TENSORS)
def test_a_tensor_that_can_not_be_used_is_named(tmp_path: Path, stored: TensorProto) -> None:
    with pytest.raises(StorageError, match=r"tensor that can't be used.*Received: .*a\.onnx', in which 'w' "):
        doctor.examine(convolution(tmp_path / "a.onnx", stored))


def test_names_that_are_not_utf8_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", [node("Relu", ["x"], ["y"], name="NAME")])
    path.write_bytes(path.read_bytes().replace(b"NAME", b"N\xf5ME"))
    with pytest.raises(StorageError, match=r"not UTF-8\. Received: .*name b'N"):
        read_onnx_file(path)


def test_a_graph_without_outputs_is_an_error(tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", [node("Relu", ["x"], ["y"])])
    model = onnx.load(path)
    del model.graph.output[:]
    onnx.save(model, path)
    assert doctor.examine(path).findings[0].problem == "the graph has no outputs"


OUTSIDE = ["../secret", "/etc/passwd", "sub/../../secret", "..\\secret", "C:\\secret", "", ".", "link", "loop"]


@pytest.mark.parametrize("location", OUTSIDE)
def test_external_data_outside_the_folder_are_refused_before_an_engine_reads_them(
    tmp_path: Path, location: str
) -> None:
    KERNEL.tofile(tmp_path / "secret")
    path = external(tmp_path / "model" / "a.onnx", location=location)
    (path.parent / "link").symlink_to(tmp_path / "secret")
    (path.parent / "loop").symlink_to("loop")
    steps = [
        lambda: doctor.examine(path),
        *(lambda engine=engine: open_runtime(path, engine=engine) for engine in ENGINES),
        lambda: build_engine(path, engine="openvino"),
        lambda: build_engine(path, engine="tensorrt-rtx"),
    ]
    for step in steps:
        with pytest.raises(StorageError, match=r"has its external data at .*no file in the folder of the model"):
            step()


def test_of_two_locations_none_is_chosen(tmp_path: Path) -> None:
    path = external(tmp_path / "a.onnx", location="ok.data")
    model = onnx.load(path, load_external_data=False)
    model.graph.initializer[0].external_data.add(key="location", value="../secret")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(StorageError, match=r"ok\.data, \.\./secret"):
        read_onnx_file(path)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("fault", ["missing", "short", "pipe", "length"])
def test_external_data_that_are_missing(tmp_path: Path, fault: str, engine: str) -> None:
    path, data = external(tmp_path / "a.onnx", location="w.data"), tmp_path / "w.data"
    if fault == "short":
        data.write_bytes(bytes(5))
    elif fault == "pipe":
        os.mkfifo(data)
    elif fault == "length":
        KERNEL.tofile(data)
        path = external(tmp_path / "a.onnx", location="w.data", length=4)
    with pytest.raises(StorageError, match=r"missing or cut short\. Received: .*'w' needs 432 bytes of .*w\.data"):
        open_runtime(path, engine=engine)
    assert "missing-data" in {finding.check for finding in doctor.examine(path).findings}


def hub(folder: Path) -> Path:
    """A model in a hub's cache, where each file is a link to one that is named after its content."""
    external(folder / "blobs" / "abc", location="model.onnx_data")
    KERNEL.tofile(folder / "blobs" / "def")
    snapshot = folder / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    for name, blob in (("model.onnx", "abc"), ("model.onnx_data", "def")):
        (snapshot / name).symlink_to(f"../../blobs/{blob}")
    return snapshot / "model.onnx"


def beside(folder: Path) -> Path:
    KERNEL.tofile(folder / "w.data")
    return external(folder / "a.onnx", location="w.data")


@pytest.mark.parametrize("made", [beside, hub])
def test_external_data_are_read_by_all_commands(tmp_path: Path, made: Any) -> None:
    path = made(tmp_path)
    file = read_onnx_file(path)
    assert (file.missing_data, file.refusal(), file.refusal(infer_shapes=True)) == ((), None, None)
    np.testing.assert_array_equal(file.model.graph.initializers["w"].const_value.numpy(), KERNEL)
    checks = {finding.check for finding in doctor.examine(path).findings}
    assert not checks & {"missing-data", "invalid-model"}
    with open_runtime(path) as runtime:
        (y,) = runtime.run(np.ones((1, 3, 8, 8), np.float32))
    np.testing.assert_array_equal(y, np.full((1, 4, 6, 6), 27))
    assert len(benchmark_files([path], batch_sizes=[1], runs=1, warm_up=0).timings) == 1


def test_a_folder_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    beside(tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    assert read_onnx_file(tmp_path / "link" / "a.onnx").missing_data == ()


@pytest.mark.parametrize("name", ["pipe.onnx", "pipe.keras", "pipe.xml", "pipe.engine", "device.onnx"])
def test_pipes_and_devices_are_no_models(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.startswith("pipe"):
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(StorageError, match="a pipe or device"):
        open_runtime(path, trust=True)
    if path.suffix == ".onnx":
        with pytest.raises(StorageError, match="a pipe or device"):
            doctor.examine(path)


def test_weights_of_ir_that_are_a_pipe(tmp_path: Path) -> None:
    built = build_engine(beside(tmp_path), engine="openvino").path
    built.with_suffix(".bin").unlink()
    os.mkfifo(built.with_suffix(".bin"))
    with pytest.raises(StorageError, match=r"\.bin', a pipe or device"):
        open_runtime(built)
    built.with_suffix(".bin").unlink()
    built.with_suffix(".bin").symlink_to(built.with_suffix(".bin").name)
    with pytest.raises(StorageError, match=r"Received: .*\.bin"):
        open_runtime(built)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_failure_at_run_time_is_a_message(tmp_path: Path, engine: str) -> None:
    """The shape to reshape to is an input, which fits or not only when the model runs."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 6))
    to = helper.make_tensor_value_info("to", TensorProto.INT64, (2,))
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ("a", "b"))
    graph = helper.make_graph([node("Reshape", ["x", "to"], ["y"])], "graph", [x, to], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "a.onnx")
    with open_runtime(tmp_path / "a.onnx", engine=engine) as runtime:
        given = {"x": np.zeros((1, 6), np.float32), "to": np.array([4, 5])}
        with pytest.raises(UserError, match=r"failed to run the model: .*Received: '.*a\.onnx', fed with .*Try"):
            runtime.run(*(given[spec.name] for spec in runtime.inputs))


def test_messages_of_our_own_pass_unchanged() -> None:
    with pytest.raises(DataError, match=r"^ours$"), engine_failure("x", "a.onnx", StorageError, "Try again."):
        raise DataError("ours")
    message = r"x: MemoryError\. Received: 'a\.onnx'\. Try again\."
    with (
        pytest.raises(StorageError, match=message),
        engine_failure("x", "a.onnx", StorageError, "Try again."),
    ):
        raise MemoryError


@pytest.mark.parametrize("shape", [(None, 224, 224, 3), (1, 2**40, 3), (1, 2**62, 2**62)])
def test_a_batch_that_does_not_fit_in_memory_is_refused(shape: tuple[int | None, ...]) -> None:
    with pytest.raises(UserError, match=r"doesn't fit in memory.*Received: big\.onnx at batch size 2147483648"):
        random_inputs([TensorSpec("image", shape, np.dtype("float32"))], 2**31, model="big.onnx")


def test_damage_never_ends_in_anything_but_a_message(tmp_path: Path) -> None:
    """A whole file with a bit flipped, a byte replaced, or its end cut off."""
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"], name="q"),
        node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dq"),
        node("Conv", ["d", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        node("MaxPool", ["c"], ["y"], name="pool", kernel_shape=[2, 2]),
    ]
    stored = [("s", np.float32(0.1)), ("z", np.uint8(3)), ("w", KERNEL)]
    path = save(tmp_path / "whole.onnx", nodes, [numpy_helper.from_array(np.asarray(x), name) for name, x in stored])
    whole, random = path.read_bytes(), np.random.default_rng(18)
    shutil.copy(path, damaged := tmp_path / "damaged.onnx")
    kernel = range(whole.index(KERNEL.tobytes()), whole.index(KERNEL.tobytes()) + KERNEL.nbytes)
    places = [i for i in range(len(whole)) if i not in kernel]
    for _ in range(120):
        content = bytearray(whole)
        at = int(random.choice(places))
        content[at] ^= 1 << int(random.integers(8))
        if random.random() < 0.2:
            del content[at:]
        damaged.write_bytes(content)
        for read in (doctor.examine, open_runtime):
            with suppress(UserError):
                read(damaged)
