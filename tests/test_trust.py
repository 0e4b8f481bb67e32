"""Model files that run code when they are opened are opened if this tool wrote them, or if the user trusts them."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_qat import evaluation
from keras_qat.cli.program import app, run_program
from keras_qat.errors import StorageError, UserError
from keras_qat.export import export_saved_model
from keras_qat.files import remember_written, require_trusted
from keras_qat.models import load_model_file
from keras_qat.progress import CONSOLE
from keras_qat.runtimes import SavedModelRuntime, open_runtime

REFUSED = r"runs code when it is opened.*Received: .*--trust"


class _Writes(tf.Module):  # type: ignore[misc]
    """A SavedModel that writes a file when it is loaded, as an attacker's would."""

    def __init__(self, victim: Path) -> None:
        super().__init__()

        def initialize() -> tf.Tensor:
            with tf.control_dependencies([tf.io.write_file(str(victim), "written by the model")]):
                return tf.constant(1.0)

        self.table = _Resource(initialize)

    @tf.function(input_signature=[tf.TensorSpec((None, 8, 8, 3), tf.float32, "image")])  # type: ignore[untyped-decorator]
    def serve(self, image: tf.Tensor) -> tf.Tensor:
        return {"scores": tf.reduce_mean(image, (1, 2))}


class _Resource(tf.saved_model.experimental.TrackableResource):  # type: ignore[misc]
    def __init__(self, initialize: Callable[[], tf.Tensor]) -> None:
        super().__init__()
        self._run = initialize
        _ = self.resource_handle

    def _create_resource(self) -> tf.Tensor:
        return tf.raw_ops.VarHandleOp(dtype=tf.float32, shape=(), shared_name="attack")

    def _initialize(self) -> None:
        self._run()


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A SavedModel of another tool."""
    path = tmp_path / "foreign"
    module = _Writes(tmp_path / "victim")
    tf.saved_model.save(module, str(path), signatures=module.serve)
    (tmp_path / "victim").unlink(missing_ok=True)
    return path


def answer(*arguments: str) -> tuple[int, str]:
    """The exit code of the program, and its message."""
    with CONSOLE.capture() as captured:
        code = run_program(arguments, app)
    return code, " ".join(captured.get().split())


def test_a_foreign_saved_model_runs_nothing_unless_it_is_trusted(foreign: Path) -> None:
    victim = foreign.parent / "victim"
    for load in (open_runtime, SavedModelRuntime):
        with pytest.raises(UserError, match=REFUSED):
            load(foreign)
    assert not victim.exists()
    with open_runtime(foreign, trust=True) as runtime:
        assert runtime.run(np.ones((1, 8, 8, 3), np.float32))[0].tolist() == [[1, 1, 1]]
    assert victim.exists(), "loading alone runs code, which is why the user is asked"


@pytest.mark.parametrize("command", ["evaluate", "benchmark"])
def test_commands_ask_for_trust_by_option_or_config(foreign: Path, command: str) -> None:
    data = ["--data", "digits", "--preprocessing", "raw:8"] if command == "evaluate" else ["--runs", "1"]
    code, message = answer(command, str(foreign), *data)
    assert (code, "--trust" in message) == (2, True), message
    assert not (foreign.parent / "victim").exists()
    config = foreign.parent / "options.json"
    config.write_text('{"trust": true, "batch_sizes": [1]}' if command == "benchmark" else '{"trust": true}')
    for trusted in (["--trust"], ["--config", str(config)]):
        code, message = answer(command, str(foreign), *data, *trusted)
        assert "runs code" not in message


def test_an_image_and_the_other_file_are_asked_for_too(foreign: Path, tmp_path: Path) -> None:
    keras.utils.save_img(tmp_path / "a.png", np.zeros((8, 8, 3)), scale=False)
    with pytest.raises(UserError, match=REFUSED):
        evaluation.classify(foreign, tmp_path / "a.png")
    model = tmp_path / "own.keras"
    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D()]).save(model)
    code, message = answer("evaluate", str(model), "--data", "digits", "--compare", str(foreign))
    assert (code, "--trust" in message) == (2, True), message


def test_what_this_tool_wrote_is_trusted_until_it_changes(tmp_path: Path) -> None:
    ours = export_saved_model(
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), tmp_path / "run" / "ptq_saved_model"
    )
    for path in (ours, Path(shutil.copytree(ours, tmp_path / "copy"))):
        with open_runtime(path):
            pass
    (ours / "assets" / "more.txt").write_text("one more file")
    with pytest.raises(UserError, match=REFUSED):
        open_runtime(ours)


def test_nothing_that_comes_with_a_model_makes_it_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under another account, or after the user's data folder is gone, a whole run folder is foreign."""
    ours = export_saved_model(keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]), tmp_path / "ours")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another"))
    with pytest.raises(UserError, match=REFUSED):
        open_runtime(ours)


def test_links_make_a_folder_foreign(tmp_path: Path) -> None:
    """What a link leads to may change, and is not part of the digest."""
    (tmp_path / "model" / "variables").mkdir(parents=True)
    (tmp_path / "model" / "saved_model.pb").touch()
    (tmp_path / "elsewhere").mkdir()
    remember_written(tmp_path / "model")
    require_trusted(tmp_path / "model", trust=False)
    (tmp_path / "model" / "assets").symlink_to(tmp_path / "elsewhere")
    remember_written(tmp_path / "model")
    with pytest.raises(UserError, match=REFUSED):
        require_trusted(tmp_path / "model", trust=False)


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", "variables/desktop.ini", ".nfs00000000002a00050000001d"])
def test_what_the_system_puts_into_a_folder_does_not_make_it_foreign(tmp_path: Path, name: str) -> None:
    (tmp_path / "model" / "variables").mkdir(parents=True)
    (tmp_path / "model" / "saved_model.pb").touch()
    remember_written(tmp_path / "model")
    (tmp_path / "model" / name).write_text("the icon's place")
    require_trusted(tmp_path / "model", trust=False)


def test_a_trusted_model_is_not_read_to_be_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have gigabytes."""
    (tmp_path / "saved_model.pb").write_bytes(b"large")

    def read(path: Path) -> None:
        raise AssertionError(path)

    monkeypatch.setattr("keras_qat.files.trust.open_file", read)
    for model in (tmp_path, tmp_path / "saved_model.pb"):
        require_trusted(model, trust=True)


def test_a_pipe_in_a_folder_is_refused_even_if_it_is_trusted(foreign: Path) -> None:
    os.mkfifo(foreign / "variables" / "pipe")
    with pytest.raises(StorageError, match="neither"):
        open_runtime(foreign, trust=True)


def test_a_data_folder_that_cannot_be_written_does_not_stop_an_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    (tmp_path / "model.engine").write_bytes(b"ftrt")
    remember_written(tmp_path / "model.engine")
    with pytest.raises(UserError, match=REFUSED):
        require_trusted(tmp_path / "model.engine", trust=False)


def test_code_in_a_keras_file_never_runs(tmp_path: Path) -> None:
    """Whether the file is trusted or not, Keras's safe mode is on."""
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x)]).save(path)
    for load in (lambda: load_model_file(path), lambda: open_runtime(path, trust=True)):
        with pytest.raises(StorageError, match="unsafe"):
            load()


@pytest.mark.parametrize("engine", ["tensorrt", "tensorrt-rtx"])
def test_a_foreign_engine_is_refused_before_its_library_is_loaded(tmp_path: Path, engine: str) -> None:
    (tmp_path / "model.engine").write_bytes(b"foreign")
    with pytest.raises(UserError, match=REFUSED):
        open_runtime(tmp_path / "model.engine", engine=engine)
