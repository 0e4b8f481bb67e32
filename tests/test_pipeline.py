"""The whole flow on real digits with a network small enough for a test."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np
import pytest

from keras_qat.calibration import Ranges
from keras_qat.cli.program import app, run_program
from keras_qat.data import Preprocessing
from keras_qat.errors import GateMissedError, UserError
from keras_qat.models import ModelFacts, read_model_facts
from keras_qat.report import Record, markdown
from keras_qat.run import Settings, check_gates, run
from keras_qat.run.start import cache_path
from keras_qat.verify import TensorError


@pytest.fixture(scope="module")
def settings(trained_network: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    output = tmp_path_factory.mktemp("runs")
    return Settings.of(
        model=trained_network, epochs=2, steps_per_epoch=10, batch_size=32, calibration_images=64, output=output
    )


@pytest.fixture(scope="module")
def record(settings: Settings) -> Record:
    return run(settings)


def test_every_variant_is_as_good_as_float_and_deployed_as_simulated(record: Record) -> None:
    baseline, ptq, qat = record.rows
    assert (baseline.name, ptq.name, qat.name) == ("Baseline", "PTQ", "QAT")
    assert record.images == 360
    assert baseline.keras_top1 > 0.8
    for row in record.rows:
        assert row.deployed_top1 >= baseline.keras_top1 - 0.02
        assert row.keras_top1 <= row.keras_top5 <= 1
        assert row.keras_latency.runs >= 50
        assert 0 < row.deployed_latency.median_ms <= row.deployed_latency.p90_ms
    assert baseline.agreement == baseline.simulation_agreement == 1
    # Float files differ only in the order of sums. Quantized ones differ by one step on a few images.
    assert baseline.simulation_sqnr is not None
    assert baseline.simulation_sqnr > 100
    assert all(row.simulation_sqnr is not None and row.simulation_sqnr > 30 for row in (ptq, qat))
    check_gates(record)


def test_int8_files_are_smaller(record: Record) -> None:
    baseline, ptq, qat = (row.size_bytes for row in record.rows)
    # Most of the tiny network's file is structure; that of a ResNet shrinks to a quarter.
    assert max(ptq, qat) < 0.8 * baseline


@pytest.mark.usefixtures("record")
def test_the_folder_holds_models_and_results(settings: Settings) -> None:
    folder = settings.folder
    for name in ("baseline", "ptq", "qat"):
        assert (folder / f"{name}.onnx").is_file()
        assert (folder / f"{name}.keras").is_file()
        assert (folder / f"{name}_saved_model" / "saved_model.pb").is_file()
    assert json.loads((folder / "settings.json").read_text())["calibration_images"] == 64
    correction = json.loads((folder / "bias_correction.json").read_text())
    assert (correction["images"], correction["skipped"]) == (64, {})
    assert set(correction["largest_shift"]) == {"stem_conv", "block_conv", "head_conv", "predictions"}
    assert {"best.keras", "last.npz", "history.json"} <= {p.name for p in (folder / "training").iterdir()}
    assert [path.name for path in folder.rglob(".*")] == [".keras-qat.json"]
    for name in ("baseline.onnx", "qat.onnx", "qat.keras", "qat_saved_model"):
        facts = ModelFacts(Preprocessing("tf", 32, 32), embedded=False, class_names=tuple("0123456789"))
        assert read_model_facts(folder / name) == facts


def test_json_and_markdown_have_the_same_figures(record: Record, settings: Settings) -> None:
    saved = json.loads((settings.folder / "results.json").read_text())
    table = (settings.folder / "results.md").read_text()
    assert table == markdown(record)
    for row in saved["rows"]:
        line = next(line for line in table.splitlines() if line.startswith(f"| {row['name']} |"))
        for share in ("keras_top1", "deployed_top1", "agreement"):
            assert f" {100 * row[share]:.2f}% " in line
        for latency in ("keras_latency", "deployed_latency"):
            assert f" {row[latency]['median_ms']:.2f} ms (p90 {row[latency]['p90_ms']:.2f}) " in line


@pytest.mark.usefixtures("record")
def test_saved_ptq_model_loads_with_its_ranges(settings: Settings) -> None:
    model = keras.models.load_model(settings.folder / "ptq.keras")
    names = [layer.name for layer in model.layers if layer.name.endswith("_quantize")]
    ranges = Ranges.load(settings.folder / "ranges.json")
    assert "stem_relu_quantize" in names
    amax = float(model.get_layer("stem_relu_quantize").amax)
    assert np.float32(ranges["stem_relu"].amax) == np.float32(amax)


@pytest.mark.usefixtures("record")
@pytest.mark.parametrize("variant", ["ptq", "qat"])
def test_a_run_can_be_diagnosed(settings: Settings, variant: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["diagnose", str(settings.folder), "--variant", variant, "--images", "16"], app) == 0
    assert "| output predictions | – | " in capsys.readouterr().out


def _shares(record: Record) -> list[tuple[Any, ...]]:
    return [
        (r.name, r.keras_top1, r.keras_top5, r.deployed_top1, r.deployed_top5, r.agreement, r.size_bytes)
        for r in record.rows
    ]


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, which the test may change, in place of the one that all tests share."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.mark.usefixtures("own_cache")
def test_same_seed_same_table(record: Record, settings: Settings, tmp_path: Path) -> None:
    # Another folder, without cached ranges or baseline. Files that the table doesn't need are left out.
    again = run(settings.changed(output=tmp_path, skip_saved_model=True, skip_diagnosis=True))
    assert _shares(again) == _shares(record)


def test_stages_can_be_skipped(settings: Settings, tmp_path: Path) -> None:
    short = replace(
        settings,
        output=tmp_path,
        target="tensorrt",
        skip_baseline=True,
        skip_fine_tuning=True,
        skip_saved_model=True,
        skip_diagnosis=True,
        validation_images=50,
    )
    record = run(short)
    assert [row.name for row in record.rows] == ["PTQ"]
    assert record.rows[0].agreement is None
    assert (record.images, record.best_epoch) == (50, None)
    assert not {"ptq_saved_model", "ptq_diagnosis.json", "training"} & {path.name for path in short.folder.iterdir()}
    assert not list(short.folder.glob("tmp*"))


@pytest.mark.slow
@pytest.mark.usefixtures("own_cache")
def test_corrupt_cached_baseline_is_trained_again(
    record: Record, settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = cache_path(settings.model, settings.seed)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a model")
    again = run(settings.changed(output=tmp_path, skip_fine_tuning=True, skip_saved_model=True, skip_diagnosis=True))
    assert "can't be read" in caplog.text
    assert _shares(again) == _shares(record)[:2]


def test_gate_catches_a_file_that_differs_from_its_simulation(record: Record) -> None:
    # Closed form: P(X >= 6) for X ~ Binomial(360, 0.005) is 1.02%, P(X >= 7) is 0.25%.
    def with_misses(misses: int, keras_agreement: float) -> Record:
        row = replace(record.rows[1], simulation_agreement=1 - misses / 360, keras_agreement=keras_agreement)
        return replace(record, rows=(row,))

    check_gates(with_misses(6, 1.0))
    with pytest.raises(GateMissedError, match=r"PTQ file.*98\.06% of 360 images; at least 99\.5%"):
        check_gates(with_misses(7, 1.0))
    # Quantization itself changes 18 of 360: P(X >= 28) for Binomial(360, 0.05) is 1.49%, P(X >= 29) is 0.86%.
    check_gates(with_misses(28, 0.95))
    with pytest.raises(GateMissedError, match=r"at least 95\.0%"):
        check_gates(with_misses(29, 0.95))


def test_gate_names_the_first_tensor_that_differs(record: Record) -> None:
    first, second, *others = record.rows[1].tensor_errors

    def with_errors(*errors: TensorError) -> Record:
        return replace(record, rows=(replace(record.rows[1], tensor_errors=(*errors, *others)),))

    check_gates(with_errors(first, replace(second, worst=1.0, differing=0.25, carried=0.001, strayed=0.0)))
    with pytest.raises(GateMissedError, match=rf"PTQ file.*first at '{second.tensor}'.*by up to 2 steps"):
        check_gates(with_errors(first, replace(second, worst=2.0)))
    with pytest.raises(GateMissedError, match=rf"first at '{first.tensor}'.*0\.6% by more than"):
        check_gates(with_errors(replace(first, differing=0.006, strayed=0.006), replace(second, worst=2.0)))
    with pytest.raises(GateMissedError, match=rf"first at '{first.tensor}'.*by up to 0\.03 steps"):
        check_gates(with_errors(replace(first, carried=0.03), second))


def test_unknown_augmentation_is_refused_before_any_work(settings: Settings, tmp_path: Path) -> None:
    wrong = settings.changed(output=tmp_path, augment=cast("Any", "mixup"))
    with pytest.raises(UserError, match=r"Unknown augmentation\. Received: 'mixup'"):
        run(wrong)
    assert not wrong.folder.exists()


@pytest.mark.parametrize("name", ["calibration_images", "epochs", "batch_size", "validation_images"])
def test_settings_refuse_zero(name: str) -> None:
    with pytest.raises(UserError, match=f"`{name}` must be at least 1. Received: 0"):
        Settings.of(**{name: 0})
