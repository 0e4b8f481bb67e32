"""What the terminal shows: tables of 80 columns, names that look like markup, HTML or Markdown."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from keras_qat.doctor import Examination, Finding, Severity, file_table, machine_table, read_machine
from keras_qat.doctor.examination import Counted, Summary
from keras_qat.evaluation import (
    Benchmark,
    Classification,
    Evaluation,
    Proportion,
    RankedClass,
    ScoredFile,
    Skip,
    TimedFile,
    Timing,
)
from keras_qat.machine import read_environment
from keras_qat.report import (
    Record,
    Row,
    benchmark_table,
    classification_table,
    evaluation_table,
    markdown,
    terminal_table,
)
from keras_qat.verify import FileCheck, TensorError, Verification, verification_table
from test_sizes import RECORD

ENGINE, DEVICE = "ONNX Runtime 1.32.0", "CPU, 2 threads"
HOSTILE = "<img src=x>|[/red]"


def slow(row: Row) -> Row:
    """A row whose figures are as long as any."""
    late = replace(row.keras_latency, median_ms=1234.56, p90_ms=2345.67)
    return replace(
        row,
        keras_latency=late,
        deployed_latency=late,
        keras_top1=1.0,
        deployed_top1=1.0,
        agreement=1.0,
        size_bytes=102_234_567,
    )


def record() -> Record:
    return replace(RECORD, rows=tuple(map(slow, RECORD.rows)))


def verified() -> Verification:
    errors = (TensorError("conv5_block3_out_quantize", differing=0.00456, worst=1.0),)
    check = FileCheck(
        name="resnet50-onnxruntime.onnx",
        path="runs/a.onnx",
        precision="fp32",
        size_bytes=1,
        pairs=1087,
        edges=1087,
        findings=(),
        tensors=errors,
        sqnr=-110.5,
        agreement=1.0,
        keras_agreement=1.0,
        images=1000,
        miss="It differs.",
    )
    return Verification("imagenet-mini", (check, replace(check, name="ptq.onnx", miss=None)))


def evaluated() -> Evaluation:
    share = Proportion(99_999, 100_000, 0.99996, 1.0)
    file = ScoredFile("resnet50-onnxruntime.onnx", "a.onnx", ENGINE, DEVICE, {}, 64, share, share, 123_456.7)
    return Evaluation("imagenet-mini", 100_000, 2, 5, (file, replace(file, name="b.onnx")), agreement=share)


def timed() -> Benchmark:
    files = tuple(TimedFile(name, ENGINE, DEVICE, ()) for name in ("resnet50-onnxruntime.onnx", "b.onnx"))
    timings = tuple(Timing(file.name, 128, 1234.56, 2345.67, 3456.78, 123_456.7, 12.34) for file in files)
    return Benchmark(files, timings, tuple(Skip(file.name, 256, "no room") for file in files), 100, 10)


def classified() -> Classification:
    classes = (RankedClass(281, "n02123045, a tabby cat that sleeps in the sun all day long and then some", 0.99),)
    return Classification("resnet50-onnxruntime.onnx", ENGINE, DEVICE, "a-photograph-of-a-cat.jpg", classes)


def examined() -> Examination:
    finding = Finding(
        check="float-matrix-product",
        severity=Severity.WARNING,
        engines=("onnxruntime", "openvino", "tensorrt"),
        where=("resnet50/conv5_block3_3_conv/Conv",),
        count=3,
        problem="a matrix product with stored weights runs in float",
        cost="its integers are not used",
        remedy="export it again",
    )
    targets = (*finding.engines, "another")
    summary = Summary(
        "keras-qat 0.1.0",
        13,
        8,
        ("image: float32",),
        (),
        25_000_000,
        10**8,
        1,
        Counted(53, 53),
        Counted(0, 1),
        "tensorrt",
    )
    return Examination(Path("a.onnx"), targets, summary, (finding, replace(finding, severity=Severity.NOTE)))


TABLES: dict[str, Callable[[], Table]] = {
    "run": lambda: terminal_table(record()),
    "verify": lambda: verification_table(verified()),
    "evaluate": lambda: evaluation_table(evaluated()),
    "evaluate, one image": lambda: classification_table(classified()),
    "benchmark": lambda: benchmark_table(timed(), read_environment()),
    "doctor": lambda: machine_table(read_machine()),
    "doctor, a file": lambda: file_table(examined()),
}


def rendered(table: Table, width: int = 80) -> str:
    console = Console(width=width, no_color=True)
    with console.capture() as captured:
        console.print(table)
    return captured.get()


def headings(table: Table) -> list[str]:
    """The words of the headings of a table and of the tables in it."""
    words = [word for column in table.columns for word in str(column.header).split()]
    inner = [cell for column in table.columns for cell in column.cells if isinstance(cell, Table)]
    return words + [word for other in inner for word in headings(other)]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_fits_80_columns_and_cuts_no_heading(name: str) -> None:
    table = TABLES[name]()
    text = rendered(table)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    shown = text.replace("┃", " ").replace("│", " ").split()
    assert [word for word in headings(table) if word not in shown] == []


def test_names_are_neither_markup_of_the_terminal_nor_html_in_markdown() -> None:
    named = replace(record(), model=HOSTILE, data=HOSTILE)
    assert "[/red]" in rendered(terminal_table(named))
    text = markdown(named)
    assert "<" not in text
    assert "&lt;img src=x>" in text
    columns = {line.count("|") - line.count("\\|") for line in text.splitlines() if line.startswith("|")}
    assert len(columns) == 1
    evaluation = replace(evaluated(), data=HOSTILE)
    assert "[/red]" in rendered(evaluation_table(evaluation))
