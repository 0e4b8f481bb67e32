"""Reports of segmentation, regression and several outputs: tables to the letter, sentences, charts; the page."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from keras_qat.evaluation import Evaluation, Figure, Latency, OutputScores, ScoredFile
from keras_qat.files import write_json
from keras_qat.machine import Environment
from keras_qat.report import (
    Record,
    Row,
    RunFiles,
    evaluation_table,
    key_figures,
    markdown,
    result_tables,
    terminal_table,
    verdict,
)
from keras_qat.report.documents import pull_request
from keras_qat.report.page.figures import accuracy_figures, training_figure
from keras_qat.report.page.render import render
from keras_qat.report.record import load_record
from keras_qat.training import EpochRecord
from keras_qat.types import OutputTask
from keras_qat.verify import TensorError

MASK = OutputTask("mask", "segmentation", "classes")
BOX = OutputTask("boxes_of_all_anchors_and_levels", "regression")
CLASS = OutputTask("class", "classification", "classes")


def mask(iou: float | None, agreement: float = 1.0, difference: Figure | None = None) -> OutputScores:
    labelled = {} if iou is None else {
        "mean_iou": Figure(iou), "image_iou": Figure(iou - 0.01, iou - 0.02, iou), "pixel_accuracy": Figure(iou + 0.1),
    }  # fmt: skip
    close = {"agreement": Figure(agreement, agreement - 0.002, agreement), "model_iou": Figure(agreement - 0.01)}
    return scores(MASK, {**labelled, **close}, {"image_iou": difference})


def box(mae: float | None, sqnr: float = 121.0, difference: Figure | None = None) -> OutputScores:
    labelled = {} if mae is None else {"mae": Figure(mae, 0.9 * mae, 1.1 * mae), "rmse": Figure(1.3 * mae)}
    close = {
        "sqnr": Figure(sqnr), "mean_error": Figure(0.004, 0.003, 0.005), "largest_error": Figure(0.03123),
        "cosine": Figure(0.9999, 0.9998, 1.0),
    }  # fmt: skip
    return scores(BOX, {**labelled, **close}, {"mae": difference})


def classes(top1: float, agreement: float = 1.0) -> OutputScores:
    figures = {"top1": top1, "top5": 1.0, "agreement": agreement}
    return scores(CLASS, {name: Figure(it, it - 0.02, min(it + 0.02, 1.0)) for name, it in figures.items()}, {})


def scores(task: OutputTask, figures: dict[str, Figure], differences: dict[str, Figure | None]) -> OutputScores:
    shown = {name: figure for name, figure in differences.items() if figure is not None}
    return OutputScores(task.output, task.kind, 200, figures, shown)


def record(tasks: Sequence[OutputTask], *rows: tuple[OutputScores, ...], batch: int = 1) -> Record:
    made = []
    for name, ms, size, outputs in zip(("Baseline", "PTQ"), (3.0, 1.5), (8_000_000, 2_000_000), rows, strict=True):
        latency = Latency(ms, 1.1 * ms, 60, "CPU", batch)
        errors = () if name == "Baseline" else (TensorError("relu_quantize", 0.001, 1.0),)
        none = (None,) * 4
        made.append(Row(name, None, None, latency, None, None, latency, *none, errors, size, outputs, outputs, outputs))
    environment = Environment("a CPU", 2, vnni=True, system="Linux", python="3.11", packages={})
    return Record(
        "unet", "shapes", "onnxruntime", 200, "ONNX Runtime", tuple(made), None, (), {"model": "unet"}, environment,
        {"load": 1.0}, tuple(tasks),
    )  # fmt: skip


WORSE, SAME = Figure(-0.003, -0.005, -0.001), Figure(0.0002, -0.0001, 0.0005)
SEGMENTATION = record([MASK], (mask(0.8153),), (mask(0.8123, 0.9876, WORSE),))
REGRESSION = record([BOX], (box(0.0121),), (box(0.0123, 35.24, SAME),))
AUTOENCODER = record([BOX], (box(None),), (box(None, 35.24),))
MIXED = record(
    [MASK, BOX, CLASS],
    (mask(0.8153), box(None), classes(0.95)),
    (mask(0.8123, 0.9876, WORSE), box(None, 35.24), classes(0.94, 0.98)),
)
ALL = {"segmentation": SEGMENTATION, "regression": REGRESSION, "autoencoder": AUTOENCODER, "mixed": MIXED}


def rendered(table: Any) -> str:
    console = Console(width=80, no_color=True)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


SEGMENTATION_TABLE = """
unet on shapes, target onnxruntime, 200 validation samples
Segmentation
┏━━━━━━━━━━┳━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━┓
┃          ┃  Keras ┃ Deployed ┃          ┃  Agrees ┃    IoU ┃
┃          ┃   mean ┃     mean ┃    Pixel ┃    with ┃   with ┃
┃          ┃    IoU ┃      IoU ┃ accuracy ┃   float ┃  float ┃
┡━━━━━━━━━━╇━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━┩
│ Baseline │ 81.53% │   81.53% │   91.53% │ 100.00% │ 99.00% │
│ PTQ      │ 81.23% │   81.23% │   91.23% │  98.76% │ 97.76% │
└──────────┴────────┴──────────┴──────────┴─────────┴────────┘
Latency and size
┏━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━┓
┃          ┃              Keras ┃           Deployed ┃        ┃
┃          ┃            latency ┃            latency ┃   Size ┃
┡━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━┩
│ Baseline │ 3.00 ms (p90 3.30) │ 3.00 ms (p90 3.30) │ 8.0 MB │
│ PTQ      │ 1.50 ms (p90 1.65) │ 1.50 ms (p90 1.65) │ 2.0 MB │
└──────────┴────────────────────┴────────────────────┴────────┘
Deployed: ONNX Runtime.
Latency: batch 1, median and p90 of 60 interleaved runs after warm-up; a CPU, 2
cores.
Keras latency of PTQ and QAT is that of the simulation, which computes in float.
Mean IoU: over the classes, from the positions of all samples. Agreement: share
of the positions.
File and simulation: 100.00% of the classes (Baseline), 98.76% of the classes
(PTQ).
Given the same integers before it, every quantized tensor of the files is within
1 step of the simulation, and at most 0.1% of its numbers differ
(relu_quantize).
"""

MIXED_TABLE = """
| Segmentation |  | Output | Keras mean IoU | Deployed mean IoU | Pixel accuracy | Agrees with float | IoU with float |
| Baseline | mask | 81.53% | 81.53% | 91.53% | 100.00% | 99.00% |
| PTQ | mask | 81.23% | 81.23% | 91.23% | 98.76% | 97.76% |
| Regression |  | Output | SQNR (dB) | Mean error | Largest error |
| Baseline | boxes_of_all_anchors_and_levels | 121.0 | 0.004 | 0.0312 |
| PTQ | boxes_of_all_anchors_and_levels | 35.2 | 0.004 | 0.0312 |
| Classification |  | Output | Keras top-1 | Deployed top-1 | Agrees with float |
| Baseline | class | 95.00% | 95.00% | 100.00% |
| PTQ | class | 94.00% | 94.00% | 98.00% |
| Latency and size |  | Keras latency | Deployed latency | Size |
| Baseline | 3.00 ms (p90 3.30) | 3.00 ms (p90 3.30) | 8.0 MB |
| PTQ | 1.50 ms (p90 1.65) | 1.50 ms (p90 1.65) | 2.0 MB |
"""


def test_the_table_of_a_segmentation() -> None:
    assert trimmed(rendered(terminal_table(SEGMENTATION))) == SEGMENTATION_TABLE.strip()


def test_a_table_for_each_kind_of_task() -> None:
    lines = []
    for table in result_tables(MIXED):
        lines.append(f"| {table.title} | {' | '.join(table.columns)} |")
        lines += [f"| {' | '.join(row)} |" for row in table.rows]
    assert lines == MIXED_TABLE.strip().splitlines()


def test_columns_of_a_regression_follow_the_labels() -> None:
    assert result_tables(REGRESSION)[0].columns[1:] == (
        "SQNR (dB)", "Mean error", "Largest error", "Keras MAE", "MAE", "RMSE",
    )  # fmt: skip
    assert result_tables(REGRESSION)[0].rows[1] == ("PTQ", "35.2", "0.004", "0.0312", "0.0123", "0.0123", "0.016")
    assert result_tables(AUTOENCODER)[0].columns[1:] == ("SQNR (dB)", "Mean error", "Largest error")


@pytest.mark.parametrize("name", ALL)
def test_tables_fit_80_columns_and_cut_nothing(name: str) -> None:
    text = rendered(terminal_table(ALL[name]))
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    shown = text.replace("┃", " ").replace("│", " ").split()
    words = {word for table in result_tables(ALL[name]) for column in table.columns for word in column.split()}
    assert words <= set(shown)


@pytest.mark.parametrize("name", ["segmentation", "regression", "autoencoder"])
def test_nothing_is_called_top_1_where_there_are_no_classes(name: str) -> None:
    given = ALL[name]
    files = RunFiles(Path("run"), given, None, None, {}, {})
    own = re.sub(r"<script(?! type).*?</script>", "", render([files]), flags=re.DOTALL)
    for text in (rendered(terminal_table(given)), markdown(given), pull_request(files), " ".join(verdict(given)), own):
        assert "top-1" not in text.lower()
    assert "top" not in str(given.rows[0].to_dict()["outputs"])


EVALUATION_TABLE = """
                        Accuracy on shapes, 200 samples
┏━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━┓
┃ File       ┃ Figure                           ┃   Value ┃       95% interval ┃
┡━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━┩
│ qat.onnx   │ MAE                              │  0.0123 │   0.0111 to 0.0135 │
│            │ RMSE                             │   0.016 │                  – │
│            │ SQNR against float.onnx          │ 35.2 dB │                  – │
│            │ mean error against float.onnx    │   0.004 │     0.003 to 0.005 │
│            │ largest error against float.onnx │  0.0312 │                  – │
│            │ cosine with float.onnx           │ 0.99990 │ 0.99980 to 1.00000 │
├────────────┼──────────────────────────────────┼─────────┼────────────────────┤
│ float.onnx │ MAE                              │  0.0121 │   0.0109 to 0.0133 │
│            │ RMSE                             │  0.0157 │                  – │
└────────────┴──────────────────────────────────┴─────────┴────────────────────┘
qat.onnx: ORT (CPU), 99.5 samples/s, batch 32.
float.onnx: ORT (CPU), 99.5 samples/s, batch 32.
95% interval: of the mean over the samples (t), of a share Wilson's.
MAE of qat.onnx less that of float.onnx, sample by sample: +0.0002 (-0.0001 to
+0.0005): no difference shown.
"""


def evaluated(given: Record) -> Evaluation:
    """The files of a record side by side: the second one has only the figures against labels."""

    def alone(one: OutputScores) -> OutputScores:
        of_labels = {"mean_iou", "image_iou", "pixel_accuracy", "mae", "rmse", "top1", "top5"}
        return replace(one, figures={name: it for name, it in one.figures.items() if name in of_labels}, differences={})

    files = {"qat.onnx": given.rows[1].outputs, "float.onnx": tuple(map(alone, given.rows[0].outputs))}
    return Evaluation(
        "shapes", 200, 0, 5,
        tuple(ScoredFile(name, name, "ORT", "CPU", None, 32, None, None, 99.5, it) for name, it in files.items()),
    )  # fmt: skip


def test_the_table_of_two_files() -> None:
    assert trimmed(rendered(evaluation_table(evaluated(REGRESSION)))) == trimmed(EVALUATION_TABLE)
    mixed = " ".join(rendered(evaluation_table(evaluated(MIXED))).split())
    assert "mask: mean IoU of each sample of qat.onnx less that of float.onnx, sample by sample: -0.30 points" in mixed
    assert "(-0.50 to -0.10): float.onnx is better than qat.onnx." in mixed


# --- sentences --------------------------------------------------------------------------------------------------------

FASTER = "INT8 (PTQ) is 2.0× faster and 4.0× smaller than float"


@pytest.mark.parametrize(
    ("given", "sentences"),
    [
        (
            SEGMENTATION,
            (
                (
                    f"{FASTER}; mean IoU 81.2% against 81.5%: sample by sample 0.3 points lower, more than the noise "
                    "of 200 samples."
                ),
                "Against the float model, the same class at 98.8% of the positions.",
            ),
        ),
        (
            REGRESSION,
            (
                f"{FASTER}; MAE 0.0123 against 0.0121: within the noise of 200 samples.",
                "Against the float model, an SQNR of 35.2 dB, largest error 0.0312.",
            ),
        ),
        (
            AUTOENCODER,
            (
                f"{FASTER}; there are no labels, so accuracy isn't known.",
                "Against the float model, an SQNR of 35.2 dB, largest error 0.0312.",
            ),
        ),
        (
            MIXED,
            (
                f"{FASTER}.",
                (
                    "mask: mean IoU 81.2% against 81.5%: sample by sample 0.3 points lower, more than the noise of 200 "
                    "samples; class: top-1 94.0% against 95.0%."
                ),
                (
                    "Against the float model, mask: the same class at 98.8% of the positions; "
                    "boxes_of_all_anchors_and_levels: an SQNR of 35.2 dB, largest error 0.0312; class: the same class "
                    "on 98.0% of the samples."
                ),
            ),
        ),
        (
            replace(REGRESSION, rows=REGRESSION.rows[1:]),
            (
                (
                    "INT8 (PTQ) takes 1.5 ms an image and 2.0 MB; MAE 0.0123. The run skipped the float model: nothing "
                    "to compare."
                ),
                "Against the float model, an SQNR of 35.2 dB, largest error 0.0312.",
            ),
        ),
    ],
)
def test_verdicts(given: Record, sentences: tuple[str, ...]) -> None:
    assert verdict(given) == sentences


def test_key_figures() -> None:
    assert [(it.label, it.value, it.note) for it in key_figures(MIXED)[2:5]] == [
        ("Mean IoU, mask", "−0.3 points", "81.5% → 81.2%"),
        ("Agreement with float, mask", "98.8%", "95% interval 98.6 to 98.8%"),
        ("SQNR against float, boxes_of_all_anchors_and_levels", "35.2 dB", "largest error 0.0312"),
    ]
    assert [(it.label, it.value) for it in key_figures(REGRESSION)[2:]] == [
        ("MAE", "+0.0002"), ("SQNR against float", "35.2 dB"),
    ]  # fmt: skip


def test_charts_show_what_has_an_interval() -> None:
    assert [one["title"] for one in accuracy_figures(MIXED)] == [
        "mask: mean IoU of each sample, %, with 95% intervals",
        "boxes_of_all_anchors_and_levels: mean error against float, with 95% intervals",
        "class: top-1, %, with 95% intervals",
    ]
    point = accuracy_figures(SEGMENTATION)[0]["points"][-1]
    assert (point["variant"], point["where"], point["text"]) == (
        "PTQ",
        "deployed",
        "PTQ deployed: 80.23% (79.2 to 81.2%)",
    )
    assert (point["low"], point["value"], point["high"]) == pytest.approx((79.23, 80.23, 81.23))


def test_training_curves_call_it_accuracy() -> None:
    epochs = (EpochRecord(0, None, None, None, 0.2, 0.95, 1.0), EpochRecord(1, 1e-5, 0.1, 0.96, 0.1, 0.96, 9.0, 0.99))
    figure = training_figure(replace(SEGMENTATION, history=epochs, best_epoch=1))
    assert figure is not None
    assert [panel["title"] for panel in figure["panels"]][1] == "Accuracy, %"


def test_latency_of_a_fixed_batch_is_that_of_the_batch(tmp_path: Path) -> None:
    given = record([MASK], (mask(0.8),), (mask(0.8),), batch=4)
    assert "Latency: batch 4, median" in markdown(given)
    write_json(tmp_path / "results.json", given.to_dict())
    assert load_record(tmp_path / "results.json") == given


# --- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_of_several_tasks(tmp_path: Path) -> None:
    playwright = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium in PATH")
    files = [RunFiles(Path("run"), given, None, None, {}, {}) for given in (MIXED, REGRESSION)]
    (tmp_path / "page.html").write_text(render(files), encoding="utf-8")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        for width in (400, 1200):
            page = browser.new_page(viewport={"width": width, "height": 900})
            problems: list[str] = []
            page.on("pageerror", lambda error, found=problems: found.append(str(error)))
            page.goto((tmp_path / "page.html").as_uri())
            page.wait_for_selector("#run0 [data-chart=accuracy] svg")
            shown: Any = page.locator("#run0 table.results caption").all_inner_texts()
            assert shown == ["Segmentation", "Regression", "Classification", "Latency and size"]
            assert page.locator("#run0 [data-chart=accuracy] svg").count() == 3
            assert page.locator(".networks").count() == 6
            inside = "all => all.every((it) => it.scrollWidth <= it.clientWidth)"
            assert page.locator(".key-figures:visible div").evaluate_all(inside)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            assert problems == []
        browser.close()
