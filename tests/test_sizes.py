"""A small network's file is one of kilobytes, in every table, text and chart."""

import json
from dataclasses import replace

import pytest
from rich.console import Console

from keras_qat.evaluation import Latency
from keras_qat.machine import read_environment
from keras_qat.report import Record, Row, key_figures, markdown, terminal_table, verdict
from keras_qat.report.page.figures import size_figure
from keras_qat.text import size_text

LATENCY = Latency(1.0, 1.1, 50, "CPU")
BASELINE = Row("Baseline", 0.9, 1.0, LATENCY, 0.9, 1.0, LATENCY, 1.0, 1.0, 40.0, 1.0, (), 40_123)
PTQ = replace(BASELINE, name="PTQ", size_bytes=12_345)
RECORD = Record(
    *("tiny", "digits", "onnxruntime", 360, "ONNX Runtime", (BASELINE, PTQ), None, ()),
    *({"model": "tiny"}, read_environment(), {}),
)


@pytest.mark.parametrize(
    ("count", "text"),
    [(102_234_567, "102.2 MB"), (100_000, "0.1 MB"), (99_940, "99.9 kB"), (1_000, "1.0 kB"), (0, "0.0 kB")],
)
def test_size_text(count: int, text: str) -> None:
    assert size_text(count) == text


def test_tables_and_texts_of_a_small_network() -> None:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(terminal_table(RECORD))
    for text in (markdown(RECORD), captured.get()):
        assert "40.1 kB" in text
        assert "12.3 kB" in text
        assert "MB" not in text
    (size,) = (figure for figure in key_figures(RECORD) if figure.label == "Size")
    assert size.note == "40.1 kB → 12.3 kB"
    alone = replace(RECORD, rows=(PTQ,))
    assert "1.0 ms an image and 12.3 kB" in verdict(alone)[0]


def test_bars_of_a_chart_have_one_unit() -> None:
    small = size_figure(RECORD)
    assert (small["unit"], [bar["value"] for bar in small["bars"]]) == ("kB", [40.123, 12.345])
    mixed = size_figure(replace(RECORD, rows=(replace(BASELINE, size_bytes=250_000), PTQ)))
    assert (mixed["unit"], [bar["value"] for bar in mixed["bars"]]) == ("MB", [0.25, 0.012345])
    assert [bar["label"] for bar in mixed["bars"]] == ["0.2 MB", "12.3 kB"]
    json.dumps(mixed)
