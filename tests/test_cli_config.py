"""`--config`: options from a file. Command lines are parsed here, and no command runs."""

import inspect
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from keras_qat.cli.config_file import with_config
from keras_qat.cli.program import COMMANDS, app, run_program
from keras_qat.cli.shared import given
from keras_qat.run import OPTIONS, Settings, VerificationSettings

Write = Callable[[str, str], str]

COMMAND_NAMES = [name for commands in COMMANDS.values() for name in commands]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of options and return its path."""

    def call(name: str, text: str) -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return call


def settings_of(*arguments: str) -> Settings:
    """The settings of `keras-qat run` with these arguments."""
    return Settings.of(**given(options_of("run", *arguments).get("options")))


def options_of(*arguments: str) -> dict[str, Any]:
    """The arguments that a command would be called with."""
    _, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
    return dict(bound.arguments)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.yaml", "target: tensorrt\nlearning_rate: 1.0e-5\nuse-cache: false\noutput: made\n"),
        ("a.yml", "run:\n  target: tensorrt\n  learning-rate: 1.0e-5\n  use_cache: false\n  output: made\n"),
        ("a.toml", 'output = "made"\n[run]\ntarget = "tensorrt"\nlearning_rate = 1e-5\nuse_cache = false\n'),
        ("a.JSON", '{"target": "tensorrt", "learning_rate": 1e-5, "use_cache": false, "output": "made"}'),
    ],
)
def test_every_format_gives_the_same_settings(write: Write, name: str, text: str) -> None:
    settings = settings_of("--config", write(name, text))
    assert settings == Settings.of(target="tensorrt", learning_rate=1e-5, use_cache=False, output=Path("made"))


def test_the_command_line_goes_before_the_file(write: Write) -> None:
    path = write("a.yaml", "target: tensorrt\nepochs: 3\nuse_cache: false\n")
    settings = settings_of("--epochs", "5", "--config", path, "--use-cache")
    assert (settings.target, settings.recipe.epochs, settings.calibration.use_cache) == ("tensorrt", 5, True)


def test_tables_are_for_their_commands_and_the_rest_for_all(write: Write) -> None:
    path = write("a.yaml", "seed: 7\nrun:\n  epochs: 2\nevaluate:\n  images: 50\n  seed: 8\nbenchmark:\n  runs: 9\n")
    assert settings_of("--config", path) == Settings.of(seed=7, epochs=2)
    evaluation = options_of("evaluate", "qat.onnx", "--config", path)["group"]
    assert (evaluation.images, evaluation.seed) == (50, 8)
    verification = options_of("verify", "qat.onnx", "--config", path)["group"]
    assert (verification.images, verification.seed) == (VerificationSettings.images, 7)


def test_the_settings_of_a_run_repeat_it(write: Write) -> None:
    changed = Settings.of(
        model="resnet101",
        weights="imagenet",
        data="photos",
        target="openvino",
        overrides=Path("rules.json"),
        use_cache=False,
        steps_per_epoch=4,
        clip_norm=0.5,
        range_mode="learned",
        seed=3,
        precision="fp16",
        embed_preprocessing=True,
        skip_saved_model=True,
    )
    for settings in (Settings(), changed):
        path = write("settings.json", json.dumps(settings.to_dict()))
        assert settings_of("--config", path) == settings


def test_every_setting_can_stand_in_a_file() -> None:
    names = {argument.name for argument in app["run"].assemble_argument_collection()}
    assert {f"--{name.replace('_', '-')}" for name in OPTIONS} <= names


def test_lists_and_required_options(write: Write) -> None:
    path = write("a.toml", 'batch_sizes = [1, 4]\njson = true\noutput = "latency.json"\n')
    options = options_of("benchmark", "a.onnx", "b.onnx", "--config", path)
    assert (options["batch_sizes"], options["as_json"], options["output"]) == ((1, 4), True, Path("latency.json"))
    path = write("b.yaml", "engine: openvino\n")
    assert options_of("build-engine", "a.onnx", "--config", path)["engine"] == "openvino"


@pytest.mark.parametrize("name", COMMAND_NAMES)
def test_every_command_takes_it(name: str) -> None:
    assert "--config" in {argument.name for argument in app[name].assemble_argument_collection()}


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("a.yaml", "modle: resnet101\n", ("Received: 'modle'", "Did you mean 'model'?")),
        ("a.toml", "[run]\nxyzzy = 3\n", ("Received: 'xyzzy'", "`keras-qat run --help`")),
        ("a.json", '{"epochs": "many"}', ("[epochs]", '"many" into int')),
        ("a.yaml", "epochs: [1, 2]\n", ("[epochs]", "into int")),
        ("a.yaml", "range_mode: fast\n", ("[range_mode]", '"fast"')),
        ("a.yaml", "run: {target: {name: tensorrt}}\n", ("target",)),
        ("a.yaml", "seed: [1,\n", ("Can't read the options", "line 2")),
        ("a.json", '{"seed" 1}', ("isn't JSON", "line 1 column 9")),
        ("a.toml", "seed = \n", ("Can't read the options", "line 1")),
        ("a.yaml", "- seed\n", ("which holds list",)),
        ("a.yaml", "just text\n", ("which holds str",)),
        ("a.yaml", "1: 2\n", ("has a name for each",)),
        ("a.ini", "seed=1\n", (".yaml, .yml, .toml, .json",)),
        ("a.yaml", "model: !!python/object/apply:os.getcwd []\n", ("could not determine a constructor", "line 1")),
        ("a.yaml", "seed: 1\nepochs: 2\nseed: 3\n", ("'seed' stands twice", "a.yaml")),
        ("a.json", '{"seed": 1, "seed": 3}', ("'seed' stands twice",)),
        ("a.toml", "seed = 1\nseed = 3\n", ("Can't read the options", "line 2")),
        ("a.yaml", "seed: &one [1]\nmodel: *one\n", ("no aliases", "line 2")),
        ("a.yaml", "seed: " + 10_000 * "[", ("too deep",)),
        ("a.json", 10_000 * "[", ("too deep",)),
        ("a.toml", "seed = " + 10_000 * "[", ("too deep",)),
        ("a.yaml", f"seed: {5_000 * '1'}", ("4300 digits",)),
        ("a.json", f'{{"seed": {5_000 * "1"}}}', ("4300 digits",)),
        ("a.toml", f"seed = {5_000 * '1'}", ("4300 digits",)),
        ("a.yaml", "seed: 1\0", ("special characters are not allowed",)),
        ("a.yaml", 50_001 * "#\n", ("at most 100000 bytes", "100002 bytes")),
    ],
)
def test_mistakes_name_the_file_and_the_key(
    write: Write, capfd: pytest.CaptureFixture[str], name: str, text: str, parts: tuple[str, ...]
) -> None:
    path = write(name, text)
    assert run_program(["run", "--config", path], app) == 2
    printed = capfd.readouterr()
    assert printed.out == ""
    assert printed.err.count("error:") == 1
    for part in (path, *parts):
        assert part in " ".join(printed.err.split())


@pytest.mark.parametrize("name", ["none.yaml", "."])
def test_no_such_file(capfd: pytest.CaptureFixture[str], tmp_path: Path, name: str) -> None:
    assert run_program(["explain", "--config", str(tmp_path / name)], app) == 2
    assert f"Received: {str(tmp_path / name)!r}" in " ".join(capfd.readouterr().err.split())


def test_an_empty_file_sets_nothing(write: Write) -> None:
    assert "options" not in options_of("run", "--config", write("a.json", "{}"))
    assert "options" not in options_of("run", "--config", write("a.yaml", ""))


def test_the_command_itself_never_sees_the_option() -> None:
    seen = []

    def command(*, target: str = "onnxruntime") -> None:
        seen.append(target)

    with_config(command)(target="tensorrt", config=Path("a.yaml"))
    assert seen == ["tensorrt"]
    assert list(inspect.signature(command).parameters) == ["target"]


def test_a_distillation_that_is_off_keeps_its_values() -> None:
    """`train --distillation 0.5` on a run made with `--distillation 0 --temperature 4` uses that temperature."""
    off = Settings.of(distillation=0, temperature=4.0)
    assert off.recipe.distillation is None
    assert (off.options()["distillation"], off.options()["temperature"]) == (0.0, 4.0)
    assert Settings.from_dict(off.to_dict()) == off
    on = off.changed(distillation=0.5).recipe.distillation
    assert on is not None
    assert (on.weight, on.temperature) == (0.5, 4.0)


def test_a_value_of_a_distillation_does_not_switch_it_on() -> None:
    smoothed = Settings.of(distillation=0, label_smoothing=0.1)
    assert smoothed.changed(temperature=2.0).recipe.distillation is None
    assert Settings.of(distillation=0.5, label_smoothing=0.1).changed(distillation=1, label_smoothing=0)


def test_a_schedule_is_the_same_however_it_is_spelled() -> None:
    assert Settings.of(schedule="1@1,.1@2").recipe == Settings.of(schedule="1.0@1, 0.1@2.0").recipe
    spelled = Settings.of(schedule="1@1,.1@2")
    assert Settings.from_dict(json.loads(json.dumps(spelled.to_dict()))) == spelled


@pytest.mark.parametrize("name", ["a.yaml", "a.toml", "a.json"])
def test_a_file_of_another_encoding_a_folder_and_a_fifo_are_refused(
    name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes("model: é".encode("latin-1"))
    (tmp_path / f"folder-{name}").mkdir()
    os.mkfifo(tmp_path / f"fifo-{name}")
    for prefix, said in {"": "'utf-8' codec", "folder-": "no such file", "fifo-": "no such file"}.items():
        assert run_program(["run", "--config", str(tmp_path / f"{prefix}{name}")], app) == 2
        assert said in " ".join(capfd.readouterr().err.split())
