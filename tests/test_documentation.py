"""What README and the examples say, works: commands parse, code runs, links resolve."""

import re
import runpy
import shlex
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_qat import export_onnx
from keras_qat.cli.benchmark import benchmark_command
from keras_qat.cli.build_engine import build_engine_command
from keras_qat.cli.diagnose import diagnose_command
from keras_qat.cli.diff_ranges import diff_ranges_command
from keras_qat.cli.evaluate import evaluate_command
from keras_qat.cli.explain import explain_command
from keras_qat.cli.main import app
from keras_qat.cli.prepare_imagenet import prepare_imagenet_command
from keras_qat.cli.run import run_command
from keras_qat.placement import Overrides
from keras_qat.zoo import build_model, find

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


def commands() -> list[str]:
    """Every indented or fenced `keras-qat …` and `python run_qat_workflow.py …` line."""
    found = []
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            match = re.match(r"(?: {4}|\$ )?(keras-qat|python run_qat_workflow\.py)( .*)?$", line)
            if match:
                found.append((match[1] + (match[2] or "")).strip())
    return sorted(set(found))


@pytest.mark.parametrize("command", commands())
def test_documented_command_is_understood(command: str) -> None:
    words = shlex.split(command, comments=True)
    arguments = words[1:] if words[0] == "keras-qat" else ["run", *words[2:]]
    if "--help" in arguments:
        return
    called, *_ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    assert called in {
        run_command,
        benchmark_command,
        evaluate_command,
        explain_command,
        build_engine_command,
        diff_ranges_command,
        diagnose_command,
        prepare_imagenet_command,
    }


def test_there_are_documented_commands() -> None:
    assert commands()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_python_of_the_readme_runs(tiny_network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    names = {
        "model": build_model(find(tiny_network), weights=None, num_classes=4, size=32),
        "batches": [np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 3)).astype("float32")],
    }
    for block in python_of(ROOT / "README.md"):
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102
    assert (tmp_path / "model.onnx").is_file()


def python_of(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture(scope="module")
def resnet50() -> keras.Model:
    """What the pages of docs/ call `model`."""
    keras.utils.set_random_seed(0)
    return keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), classes=10)


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent == ROOT / "docs" and python_of(p)], ids=lambda p: p.name)
def test_python_of_the_docs_runs(
    page: Path, resnet50: keras.Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    batches = [np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 3)).astype("float32")]
    export_onnx(resnet50, "qat.onnx")
    names: dict[str, object] = {"model": resnet50, "batches": batches, "images": batches[0]}
    for block in python_of(page):
        exec(compile(block, page.name, "exec"), names)  # noqa: S102


def test_json_of_the_docs_is_read() -> None:
    blocks = re.findall(r"```json\n(.*?)```", (ROOT / "docs" / "overrides.md").read_text(encoding="utf-8"), re.DOTALL)
    assert [len(Overrides.from_json(block).rules) for block in blocks] == [2]


def test_example_script_is_the_same_program(
    tiny_network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", tiny_network, "--skip-fine-tuning", "--skip-saved-model", "--validation-images", "40"]
    monkeypatch.setattr("sys.argv", ["run_qat_workflow.py", *arguments, "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "examples" / "resnet" / "run_qat_workflow.py"), run_name="__main__")
    assert stopped.value.code == 0
    assert "Baseline" in capsys.readouterr().out
    assert (tmp_path / f"{tiny_network}-digits-onnxruntime" / "ptq.onnx").is_file()
