"""Every command with every kind of wrong file or name: exit code 2, and a message that says what was received."""

from pathlib import Path

import pytest

from keras_qat.cli.program import COMMANDS, app, run_program

MISTAKES: dict[str, dict[str, list[str]]] = {
    "run": {
        "missing": ["--model", "none.keras"],
        "corrupt": ["--model", "text.keras"],
        "folder": ["--model", "folder.keras"],
        "output": ["--output", "text.keras/runs"],
        "name": ["--target", "tpu"],
    },
    "quantize": {
        "missing": ["none.keras", "--data", "digits"],
        "corrupt": ["text.keras", "--data", "digits"],
        "folder": ["folder.keras", "--data", "digits"],
        "output": ["text.keras", "--data", "digits", "--output", "text.keras/runs"],
        "name": ["text.keras", "--data", "digits", "--target", "tpu"],
    },
    "train": {"missing": ["nowhere"], "corrupt": ["broken"], "folder": ["folder.keras"]},
    "export": {
        "missing": ["none.keras"],
        "corrupt": ["text.keras"],
        "folder": ["folder.keras"],
        "output": ["tiny.keras", "--output", "text.keras/made/tiny.onnx"],
        "output that is a folder": ["tiny.keras", "--output", "folder.onnx"],
        "output that is the model": ["tiny.keras", "--format", "saved-model", "--output", "tiny.keras"],
        "name": ["tiny.keras", "--target", "tpu"],
    },
    "build-engine": {
        "missing": ["none.onnx", "--engine", "openvino"],
        "corrupt": ["text.onnx", "--engine", "openvino"],
        "folder": ["folder.onnx", "--engine", "openvino"],
        "output": ["text.onnx", "--engine", "openvino", "--output", "text.keras/made.xml"],
        "name": ["text.onnx", "--engine", "tpu"],
    },
    "verify": {
        "missing": ["none.onnx"],
        "missing model": ["text.onnx", "--model", "none.keras"],
        "missing placement": ["text.onnx", "--model", "tiny.keras", "--placement", "none.json"],
        "corrupt": ["text.onnx", "--model", "tiny.keras"],
        "corrupt placement": ["text.onnx", "--model", "tiny.keras", "--placement", "text.json"],
        "corrupt run": ["broken"],
        "folder": ["folder.onnx"],
        "output": ["text.onnx", "--output", "text.keras/verify.json"],
    },
    "evaluate": {
        "missing": ["none.onnx", "--data", "digits"],
        "corrupt": ["text.onnx", "--data", "digits"],
        "folder": ["folder.onnx", "--data", "digits"],
        "output": ["text.onnx", "--data", "digits", "--output", "text.keras/a.json"],
        "name": ["text.onnx", "--data", "digits", "--engine", "tpu"],
    },
    "benchmark": {
        "missing": ["none.onnx"],
        "corrupt": ["text.onnx"],
        "folder": ["folder.onnx"],
        "output": ["text.onnx", "--output", "text.keras/a.json"],
        "name": ["text.onnx", "--engine", "tpu"],
    },
    "diagnose": {
        "missing": ["nowhere"],
        "corrupt": ["broken"],
        "folder": ["text.keras"],
        "output": ["finished", "--output", "text.keras/a.json"],
    },
    "report": {"missing": ["nowhere"], "corrupt": ["broken"], "folder": ["text.keras"]},
    "explain": {
        "missing": ["--model", "none.keras"],
        "corrupt": ["--model", "text.keras"],
        "corrupt overrides": ["--model", "tiny.keras", "--overrides", "text.json"],
        "folder": ["--model", "folder.keras"],
        "output": ["--model", "tiny.keras", "--output", "text.keras/a.md"],
        "name": ["--model", "tiny.keras", "--target", "tpu"],
        "two formats": ["--model", "tiny.keras", "--json", "--format", "dot"],
    },
    "diff-ranges": {
        "missing": ["none.json", "none.json"],
        "corrupt": ["text.json", "text.json"],
        "folder": ["folder.onnx", "folder.onnx"],
    },
    "doctor": {
        "missing": ["none.onnx"],
        "corrupt": ["text.onnx"],
        "folder": ["folder.onnx"],
        "output": ["text.onnx", "--output", "text.keras/a.json"],
    },
    "prepare-imagenet": {
        "missing": ["--archives", "nowhere", "--output", "made"],
        "folder": ["--archives", "text.keras", "--output", "made"],
        "output": ["--archives", "folder.keras", "--output", "text.keras/made"],
    },
}

CASES = [
    pytest.param(command, arguments, id=f"{command}: {kind}")
    for command, mistakes in MISTAKES.items()
    for kind, arguments in mistakes.items()
]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of text files named like models, folders named like files, and one valid model."""
    import keras

    folder = tmp_path_factory.mktemp("work")
    for name in ("text.keras", "text.onnx", "text.json"):
        (folder / name).write_text("not what its name says")
    for name in ("folder.keras", "folder.onnx", "broken", "finished"):
        (folder / name).mkdir()
    for name in ("settings.json", "results.json", "placement.json"):
        (folder / "broken" / name).write_text("{")
    (folder / "finished" / "settings.json").write_text("{}")
    x = keras.Input((8, 8, 3), name="image")
    model = keras.Model(x, keras.layers.Conv2D(4, 3, name="conv")(x))
    model.save(folder / "tiny.keras")
    for name in ("baseline", "ptq"):
        model.save(folder / "finished" / f"{name}.keras")
    return folder


def test_every_command_has_mistakes() -> None:
    assert list(MISTAKES) == [name for commands in COMMANDS.values() for name in commands]


@pytest.mark.parametrize(("command", "arguments"), CASES)
def test_mistakes_exit_with_2(
    work: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], command: str, arguments: list[str]
) -> None:
    monkeypatch.chdir(work)
    before = sorted(work.rglob("*"))
    code = run_program([command, *arguments], app)
    printed = capfd.readouterr()
    message = " ".join(printed.err.split())
    assert code == 2, message
    assert not printed.out.strip()
    assert message.count("error:") == 1
    assert "Received:" in message
    assert "Traceback" not in message
    # No file is left behind.
    assert [path for path in sorted(work.rglob("*")) if path.is_file()] == [p for p in before if p.is_file()]
