"""`keras-qat benchmark`: the order of the runs, the figures against NumPy, what is skipped, the table and the plot."""

import itertools
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import keras
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from PIL import Image
from rich.console import Console

from keras_qat.cli.program import app, run_program
from keras_qat.errors import StorageError, UserError
from keras_qat.evaluation import Benchmark, Skip, TimedFile, Timing, benchmark, benchmark_files, latency
from keras_qat.evaluation.feeding import fixed_batch, random_inputs
from keras_qat.machine import read_environment
from keras_qat.report import benchmark_table, plot_latency
from keras_qat.report.latency_plot import draw_latency
from keras_qat.runtimes import Runtime, TensorSpec

FLOAT32 = np.dtype("float32")
Program = Callable[..., tuple[int, str, str]]


class StandIn(Runtime):
    """Adds its name to a log instead of computing; refuses batches over `most`."""

    def __init__(self, name: str, log: list[tuple[str, int]], *, batch: int | None = None, most: int = 99) -> None:
        super().__init__("Stand-in 1.0", "nowhere", (TensorSpec("image", (batch, 4, 4, 3), FLOAT32),), ())
        self._name, self._log, self._most = name, log, most

    def _run(self, inputs: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        size = len(inputs[0])
        if size > self._most:
            raise RuntimeError(f"too large:\n  {size}")
        self._log.append((self._name, size))
        return ()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[float]], None]:
    """Make the timed calls take these seconds, one after the other and then again from the first."""

    def take(seconds: Sequence[float]) -> None:
        def ticks() -> Iterator[float]:
            now = 0.0
            for elapsed in itertools.cycle(seconds):
                yield now
                now += elapsed
                yield now

        moments = ticks()
        monkeypatch.setattr(latency.time, "perf_counter", lambda: next(moments))

    return take


def _save(path: Path, nodes: Sequence[onnx.NodeProto], *inputs: onnx.ValueInfoProto, **constants: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    stored = [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tiny", list(inputs), [y], stored)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def _input(name: str, *shape: int | str, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def relu(path: Path, *shape: int | str) -> Path:
    return _save(path, [helper.make_node("Relu", ["x"], ["y"])], _input("x", *shape))


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str]) -> Program:
    """Run `keras-qat benchmark …`, few runs: (exit code, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        few = ("--runs", "3", "--warm-up", "1")
        code = run_program(["benchmark", *map(str, arguments), *few], app)
        return code, *capfd.readouterr()

    return call


def _expect(result: tuple[int, str, str], *parts: str) -> None:
    code, printed, message = result
    assert (code, printed) == (2, "")
    assert message.count("error:") == 1
    assert "Traceback" not in message
    flat = " ".join(message.split())
    for part in ("Received:", *parts):
        assert part in flat


# The order, the figures.


def test_files_run_strictly_in_turn_at_each_batch_size() -> None:
    log: list[tuple[str, int]] = []
    figures = benchmark({name: StandIn(name, log) for name in "ABC"}, batch_sizes=(2, 1), runs=3, warm_up=2)
    # One run shows that the engine takes the batch, then warm-up and counted runs.
    assert log == [(name, size) for size in (2, 1) for _ in range(1 + 2 + 3) for name in "ABC"]
    assert [(timing.batch, timing.file) for timing in figures.timings] == [(b, f) for b in (2, 1) for f in "ABC"]
    assert figures.files[0] == TimedFile("A", "Stand-in 1.0", "nowhere", ("image: float32 (?, 4, 4, 3)",))
    assert (figures.runs, figures.warm_up, figures.skipped) == (3, 2, ())


def test_figures_are_numpys_percentiles_and_the_median_of_paired_ratios(clock: Callable[..., None]) -> None:
    rounds = np.random.default_rng(0).uniform(0.01, 0.09, (8, 2))
    warm_up = [5.0, 7.0]
    clock([*warm_up, *rounds.ravel()])
    figures = benchmark({name: StandIn(name, []) for name in "AB"}, batch_sizes=(4,), runs=8, warm_up=1)
    for column, timing in enumerate(figures.timings):
        seconds = rounds[:, column]
        expected = 1e3 * np.quantile(seconds, (0.5, 0.9, 0.99))
        np.testing.assert_allclose((timing.median_ms, timing.p90_ms, timing.p99_ms), expected, rtol=1e-9)
        assert timing.images_per_second == pytest.approx(4 / np.median(seconds))
    first, second = figures.timings
    assert first.ratio == 1
    assert second.ratio == pytest.approx(np.median(rounds[:, 1] / rounds[:, 0]))
    assert second.ratio != pytest.approx(second.median_ms / first.median_ms)


# What is skipped.


def test_a_fixed_batch_is_timed_only_at_that_size() -> None:
    log: list[tuple[str, int]] = []
    figures = benchmark({"any": StandIn("any", log), "one": StandIn("one", log, batch=1)}, batch_sizes=(1, 8), runs=2)
    assert figures.skipped == (Skip("one", 8, "the file's batch is 1"),)
    assert [(timing.file, timing.batch) for timing in figures.timings] == [("any", 1), ("one", 1), ("any", 8)]
    assert ("one", 8) not in log


def test_a_refused_batch_is_skipped_with_the_engines_reason_and_the_rest_goes_on() -> None:
    first, second = StandIn("A", [], most=4), StandIn("B", [])
    figures = benchmark({"A": first, "B": second}, batch_sizes=(8, 2), runs=2)
    assert figures.skipped == (Skip("A", 8, "too large: 8"),)
    assert [(timing.file, timing.batch, timing.ratio is None) for timing in figures.timings] == [
        ("B", 8, True),
        ("A", 2, False),
        ("B", 2, False),
    ]


def test_a_batch_that_onnxruntime_refuses_is_skipped(tmp_path: Path) -> None:
    flat = [helper.make_node("Reshape", ["x", "shape"], ["y"])]
    path = _save(tmp_path / "flat.onnx", flat, _input("x", "batch", 3, 4), shape=np.array([1, 12]))
    figures = benchmark_files([path], batch_sizes=(1, 2), runs=2, warm_up=0)
    assert [timing.batch for timing in figures.timings] == [1]
    assert (figures.skipped[0].file, figures.skipped[0].batch) == ("flat.onnx", 2)
    assert "Reshape" in figures.skipped[0].reason


def test_all_skipped_is_an_error() -> None:
    with pytest.raises(UserError, match=r"Received: A at 8: the file's batch is 2; A at 1: the file's batch is 2\."):
        benchmark({"A": StandIn("A", [], batch=2)}, batch_sizes=(8, 1))


# Input.


def test_inputs_have_the_dtype_and_shape_of_the_model() -> None:
    specs = [
        TensorSpec("pixels", (None, 32, 32, 3), np.dtype("uint8")),
        TensorSpec("half", (None, 50), np.dtype("float16")),
        TensorSpec("scale", (2, 7), np.dtype("float64")),
        TensorSpec("index", (None,), np.dtype("int8")),
        TensorSpec("on", (), np.dtype("bool")),
    ]
    arrays = random_inputs(specs, 5, seed=3)
    shapes = [(5, 32, 32, 3), (5, 50), (2, 7), (5,), ()]
    assert [(array.dtype, array.shape) for array in arrays] == [
        (spec.dtype, shape) for spec, shape in zip(specs, shapes, strict=True)
    ]
    assert (arrays[0].min(), arrays[0].max()) == (0, 255)
    assert np.all(np.isfinite(arrays[1]))
    for array, again, other in zip(arrays, random_inputs(specs, 5, seed=3), random_inputs(specs, 5), strict=True):
        np.testing.assert_array_equal(array, again)
        assert array.size < 10 or not np.array_equal(array, other)


@pytest.mark.parametrize(
    ("firsts", "expected"), [([None], None), ([4], 4), ([None, 1], None), ([1, None], None), ([2, 3], 2), ([], 1)]
)
def test_batch_is_fixed_where_no_input_leaves_it_open(firsts: list[int | None], expected: int | None) -> None:
    assert fixed_batch([TensorSpec("x", (first, 3), FLOAT32) for first in firsts]) == expected


def test_model_of_several_inputs_is_timed(tmp_path: Path) -> None:
    nodes = [helper.make_node("Cast", ["a"], ["c"], to=TensorProto.FLOAT), helper.make_node("Add", ["c", "b"], ["y"])]
    inputs = _input("a", "batch", 3, dtype=TensorProto.UINT8), _input("b", "batch", 3)
    figures = benchmark_files([_save(tmp_path / "two.onnx", nodes, *inputs)], batch_sizes=(2,), runs=2, warm_up=0)
    assert figures.files[0].inputs == ("a: uint8 (?, 3)", "b: float32 (?, 3)")


def test_a_size_that_is_dynamic_is_an_error(tmp_path: Path) -> None:
    path = relu(tmp_path / "any.onnx", "batch", "height", "width", 3)
    with pytest.raises(UserError, match=r"Received: x: float32 \(\?, \?, \?, 3\) in any\.onnx\. .*fixed input size"):
        benchmark_files([path])


def test_a_dtype_without_random_numbers_is_an_error() -> None:
    with pytest.raises(UserError, match="Received: x: complex64"):
        random_inputs([TensorSpec("x", (None, 3), np.dtype("complex64"))], 1)


@pytest.mark.parametrize("options", [{"batch_sizes": ()}, {"batch_sizes": (1, 0)}, {"runs": 0}, {"warm_up": -1}])
def test_numbers_that_are_too_small(options: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="at least"):
        benchmark({"A": StandIn("A", [])}, **options)


# Files and the command.


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """A file with a fixed batch, one that accepts any, and a Keras file."""
    inputs = keras.Input((3,), name="x")
    keras.Model(inputs, keras.layers.ReLU()(inputs)).save(tmp_path / "keras.keras")
    return [relu(tmp_path / "one.onnx", 1, 3), relu(tmp_path / "any.onnx", "batch", 3), tmp_path / "keras.keras"]


def test_command_prints_a_table_and_writes_json_and_plot(program: Program, files: list[Path], tmp_path: Path) -> None:
    output, plot = tmp_path / "new" / "latency.json", tmp_path / "latency.png"
    code, printed, err = program(*files, "--batch-sizes", 1, 2, "--output", output, "--plot", plot)
    assert (code, err) == (0, "")
    record = json.loads(output.read_text(encoding="utf-8"))
    assert [file["name"] for file in record["files"]] == ["one.onnx", "any.onnx", "keras.keras"]
    for file, engine in zip(record["files"], ("ONNX Runtime", "ONNX Runtime", "Keras"), strict=True):
        assert file["engine"].startswith(engine)
    assert [(timing["file"], timing["batch"]) for timing in record["timings"]] == [
        *(("one.onnx", 1), ("any.onnx", 1), ("keras.keras", 1)),
        *(("any.onnx", 2), ("keras.keras", 2)),
    ]
    assert record["skipped"] == [{"file": "one.onnx", "batch": 2, "reason": "the file's batch is 1"}]
    assert (record["runs"], record["warm_up"], record["environment"]["cores"]) == (3, 1, read_environment().cores)
    flat = " ".join(printed.split())
    assert "one.onnx at batch 2 skipped: the file's batch is 1." in flat
    assert f"{record['files'][0]['engine']} ({record['files'][0]['device']}): one.onnx, any.onnx." in flat
    with Image.open(plot) as image:
        assert image.format == "PNG"


def test_json_stands_alone_on_standard_output(program: Program, tmp_path: Path) -> None:
    code, printed, _ = program(relu(tmp_path / "a.onnx", "batch", 3), "--batch-sizes", 2, "--json", "--threads", 1)
    record = json.loads(printed)
    assert code == 0
    assert [timing["batch"] for timing in record["timings"]] == [2]
    assert record["files"][0]["device"] == "CPU, 1 threads"


def test_engine_is_the_one_that_was_named(program: Program, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    path = relu(tmp_path / "a.onnx", "batch", 3)
    code, printed, _ = program(path, "--engine", "openvino", "--batch-sizes", 1, "--json")
    assert code == 0
    assert json.loads(printed)["files"][0]["engine"].startswith("OpenVINO")


def test_files_of_one_name_are_called_by_their_paths(tmp_path: Path) -> None:
    paths = [relu(tmp_path / folder / "a.onnx", "batch", 3) for folder in ("before", "after")]
    figures = benchmark_files([*paths, relu(tmp_path / "b.onnx", "batch", 3)], batch_sizes=(1,), runs=1, warm_up=0)
    assert [file.name for file in figures.files] == [*map(str, paths), "b.onnx"]


def test_a_file_named_twice_is_an_error(program: Program, tmp_path: Path) -> None:
    path = relu(tmp_path / "a.onnx", "batch", 3)
    _expect(program(path, tmp_path / "." / "a.onnx"), "only once", str(path))
    (tmp_path / "link.onnx").symlink_to(path)
    with pytest.raises(UserError, match="only once"):
        benchmark_files([path, tmp_path / "link.onnx"])


def test_files_that_do_not_open_are_errors(program: Program, tmp_path: Path) -> None:
    path = relu(tmp_path / "a.onnx", "batch", 3)
    _expect(program(path, tmp_path / "gone.onnx"), "gone.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    _expect(program(path, tmp_path / "broken.onnx"), "broken.onnx")
    (tmp_path / "notes.txt").write_text("no model")
    _expect(program(path, tmp_path / "notes.txt"), "notes.txt")
    _expect(program(path, "--engine", "magic"), "'magic'", "onnxruntime")
    _expect(program(), "no file")
    with pytest.raises(StorageError):
        benchmark_files([path, tmp_path / "gone.onnx"])


@pytest.mark.parametrize("option", [("--batch-sizes", "0"), ("--runs", "0"), ("--warm-up", "-1"), ("--threads", "0")])
def test_command_refuses_numbers_that_are_too_small(
    option: tuple[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_program(["benchmark", str(relu(tmp_path / "a.onnx", "batch", 3)), *option], app) == 2
    assert "must be" in " ".join(capfd.readouterr().err.lower().split())


def test_outputs_that_would_be_lost_are_refused_before_any_run(program: Program, tmp_path: Path) -> None:
    path = relu(tmp_path / "a.onnx", "batch", 3)
    before = path.read_bytes()
    (tmp_path / "folder.json").mkdir()
    _expect(program(path, "--output", path), "An input of this command would be replaced", str(path))
    _expect(program(path, "--output", tmp_path / "folder.json"), "The output is a")
    _expect(program(path, "--plot", tmp_path / "a.pdf"), ".png or .svg", "a.png")
    _expect(program(path, "--plot", path / "a.png"), "Can't write")
    assert path.read_bytes() == before
    assert (tmp_path / "folder.json").is_dir()


# The table and the plot.


def timing(file: str, batch: int, milliseconds: float, ratio: float | None = 1.0) -> Timing:
    return Timing(file, batch, milliseconds, 1.1 * milliseconds, 1.5 * milliseconds, 1e3 * batch / milliseconds, ratio)


@pytest.fixture
def record() -> Benchmark:
    """Two files; the first, which has a `$` and a `[`, takes no batch of 8."""
    files = tuple(TimedFile(name, "Engine 2", "CPU, 2 threads", ()) for name in ("a$[b]$.onnx", "_b.onnx"))
    timings = (
        timing(files[0].name, 1, 4.0),
        timing(files[1].name, 1, 2.0, 0.51),
        timing(files[1].name, 8, 64.0, None),
    )
    return Benchmark(files, timings, (Skip(files[0].name, 8, "[E] no room"),), 50, 10)


def test_table_has_a_row_for_each_file_and_batch(record: Benchmark) -> None:
    console = Console(width=100)
    with console.capture() as captured:
        console.print(benchmark_table(record, read_environment()))
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in captured.get().splitlines() if "│" in line]
    assert rows == [
        ["1", "a$[b]$.onnx", "4.00", "4.40", "6.00", "250.0", "1.00"],
        ["1", "_b.onnx", "2.00", "2.20", "3.00", "500.0", "0.51"],
        ["8", "a$[b]$.onnx", "skipped", "", "", "", ""],
        ["8", "_b.onnx", "64.00", "70.40", "96.00", "125.0", "–"],
    ]
    assert "a$[b]$.onnx at batch 8 skipped: [E] no room." in " ".join(captured.get().split())


def test_plot_shows_the_record(record: Benchmark) -> None:
    pytest.importorskip("matplotlib")
    figure = draw_latency(record, title="a machine")
    (axes,) = figure.axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[4.0], [2.0, 64.0]]
    assert [list(np.rint(line.get_xdata())) for line in axes.lines] == [[0], [0, 1]]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1", "8"]
    tops = [[float(segment[1][1]) for segment in whiskers.get_segments()] for whiskers in axes.collections]
    np.testing.assert_allclose(np.concatenate(tops), [4.4, 6.0, 2.2, 70.4, 3.0, 96.0])
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [r"a\$[b]\$.onnx", "_b.onnx"]
    assert axes.get_yscale() == "log"


def test_plot_of_near_latencies_starts_at_zero(record: Benchmark) -> None:
    pytest.importorskip("matplotlib")
    (axes,) = draw_latency(Benchmark(record.files, record.timings[:2], (), 50, 10)).axes
    assert (axes.get_yscale(), axes.get_ylim()[0]) == ("linear", 0)


def test_plot_is_written_whole_and_leaves_no_global_state(record: Benchmark, tmp_path: Path) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    before = dict(matplotlib.rcParams)
    plot_latency(record, tmp_path / "latency.svg", title="a machine")
    assert [path.name for path in tmp_path.iterdir()] == ["latency.svg"]
    assert ET.parse(tmp_path / "latency.svg").getroot().tag.endswith("svg")  # noqa: S314
    assert dict(matplotlib.rcParams) == before


def test_plot_without_matplotlib_says_how_to_get_it(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    path = relu(tmp_path / "a.onnx", "batch", 3)
    _expect(program(path, "--plot", tmp_path / "a.png"), "matplotlib is not installed", "keras-qat[plot]")
