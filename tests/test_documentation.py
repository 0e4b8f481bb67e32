"""What README, the site and the examples say, works: commands parse, code runs, links resolve.

That the site itself is whole (its navigation, links between its pages, names of the API) is `make docs`.
"""

import logging
import re
import runpy
import shlex
import signal
from collections.abc import Iterator
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_qat
from keras_qat import export_onnx
from keras_qat.calibration import methods as observers
from keras_qat.cli.program import app
from keras_qat.evaluation import Latency
from keras_qat.files import write_json
from keras_qat.machine import read_environment
from keras_qat.models import build_model, find
from keras_qat.placement import Overrides
from keras_qat.report import Record, Row
from keras_qat.targets import registry

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").rglob("*.md")])

COMMANDS = {function for name in app if not name.startswith("-") for function in [app[name].default_command]}


def commands() -> list[str]:
    """Every indented or fenced `keras-qat …` and `python run_qat_workflow.py …` line."""
    found = []
    for page in PAGES:
        for line in page.read_text(encoding="utf-8").splitlines():
            match = re.match(r"(?: {4}|\$ )?(?:\w+=\S+ )*(keras-qat|python run_qat_workflow\.py)( .*)?$", line)
            if match:
                found.append((match[1] + (match[2] or "")).strip())
    return sorted(set(found))


@pytest.fixture
def documented_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Configuration files that pages name."""
    monkeypatch.chdir(tmp_path)
    settings = tmp_path / "runs" / "resnet50-digits-onnxruntime" / "settings.json"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"model": "resnet50"}')


@pytest.mark.usefixtures("documented_files")
@pytest.mark.parametrize("command", commands())
def test_documented_command_is_understood(command: str) -> None:
    words = shlex.split(command.partition(" > ")[0].removesuffix(" &").replace("…", ""), comments=True)
    arguments = words[1:] if words[0] == "keras-qat" else ["run", *words[2:]]
    if {"--help", "--install-completion"} & set(arguments):
        return
    called, *_ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    assert called in COMMANDS


def test_a_command_that_does_not_exist_is_not_understood() -> None:
    with pytest.raises(Exception, match="prune"):
        app.parse_args(["prune", "my.keras"], exit_on_error=False, print_error=False)


def test_every_command_is_documented() -> None:
    named = {command.split()[1] for command in commands() if command.startswith("keras-qat ")}
    assert {name for name in app if not name.startswith("-")} <= named


def test_every_public_name_is_in_the_api_reference() -> None:
    api = (DOCS / "api.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"(?:^::: |heading: )keras_qat\.(\w+)\b(?!\.)", api, re.MULTILINE))
    assert shown == set(keras_qat.__all__) - {"__version__"}


def test_the_package_describes_its_public_names() -> None:
    described = set(re.findall(r"^    (\w+) {2,}\S", keras_qat.__doc__ or "", re.MULTILINE))
    assert described == set(keras_qat.__all__) - {"__version__"}


def links(page: Path) -> Iterator[tuple[str, str]]:
    """(path, anchor) of each link within the repository; either may be empty."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    yield from re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)]*))?\)", text)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    for path, anchor in links(page):
        linked = page.parent / path if path else page
        assert linked.exists(), f"{page.name} links to {path}"
        assert not anchor or anchor in anchors(linked), f"{page.name} links to {path}#{anchor}"


def python_of(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def run_python_of(page: Path, names: dict[str, object]) -> None:
    for block in python_of(page):
        exec(compile(block, page.name, "exec"), names)  # noqa: S102


def test_python_of_the_readme_runs(tiny_network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    keras.utils.set_random_seed(0)
    names = {
        "model": build_model(find(tiny_network), weights=None, num_classes=4, size=32),
        "batches": [np.random.default_rng(0).uniform(-1, 1, (8, 32, 32, 3)).astype("float32")],
    }
    run_python_of(ROOT / "README.md", names)
    assert list(tmp_path.glob("*.onnx"))


def small_resnet() -> keras.Model:
    """A network whose layers are called as those of ResNet50 that the pages name, and few besides."""
    layers = keras.layers

    def convolve(x: keras.KerasTensor, size: int, name: str) -> keras.KerasTensor:
        x = layers.Conv2D(16, size, padding="same", name=f"{name}_conv")(x)
        return layers.BatchNormalization(name=f"{name}_bn")(x)

    x = inputs = keras.Input((32, 32, 3), name="image")
    x = layers.ReLU(name="conv1_relu")(convolve(x, 3, "conv1"))
    x = layers.MaxPooling2D(4, name="pool1_pool")(x)
    for name in ("conv2_block1", "conv3_block1", "conv5_block3"):
        shortcut = convolve(x, 1, f"{name}_0") if name == "conv2_block1" else x
        x = layers.Add(name=f"{name}_add")([shortcut, convolve(x, 3, f"{name}_1")])
        x = layers.ReLU(name=f"{name}_out")(x)
    x = layers.GlobalAveragePooling2D(name="avg_pool")(x)
    return keras.Model(inputs, layers.Dense(10, "softmax", name="predictions")(x), name="small_resnet")


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages of docs/ call `model`, as my.keras and qat.onnx, some photos, and the results of a run."""
    folder = tmp_path_factory.mktemp("docs")
    keras.utils.set_random_seed(0)
    model = small_resnet()
    model.save(folder / "my.keras")
    export_onnx(model, folder / "qat.onnx")
    rng = np.random.default_rng(0)
    for name in ("photos/cat/1.png", "photos/cat/2.png", "photos/dog/1.png", "photos/dog/2.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / name)
    write_json(folder / "runs" / "resnet50-digits-onnxruntime" / "results.json", finished().to_dict())
    return folder


def finished() -> Record:
    """What a run found."""
    latency = Latency(1.0, 1.1, 50, "CPU")
    row = Row("Baseline", 0.9, 1.0, latency, 0.9, 1.0, latency, 1.0, 1.0, 40.0, 1.0, (), 1_000_000)
    settings = {"model": "resnet50", "data": "digits", "target": "onnxruntime"}
    rest = (None, (), settings, read_environment(), {"load": 1.0})
    return Record("resnet50", "digits", "onnxruntime", 360, "ONNX Runtime", (row,), *rest)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if page.parent == DOCS and python_of(page)], ids=lambda p: p.name
)
def test_python_of_the_docs_runs(page: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model_folder)
    # What a page registers is gone behind it.
    monkeypatch.setattr(observers, "OBSERVERS", dict(observers.OBSERVERS))
    monkeypatch.setattr(registry, "_TARGETS", dict(registry._TARGETS))
    batches = [np.random.default_rng(0).uniform(-1, 1, (4, 32, 32, 3)).astype("float32")]
    model = keras.saving.load_model("my.keras", compile=False)
    run_python_of(page, {"model": model, "batches": batches, "images": batches[0]})


def test_json_of_the_docs_is_read() -> None:
    blocks = re.findall(r"```json\n(.*?)```", (DOCS / "overrides.md").read_text(encoding="utf-8"), re.DOTALL)
    assert [len(Overrides.from_json(block).rules) for block in blocks] == [2]


def test_example_script_is_the_same_program(
    trained_network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        *("--model", trained_network, "--calibration-images", "32", "--validation-images", "32"),
        *("--skip-fine-tuning", "--skip-saved-model", "--skip-diagnosis"),
    ]
    # What `main` changes of a process that is its own.
    monkeypatch.setattr("logging.raiseExceptions", logging.raiseExceptions)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    monkeypatch.setattr("sys.argv", ["run_qat_workflow.py", *arguments, "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(ROOT / "examples" / "resnet" / "run_qat_workflow.py"), run_name="__main__")
    for number, handler in handlers.items():
        signal.signal(number, handler)
    assert stopped.value.code == 0
    assert "Baseline" in capsys.readouterr().out
    assert (tmp_path / f"{trained_network}-digits-onnxruntime" / "ptq.onnx").is_file()


def test_the_picture_of_the_packages_is_that_of_the_code() -> None:
    """`python docs/site/packages.py` draws it anew."""
    drawn = runpy.run_path(str(ROOT / "docs" / "site" / "packages.py"))
    assert drawn["draw"]() == drawn["PICTURE"].read_text(encoding="utf-8")
