"""Files that are no model, or are damaged, changed or made to fill the disk: all end in one message."""

import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from keras_qat.data import Preprocessing
from keras_qat.errors import StorageError, UserError, WeightsError
from keras_qat.files import UNPACK_LIMIT
from keras_qat.models import ZooEntry, build_model, load_model_file
from keras_qat.runtimes import open_runtime


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.keras"
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu", name="conv")(x)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    keras.Model(inputs, keras.layers.Dense(3, "softmax", name="head")(x), name="small").save(path)
    return path


def rewritten(source: Path, path: Path, **members: bytes | None) -> Path:
    """A copy with other contents of some members, `None` for none; the names without their suffixes."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            content = members.get(name.rpartition(".")[0].replace(".", "_"), old.read(name))
            if content is not None:
                new.writestr(name, content)
    return path


def config(source: Path) -> Any:
    return json.loads(zipfile.ZipFile(source).read("config.json"))


def with_config(change: Callable[[Any], Any]) -> Callable[[Path, Path], Path]:
    def make(source: Path, path: Path) -> Path:
        value = config(source)
        changed = change(value)
        return rewritten(source, path, config=json.dumps(value if changed is None else changed).encode())

    return make


def layer(value: Any, index: int) -> Any:
    return value["config"]["layers"][index]


def loop(value: Any) -> None:
    """Let the convolution read what the pooling makes of it."""
    history = layer(value, 1)["inbound_nodes"][0]["args"][0]["config"]["keras_history"]
    history[0] = "pool"


def flipped(source: Path, path: Path) -> Path:
    """One bit of the last weights is another one."""
    content = bytearray(source.read_bytes())
    at = content.find(zipfile.ZipFile(source).read("model.weights.h5")[-64:])
    assert at > 0
    content[at] ^= 1
    path.write_bytes(content)
    return path


def bomb(source: Path, path: Path) -> Path:
    with zipfile.ZipFile(rewritten(source, path), "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/zeros", bytes(8 * 10**6))
    return path


def lying(source: Path, path: Path) -> Path:
    """A member that says that it is smaller than it is."""
    content = bytearray(rewritten(source, path).read_bytes())
    size = len(zipfile.ZipFile(path).read("config.json")).to_bytes(4, "little")
    content = bytearray(bytes(content).replace(size, (7).to_bytes(4, "little")))
    path.write_bytes(content)
    return path


BROKEN: dict[str, tuple[Callable[[Path, Path], Any], str]] = {
    "empty": (lambda _, path: path.write_bytes(b""), "isn't a whole zip archive"),
    "text": (lambda _, path: path.write_text("model"), "isn't a whole zip archive"),
    "truncated": (lambda source, path: path.write_bytes(source.read_bytes()[:-100]), "isn't a whole zip archive"),
    "folder": (lambda _, path: path.mkdir(), "There is no such model file"),
    "pipe": (lambda _, path: os.mkfifo(path), "There is no such model file"),
    "device": (lambda _, path: path.symlink_to("/dev/zero"), "There is no such model file"),
    "no configuration": (lambda source, path: rewritten(source, path, config=None), "archive without config.json"),
    "no weights": (lambda source, path: rewritten(source, path, model_weights=None), "without model.weights.h5"),
    "one bit": (flipped, r"its model\.weights\.h5 is damaged: Bad CRC-32.*Copy or download it again"),
    "a lying size": (lying, r"its config\.json is damaged"),
    "weights of another": (lambda source, path: rewritten(source, path, model_weights=b"?"), "signature not found"),
    "no JSON": (lambda source, path: rewritten(source, path, config=b"{"), "can't be read as a Keras model: "),
    "deep JSON": (lambda source, path: rewritten(source, path, config=b"[" * 10**5), "can't be read as a Keras mod"),
    "deep objects": (
        lambda source, path: rewritten(source, path, config=b'{"config":' * 990 + b"1" + b"}" * 990),
        "can't be read as a Keras model: ",
    ),
    "a list": (with_config(lambda _: []), "can't be read as a Keras model: "),
    "unknown class": (
        with_config(lambda v: layer(v, 1).update(module="mine", class_name="Mine", registered_name="mine>Mine")),
        r"'Mine'.*Keras doesn't know this class.*register_keras_serializable",
    ),
    "a layer": (with_config(lambda v: layer(v, 2)), "it holds a GlobalAveragePooling2D, which is no model"),
    "a string for a number": (with_config(lambda v: layer(v, 1)["config"].update(filters="4")), "can't be read as a"),
    "NaN filters": (with_config(lambda v: layer(v, 1)["config"].update(filters=float("nan"))), "can't be read as a"),
    "negative filters": (with_config(lambda v: layer(v, 1)["config"].update(filters=-4)), "can't be read as a"),
    "more filters": (with_config(lambda v: layer(v, 1)["config"].update(filters=5)), "can't be read as a Keras"),
    "a loop": (with_config(loop), "can't be read as a Keras model: .*loops"),
    "no layers": (with_config(lambda v: v["config"].update(layers=[])), "can't be read as a Keras model: "),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_each_is_refused_by_every_reader(saved: Path, tmp_path: Path, kind: str) -> None:
    make, message = BROKEN[kind]
    path = tmp_path / "broken.keras"
    make(saved, path)
    with pytest.raises(StorageError, match=message) as raised:
        load_model_file(path)
    assert "broken.keras" in str(raised.value)
    assert len(str(raised.value)) < 2000
    with pytest.raises(UserError, match=r"Received: .*broken\.keras"):
        open_runtime(path)


def test_an_archive_that_unpacks_to_too_much(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = bomb(saved, tmp_path / "bomb.keras")
    assert load_model_file(path).name == "small"  # of less than 1 GB
    monkeypatch.setenv(UNPACK_LIMIT, "0.002")
    with pytest.raises(StorageError, match=rf"unpacks to 8\.0 MB.*environment variable {UNPACK_LIMIT}.*is 0\.002 now"):
        load_model_file(path)
    assert load_model_file(saved).name == "small"
    monkeypatch.setenv(UNPACK_LIMIT, "two")
    with pytest.raises(StorageError, match=f"{UNPACK_LIMIT} must be a number of gigabytes. Received: 'two'"):
        load_model_file(path)


def _link_out(file: h5py.File, name: str, secret: Path) -> None:
    del file[name]
    file[name] = h5py.ExternalLink(secret, "secret")


def _link_in(file: h5py.File, name: str, _: Path) -> None:
    file[f"{name} of another name"] = file[name]
    del file[name]
    file[name] = h5py.SoftLink(f"{name} of another name")


def _external(file: h5py.File, name: str, secret: Path) -> None:
    old = file[name]
    del file[name]
    file.create_dataset(name, old.shape, old.dtype, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])


def _virtual(file: h5py.File, name: str, secret: Path) -> None:
    old = file[name]
    layout = h5py.VirtualLayout(old.shape, old.dtype)
    layout[:] = h5py.VirtualSource(secret, "secret", old.shape)
    del file[name]
    file.create_virtual_dataset(name, layout)


def _large(file: h5py.File, name: str, _: Path) -> None:
    """Numbers that are in no file: HDF5 gives zeros for chunks that were never written."""
    del file[name]
    file.create_dataset(name, (10**6, 10**4), "float32", chunks=(1000, 1000))


FOREIGN: dict[str, tuple[Callable[[h5py.File, str, Path], None], str]] = {
    "a link to a file": (_link_out, "is a link"),
    "a link to a name": (_link_in, "is a link"),
    "data in a file": (_external, "lies in other"),
    "data of others": (_virtual, "lies in other"),
    "data of 40 GB": (_large, r"unpacks to 40\.0 GB"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_numbers_of_other_files_are_refused_whatever_keras_does(
    kind: str, saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is foreign, and another user's numbers would become weights, which are then exported and published."""
    change, message = FOREIGN[kind]
    secret = tmp_path / "secret"
    with h5py.File(secret, "w") as file:
        file["secret"] = np.zeros((3, 3, 3, 4), "float32")
    model = keras.saving.load_model(saved)
    weights, whole, legacy = tmp_path / "a.weights.h5", tmp_path / "a.keras", tmp_path / "a.h5"
    model.save_weights(weights)
    model.save(legacy)
    for path in (weights, legacy):
        with h5py.File(path, "r+") as file:
            kernel = file.visititems(lambda name, item: name if getattr(item, "shape", ()) == (3, 3, 3, 4) else None)
            change(file, kernel, secret)
    rewritten(saved, whole, model_weights=weights.read_bytes())
    monkeypatch.setattr("keras.saving.load_model", lambda *_, **__: pytest.fail("Keras reads it"))
    monkeypatch.setattr("keras.Model.load_weights", lambda *_, **__: pytest.fail("Keras reads it"))
    entry = ZooEntry("small", small, Preprocessing("unit", 8, 8))
    for path in (weights, legacy, whole):
        with pytest.raises(WeightsError, match=message):
            build_model(entry, weights=path, num_classes=3, size=8)
    for path in (legacy, whole):
        with pytest.raises(StorageError, match=message):
            load_model_file(path)


def test_a_lambda_is_not_run(tmp_path: Path) -> None:
    path = tmp_path / "lambda.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x * 2)]).save(path)
    with pytest.raises(StorageError, match=r"A Lambda layer holds Python code.*load_model\(path, safe_mode=False\)"):
        load_model_file(path)


def test_code_of_a_user_that_fails_is_named(tmp_path: Path) -> None:
    @keras.saving.register_keras_serializable("test_keras_archive")
    class Fragile(keras.layers.Layer):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            if broken:
                raise ZeroDivisionError("of its own")

    broken = False
    path = tmp_path / "fragile.keras"
    keras.Sequential([keras.Input((4,)), Fragile()]).save(path)
    broken = True
    with pytest.raises(StorageError, match=r"Fragile.*of its own") as raised:
        load_model_file(path)
    assert raised.value.__cause__ is not None


def small(*, size: int, num_classes: int) -> keras.Model:
    x = inputs = keras.Input((size, size, 3), name="image")
    x = keras.layers.GlobalAveragePooling2D(name="pool")(keras.layers.Conv2D(4, 3, name="conv")(x))
    return keras.Model(inputs, keras.layers.Dense(num_classes, "softmax", name="head")(x), name="small")


def test_weights_that_are_damaged(saved: Path, tmp_path: Path) -> None:
    """Each try gives weights or a message; HDF5 has no checksums, so a changed number alone can't be noticed."""
    entry, generator = ZooEntry("small", small, Preprocessing("unit", 8, 8)), random.Random(0)  # noqa: S311
    whole = tmp_path / "whole.weights.h5"
    small(size=8, num_classes=3).save_weights(whole)
    content, refused = whole.read_bytes(), 0
    for number in range(40):
        damaged = bytearray(content)
        for _ in range(generator.choice((1, 4, 64))):
            damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
        path = tmp_path / f"{number}.weights.h5"
        path.write_bytes(damaged if number % 4 else damaged[: generator.randrange(len(damaged))])
        try:
            build_model(entry, weights=path, num_classes=3, size=8)
        except WeightsError:
            refused += 1
    assert refused > 10
    flipped(saved, tmp_path / "flipped.keras")
    with pytest.raises(WeightsError, match=r"its model\.weights\.h5 is damaged.*Received: .*flipped\.keras"):
        build_model(entry, weights=tmp_path / "flipped.keras", num_classes=3, size=8)
