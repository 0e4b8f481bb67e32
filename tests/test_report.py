"""Verdict and intervals against closed forms; files that are missing or damaged; Markdown; the command."""

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from keras_qat.cli.program import app, run_program
from keras_qat.errors import StorageError, UserError
from keras_qat.evaluation import Diagnosis, KernelDiagnosis, Latency, TensorDiagnosis, advise
from keras_qat.files import write_json
from keras_qat.machine import Environment
from keras_qat.report import Record, Row, key_figures, load_diagnosis, verdict
from keras_qat.report.documents import pull_request
from keras_qat.report.in_words import accuracies
from keras_qat.report.record import load_record
from keras_qat.run import RunFolder
from keras_qat.training import EpochRecord
from keras_qat.types import QuantSpec
from keras_qat.verify import TensorError

Program = Callable[..., tuple[int, str, str]]
EVIL = "</script><img src=x onerror=alert(1)>|x"


def row(name: str, top1: float | None, ms: float, megabytes: float, agreement: float | None = 1.0) -> Row:
    latency = Latency(ms, 1.1 * ms, 60, "CPU")
    errors = () if name == "Baseline" else (TensorError("relu_quantize", 0.001, 1.0),)
    return Row(name, top1, top1, latency, top1, top1, latency, agreement, 1.0, 40.0, 1.0, errors, int(megabytes * 1e6))


BASELINE = row("Baseline", 0.9611, 3.0, 94.0)
PTQ = row("PTQ", 0.9556, 1.5, 23.5, 0.9889)
QAT = row("QAT", 0.9583, 1.0, 23.5, 0.9944)


def record(*rows: Row, images: int = 360, **settings: Any) -> Record:
    epochs = (EpochRecord(0, None, None, None, 0.2, 0.95, 1.0), EpochRecord(1, 1e-5, 0.1, 0.96, 0.1, 0.96, 9.0, 0.99))
    environment = Environment("a CPU", 2, vnni=True, system="Linux", python="3.11", packages={"keras": "3.15"})
    shown = {"model": "resnet50", "epochs": 1, "optimizer": "adam", "clip_norm": None, **settings}
    return Record(
        "resnet50", "digits", "onnxruntime", images, "ONNX Runtime", rows, 1, epochs, shown, environment, {"load": 1.5}
    )


RECORD = record(BASELINE, PTQ, QAT)


def diagnosis() -> Diagnosis:
    tensor = TensorDiagnosis("relu", "relu", QuantSpec(), 1.5, 12.0, -math.inf, saturated=0.08, clipping=0.9)
    exact = TensorDiagnosis("zeros", "zeros", QuantSpec(), 0.0, math.inf, math.inf, saturated=0.0, clipping=0.0)
    return Diagnosis((tensor, exact), (KernelDiagnosis(EVIL, QuantSpec(), 44.0, None),), (), images=64)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run of which only the results and one diagnosis are kept."""
    path = tmp_path / "runs" / "resnet50-digits"
    write_json(path / "results.json", RECORD.to_dict())
    advice = [one.to_dict() for one in advise(diagnosis())]
    write_json(path / "qat_diagnosis.json", {**diagnosis().to_dict(), "advice": advice})
    return path


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str]) -> Program:
    """Run `keras-qat report …`: (exit code, standard output, standard error)."""

    def call(*arguments: object) -> tuple[int, str, str]:
        code = run_program(["report", *map(str, arguments)], app)
        captured = capfd.readouterr()
        return code, captured.out, " ".join(captured.err.split())

    return call


# --- what is said -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "gains", "accuracy"),
    [
        (
            RECORD,
            "INT8 (QAT) is 3.0× faster and 4.0× smaller than float; ",
            "top-1 95.8% against 96.1%: within the noise of 360 images.",
        ),
        (
            record(BASELINE, PTQ, images=50_000),
            "INT8 (PTQ) is 2.0× faster and 4.0× smaller than float; ",
            "top-1 95.6% against 96.1%: 0.5 points lower, more than the noise of 50000 images.",
        ),
        (
            record(BASELINE, row("PTQ", 0.99, 6.0, 94.0), images=50_000),
            "INT8 (PTQ) is 2.0× slower and of the same size as float; ",
            "top-1 99.0% against 96.1%: 2.9 points higher, more than the noise of 50000 images.",
        ),
        (
            record(BASELINE, row("PTQ", 0.9611, 3.01, 188.0)),
            "INT8 (PTQ) is no faster and 2.0× larger than float; ",
            "top-1 96.1% against 96.1%: within the noise of 360 images.",
        ),
        (
            record(replace(BASELINE, deployed_top1=None), replace(PTQ, deployed_top1=None)),
            "INT8 (PTQ) is 2.0× faster and 4.0× smaller than float; ",
            "the images have no labels, so accuracy isn't known.",
        ),
        (
            record(PTQ),
            "INT8 (PTQ) takes 1.5 ms an image and 23.5 MB; top-1 95.6% (95% interval 92.9 to 97.2%). ",
            "The run skipped the float model: nothing to compare.",
        ),
        (
            record(BASELINE, PTQ, precision="fp16"),
            "INT8 (PTQ) is 4.0× smaller than float (its FP16 file can't be timed here); ",
            "top-1 95.6% against 96.1%: within the noise of 360 images.",
        ),
        (record(BASELINE), "Only the float model was evaluated.", ""),
    ],
)
def test_verdict(given: Record, gains: str, accuracy: str) -> None:
    assert verdict(given)[0] == gains + accuracy


def test_verdict_names_agreement_and_the_worst() -> None:
    assert verdict(RECORD, diagnosis())[1:] == (
        "It gives the float model's class on 99.4% of the images.",
        "By itself, relu loses the most: 12.0 dB.",
    )


def test_key_figures_leave_out_what_is_not_known() -> None:
    assert [(it.label, it.value) for it in key_figures(RECORD)] == [
        ("Speed", "3.0× faster"),
        ("Size", "4.0× smaller"),
        ("Top-1", "−0.3 points"),
        ("Agreement with float", "99.4%"),
    ]
    unlabelled = record(replace(BASELINE, deployed_top1=None), replace(PTQ, agreement=None), precision="fp16")
    assert [it.label for it in key_figures(unlabelled)] == ["Size"]
    assert key_figures(record(PTQ)) == ()


def test_intervals_are_wilsons() -> None:
    """Wilson's interval is centred on (x + z²/2) / (n + z²)."""
    n, z = 360, 1.959963984540054
    for one in accuracies(RECORD):
        p = one.top1.count / n
        centre = (one.top1.count + z * z / 2) / (n + z * z)
        half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        assert (one.top1.low, one.top1.high) == pytest.approx((centre - half, centre + half))
    assert [(one.variant, one.where, one.top1.count) for one in accuracies(RECORD)[:2]] == [
        ("Baseline", "Keras", 346),
        ("Baseline", "deployed", 346),
    ]


# --- the files --------------------------------------------------------------------------------------------------------


def test_a_record_is_read_back(folder: Path) -> None:
    assert load_record(folder / "results.json") == RECORD


def test_a_record_from_before_the_history(folder: Path) -> None:
    old = {key: value for key, value in RECORD.to_dict().items() if key != "history"}
    write_json(folder / "results.json", old)
    assert load_record(folder / "results.json") == replace(RECORD, history=())
    assert "results.json has no history of fine-tuning" in RunFolder(folder).write_page().read_text(encoding="utf-8")


def test_a_diagnosis_is_read_back(folder: Path) -> None:
    found = RunFolder(folder).read().diagnoses["QAT"]
    assert found.diagnosis == diagnosis()
    assert found.advice == advise(diagnosis())


def test_absent_and_damaged_files_are_named(folder: Path) -> None:
    (folder / "ranges.json").write_text("{")
    (folder / "placement.json").write_text('{"format": "other"}')
    absent = RunFolder(folder).read().absent
    assert set(absent) == {"placement", "ranges", "PTQ"}
    assert "isn't JSON" in absent["ranges"]
    assert "doesn't hold a placement" in absent["placement"]
    assert absent["PTQ"].startswith("The run has no ptq_diagnosis.json. `keras-qat diagnose ")
    page = RunFolder(folder).write_page().read_text(encoding="utf-8")
    assert "The run has no ptq_diagnosis.json." in page
    assert "doesn&#39;t hold a placement" in page


@pytest.mark.parametrize("content", ["[]", '{"rows": []}', '{"rows": [{"name": "PTQ"}]}', "{"])
def test_damaged_results(folder: Path, program: Program, content: str) -> None:
    (folder / "results.json").write_text(content)
    with pytest.raises(UserError, match="Received"):
        RunFolder(folder).write_page()
    code, out, error = program(folder)
    assert (code, out) == (2, "")
    assert "results.json" in error


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda value: value["rows"][1].update(size_bytes="23"), "`rows[1].size_bytes` must be an integer"),
        (lambda value: value["rows"][0]["keras_latency"].pop("runs"), "`rows[0].keras_latency.runs` is missing"),
        (lambda value: value["history"][0].update(loss=1), "`history[0]` has unknown fields: 'loss'"),
        (lambda value: value["environment"].update(packages=[]), "`environment.packages` must be an object"),
        (lambda value: value["rows"][1]["tensor_errors"][0].pop("worst"), "`rows[1].tensor_errors[0]` can't be read"),
    ],
)
def test_a_spoilt_field_of_results_is_named(folder: Path, spoil: Callable[[Any], Any], message: str) -> None:
    value = json.loads((folder / "results.json").read_text())
    spoil(value)
    write_json(folder / "results.json", value)
    with pytest.raises(UserError, match=r"Received: ") as caught:
        load_record(folder / "results.json")
    assert str(caught.value).startswith(f"{folder / 'results.json'} doesn't hold the results of a run: {message}")


def test_a_spoilt_field_of_a_diagnosis_is_named(folder: Path) -> None:
    value = json.loads((folder / "qat_diagnosis.json").read_text())
    value["tensors"][1]["alone"] = "infinite"
    write_json(folder / "qat_diagnosis.json", value)
    with pytest.raises(UserError, match=r"a diagnosis: `tensors\[1\]\.alone` must be a number. Received: 'infinite'\."):
        load_diagnosis(folder / "qat_diagnosis.json")


def test_data_of_the_page_is_json_without_markup(folder: Path) -> None:
    page = RunFolder(folder).write_page().read_text(encoding="utf-8")
    data = page.partition('id="data">')[2].partition("</script>")[0]
    assert "<" not in data
    (run,) = json.loads(data, parse_constant=pytest.fail)
    points = {point["label"]: point for point in run["layers"][0]["points"]}
    assert points[f"kernel of {EVIL}"]["alone"] == 44.0
    assert (points["relu"]["cumulative"], points["zeros"]["alone"]) == (None, None)
    assert EVIL not in page


def test_vendored_libraries_are_those_of_npm() -> None:
    vendor = files("keras_qat.report.page") / "vendor"
    listed = json.loads((vendor / "vendored.json").read_text(encoding="utf-8"))
    assert {one["name"] for one in listed} == {"d3", "@observablehq/plot", "@dagrejs/dagre"}
    for one in listed:
        for path, digest in ((one["file"], one["sha256"]), (one["license_file"], one["license_sha256"])):
            assert hashlib.sha256((vendor / path).read_bytes()).hexdigest() == digest, path
        assert one["version"] in one["source"]


# --- Markdown ---------------------------------------------------------------------------------------------------------


def test_markdown_for_a_pull_request(folder: Path) -> None:
    text = pull_request(RunFolder(folder).read())
    assert text.startswith("## resnet50 on digits, target onnxruntime, 360 validation images\n\n**INT8 (QAT) is 3.0×")
    assert "| QAT | 95.83% | 1.00 ms (p90 1.10) | 95.83% | 1.00 ms (p90 1.10) | 99.44% | 23.5 MB |" in text
    assert "| QAT | deployed | 95.83% | 93.2 to 97.5% |" in text
    assert "| relu | 12.0 dB | -inf dB | 8% | 1.5 |" in text
    assert "| optimizer | adam |" in text
    assert "| CPU | a CPU |" in text
    assert text.count("<details>") == text.count("</details>") == 3
    assert "<img" not in text


def test_markdown_starts_no_html_by_the_name_of_data_or_a_tensor(tmp_path: Path) -> None:
    errors = (TensorError(EVIL, 0.001, 1.0),)
    hostile = replace(record(BASELINE, replace(PTQ, tensor_errors=errors), data=EVIL), data="`<b>``", model="\\`<i>`")
    write_json(tmp_path / "results.json", hostile.to_dict())
    text = pull_request(RunFolder(tmp_path).read())
    assert text.startswith("## \\`&lt;i>` on `&lt;b>``, target")
    assert "differ (&lt;/script>&lt;img src=x" in text
    assert set(re.findall(r"<[^ >]*", text)) == {"<details", "</details", "<summary", "</summary"}


def test_a_diagnosis_of_a_row_that_the_results_lack_is_not_read(folder: Path) -> None:
    write_json(folder / "results.json", record(BASELINE, PTQ).to_dict())
    found = RunFolder(folder).read()
    assert found.diagnoses == {}
    assert set(found.absent) == {"placement", "ranges", "PTQ"}


def test_markdown_without_labels_or_diagnosis(tmp_path: Path) -> None:
    unlabelled = [replace(one, keras_top1=None, deployed_top1=None) for one in (BASELINE, PTQ)]
    write_json(tmp_path / "results.json", record(*unlabelled, data="a|b").to_dict())
    text = pull_request(RunFolder(tmp_path).read())
    assert "95% interval" not in text
    assert "Worst layers" not in text
    assert "| data | a\\|b |" in text


# --- the command ------------------------------------------------------------------------------------------------------


def test_report_of_one_run(folder: Path, program: Program) -> None:
    code, out, _ = program(folder)
    assert (code, out) == (0, f"{folder / 'report.html'}\n")
    code, out, _ = program(folder, "--output", folder / "other.html", "--json")
    assert json.loads(out)["output"] == str(folder / "other.html")
    assert json.loads(out)["runs"][0]["verdict"][0].startswith("INT8 (QAT) is 3.0× faster")
    assert json.loads(out)["runs"][0]["table"][2]["Size"] == "23.5 MB"
    assert (folder / "other.html").read_bytes() == (folder / "report.html").read_bytes()


def test_report_of_several_runs_skips_what_is_none(folder: Path, program: Program) -> None:
    second = folder.parent / "resnet101-digits"
    write_json(second / "results.json", replace(record(BASELINE, PTQ), model="resnet101").to_dict())
    (folder.parent / "empty").mkdir()
    program(*sorted(folder.parent.iterdir()))
    code, out, error = program(*sorted(folder.parent.iterdir()))
    assert (code, out) == (0, f"{folder.parent / 'report.html'}\n")
    assert "empty is left out" in error
    assert "report.html is left out" not in error
    page = (folder.parent / "report.html").read_text(encoding="utf-8")
    assert page.index("resnet101 on digits") < page.index("resnet50 on digits")


def test_markdown_goes_to_standard_output_or_a_file(folder: Path, program: Program) -> None:
    code, out, _ = program(folder, "--format", "markdown")
    assert (code, out) == (0, pull_request(RunFolder(folder).read()))
    assert program(folder, "--format", "markdown", "--output", folder / "pr.md")[:2] == (0, "")
    assert (folder / "pr.md").read_text(encoding="utf-8") == out
    assert not (folder / "report.html").exists()


def test_not_a_run(tmp_path: Path, program: Program) -> None:
    code, out, error = program(tmp_path)
    assert (code, out) == (2, "")
    assert "This is not the folder of a finished run: it has no results.json. Received:" in error
    (tmp_path / "settings.json").write_text("{}")
    assert "the run hasn't finished" in program(tmp_path)[2]
    assert program()[0] == 2
    assert program(tmp_path, tmp_path / "b")[0] == 2


def test_output_that_cannot_be_written(folder: Path, program: Program) -> None:
    (folder / "file").write_text("")
    for output in (folder / "file" / "report.html", folder):
        code, out, error = program(folder, "--output", output)
        assert (code, out) == (2, "")
        assert "Received:" in error
    (folder / "report.html").mkdir()
    with pytest.raises(StorageError, match="a folder is there"):
        RunFolder(folder).write_page()
