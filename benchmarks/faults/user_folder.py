"""A user's folder with one small file of every kind that the commands read, made once and copied for every try.

baseline.keras  qat_photos/*.png  notes.txt  ptq-results.csv    the user's own files, with names that a run uses, too
classes/CLASS/*  pictures/FORMAT/CLASS/*                         images with labels, in every format
rules.json  options.yaml  options.toml  options.json            overrides and options
runs/mine/                                                      a run, by `quantize` and `train`
mine.onnx  external.onnx  external.data  mine.xml  mine.bin     files to deploy
saved/                                                          a SavedModel
records/  archives/  shards/                                    TFRecords; ImageNet's archives, and shards of them
tiny.weights.h5                                                 weights of a network by name
special/                                                        FIFOs, devices, links (made in each copy)
"""

import io
import json
import os
import shutil
import stat
import tarfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIZE = 16
COLOURS = ("blue", "green", "red")
NETWORK = "faultnet"
"""A network by name, which every worker registers."""

KEPT_CACHE = "kept-cache"
"""What the cache was after the commands that made the folder."""

_CHEAP_RUN = ("--run-folder", "thrown-away", "--skip-fine-tuning", "--skip-saved-model", "--skip-diagnosis")

PICTURES = ("avif", "bmp", "gif", "jpg", "png", "tiff", "webp")
SPECIAL_SUFFIXES = (".json", ".keras", ".onnx", ".png", ".md", ".yaml", ".xml", ".log", "")

_WNIDS = ("n01440764", "n02105855", "n02119789", "n15075141")

Run = Callable[..., int]


def picture(seed: int) -> Image.Image:
    """Noise with a bright square in the channel that is the class, `seed` modulo 3."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 120, (SIZE, SIZE, 3), dtype=np.uint8)
    top, left = random.integers(0, SIZE - 8, 2)
    pixels[top : top + 8, left : left + 8, 2 - seed % len(COLOURS)] = 255
    return Image.fromarray(pixels)


def build_network(*, size: int, num_classes: int) -> Any:
    """A small classifier whose layers have fixed names, so that its files are the same in every process."""
    import keras

    layers = keras.layers
    x = inputs = keras.Input((size, size, 3), name="image")
    x = layers.Rescaling(1 / 255, name="rescale")(x)
    x = layers.Conv2D(8, 3, name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.ReLU(name="relu")(x)
    x = layers.Conv2D(8, 3, activation="relu", name="conv2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(num_classes, "softmax", name="scores")(x), name="net")


def register_network() -> None:
    """Make the network known to `--model`."""
    from keras_qat.data import Preprocessing
    from keras_qat.models import ZooEntry, register

    register(ZooEntry(NETWORK, build_network, Preprocessing("raw", SIZE, SIZE)))


def build(folder: Path, run: Run) -> None:
    """Make the folder, which must be the current one.

    Args:
        folder: an empty folder.
        run: runs `keras-qat` with the arguments given, and returns its exit code.

    Raises:
        RuntimeError: If a command of keras-qat fails.
    """
    _write_images(folder)
    _write_model(folder)
    _write_options(folder)
    _write_archives(folder / "archives")
    _write_records(folder / "records")

    def must(*arguments: str) -> None:
        if (code := run(*arguments)) not in {0, 3}:
            raise RuntimeError(f"keras-qat {' '.join(arguments)} ended with exit code {code}")

    must("quantize", "baseline.keras", "--data", "qat_photos", "--run-folder", "runs/mine", "--calibration-images", "8")
    must("train", "runs/mine", "--epochs", "1", "--batch-size", "4", "--learning-rate", "1e-5")
    must("export", "runs/mine/ptq.keras", "--output", "mine.onnx")
    must("build-engine", "mine.onnx", "--engine", "openvino", "--output", "mine.xml")
    must("export", "baseline.keras", "--format", "saved-model", "--output", "saved")
    must("prepare-imagenet", "--archives", "archives", "--output", "shards", "--shards", "2", "1")
    _write_external(folder)
    must("run", "--model", NETWORK, "--data", "digits", *_CHEAP_RUN)
    shutil.rmtree(folder / "thrown-away")
    # Tries begin without a cache; those of the cache itself put this one in its place.
    (folder / "cache").rename(folder / KEPT_CACHE)


def _write_images(folder: Path) -> None:
    for seed in range(15):
        for place in ("qat_photos", f"classes/{COLOURS[seed % 3]}"):
            (folder / place).mkdir(parents=True, exist_ok=True)
            picture(seed).save(folder / place / f"{seed}.png")
    for kind in PICTURES:
        for seed in range(6):
            place = folder / "pictures" / kind / COLOURS[seed % 3]
            place.mkdir(parents=True, exist_ok=True)
            picture(seed).save(place / f"{seed}.{kind}")
    (folder / "notes.txt").write_text("what nobody wrote down elsewhere\n", encoding="utf-8")
    (folder / "ptq-results.csv").write_text("1,2,3\n", encoding="utf-8")
    (folder / "settings.txt").write_text("mine\n", encoding="utf-8")


def _write_model(folder: Path) -> None:
    import keras

    keras.utils.set_random_seed(0)
    model = build_network(size=SIZE, num_classes=len(COLOURS))
    model.compile(keras.optimizers.Adam(2e-2), "sparse_categorical_crossentropy")
    x = np.stack([np.asarray(picture(seed)) for seed in range(100, 196)]).astype(np.float32)
    y = np.arange(100, 196) % len(COLOURS)
    model.fit(x, y, batch_size=16, epochs=12, verbose=0)
    # An uncompiled model has no optimizer, whose variables' names differ from process to process.
    plain = build_network(size=SIZE, num_classes=len(COLOURS))
    plain.set_weights(model.get_weights())
    plain.save(folder / "baseline.keras")
    plain.save_weights(folder / "tiny.weights.h5")


def _write_options(folder: Path) -> None:
    rules = {"rules": [{"select": "conv2", "weight_bits": 7}]}
    (folder / "rules.json").write_text(json.dumps(rules), encoding="utf-8")
    (folder / "options.yaml").write_text("target: onnxruntime\nseed: 3\nopset: 19\n", encoding="utf-8")
    (folder / "options.toml").write_text('target = "onnxruntime"\nseed = 3\nopset = 19\n', encoding="utf-8")
    (folder / "options.json").write_text('{"target": "onnxruntime", "seed": 3, "opset": 19}\n', encoding="utf-8")


def _write_external(folder: Path) -> None:
    import onnx

    (folder / "external").mkdir()
    onnx.save_model(
        onnx.load(folder / "mine.onnx"),
        folder / "external" / "model.onnx",
        save_as_external_data=True,
        location="model.data",
        size_threshold=64,
    )


def _write_records(folder: Path) -> None:
    """Shards in the layout of TensorFlow Datasets."""
    import tensorflow as tf

    folder.mkdir()
    (folder / "label.labels.txt").write_text("".join(f"{colour}\n" for colour in COLOURS), encoding="utf-8")
    for split in ("train", "validation"):
        with tf.io.TFRecordWriter(str(folder / f"{split}-00000-of-00001")) as writer:
            for seed in range(12):
                image = tf.train.Feature(bytes_list=tf.train.BytesList(value=[_encoded(seed, "PNG")]))
                label = tf.train.Feature(int64_list=tf.train.Int64List(value=[seed % len(COLOURS)]))
                features = tf.train.Features(feature={"image": image, "label": label})
                writer.write(tf.train.Example(features=features).SerializeToString())


def _encoded(seed: int, kind: str) -> bytes:
    made = io.BytesIO()
    picture(seed).save(made, kind)
    return made.getvalue()


def _tar(files: Mapping[str, bytes], mode: Any = "w") -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def _write_archives(folder: Path) -> None:
    """ImageNet's three archives with four classes; see `keras_qat.data.imagenet.listing` for what they hold."""
    from scipy.io import savemat

    folder.mkdir()
    train = {
        f"{wnid}.tar": _tar({f"{wnid}_{i}.JPEG": _encoded(10 * k + i, "JPEG") for i in range(3)})
        for k, wnid in enumerate(_WNIDS)
    }
    (folder / "ILSVRC2012_img_train.tar").write_bytes(_tar(train))
    validation = {f"ILSVRC2012_val_{i + 1:08d}.JPEG": _encoded(100 + i, "JPEG") for i in range(4)}
    (folder / "ILSVRC2012_img_val.tar").write_bytes(_tar(validation))
    names = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height")
    table = np.zeros((len(_WNIDS), 1), [(name, object) for name in (*names, "num_train_images")])
    for i, wnid in enumerate(_WNIDS):
        table[i, 0] = (float(i + 1), wnid, f"word of {wnid}", "gloss", 0.0, np.zeros((0, 0)), 0.0, 3.0)
    meta = io.BytesIO()
    savemat(meta, {"synsets": table})
    kit = {
        "ILSVRC2012_devkit_t12/data/meta.mat": meta.getvalue(),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": b"1\n2\n3\n4\n",
    }
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(_tar(kit, "w:gz"))


def copy(template: Path, folder: Path) -> None:
    """Copy the folder, with modification times."""
    shutil.copytree(template, folder, symlinks=True)


def add_special(folder: Path) -> None:
    """Add FIFOs, devices and links. The devices are the folder's own: root could replace those of /dev."""
    special = folder / "special"
    special.mkdir()
    for suffix in SPECIAL_SUFFIXES:
        os.mkfifo(special / f"fifo{suffix}")
        (special / f"loop{suffix}").symlink_to(f"loop{suffix}")
        (special / f"nowhere{suffix}").symlink_to(f"missing/nowhere{suffix}")
        (special / f"link{suffix}").symlink_to("../notes.txt")
        # Without the right to make devices, reading and writing them is not tried.
        with suppress(PermissionError):
            for name, minor in (("zero", 5), ("full", 7)):
                os.mknod(special / f"{name}{suffix}", stat.S_IFCHR | 0o666, os.makedev(1, minor))
