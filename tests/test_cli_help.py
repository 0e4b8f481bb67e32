"""Help, suggestions and completion of the program, which are given without importing TensorFlow."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Literal

import pytest

import keras_qat
from keras_qat.cli.program import COMMANDS, app, run_program

COMMAND_NAMES = [name for commands in COMMANDS.values() for name in commands]


def printed(capfd: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert run_program(arguments, app) == code
    captured = capfd.readouterr()
    return captured.out if code == 0 else " ".join(captured.err.split())


def test_commands_stand_in_the_order_of_the_flow(capfd: pytest.CaptureFixture[str]) -> None:
    text = printed(capfd, "--help")
    lines = [line.strip("│ ") for line in text.splitlines()]
    shown = [line.split()[0] for line in lines if line and line.split()[0] in COMMAND_NAMES]
    assert shown == COMMAND_NAMES
    groups = re.findall(r"╭─ (.+?) ─", text)
    assert groups == ["From model to file", "Judge", "Look", "Prepare", "Options"]


def test_the_program_alone_prints_its_help(capfd: pytest.CaptureFixture[str]) -> None:
    assert printed(capfd) == printed(capfd, "--help")


@pytest.mark.parametrize("name", COMMAND_NAMES)
def test_every_command_has_examples_and_json(capfd: pytest.CaptureFixture[str], name: str) -> None:
    text = printed(capfd, name, "--help")
    assert f"keras-qat {name}" in text.partition("Examples:")[2]
    assert "--json" in text
    assert "--config" in text
    # Every option has a help text.
    for argument in app[name].assemble_argument_collection(parse_docstring=True):
        assert argument.parameter.help or argument.children, argument.name


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["qauntize", "my.keras"], ['Did you mean "quantize"']),
        (["explain", "--traget", "tensorrt"], ["Did you mean --target", "`keras-qat explain --help`"]),
        (["explain", "--format", "svg"], ["svg", "mermaid"]),
        (["verify"], ["PATH", "`keras-qat verify --help`"]),
    ],
)
def test_mistyped_names_are_corrected(
    capfd: pytest.CaptureFixture[str], arguments: list[str], parts: list[str]
) -> None:
    message = printed(capfd, *arguments, code=2)
    assert all(part in message for part in parts), message


def test_help_does_not_import_tensorflow() -> None:
    program = Path(sys.executable).with_name("keras-qat")
    for arguments in ([], ["export", "--help"]):
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-X", "importtime", program, *arguments], capture_output=True, text=True, check=True
        )
        modules = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
        assert "keras_qat.cli.shared" in modules
        assert not {"tensorflow", "keras", "onnxruntime", "onnx", "scipy"} & modules
        assert "Usage: keras-qat" in done.stdout


def test_the_package_has_all_its_public_names() -> None:
    assert set(keras_qat.__all__) <= set(dir(keras_qat))
    assert all(hasattr(keras_qat, name) for name in keras_qat.__all__)


def test_packages_are_attributes_of_a_fresh_import() -> None:
    code = "import keras_qat; keras_qat.targets.find_target('tensorrt'); keras_qat.errors.UserError; keras_qat.nothing"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)  # noqa: S603
    assert "AttributeError: No keras_qat attribute nothing" in done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_commands_and_options(shell: Literal["bash", "zsh", "fish"]) -> None:
    script = app.generate_completion(shell=shell)
    assert all(name in script for name in COMMAND_NAMES)
    assert "compute-capability" in script
    assert "mermaid" in script


def test_completion_is_installed(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text = printed(capfd, "--install-completion", "--shell", "bash")
    (script,) = tmp_path.rglob("bash-completion/completions/keras-qat")
    assert str(script) in text
    checked = subprocess.run(["bash", "-n", str(script)], capture_output=True, check=False)  # noqa: S603, S607
    assert (checked.returncode, checked.stderr) == (0, b"")
    assert "build-engine" in script.read_text()
