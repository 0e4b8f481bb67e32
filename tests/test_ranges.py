"""Ranges as a value: saved and read back to the last bit, compared, cached."""

import json
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_qat import Ranges, apply_placement, calibrate, explain, plan, trace
from keras_qat.calibration import Histogram, cache_folder, cached_ranges, digest, ranges_key
from keras_qat.calibration import ranges as cache
from keras_qat.calibration.histogram import bars as bars_of
from keras_qat.calibration.histogram import summarize
from keras_qat.cli.program import app, run_program
from keras_qat.data import ImageSet, Mode, Preprocessing
from keras_qat.errors import StorageError, UserError
from keras_qat.run import Settings, pipeline
from keras_qat.types import Placement, TensorRange

layers = keras.layers


def network(*, filters: int = 4, name: str = "network", activation: str = "relu") -> keras.Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((6, 6, 3), name="image")
    x = layers.Conv2D(filters, 3, name="conv", activation=activation)(image)
    return keras.Model(image, layers.Dense(2, name="classes")(layers.GlobalAveragePooling2D(name="pool")(x)), name=name)


@pytest.fixture(scope="module")
def model() -> keras.Model:
    return network()


@pytest.fixture(scope="module")
def placement(model: keras.Model) -> Placement:
    return plan(trace(model).graph, "onnxruntime")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(1).normal(0, 2, (12, 6, 6, 3)).astype("float32")


@pytest.fixture(scope="module")
def ranges(model: keras.Model, placement: Placement, images: np.ndarray) -> Ranges:
    return calibrate(model, placement, images)


def ranges_of(**amax: float) -> Ranges:
    return Ranges({name: TensorRange(value, "mse", 8) for name, value in amax.items()})


# --- a value ----------------------------------------------------------------------------------------------------------


def test_ranges_are_a_mapping(model: keras.Model, placement: Placement, ranges: Ranges) -> None:
    plain = dict(ranges)
    assert isinstance(ranges, Mapping)
    assert ranges == plain
    assert plain == ranges
    assert list(ranges) == list(placement.observed)
    assert explain(placement, ranges=ranges) == explain(placement, ranges=plain)
    one, two = (apply_placement(model, placement, r).get_weights() for r in (ranges, plain))
    assert digest(one) == digest(two)


def test_ranges_do_not_change_with_what_they_were_made_of() -> None:
    tensors = {"relu": TensorRange(1.0, "mse", 8)}
    ranges = Ranges(tensors)
    tensors.clear()
    assert len(ranges) == 1
    with pytest.raises(AttributeError):
        ranges.tensors = {}  # type: ignore[misc]


def test_summary_is_that_of_the_activations(images: np.ndarray, ranges: Ranges) -> None:
    summary = ranges["image"].summary
    assert summary is not None
    assert list(summary) == ["p50", "p99", "p99.9", "p99.99", "max"]
    assert summary["max"] == np.abs(images).max()
    for percentile in (50, 99, 99.9):
        expected = np.quantile(np.abs(images), percentile / 100, method="inverted_cdf")
        assert summary[f"p{percentile:g}"] == pytest.approx(expected, rel=1 / 256)


def test_bars_are_the_histogram_that_numpy_counts(images: np.ndarray, ranges: Ranges) -> None:
    bars = ranges["image"].histogram
    assert bars is not None
    x = np.abs(images).ravel()
    counts, _ = np.histogram(x, bins=len(bars), range=(0, x.max()))
    # Near an edge a number's bin may lie on both sides of it: 1/256 of a number's size at most.
    assert np.asarray(bars) == pytest.approx(counts / x.size, abs=0.002)
    assert sum(bars) == pytest.approx(1)


def test_summary_and_bars_of_nothing_and_of_zeros() -> None:
    for histogram in (Histogram.empty(), Histogram.of(np.zeros(9))):
        assert set(summarize(histogram).values()) == {0.0}
        assert set(bars_of(histogram)) == {0.0}


def test_a_placement_that_they_lack(model: keras.Model, placement: Placement, ranges: Ranges) -> None:
    ranges.require_for(placement)
    few = Ranges({"pool": ranges["pool"]})
    message = r"2 quantized tensors have no range\. Received: ranges of 1 tensors, none of 'image', 'conv'\."
    with pytest.raises(UserError, match=message):
        few.require_for(placement)
    with pytest.raises(UserError, match=message):
        apply_placement(model, placement, few)


# --- files ------------------------------------------------------------------------------------------------------------


def test_round_trip_of_a_calibration(ranges: Ranges, tmp_path: Path) -> None:
    ranges.save(tmp_path / "new" / "ranges.json")
    loaded = Ranges.load(str(tmp_path / "new" / "ranges.json"))
    assert loaded == ranges
    assert list(loaded) == list(ranges)


@pytest.mark.parametrize("seed", range(20))
def test_round_trip_is_exact(tmp_path: Path, seed: int) -> None:
    """Numbers of every size, subnormal ones too, and names of every alphabet."""
    rng = np.random.default_rng(seed)

    def number() -> float:
        return float(np.ldexp(rng.random(), int(rng.integers(-1070, 1020))))

    ranges = Ranges(
        {
            "".join(map(chr, rng.integers(32, 0xD7FF, 5))): TensorRange(
                number(), "mse", int(rng.integers(0, 2**40)), {f"p{i}": number() for i in range(3)} if i % 2 else None
            )
            for i in range(30)
        }
    )
    ranges.save(tmp_path / "ranges.json")
    assert Ranges.load(tmp_path / "ranges.json") == ranges


def test_files_without_a_format_are_read(ranges: Ranges, tmp_path: Path) -> None:
    """{tensor: {amax, method, images}}, even where a tensor is called as the format's own words are."""
    old = {name: {"amax": r.amax, "method": r.method, "images": r.images} for name, r in ranges.items()}
    old["format"] = old["tensors"] = {"amax": 1, "method": "minmax", "images": 8}
    (tmp_path / "old.json").write_text(json.dumps(old))
    loaded = Ranges.load(tmp_path / "old.json")
    assert loaded["conv"] == replace(ranges["conv"], summary=None, histogram=None)
    assert loaded["format"] == loaded["tensors"] == TensorRange(1.0, "minmax", 8)


GOOD = {"amax": 1.5, "method": "mse", "images": 8, "summary": None}
HEAD = '{"format": "keras-qat ranges", "version": 1, "tensors": '

BAD: dict[str, tuple[str, str]] = {
    "cut off": ('{"format": "keras-qat ranges", "tens', "isn't JSON"),
    "empty": ("", "isn't JSON"),
    "a list": ("[1, 2]", r"it must be an object\. Received: \[1, 2\]"),
    "another version": (
        '{"format": "keras-qat ranges", "version": 2, "tensors": {}}',
        r"`version` must be 1\. Received: 2",
    ),
    "no tensors": ('{"format": "keras-qat ranges", "version": 1}', "`tensors` is missing"),
    "overrides": ('{"rules": [], "mode": "full"}', r"`rules` must be an object\. Received: \[\]"),
    "missing field": ('{"relu": {"amax": 1.5, "images": 8}}', "`relu.method` is missing"),
    "unknown field": (
        f"{HEAD}{json.dumps({'relu': {**GOOD, 'bits': 8}})}}}",
        "`tensors.relu` has unknown fields: 'bits'",
    ),
    **{
        f"amax {text}": (f"{HEAD}{json.dumps({'relu': GOOD}).replace('1.5', text)}}}", message)
        for text, message in (
            ("NaN", r"'relu' must have a finite `amax` .*Received: TensorRange\(amax=nan"),
            ("Infinity", r"'relu' must have a finite `amax` .*Received: TensorRange\(amax=inf"),
            ("1e999", r"'relu' must have a finite `amax` .*Received: TensorRange\(amax=inf"),
            ("-0.5", r"'relu' must have a finite `amax` .*Received: TensorRange\(amax=-0.5"),
            ('"1.5"', r"`tensors\.relu\.amax` must be a number\. Received: '1\.5'"),
            ("null", r"`tensors\.relu\.amax` must be a number\. Received: None"),
            ("true", r"`tensors\.relu\.amax` must be a number\. Received: True"),
        )
    },
    "method": (f"{HEAD}{json.dumps({'relu': {**GOOD, 'method': 3}})}}}", r"relu\.method` must be a string.*: 3\."),
    "images": (f"{HEAD}{json.dumps({'relu': {**GOOD, 'images': 1.5}})}}}", r"relu\.images` must be an integer.*: 1\.5"),
    "negative images": (f"{HEAD}{json.dumps({'relu': {**GOOD, 'images': -1}})}}}", "'relu' must have .*images=-1"),
    "histogram": (f"{HEAD}{json.dumps({'relu': {**GOOD, 'histogram': ['x']}})}}}", r"histogram\[0\]` must be a number"),
    "summary": (
        f"{HEAD}{json.dumps({'relu': {**GOOD, 'summary': {'p50': 'x'}}})}}}",
        r"summary\.p50` must be a number",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path: Path, name: str) -> None:
    text, message = BAD[name]
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        Ranges.load(tmp_path / "bad.json")
    assert str(caught.value).startswith(f"{tmp_path / 'bad.json'} ")
    assert "Received: " in str(caught.value)


def test_files_that_cannot_be_read_or_written(tmp_path: Path, ranges: Ranges) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    for name in ("none.json", "binary.json", "."):
        with pytest.raises(StorageError, match="Received: "):
            Ranges.load(tmp_path / name)
    with pytest.raises(StorageError, match="Can't write"):
        ranges.save(tmp_path / "binary.json" / "ranges.json")


# --- differences ------------------------------------------------------------------------------------------------------


def test_diff_in_closed_form() -> None:
    before = ranges_of(same=2.0, doubled=1.0, third=3.0, dead=0.0, woke=0.0, died=5.0, gone=1.0)
    after = ranges_of(new=1.0, died=0.0, woke=1.0, dead=0.0, third=1.0, doubled=2.0, same=2.0)
    diff = before.diff(after)
    assert (diff.only_before, diff.only_after) == (("gone",), ("new",))
    assert {c.tensor: c.ratio for c in diff.changes} == {
        "woke": math.inf,
        "died": 0.0,
        "third": pytest.approx(1 / 3),
        "doubled": 2.0,
        "same": 1.0,
        "dead": 1.0,
    }
    assert [c.tensor for c in diff.changes] == ["woke", "died", "third", "doubled", "same", "dead"]
    # The other way round the same order, each ratio inverted.
    back = after.diff(before)
    assert {c.tensor for c in back.changes[:2]} == {"woke", "died"}
    assert [(c.tensor, c.ratio) for c in back.changes[2:4]] == [("third", 3.0), ("doubled", 0.5)]
    assert (back.only_before, back.only_after) == (("new",), ("gone",))


def test_diff_as_a_table() -> None:
    before = Ranges({**ranges_of(a=1.0, b=4.0, gone=1.0), "c": TensorRange(2.0, "minmax", 8)})
    diff = before.diff(ranges_of(a=1.0, b=3.0, c=1.0))
    head = "| tensor | amax before | amax after | ratio | method |\n| --- | --- | --- | --- | --- |\n"
    worst = "| c | 2 | 1 | 0.5 | minmax → mse |\n"
    rest = "| b | 4 | 3 | 0.75 | mse |\n| a | 1 | 1 | 1 | mse |\n"
    assert str(diff) == diff.describe(3) == f"{head}{worst}{rest}\nOnly before: gone."
    assert diff.describe(1) == f"{head}{worst}\n2 more tensors differ less.\n\nOnly before: gone."


def test_nothing_differs(ranges: Ranges) -> None:
    assert {c.ratio for c in ranges.diff(ranges).changes} == {1.0}
    assert str(Ranges().diff(Ranges())).count("\n") == 1


def test_diff_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    before, after = ranges_of(a=1.0, b=4.0), ranges_of(a=1.0, b=3.0)
    paths = [str(tmp_path / name) for name in ("before.json", "after.json")]
    before.save(paths[0])
    after.save(paths[1])
    assert run_program(["diff-ranges", *paths, "--worst", "1"], app) == 0
    assert capfd.readouterr().out == before.diff(after).describe(1) + "\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}/none.json", "{folder}/good.json"], "Can't read"),
        (["{folder}/good.json", "{folder}/bad.json"], "doesn't hold ranges"),
        (["{folder}/good.json"], "requires an argument"),
        (["{folder}/good.json", "{folder}/good.json", "--worst", "0"], "Must be >= 1"),
    ],
)
def test_mistakes_of_the_diff_command(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    ranges_of(a=1.0).save(tmp_path / "good.json")
    (tmp_path / "bad.json").write_text('{"a": {"amax": NaN, "method": "mse", "images": 8}}')
    code = run_program(["diff-ranges", *(a.replace("{folder}", str(tmp_path)) for a in arguments)], app)
    text = " ".join(capfd.readouterr().err.split())
    assert code == 2
    assert message in text
    assert "Traceback" not in text


# --- cache ------------------------------------------------------------------------------------------------------------


class Counted:
    """A computation that counts how often it is done."""

    def __init__(self, ranges: Ranges) -> None:
        self.ranges, self.calls = ranges, 0

    def __call__(self) -> Ranges:
        self.calls += 1
        return self.ranges


@pytest.fixture
def cached_log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "keras_qat")
    return caplog


def test_second_time_nothing_is_computed(ranges: Ranges, tmp_path: Path, cached_log: pytest.LogCaptureFixture) -> None:
    compute = Counted(ranges)
    first = cached_ranges("key", compute, folder=tmp_path / "new")
    assert not cached_log.records
    assert first == cached_ranges("key", compute, folder=tmp_path / "new") == ranges
    assert compute.calls == 1
    assert "ranges from the cache" in cached_log.text
    cached_ranges("another", compute, folder=tmp_path / "new")
    assert compute.calls == 2


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b'{"a": {"amax": NaN, "method": "", "images": 1}}'])
def test_corrupt_file_is_computed_again(
    ranges: Ranges, tmp_path: Path, content: bytes, cached_log: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "key.json").write_bytes(content)
    compute = Counted(ranges)
    assert cached_ranges("key", compute, folder=tmp_path) == ranges
    assert [r.levelname for r in cached_log.records] == ["WARNING"]
    assert cached_ranges("key", compute, folder=tmp_path) == ranges
    assert compute.calls == 1
    assert [p.name for p in tmp_path.iterdir()] == ["key.json"]


def test_folder_that_cannot_be_written(ranges: Ranges, tmp_path: Path, cached_log: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    assert cached_ranges("key", Counted(ranges), folder=tmp_path / "file") == ranges
    assert [r.levelname for r in cached_log.records] == ["WARNING"]


def key_of(
    model: keras.Model, target: str = "onnxruntime", data: Any = "digits", method: str = "mse", images: int | None = 8
) -> str:
    return ranges_key(model, plan(trace(model).graph, target), data, method, images)


def with_weight_moved(index: int) -> keras.Model:
    """The least change that there is: the last bit of one number."""
    model = network()
    weights = model.get_weights()
    weights[index].flat[-1] = np.nextafter(weights[index].flat[-1], np.float32(9))
    model.set_weights(weights)
    return model


CHANGES: dict[str, Callable[[], str]] = {
    "kernel": lambda: key_of(with_weight_moved(0)),
    "bias": lambda: key_of(with_weight_moved(1)),
    "last layer": lambda: key_of(with_weight_moved(2)),
    "width": lambda: key_of(network(filters=5)),
    "activation": lambda: key_of(network(activation="elu")),
    "target": lambda: key_of(network(), target="tensorrt"),
    "data": lambda: key_of(network(), data="other"),
    "method": lambda: key_of(network(), method="minmax"),
    "images": lambda: key_of(network(), images=9),
    "all images": lambda: key_of(network(), images=None),
}


def test_the_key_of_the_same_is_the_same(model: keras.Model) -> None:
    """Whatever Keras calls the model, and however it was built."""
    assert key_of(model) == key_of(network()) == key_of(network(name="another"))
    assert len(key_of(model)) == 64


@pytest.mark.parametrize("change", CHANGES)
def test_any_change_is_another_key(model: keras.Model, change: str) -> None:
    assert CHANGES[change]() != key_of(model)


def test_integers_and_version_are_in_the_key(
    model: keras.Model, placement: Placement, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ranges_key(model, placement, "digits", "mse", 8)
    one, *others = placement.tensors
    narrower = replace(placement, tensors=(replace(one, spec=replace(one.spec, bits=4)), *others))
    joined = replace(placement, tensors=(replace(one, joined=("conv",)), *others))
    assert expected not in {ranges_key(model, changed, "digits", "mse", 8) for changed in (narrower, joined)}
    monkeypatch.setattr(cache, "__version__", "99")
    assert ranges_key(model, placement, "digits", "mse", 8) != expected


def test_a_run_calibrates_once(
    model: keras.Model, placement: Placement, monkeypatch: pytest.MonkeyPatch, cached_log: pytest.LogCaptureFixture
) -> None:
    calls: list[int] = []

    def counting(*arguments: Any, **settings: Any) -> Ranges:
        calls.append(1)
        return calibrate(*arguments, **settings)

    monkeypatch.setattr("keras_qat.calibration.calibrate", counting)
    pixels = np.random.default_rng(2).integers(0, 256, (12, 6, 6, 3), dtype=np.uint8)
    moved = pixels.copy()
    moved[7, 3, 2, 1] ^= 1

    def ranges_with(settings: Settings, pixels: np.ndarray = pixels, mode: Mode = "tf") -> Ranges:
        images = ImageSet.from_arrays("noise", pixels, [0] * len(pixels), Preprocessing(mode, 6, 6))
        return pipeline._ranges(model, placement, images, settings)

    settings = Settings.of(calibration_batch_size=5)
    first = ranges_with(settings)
    assert len(calls) == 1
    assert ranges_with(settings) == ranges_with(settings.changed(output=Path("elsewhere"))) == first
    assert len(calls) == 1
    assert cached_log.text.count(f"ranges from the cache: {cache_folder()}") == 2
    assert ranges_with(settings.changed(use_cache=False)) == first
    assert len(calls) == 2
    ranges_with(settings, moved)
    ranges_with(settings, mode="caffe")
    ranges_with(settings.changed(calibration_batch_size=6))
    ranges_with(settings.changed(calibration_method="minmax"))
    assert len(calls) == 6


def test_the_command_line_can_do_without_the_cache() -> None:
    _, bound, *_ = app.parse_args(["run", "--no-use-cache"], exit_on_error=False, print_error=False)
    assert bound.arguments["options"].use_cache is False
