"""`keras-qat evaluate`: counts that are known by construction, the figures of a run, and the error of each mistake."""

import io
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tensorflow as tf
from onnx import TensorProto, helper
from PIL import Image

from keras_qat.cli.program import app, run_program
from keras_qat.data import Preprocessing
from keras_qat.data.records.framing import write_record
from keras_qat.errors import DataError, UserError
from keras_qat.evaluation import Evaluation, EvaluationSettings, class_scores, classify, evaluate_file, predict
from keras_qat.models import ModelFacts
from keras_qat.report import evaluation_notes
from keras_qat.run import Settings, run
from keras_qat.runtimes import OnnxRuntime

SIDE = 4
RAW = Preprocessing("raw", SIDE, SIDE)
COLOURS = {"blue": (0, 0, 200), "green": (0, 200, 0), "red": (200, 0, 0)}
"""In the order of their labels; the channels are in the opposite order."""

TO_LABELS = ((0, 0, 1), (0, 1, 0), (1, 0, 0))
"""Channels (red, green, blue) times this are the scores of blue, green, red."""

GREEN_IS_BLUE = ((0, 0, 1), (0.5, 0.25, 0), (1, 0, 0))
"""The same, except that green is scored as blue."""


def classifier(
    path: Path,
    weights: Any = TO_LABELS,
    *,
    batch: int | str = "batch",
    dtype: int = TensorProto.FLOAT,
    shape: tuple[int, ...] = (SIDE, SIDE, 3),
    axes: tuple[int, ...] = (1, 2),
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """An ONNX file: the mean of each channel over the pixels, times `weights`."""
    w = np.array(weights, np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["means"], axes=axes, keepdims=0),
        helper.make_node("MatMul", ["means", "w"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", dtype, [batch, *shape])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, w.shape[1]])],
        [helper.make_tensor("w", TensorProto.FLOAT, w.shape, w.ravel())],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, dict(metadata or {}))
    onnx.save(model, path)
    return path


def paint(path: Path, colour: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 5), COLOURS[colour]).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine validation images, three of each colour, except that one "red" image is green."""
    for name in COLOURS:
        for i in range(3):
            paint(tmp_path / "photos" / "val" / name / f"{i}.png", name)
    paint(tmp_path / "photos" / "val" / "red" / "0.png", "green")
    return tmp_path / "photos"


@pytest.fixture
def evaluate(photos: Path, tmp_path: Path) -> Callable[..., Evaluation]:
    """Evaluate `model.onnx` on the photos."""

    def call(**options: Any) -> Evaluation:
        given: dict[str, Any] = {"file": tmp_path / "model.onnx", "data": str(photos), "preprocessing": RAW, "k": 2}
        return evaluate_file(EvaluationSettings(**{**given, **options}))

    return call


def test_each_image_is_counted(evaluate: Callable[..., Evaluation], tmp_path: Path) -> None:
    classifier(tmp_path / "model.onnx")
    evaluation = evaluate(batch_size=2)
    (file,) = evaluation.files
    assert (evaluation.data, evaluation.images, evaluation.skipped, evaluation.comparison) == ("photos/val", 9, 0, None)
    assert (file.top1.count, file.top1.images) == (8, 9)
    assert file.engine.startswith("ONNX Runtime")
    assert file.images_per_second > 0


@pytest.mark.parametrize(("k", "count"), [(1, 8), (2, 8), (3, 9), (5, 9)])
def test_top_k(evaluate: Callable[..., Evaluation], tmp_path: Path, k: int, count: int) -> None:
    # Of the green "red", green scores 200 and the others 0, of which blue comes first.
    classifier(tmp_path / "model.onnx")
    evaluation = evaluate(k=k)
    assert (evaluation.k, evaluation.files[0].top_k.count) == (min(k, 3), count)


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT16, TensorProto.UINT8])
def test_images_have_the_type_of_the_input(evaluate: Callable[..., Evaluation], tmp_path: Path, dtype: int) -> None:
    classifier(tmp_path / "model.onnx", dtype=dtype)
    # A file of uint8 pixels normalizes by itself, so the mode has no effect.
    mode = Preprocessing("caffe", SIDE, SIDE) if dtype == TensorProto.UINT8 else RAW
    evaluation = evaluate(preprocessing=mode)
    assert evaluation.files[0].top1.count == 8
    assert evaluation.files[0].preprocessing["mode"] == "raw"


@pytest.mark.parametrize("batch", [1, 4, 16])
def test_a_fixed_batch_is_filled_up(evaluate: Callable[..., Evaluation], tmp_path: Path, batch: int) -> None:
    classifier(tmp_path / "model.onnx", batch=batch)
    evaluation = evaluate(batch_size=5)
    assert (evaluation.images, evaluation.files[0].top1.count, evaluation.files[0].batch_size) == (9, 8, batch)


def test_scores_of_a_fixed_batch_are_those_of_each_image(tmp_path: Path) -> None:
    images = np.random.default_rng(0).uniform(0, 255, (7, SIDE, SIDE, 3)).astype("float32")
    with OnnxRuntime(classifier(tmp_path / "fixed.onnx", batch=3)) as runtime:
        scores = class_scores(runtime, images)
    np.testing.assert_allclose(scores, images.mean((1, 2)) @ np.array(TO_LABELS), rtol=1e-5)


def test_predict_keeps_as_many_classes_as_asked(tmp_path: Path) -> None:
    images = np.zeros((2, SIDE, SIDE, 3), "float32")
    with OnnxRuntime(classifier(tmp_path / "model.onnx")) as runtime:
        assert predict(runtime, [(images, np.zeros(2, int))], best=2).classes.shape == (2, 2)
        assert predict(runtime, [(images, np.zeros(2, int))]).classes.shape == (2, 3)
        with pytest.raises(UserError, match=r"`best` must be at least 1\. Received: 0"):
            predict(runtime, [(images, np.zeros(2, int))], best=0)
        with pytest.raises(DataError, match="Received: a batch of 0 images"):
            class_scores(runtime, images[:0])


def test_two_files_are_compared_image_by_image(evaluate: Callable[..., Evaluation], tmp_path: Path) -> None:
    classifier(tmp_path / "model.onnx")
    other = classifier(tmp_path / "other.onnx", GREEN_IS_BLUE)
    evaluation = evaluate(compare=other)
    assert [file.top1.count for file in evaluation.files] == [8, 5]
    comparison = evaluation.comparison
    assert comparison is not None
    # The four green images, one of which is called red, get another class; three of them a wrong one.
    assert comparison.agreement.count == 5
    assert (comparison.both_right, comparison.only_first, comparison.only_second, comparison.both_wrong) == (5, 3, 0, 1)
    assert comparison.p_value == 2 / 2**3
    notes = " ".join(evaluation_notes(evaluation))
    assert "Only model.onnx is right on 3, only other.onnx on 0; both on 5, neither on 1." in notes
    assert "+33.33 points" in notes
    assert "p = 0.25: no difference shown." in notes


def test_the_better_file_of_a_shown_difference_is_named(evaluate: Callable[..., Evaluation], photos: Path) -> None:
    for i in range(3, 9):
        paint(photos / "val" / "green" / f"{i}.png", "green")
    classifier(photos.parent / "model.onnx", GREEN_IS_BLUE)
    evaluation = evaluate(compare=classifier(photos.parent / "other.onnx"))
    # Nine green images: p = 2 / 2**9.
    assert "p = 0.00391: other.onnx is better than model.onnx." in " ".join(evaluation_notes(evaluation))


def test_one_file_in_two_engines(evaluate: Callable[..., Evaluation], tmp_path: Path) -> None:
    path = classifier(tmp_path / "model.onnx")
    evaluation = evaluate(compare=path, compare_engine="openvino", threads=1)
    assert [file.name.split(" in ")[1].split()[0] for file in evaluation.files] == ["ONNX", "OpenVINO"]
    assert evaluation.comparison is not None
    assert evaluation.comparison.agreement.value == 1


@pytest.mark.parametrize("compare_engine", [None, "onnxruntime"])
def test_a_file_and_itself(evaluate: Callable[..., Evaluation], tmp_path: Path, compare_engine: str | None) -> None:
    path = classifier(tmp_path / "model.onnx")
    with pytest.raises(UserError, match="compared with itself"):
        evaluate(compare=path, compare_engine=compare_engine)


@pytest.mark.parametrize("seed", [-1, 2**31])
def test_a_seed_out_of_range(evaluate: Callable[..., Evaluation], tmp_path: Path, seed: int) -> None:
    classifier(tmp_path / "model.onnx")
    with pytest.raises(UserError, match=rf"`seed` must be at .*Received: {seed}\."):
        evaluate(seed=seed)


@pytest.mark.parametrize(
    "options", [["--compare", "other.onnx"], ["--compare-engine", "keras"], ["--images", "3"], ["--skip-bad"]]
)
def test_options_of_a_set_are_refused_with_one_image(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["evaluate", "model.onnx", "--image", "cat.jpg", *options], app) == 2
    message = " ".join(capsys.readouterr().err.split())
    assert f"Received: {options[0]}" in message
    assert "with --image" in message


def test_fewer_images_are_those_of_the_seed(
    evaluate: Callable[..., Evaluation], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classifier(tmp_path / "model.onnx")
    assert evaluate(images=6).images == 6
    assert (
        evaluate(images=6, seed=3).to_dict()["files"][0]["top1"] == evaluate(images=6, seed=3).files[0].top1.to_dict()
    )
    assert evaluate(images=100).images == 9
    assert "Evaluating on 9 images: photos/val has no more." in caplog.text


def test_facts_in_the_file_and_beside_it(evaluate: Callable[..., Evaluation], tmp_path: Path) -> None:
    facts = ModelFacts(RAW, embedded=False, class_names=tuple(COLOURS))
    classifier(tmp_path / "model.onnx", metadata=facts.metadata())
    assert evaluate(preprocessing=None).files[0].top1.count == 8
    # The option takes precedence over the file.
    with pytest.raises(UserError, match="prepared at 8 x 8 pixels"):
        evaluate(preprocessing=RAW.for_size(8))


def test_unknown_preprocessing_is_an_error(evaluate: Callable[..., Evaluation], tmp_path: Path) -> None:
    classifier(tmp_path / "model.onnx")
    with pytest.raises(UserError, match=r"Nothing says how.*Received: .*model\.onnx.*--preprocessing MODE:SIZE"):
        evaluate(preprocessing=None)


def test_facts_that_cannot_be_read_matter_only_where_they_are_needed(
    evaluate: Callable[..., Evaluation], tmp_path: Path
) -> None:
    classifier(tmp_path / "model.onnx", metadata={"keras_qat.preprocessing": "{"})
    with pytest.raises(UserError, match="Can't understand the preprocessing"):
        evaluate(preprocessing=None)
    assert evaluate().files[0].top1.count == 8


def test_classes_in_another_order(evaluate: Callable[..., Evaluation], tmp_path: Path) -> None:
    facts = ModelFacts(RAW, embedded=False, class_names=("red", "green", "blue"))
    classifier(tmp_path / "model.onnx", metadata=facts.metadata())
    with pytest.raises(DataError, match=r"in another order.*Received: blue, green, red; the file has red, green, blue"):
        evaluate(preprocessing=None)


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        ({"weights": np.ones((3, 5))}, {}, r"tells 5 classes apart, photos/val has 3\. Received: .*blue, green, red"),
        ({"shape": (8, 8, 3)}, {}, r"prepared at 4 x 4 pixels.*Received: .*float32 \(\?, 8, 8, 3\).*--preprocessing"),
        ({"shape": (3, SIDE, SIDE), "axes": (2, 3)}, {}, r"channels last.*Received: .*\(\?, 3, 4, 4\)"),
        ({"dtype": TensorProto.INT32}, {}, r"float32.*uint8\. Received: .*int32"),
        (
            {"shape": (SIDE, SIDE, 1, 3), "axes": (1, 2, 3)},
            {},
            r"Only a model that reads images.*Received: .*Give a model of images",
        ),
        ({}, {"k": 0}, r"`k` must be at least 1\. Received: 0"),
        ({}, {"batch_size": 0}, r"`batch_size` must be at least 1"),
        ({}, {"images": 0}, r"`images` must be at least 1"),
        ({}, {"threads": 0}, r"`threads` must be at least 1"),
        ({}, {"engine": "keras"}, r"Keras opens \.keras files"),
        ({}, {"compare_engine": "openvino"}, r"no file for that engine"),
        ({}, {"data": "nowhere"}, r"Received: 'nowhere'"),
        ({}, {"compare": Path("gone.onnx")}, r"no model file of that name.*gone\.onnx"),
    ],
)
def test_what_does_not_fit_is_found_before_anything_runs(
    evaluate: Callable[..., Evaluation],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    settings: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr(OnnxRuntime, "_run", lambda *_: pytest.fail("it ran"))
    classifier(tmp_path / "model.onnx", **options)
    with pytest.raises(UserError, match=message):
        evaluate(**settings)


def test_a_number_of_classes_that_only_shows_when_it_runs(evaluate: Callable[..., Evaluation], tmp_path: Path) -> None:
    path = classifier(tmp_path / "model.onnx", np.ones((3, 5)))
    model = onnx.load(path)
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "classes"
    onnx.save(model, path)
    with pytest.raises(DataError, match="tells 5 classes apart"):
        evaluate()


def test_scores_that_are_not_finite_are_a_warning(
    evaluate: Callable[..., Evaluation], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    classifier(tmp_path / "model.onnx", np.full((3, 3), np.nan))
    evaluate()
    assert "aren't finite" in caplog.text


def test_a_broken_image_is_named_or_left_out(evaluate: Callable[..., Evaluation], photos: Path, tmp_path: Path) -> None:
    classifier(tmp_path / "model.onnx")
    broken = photos / "val" / "green" / "1.png"
    # The header is intact, so the error is detected only when the image is decoded.
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(broken)
    broken.write_bytes(broken.read_bytes()[:4000])
    with pytest.raises(DataError, match=re.escape(str(broken))):
        evaluate()
    evaluation = evaluate(skip_bad=True, compare=classifier(tmp_path / "other.onnx", GREEN_IS_BLUE))
    assert (evaluation.images, evaluation.skipped) == (8, 1)
    assert [file.top1.count for file in evaluation.files] == [7, 5]
    assert "1 more images were broken" in " ".join(evaluation_notes(evaluation))


def test_one_image(tmp_path: Path) -> None:
    facts = ModelFacts(RAW, embedded=False, class_names=tuple(COLOURS))
    path = classifier(tmp_path / "model.onnx", metadata=facts.metadata())
    paint(tmp_path / "green.png", "green")
    classification = classify(path, tmp_path / "green.png", k=2)
    assert [(ranked.index, ranked.name, ranked.score) for ranked in classification.classes] == [
        (1, "green", 200.0),
        (0, "blue", 0.0),
    ]
    unnamed = classify(classifier(tmp_path / "bare.onnx"), tmp_path / "green.png", preprocessing=RAW, k=9)
    assert [ranked.name for ranked in unnamed.classes] == ["1", "0", "2"]
    with pytest.raises(UserError, match=r"`k` must be at least 1\. Received: 0"):
        classify(path, tmp_path / "green.png", k=0)


Program = Callable[..., tuple[int, str, str]]


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Program:
    """Run `keras-qat evaluate …` in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        code = run_program(["evaluate", *map(str, arguments)], app)
        return (code, *capfd.readouterr())

    return call


def test_the_command_prints_a_table_and_leaves_a_trace(program: Program, photos: Path, tmp_path: Path) -> None:
    path, other = classifier(tmp_path / "model.onnx"), classifier(tmp_path / "other.onnx", GREEN_IS_BLUE)
    log = tmp_path / "logs" / "evaluate.log"
    arguments = (path, "--data", photos, "--preprocessing", "raw:4", "-k", "2", "--log-file", log)
    code, out, err = program(*arguments, "--compare", other, "--output", tmp_path / "found.json")
    assert (code, "error" in err) == (0, False)
    (row,) = (line for line in out.splitlines() if "model.onnx" in line and "88.89%" in line)
    assert "56.50% to 98.01%" in row
    assert "Top-2" in out
    assert "no difference shown" in out
    saved = json.loads((tmp_path / "found.json").read_text())
    assert saved["files"][0]["top1"]["count"] == 8
    assert saved["comparison"]["only_first_right"] == 3
    assert (saved["settings"]["data"], saved["settings"]["seed"]) == (str(photos), 0)
    code, out, _ = program(*arguments, "--json")
    assert code == 0
    assert json.loads(out)["files"][0]["top1"] == saved["files"][0]["top1"]
    lines = log.read_text().splitlines()
    assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO ", line) for line in lines)
    logged = [line.split(" INFO ")[1].split(":")[0].split(" ")[0] for line in lines]
    assert logged == ["Settings", "Evaluating", "Evaluating", "Result", "Settings", "Evaluating", "Result"]


def test_the_log_contains_the_error(program: Program, photos: Path, tmp_path: Path) -> None:
    code, _, err = program(tmp_path / "gone.onnx", "--data", photos, "--log-file", tmp_path / "log.txt")
    assert code == 2
    assert err.count("no model file of that name") == 1
    assert "ERROR Stopped: StorageError: There is no model file" in (tmp_path / "log.txt").read_text()


def test_the_command_classifies_one_image(program: Program, tmp_path: Path) -> None:
    path = classifier(tmp_path / "model.onnx", metadata=ModelFacts(RAW, False, tuple(COLOURS)).metadata())
    paint(tmp_path / "some.png", "red")
    code, out, _ = program(path, "--image", tmp_path / "some.png", "-k", "1")
    assert code == 0
    assert re.search(r"red\W+2\W+200", out)
    code, out, _ = program(path, "--image", tmp_path / "some.png", "-k", "1", "--json")
    assert json.loads(out)["classes"] == [{"index": 2, "name": "red", "score": 200.0}]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "either on a data set or on one image"),
        (("--data", "digits", "--image", "some.png"), "either on a data set or on one image"),
        (("--image", "gone.png"), "Can't read the image"),
        (("--image", "text.png"), "Can't read the image"),
        (("--image", "text.png", "--compare", "model.onnx"), "Drop one"),
        (("--data", "photos", "--preprocessing", "raw"), "Received: 'raw'"),
        (("--data", "photos", "--preprocessing", "rgb:4"), "`mode` must be 'caffe'"),
        (("--data", "photos", "--engine", "ncnn"), "Received: 'ncnn'"),
        (("--data", "photos", "--output", "empty"), "Received: the folder"),
        (("--data", "photos", "--log-file", "text.png/a.log"), "Can't write to the folder"),
        (("--data", "empty"), "no class folder"),
        (("--data", "photos", "-k", "0"), "-k"),
        (("--data", "photos", "--compare", "text.png"), "No engine opens such a file"),
        (("--data", "photos", "--compare", "corrupt.onnx"), "corrupt.onnx"),
        (("--data", "photos", "--compare", "corrupt.keras"), "corrupt.keras"),
        (("--data", "photos", "--compare", "photos"), "no SavedModel"),
    ],
)
def test_mistakes_are_told_in_one_message(
    program: Program,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(photos.parent)
    for name in ("text.png", "corrupt.onnx", "corrupt.keras"):
        Path(name).write_text("not what it is called")
    Path("empty", "val").mkdir(parents=True)
    classifier(Path("model.onnx"), metadata=ModelFacts(RAW, False, tuple(COLOURS)).metadata())
    code, out, err = program("model.onnx", *arguments)
    assert (code, out) == (2, "")
    assert err.count("error:") == 1
    assert "Traceback" not in err
    assert message in " ".join(err.split())


@pytest.fixture(scope="module")
def finished(trained_network: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A run on the digits."""
    settings = Settings.of(
        model=trained_network,
        batch_size=32,
        calibration_images=64,
        weight_method="absmax",
        bias_correction=False,
        skip_fine_tuning=True,
        skip_diagnosis=True,
        output=tmp_path_factory.mktemp("runs"),
    )
    run(settings)
    return settings


@pytest.mark.parametrize("row", [0, 1])
@pytest.mark.parametrize(
    ("form", "column"), [("{}.keras", "keras"), ("{}.onnx", "deployed"), ("{}_saved_model", "keras")]
)
def test_the_figures_of_a_run_to_the_image(finished: Settings, row: int, form: str, column: str) -> None:
    reported = json.loads((finished.folder / "results.json").read_text())["rows"][row]
    path = finished.folder / form.format(reported["name"].lower())
    evaluation = evaluate_file(EvaluationSettings(path, "digits"))
    (file,) = evaluation.files
    assert evaluation.images == 360
    assert file.top1.value == reported[f"{column}_top1"]
    assert file.top_k.value == reported[f"{column}_top5"]


@pytest.fixture
def shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Write validation shards of images of one colour each, or of bytes that are not images."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write(*pictures: str | bytes, label: Callable[[str], int] = list(COLOURS).index) -> Path:
        path = tmp_path / "records" / "validation-00000-of-00001"
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            for picture in pictures:
                encoded = io.BytesIO()
                if isinstance(picture, str):
                    Image.new("RGB", (6, 5), COLOURS[picture]).save(encoded, "PNG")
                else:
                    encoded.write(picture)
                number = label(picture) if isinstance(picture, str) else 0
                features = {
                    "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[encoded.getvalue()])),
                    "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[number])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                write_record(file, example.SerializeToString())
        return path

    return write


def test_images_are_counted_wherever_they_are_left_out(
    evaluate: Callable[..., Evaluation],
    shards: Callable[..., Path],
    photos: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A record with a wrong checksum, six that are not images, and a file whose header is not that of an image."""
    classifier(tmp_path / "model.onnx")
    shard = shards("blue", "green", "red", *(b"no image %d" % i for i in range(6)))
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)
    evaluation = evaluate(data=str(shard.parent), skip_bad=True)
    assert (evaluation.images, evaluation.skipped, evaluation.files[0].top1.count) == (2, 7, 2)
    (warning,) = (record.getMessage() for record in caplog.records if "can't be decoded" in record.getMessage())
    assert warning.count("Can't read the image") == 5
    assert warning.endswith("and 1 more")
    (photos / "val" / "blue" / "0.png").write_text("<html>")
    evaluation = evaluate(skip_bad=True, images=5, compare=classifier(tmp_path / "other.onnx", GREEN_IS_BLUE))
    assert (evaluation.images, evaluation.skipped) == (5, 1)


def test_validation_shards_alone_may_lack_classes(
    evaluate: Callable[..., Evaluation], shards: Callable[..., Path], tmp_path: Path
) -> None:
    classifier(tmp_path / "model.onnx")
    folder = str(shards("blue", "red", "blue").parent)
    assert evaluate(data=folder).files[0].top1.count == 3
    classifier(tmp_path / "small.onnx", np.ones((3, 2)))
    with pytest.raises(DataError, match="labels that none of the model's 2 classes is for"):
        evaluate(data=folder, file=tmp_path / "small.onnx")
    shards("blue", "green", label=lambda name: 1 + list(COLOURS).index(name))
    with pytest.raises(DataError, match="count from 0 or from 1"):
        evaluate(data=folder)
