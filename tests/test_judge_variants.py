"""Models of several inputs and outputs through the end of a run: their figures, gates, records and files."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import onnx
import pytest
from rich.console import Console

from keras_qat import apply_placement, calibrate, export_onnx, plan, trace
from keras_qat.cli.program import app, run_program
from keras_qat.data import ArraySet
from keras_qat.errors import DataError, GateMissedError, UnsupportedModelError
from keras_qat.evaluation import EvaluationSettings, Figure, OutputScores, evaluate_file
from keras_qat.files import write_json
from keras_qat.graph import read_tasks
from keras_qat.machine import read_environment
from keras_qat.models import ModelFacts, read_model_facts
from keras_qat.report import Record, evaluation_table, markdown, verdict
from keras_qat.report.record import load_record
from keras_qat.run.conclude import _diagnose, check_gates, judge_variants
from keras_qat.runtimes import open_runtime
from keras_qat.types import BASELINE, PTQ
from keras_qat.verify import (
    Case,
    OutputComparison,
    Verification,
    check_file,
    images_of,
    output_miss,
    verification_table,
)

layers = keras.layers
COUNT = 18


class Made(NamedTuple):
    models: dict[str, Any]
    files: dict[str, Path]
    data: ArraySet
    facts: ModelFacts
    placement: Any


def network(batch: int | None) -> keras.Model:
    """A mask, a box and a class of an image and a vector."""
    image = keras.Input((8, 8, 3), batch_size=batch, name="image")
    vector = keras.Input((4,), batch_size=batch, name="vector")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv")(image)
    mask = layers.Conv2D(3, 1, activation="softmax", name="mask")(x)
    pooled = layers.GlobalAveragePooling2D(name="pool")(x)
    joined = layers.Concatenate(name="joined")([pooled, layers.Dense(8, activation="relu", name="dense")(vector)])
    box = layers.Dense(4, name="box")(joined)
    return keras.Model([image, vector], [mask, box, layers.Dense(5, "softmax", name="class")(joined)])


def make(folder: Path, batch: int | None) -> Made:
    keras.utils.set_random_seed(1)
    rng = np.random.default_rng(0)
    model = network(batch)
    x = (rng.normal(size=(COUNT, 8, 8, 3)).astype("float32"), rng.normal(size=(COUNT, 4)).astype("float32"))
    y = (
        rng.integers(0, 3, (COUNT, 8, 8)).astype("int32"),
        rng.normal(size=(COUNT, 4)).astype("float32"),
        rng.integers(0, 5, COUNT).astype("int32"),
    )
    placement = plan(trace(model).graph, "onnxruntime")
    ranges = calibrate(model, placement, [[a[:batch] for a in x]], method="minmax")
    models = {BASELINE: model, PTQ: apply_placement(model, placement, ranges)}
    named = zip(read_tasks(trace(model)), model.output_names, strict=True)
    tasks = tuple(replace(task, output=name) for task, name in named)
    facts = ModelFacts(None, embedded=False, class_names=(), tasks=tasks)
    files = {
        name: export_onnx(one, folder / f"{name.lower()}.onnx", target="onnxruntime", metadata=facts.metadata())
        for name, one in models.items()
    }
    for name, one in models.items():
        one.save(folder / f"{name.lower()}.keras")
    write_json(folder / "preprocessing.json", facts.to_dict())
    arrays: dict[str, Any] = {"image": x[0], "vector": x[1], "mask": y[0], "box": y[1], "class": y[2]}
    np.savez(folder / "val.npz", **arrays)
    return Made(models, files, ArraySet.from_arrays("made", x, y), facts, placement)


@pytest.fixture(scope="module", params=[None, 4], ids=["any batch", "batch of 4"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("made"), request.param)


@pytest.fixture(scope="module")
def record(made: Made) -> Record:
    rows, engine = judge_variants(made.models, made.files, made.data, "onnxruntime", tasks=made.facts.tasks)
    environment = read_environment()
    return Record(
        "small",
        "made",
        "onnxruntime",
        COUNT,
        engine,
        rows,
        None,
        (),
        {"model": "small"},
        environment,
        {},
        made.facts.tasks,
    )


def rendered(table: Any, width: int = 100) -> str:
    console = Console(width=width, no_color=True)
    with console.capture() as captured:
        console.print(table)
    return " ".join(captured.get().split())


def outputs_of(runtime: Any, x: tuple[np.ndarray, ...], batch: int) -> list[np.ndarray]:
    """All outputs of whole batches, the last of which begins so that it ends with the data."""
    starts = [min(start, COUNT - batch) for start in range(0, COUNT, batch)]
    found: list[Any] = [np.zeros(0)] * 3
    for i in range(3):
        rows: dict[int, np.ndarray] = {}
        for start in starts:
            rows |= dict(enumerate(runtime.run(*(a[start : start + batch] for a in x))[i], start))
        found[i] = np.array([rows[k] for k in range(COUNT)])
    return found


def test_rows_hold_the_figures_of_file_and_model(made: Made, record: Record) -> None:
    (x, y), batch = next(made.data.arrays(COUNT)), made.models[PTQ].inputs[0].shape[0] or COUNT
    with open_runtime(made.files[PTQ]) as deployed:
        mask, box, scores = outputs_of(deployed, x, batch)
    with open_runtime(made.files[PTQ].with_name("baseline.keras")) as simulated:
        float_mask, float_box, float_scores = outputs_of(simulated, x, batch)
    row = record.rows[1]
    found = {one.output: one for one in row.outputs}
    assert list(found) == ["mask", "box", "class"]
    assert found["mask"].value("pixel_accuracy") == pytest.approx(np.mean(mask.argmax(-1) == y[0]))
    assert found["mask"].value("agreement") == pytest.approx(np.mean(mask.argmax(-1) == float_mask.argmax(-1)))
    assert found["box"].value("mae") == pytest.approx(np.mean(np.abs(box - y[1])), rel=1e-5)
    noise = np.sum((float_box.astype(float) - box) ** 2)
    assert found["box"].value("sqnr") == pytest.approx(
        10 * np.log10(np.sum(float_box.astype(float) ** 2) / noise), abs=1e-3
    )
    assert found["class"].value("top1") == np.mean(scores.argmax(-1) == y[2])
    assert found["class"].value("agreement") == np.mean(scores.argmax(-1) == float_scores.argmax(-1))
    assert (row.keras_top1, row.agreement, row.simulation_agreement) == (None, None, None)
    assert row.deployed_latency.batch == (1 if batch == COUNT else batch)
    assert [one.tensor for one in row.tensor_errors if one.worst > 1] == []
    check_gates(record)


def test_a_record_with_tasks_is_read_back_and_reported(record: Record, tmp_path: Path) -> None:
    write_json(tmp_path / "results.json", record.to_dict())
    assert load_record(tmp_path / "results.json") == record
    text = markdown(record)
    assert [line for line in text.splitlines() if line.startswith("**")] == [
        "**Segmentation**", "**Regression**", "**Classification**", "**Latency and size**",
    ]  # fmt: skip
    assert f"Latency: batch {record.rows[0].deployed_latency.batch}, " in text
    assert "Against the float model, mask: the same class at " in " ".join(verdict(record))


@pytest.mark.parametrize("made", [4], indirect=True, ids=["batch of 4"])
def test_models_of_several_inputs_are_diagnosed(made: Made) -> None:
    diagnosis = _diagnose(made.models[BASELINE], made.models[PTQ], made.data)
    assert diagnosis.images == 16  # of 18; the last batch isn't whole
    assert tuple(one.name for one in diagnosis.outputs) == trace(made.models[BASELINE]).graph.outputs
    assert {"image", "vector"} <= {one.name for one in diagnosis.tensors}


def test_a_file_is_verified_by_its_tasks(made: Made) -> None:
    case = Case("PTQ", made.files[PTQ], made.models[PTQ], made.placement, made.models[BASELINE])
    check = check_file(case, images_of(made.data, made.facts, 8, seed=0))
    assert (check.miss, check.agreement, [one.kind for one in check.outputs]) == (
        None, None, ["segmentation", "regression", "classification"],
    )  # fmt: skip
    text = rendered(verification_table(Verification("made", (check,))))
    assert "Same class" not in text
    assert "PTQ: mask: the same class on " in text


def test_files_say_what_their_outputs_are(made: Made) -> None:
    for path in (made.files[PTQ], made.files[PTQ].with_suffix(".keras")):
        assert read_model_facts(path) == made.facts


@pytest.mark.parametrize("written", [True, False], ids=["written", "shown by labels and operators"])
def test_files_are_compared_on_arrays(made: Made, written: bool, tmp_path: Path) -> None:
    files, data = made.files, made.files[PTQ].with_name("val.npz")
    if not written:
        files = {name: tmp_path / path.name for name, path in made.files.items()}
        for name, path in files.items():
            model = onnx.load(made.files[name])
            del model.metadata_props[:]
            onnx.save(model, path)
        x, y = next(made.data.arrays(COUNT))
        labels: dict[str, Any] = dict(zip((value.name for value in model.graph.output), y, strict=True))
        data = tmp_path / "val.npz"
        np.savez(data, image=x[0], vector=x[1], **labels)
    evaluation = evaluate_file(EvaluationSettings(files[PTQ], str(data), compare=files[BASELINE], batch_size=5))
    first, second = evaluation.files
    assert evaluation.images == 4  # those that a run judges on
    assert [one.kind for one in first.outputs] == ["segmentation", "regression", "classification"]
    assert {"mean_iou", "agreement"} <= set(first.outputs[0].figures)
    assert "agreement" not in second.outputs[0].figures
    text = rendered(evaluation_table(evaluation))
    assert "Top-1" not in text
    assert "box: MAE of ptq.onnx less that of baseline.onnx, sample by sample: " in text
    saved = evaluation.to_dict()["files"][0]
    assert "top1" not in saved
    assert saved["outputs"][1]["figures"]["mae"]["value"] == first.outputs[1].value("mae")


def test_files_of_different_tasks_are_not_compared(made: Made, tmp_path: Path) -> None:
    tasks = tuple(replace(task, kind="regression", scores=None) for task in made.facts.tasks)
    metadata = replace(made.facts, tasks=tasks).metadata()
    other = export_onnx(made.models[BASELINE], tmp_path / "other.onnx", metadata=metadata)
    settings = EvaluationSettings(made.files[PTQ], str(made.files[PTQ].with_name("val.npz")), compare=other)
    with pytest.raises(
        UnsupportedModelError, match=r"different tasks\. Received: .*other\.onnx: regression, regression, regr"
    ):
        evaluate_file(settings)


def test_arrays_without_labels_judge_nothing_alone(made: Made, tmp_path: Path) -> None:
    x, _ = next(made.data.arrays(COUNT))
    np.savez(tmp_path / "x.npz", image=x[0], vector=x[1])
    with pytest.raises(DataError, match=r"Received: .*x\.npz, arrays without labels"):
        evaluate_file(EvaluationSettings(made.files[PTQ], str(tmp_path / "x.npz")))
    settings = EvaluationSettings(made.files[PTQ], str(tmp_path / "x.npz"), compare=made.files[BASELINE])
    assert {"sqnr", "cosine"} <= set(evaluate_file(settings).files[0].outputs[1].figures)


def test_the_command_prints_every_figure(made: Made, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(made.files[PTQ].with_name("val.npz"))
    assert run_program(["evaluate", str(made.files[PTQ]), "--data", data], app) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("mean IoU", "MAE", "RMSE", "top-1", "pixel accuracy"))


# --- gates ------------------------------------------------------------------------------------------------------------


def compared(kind: Any, *figures: dict[str, Figure]) -> OutputComparison:
    return OutputComparison(*(OutputScores("out", kind, 100, given) for given in figures))


def agreeing(value: float, half: float = 0.002) -> dict[str, Figure]:
    return {"agreement": Figure(value, value - half, value + half), "sqnr": Figure(30.0)}


def numbers(sqnr: float | None, error: float | None = 1.0, half: float = 0.05) -> dict[str, Figure]:
    found = Figure(None) if error is None else Figure(error, error - half, error + half)
    return {"sqnr": Figure(sqnr), "mean_error": found}


@pytest.mark.parametrize(
    ("comparison", "part"),
    [
        (compared("segmentation", agreeing(0.996), agreeing(0.99), agreeing(0.99)), None),
        (compared("segmentation", agreeing(0.991), agreeing(0.99), agreeing(0.99)), None),
        (compared("segmentation", agreeing(0.98), agreeing(0.99), agreeing(0.995)), "at 98.00% of the positions"),
        (compared("segmentation", agreeing(0.98, 0.02), agreeing(0.99), agreeing(0.995)), None),
        (compared("segmentation", agreeing(0.5)), None),
        (compared("regression", numbers(26.0), numbers(10.0, 9.0), numbers(30.0, 1.0)), None),
        (compared("regression", numbers(18.0), numbers(11.5, 1.15), numbers(12.0, 1.0)), None),
        (compared("regression", numbers(18.0), numbers(11.5, 1.4, 0.5), numbers(12.0, 1.0)), None),
        (
            compared("regression", numbers(18.0), numbers(11.0, 1.4), numbers(12.0, 1.0)),
            "of 1.4, where the simulation has 1;",
        ),
        (compared("regression", numbers(None), numbers(None, None), numbers(40.0)), "numbers that aren't finite"),
        (compared("regression", numbers(None), numbers(None, None), numbers(None, None)), None),
        (compared("regression", numbers(5.0)), None),
        (compared("classification", agreeing(0.9), agreeing(0.9), agreeing(1.0)), "PTQ (out) file doesn't classify"),
        (compared("classification", agreeing(0.9), agreeing(0.9), agreeing(0.9)), None),
    ],
)
def test_what_is_promised_of_an_output(comparison: OutputComparison, part: str | None) -> None:
    miss = output_miss("PTQ", [comparison])
    assert (miss is None) == (part is None)
    assert (part or "") in (miss or "")


def test_a_run_fails_at_an_output_that_is_not_as_simulated(record: Record) -> None:
    row = record.rows[1]
    figures = {"sqnr": Figure(3.0), "mean_error": Figure(9.0)}
    wrong = OutputScores("box", "regression", COUNT, {**row.outputs[1].figures, **figures})
    spoilt = replace(
        row,
        outputs=(row.outputs[0], wrong, row.outputs[2]),
        simulation_outputs=(row.simulation_outputs[0], wrong, row.simulation_outputs[2]),
    )
    with pytest.raises(GateMissedError, match=r"numbers that were simulated at the output 'box'\. Received: 3\.0 dB"):
        check_gates(replace(record, rows=(record.rows[0], spoilt)))
