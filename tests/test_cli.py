"""The command line: a user's mistake gives exit code 2 and a message that says what to do."""

import shutil
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from keras_qat import Overrides
from keras_qat.cli.program import app, run_program
from keras_qat.models import build_model, find

Program = Callable[..., tuple[int, str]]


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str], tmp_path: Path, tiny_network: str) -> Program:
    """Run `keras-qat run …` in this process, where the tiny network is registered: (exit code, standard error)."""
    assert tiny_network == "tinyresnet"

    def call(*arguments: str) -> tuple[int, str]:
        output = () if "--output" in arguments else ("--output", str(tmp_path / "runs"))
        code = run_program(["run", *output, *arguments], app)
        return code, capfd.readouterr().err

    return call


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of images of noise, in two classes."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 6), ("val", 3)):
        for name in ("cat", "dog"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 255, (40, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{i}.jpg")
    return tmp_path / "photos"


@pytest.fixture
def weights(tiny_network: str, tmp_path: Path) -> Path:
    """A file of weights of the tiny network for two classes."""
    keras.utils.set_random_seed(3)
    path = tmp_path / "tiny.weights.h5"
    build_model(find(tiny_network), weights=None, num_classes=2, size=32).save_weights(path)
    return path


def _expect(result: tuple[int, str], *parts: str) -> None:
    code, message = result
    assert code == 2
    assert message.count("error:") == 1
    assert "Traceback" not in message
    flat = " ".join(message.split())
    for part in parts:
        assert part in flat


def test_folder_of_photos_from_end_to_end(program: Program, folder: Path, weights: Path, tmp_path: Path) -> None:
    """The file of overrides is copied to the folder of the run."""
    (tmp_path / "rules.json").write_text('{"rules": [{"select": "stem_conv", "inputs": false, "weights": false}]}')
    code, _ = program(
        *("--model", "tinyresnet", "--weights", str(weights), "--data", str(folder)),
        *("--epochs", "1", "--batch-size", "4", "--calibration-images", "8"),
        *("--skip-saved-model", "--skip-diagnosis"),
        *("--overrides", str(tmp_path / "rules.json")),
    )
    assert code in {0, 3}  # random weights: a tie between classes may miss the agreement gate on 6 images
    made = tmp_path / "runs" / "tinyresnet-photos-onnxruntime"
    assert (made / "qat.onnx").is_file()
    assert "rule 1, 'stem_conv': inputs=False" in (made / "placement.md").read_text(encoding="utf-8")
    assert Overrides.load(made / "overrides.json") == Overrides.load(tmp_path / "rules.json")


def test_unknown_model(program: Program) -> None:
    _expect(program("--model", "resnet51"), "Received: 'resnet51'", "Did you mean 'resnet50'")


def test_unknown_target(program: Program, tiny_network: str) -> None:
    _expect(program("--model", tiny_network, "--target", "tpu"), "Received: 'tpu'", "onnxruntime, openvino, tensorrt")


def test_unknown_option(program: Program) -> None:
    _expect(program("--modle", "resnet50"), "--modle", "--help")


def test_missing_weights(program: Program, folder: Path) -> None:
    _expect(
        program("--model", "tinyresnet", "--weights", "no.weights.h5", "--data", str(folder)),
        "no.weights.h5",
        "Received:",
    )


def test_no_weights_for_own_images(program: Program, folder: Path) -> None:
    _expect(program("--model", "tinyresnet", "--data", str(folder)), "random weights", "--weights imagenet")


def test_truncated_weights(program: Program, folder: Path, weights: Path) -> None:
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    _expect(
        program("--model", "tinyresnet", "--weights", str(weights), "--data", str(folder)), str(weights), "Received:"
    )


def test_weights_of_another_model(program: Program, folder: Path, weights: Path) -> None:
    other = program("--model", "resnet50", "--weights", str(weights), "--data", str(folder))
    _expect(other, "Received:", "resnet50")


def test_nan_in_the_weights(program: Program, folder: Path, weights: Path, tiny_network: str) -> None:
    model = build_model(find(tiny_network), weights=weights, num_classes=2, size=32)
    kernel = model.get_layer("block_conv").kernel
    kernel.assign(kernel.numpy() * np.nan)
    model.save_weights(weights)
    _expect(program("--model", "tinyresnet", "--weights", str(weights), "--data", str(folder)), "block_conv")


def test_empty_data_folder(program: Program, tmp_path: Path, weights: Path, tiny_network: str) -> None:
    (tmp_path / "empty").mkdir()
    _expect(program("--model", tiny_network, "--weights", str(weights), "--data", str(tmp_path / "empty")), "train")


def test_missing_data_folder(program: Program, tiny_network: str) -> None:
    _expect(program("--model", tiny_network, "--data", "nowhere"), "Received: 'nowhere'", "digits")


def test_a_non_image_in_a_class_folder(program: Program, folder: Path, weights: Path, tiny_network: str) -> None:
    (folder / "train" / "cat" / "notes.txt").write_text("not an image")
    _expect(program("--model", tiny_network, "--weights", str(weights), "--data", str(folder)), "notes.txt")


def test_a_truncated_image_is_named(program: Program, folder: Path, weights: Path, tiny_network: str) -> None:
    for path in (folder / "train" / "cat").iterdir():
        path.write_bytes(path.read_bytes()[:200])
    result = program("--model", tiny_network, "--weights", str(weights), "--data", str(folder))
    _expect(result, str(folder / "train" / "cat"))


def test_output_that_cannot_be_written(program: Program, tmp_path: Path, tiny_network: str) -> None:
    (tmp_path / "file").write_text("in the way")
    _expect(program("--model", tiny_network, "--output", str(tmp_path / "file" / "runs")), "Can't write")


@pytest.mark.parametrize(
    ("option", "value"),
    [("--optimizer", "lion"), ("--schedule", "1.0@x"), ("--calibration-method", "magic"), ("--opset", "99")],
)
def test_bad_settings_fail_before_any_work(
    program: Program, tiny_network: str, option: str, value: str, tmp_path: Path
) -> None:
    _expect(program("--model", tiny_network, option, value), "Received:", value)
    assert not list((tmp_path / "runs").rglob("*.onnx"))


@pytest.mark.parametrize(
    ("text", "part"), [("{", "isn't JSON"), ('{"rules": [{"select": "stem_cnov", "inputs": false}]}', "'stem_conv'")]
)
def test_bad_overrides(
    program: Program, folder: Path, weights: Path, tmp_path: Path, tiny_network: str, text: str, part: str
) -> None:
    (tmp_path / "rules.json").write_text(text)
    arguments = ("--model", tiny_network, "--weights", str(weights), "--data", str(folder))
    _expect(program(*arguments, "--overrides", str(tmp_path / "rules.json")), part, "Received:")


def test_interrupt_during_fine_tuning_keeps_the_last_checkpoint(
    program: Program, trained_network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches_seen = []
    original = keras.callbacks.CallbackList.on_train_batch_end
    # The baseline is in the cache, so the interrupt happens in fine-tuning.
    options = (
        *("--model", trained_network, "--epochs", "3", "--steps-per-epoch", "4", "--calibration-images", "32"),
        *("--skip-baseline", "--skip-saved-model", "--skip-diagnosis", "--validation-images", "64"),
    )

    def interrupt(self: keras.callbacks.CallbackList, batch: int, logs: dict[str, float] | None = None) -> None:
        batches_seen.append(batch)
        if len(batches_seen) == 6:  # In the middle of the second epoch.
            raise KeyboardInterrupt
        original(self, batch, logs)

    monkeypatch.setattr(keras.callbacks.CallbackList, "on_train_batch_end", interrupt)
    code, message = program(*options)
    assert code == 130
    assert "goes on from its last checkpoint" in " ".join(message.split())
    training = tmp_path / "runs" / f"{trained_network}-digits-onnxruntime" / "training"
    assert (training / "last.npz").is_file()
    monkeypatch.undo()
    before = len(batches_seen)
    assert program(*options)[0] == 0
    assert len(batches_seen) == before
    shutil.rmtree(training)
