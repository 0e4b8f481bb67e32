"""Files that somebody made on purpose: cycles, bombs, files that point elsewhere, names that terminals obey."""

import io
import json
import os
import random
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from faults.commands import CALLS, Call
from faults.tries import Kind, Try, enumerated
from faults.user_folder import COLOURS, picture

_BOMB, _BLOCK = 6 << 30, 1 << 25
"""The size of what a bomb unpacks to, in bytes: more than a worker may have; and of what it repeats."""

_CLAIMED = 2**32 - 2
"""The size that a zip archive can say without an extension."""

_CHECKSUM = 0
"""That of a bomb is wrong, which only whoever has unpacked all of it can know."""

Craft = Callable[[Path, random.Random], None]


def _onnx(change: Callable[[Any, random.Random], None]) -> Craft:
    """Change the graph of `mine.onnx`."""

    def craft(folder: Path, choice: random.Random) -> None:
        import onnx

        model = onnx.load(folder / "mine.onnx")
        change(model.graph, choice)
        (folder / "mine.onnx").write_bytes(model.SerializeToString())

    return craft


def _cycle(graph: Any, choice: random.Random) -> None:
    later = choice.randrange(1, len(graph.node))
    earlier = graph.node[choice.randrange(later)]
    earlier.input[0] = graph.node[later].output[0]


def _own_input(graph: Any, choice: random.Random) -> None:
    node = choice.choice(list(graph.node))
    node.input[0] = node.output[0]


def _unknown_operator(graph: Any, choice: random.Random) -> None:
    node = choice.choice(list(graph.node))
    node.op_type, node.domain = "Unheard", choice.choice(("", "com.example"))


def _two_names(graph: Any, choice: random.Random) -> None:
    one, other = choice.sample(list(graph.node), 2)
    one.output[0] = other.output[0]


def _no_nodes(graph: Any, _: random.Random) -> None:
    del graph.node[:]


def _odd_shape(graph: Any, choice: random.Random) -> None:
    shape = graph.input[0].type.tensor_type.shape
    shape.dim[choice.randrange(len(shape.dim))].dim_value = choice.choice((0, -1, 2**40))


def _odd_initializer(graph: Any, choice: random.Random) -> None:
    tensor = choice.choice(list(graph.initializer))
    match choice.randrange(3):
        case 0:
            tensor.data_type = choice.choice((0, 8, 99))
        case 1:
            tensor.dims.append(choice.choice((0, 2**31, -1)))
        case _:
            tensor.ClearField("raw_data")


def _odd_names(graph: Any, choice: random.Random) -> None:
    node = choice.choice(list(graph.node))
    node.name = choice.choice(("\x1b]0;owned\x07", "[bold red]", "<script>alert(1)</script>", "x" * 100_000, ""))


def _external(location: str) -> Craft:
    """Let the external data lie at another path."""

    def craft(folder: Path, _: random.Random) -> None:
        import onnx

        model = onnx.load(folder / "external" / "model.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        (folder / "external" / "model.onnx").write_bytes(model.SerializeToString())

    return craft


def _external_link(folder: Path, _: random.Random) -> None:
    """External data as the cache of a model hub keeps them."""
    (folder / "blob").write_bytes((folder / "external" / "model.data").read_bytes())
    (folder / "external" / "model.data").unlink()
    (folder / "external" / "model.data").symlink_to("../blob")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _huge_png(folder: Path, _: random.Random) -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", zlib.compress(bytes(1000)))
    _image(folder).write_bytes(data + _chunk(b"IEND", b""))


def _image(folder: Path) -> Path:
    return folder / "classes" / COLOURS[0] / "0.png"


def _postscript(folder: Path, _: random.Random) -> None:
    text = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 16 16\n%%EndComments\nshowpage\n%%EOF\n"
    _image(folder).write_bytes(text)


def _as_format(form: str, **options: Any) -> Craft:
    def craft(folder: Path, _: random.Random) -> None:
        made = io.BytesIO()
        picture(3).save(made, form, **options)
        _image(folder).write_bytes(made.getvalue())

    return craft


def _animated(folder: Path, _: random.Random) -> None:
    made = io.BytesIO()
    picture(0).save(made, "PNG", save_all=True, append_images=[picture(i) for i in range(1, 4)])
    _image(folder).write_bytes(made.getvalue())


def _odd_name(folder: Path, choice: random.Random) -> None:
    names = ("\udcff.png", "a\x1b[2Jb.png", "a\nb.png", "x" * 251 + ".png", "-r.png", "[bold].png", "\u202egnp.png")
    shutil.copy(_image(folder), _image(folder).with_name(choice.choice(names)))


def _odd_class(folder: Path, choice: random.Random) -> None:
    names = ("\udcff", "a\x1b[2Jb", "a\nb", "[bold]", "<script>", "x" * 255)
    (folder / "classes" / COLOURS[0]).rename(folder / "classes" / choice.choice(names))


def _loop(folder: Path, _: random.Random) -> None:
    (folder / "classes" / "again").symlink_to("../classes")


def _links(folder: Path, _: random.Random) -> None:
    (folder / "classes" / COLOURS[0] / "fifo.png").symlink_to("../../special/fifo.png")


@cache
def _zeros() -> bytes:
    """A deflate stream of the bomb: one block, flushed so that it stands for itself, again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(bytes(_BLOCK)) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * (_BOMB // _BLOCK) + packer.flush()


def _zip_bomb(member: str) -> Craft:
    """Put a member that unpacks to gigabytes into `baseline.keras`."""

    def craft(folder: Path, _: random.Random) -> None:
        path = folder / "baseline.keras"
        with zipfile.ZipFile(path) as archive:
            others = {item.filename: archive.read(item) for item in archive.infolist() if item.filename != member}
        packed, name = _zeros(), member.encode()
        facts = (0, 8, 0, 33, _CHECKSUM, len(packed), _CLAIMED, len(name), 0)
        with zipfile.ZipFile(path, "w") as archive:
            for other, data in others.items():
                archive.writestr(other, data)
            # `zipfile` would pack the zeros again, which takes a while.
            offset = archive.fp.tell()  # type: ignore[union-attr]
            archive.fp.write(struct.pack("<4s5H3I2H", b"PK\3\4", 20, *facts[:4], *facts[4:]) + name + packed)  # type: ignore[union-attr]
            archive.start_dir = archive.fp.tell()  # type: ignore[union-attr, attr-defined]
            info = zipfile.ZipInfo(member)
            info.compress_type, info.header_offset = zipfile.ZIP_DEFLATED, offset
            info.CRC, info.compress_size, info.file_size = _CHECKSUM, len(packed), _CLAIMED
            archive.filelist.append(info)
            archive.NameToInfo[member] = info

    return craft


def _keras_config(change: Callable[[dict[str, Any], random.Random], None]) -> Craft:
    """Change the configuration in `baseline.keras`."""

    def craft(folder: Path, choice: random.Random) -> None:
        path = folder / "baseline.keras"
        with zipfile.ZipFile(path) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        config = json.loads(members["config.json"])
        change(config, choice)
        members["config.json"] = json.dumps(config).encode()
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)

    return craft


def _unknown_layer(config: dict[str, Any], choice: random.Random) -> None:
    layer = choice.choice(config["config"]["layers"])
    layer["class_name"] = choice.choice(("Unheard", "", "Lambda"))
    layer["module"] = choice.choice(("os", "keras.layers", "unheard.of", None))


def _odd_config(config: dict[str, Any], choice: random.Random) -> None:
    layer = choice.choice(config["config"]["layers"])
    name = choice.choice(list(layer["config"]) or ["name"])
    layer["config"][name] = choice.choice((None, -1, 0, 2**40, "x", [], {}, float("nan"), "\x1b[2J", "../x"))


def _not_a_model(config: dict[str, Any], choice: random.Random) -> None:
    kept = choice.choice(({}, {"class_name": "Dense"}, {"config": 3}, {"class_name": "Functional", "config": {}}))
    config.clear()
    config.update(kept)


def _more_members(folder: Path, choice: random.Random) -> None:
    with zipfile.ZipFile(folder / "baseline.keras", "a") as archive:
        archive.writestr(choice.choice(("../../escaped", "/escaped", "a" * 60_000, "\x1b[2J")), b"x")


def _tar_member(kind: bytes, target: str) -> Craft:
    def craft(folder: Path, _: random.Random) -> None:
        with tarfile.open(folder / "archives" / "ILSVRC2012_img_val.tar", "a") as archive:
            info = tarfile.TarInfo("ILSVRC2012_val_00000004.JPEG")
            info.type, info.linkname = kind, target
            archive.addfile(info)

    return craft


def _gzip_bomb(folder: Path, _: random.Random) -> None:
    """A development kit that unpacks to gigabytes of zeros, which end a tar."""
    head = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
    tail = struct.pack("<II", _CHECKSUM, _BOMB % 2**32)
    (folder / "archives" / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(head + _zeros() + tail)


def _spaced(folder: Path, choice: random.Random) -> None:
    """A run whose settings point elsewhere."""
    path = folder / "runs" / "mine" / "settings.json"
    settings = json.loads(path.read_text("utf-8"))
    settings["run_folder"] = choice.choice((".", "..", "qat_photos", "/"))
    settings["model"] = choice.choice((settings["model"], "special/fifo.keras", "notes.txt"))
    settings["data"] = choice.choice((settings["data"], "special/fifo", "classes"))
    path.write_text(json.dumps(settings), "utf-8")


def _fifo_in_run(folder: Path, choice: random.Random) -> None:
    name = choice.choice(("placement.json", "ranges.json", "settings.json", "results.json", "preprocessing.json"))
    path = folder / "runs" / "mine" / name
    path.unlink()
    os.mkfifo(path)


_ONNX_READERS = ("doctor", "benchmark", "build-engine")
_EXTERNAL = (
    Call("doctor", {"FILES": "external/model.onnx"}),
    Call("verify", {"PATH": "external/model.onnx", "--model": "runs/mine/ptq.keras"}),
    Call("benchmark", {"FILES": "external/model.onnx", "--runs": "1", "--batch-sizes": "1"}),
    Call("evaluate", {"FILE": "external/model.onnx", "--data": "classes", "--preprocessing": "raw:16"}),
)
_MINE = (
    *(CALLS[name] for name in _ONNX_READERS),
    Call("verify", {"PATH": "mine.onnx", "--model": "runs/mine/ptq.keras"}),
    Call("evaluate", {"FILE": "mine.onnx", "--data": "classes", "--preprocessing": "raw:16"}),
)
_PHOTOS = (
    CALLS["evaluate"],
    CALLS["evaluate"].changed({"--skip-bad": None}),
    Call("evaluate", {"FILE": "mine.onnx", "--preprocessing": "raw:16", "--image": f"classes/{COLOURS[0]}/0.png"}),
)
_KERAS = (
    CALLS["explain"],
    Call("export", {"MODEL": "baseline.keras", "--output": "out/made.onnx"}, ("out",)),
    Call("benchmark", {"FILES": "baseline.keras", "--runs": "1", "--batch-sizes": "1"}),
)
_RUN = tuple(CALLS[name] for name in ("report", "verify", "diagnose", "train", "export", "evaluate"))
_ARCHIVES = (CALLS["prepare-imagenet"],)

CRAFTED: Mapping[str, tuple[Craft, tuple[Call, ...]]] = {
    "ONNX cycle": (_onnx(_cycle), _MINE),
    "ONNX node that reads itself": (_onnx(_own_input), _MINE),
    "ONNX operator that nobody knows": (_onnx(_unknown_operator), _MINE),
    "ONNX names given twice": (_onnx(_two_names), _MINE),
    "ONNX without nodes": (_onnx(_no_nodes), _MINE),
    "ONNX odd shape": (_onnx(_odd_shape), _MINE),
    "ONNX odd initializer": (_onnx(_odd_initializer), _MINE),
    "ONNX odd names": (_onnx(_odd_names), _MINE),
    "external data above": (_external("../notes.txt"), _EXTERNAL),
    "external data absolute": (_external("/etc/hostname"), _EXTERNAL),
    "external data in a FIFO": (_external("../special/fifo"), _EXTERNAL),
    "external data endless": (_external("../special/zero"), _EXTERNAL),
    "external data linked": (_external_link, _EXTERNAL),
    "PNG of 3.6 gigapixels": (_huge_png, _PHOTOS),
    "EPS named .png": (_postscript, _PHOTOS),
    "PDF named .png": (_as_format("PDF"), _PHOTOS),
    "TIFF named .png": (_as_format("TIFF"), _PHOTOS),
    "AVIF named .png": (_as_format("AVIF"), _PHOTOS),
    "animated PNG": (_animated, _PHOTOS),
    "odd name of an image": (_odd_name, _PHOTOS),
    "odd name of a class": (_odd_class, _PHOTOS),
    "folder in itself": (_loop, _PHOTOS),
    "link to a FIFO among images": (_links, _PHOTOS),
    ".keras bomb of weights": (_zip_bomb("model.weights.h5"), _KERAS),
    ".keras bomb of a configuration": (_zip_bomb("config.json"), _KERAS),
    ".keras unknown layer": (_keras_config(_unknown_layer), _KERAS),
    ".keras odd configuration": (_keras_config(_odd_config), _KERAS),
    ".keras that is no model": (_keras_config(_not_a_model), _KERAS),
    ".keras with more members": (_more_members, _KERAS),
    "tar link": (_tar_member(tarfile.SYMTYPE, "/etc/passwd"), _ARCHIVES),
    "tar FIFO": (_tar_member(tarfile.FIFOTYPE, ""), _ARCHIVES),
    "gzip bomb": (_gzip_bomb, _ARCHIVES),
    "run that points elsewhere": (_spaced, _RUN),
    "FIFO in a run": (_fifo_in_run, _RUN),
}
"""{what it is: (makes it, the commands that read it)}."""


def _make(case: tuple[str, Craft, Call], choice: random.Random) -> Try:
    name, craft, call = case
    seed = choice.random()
    return Try(call, name, lambda folder: craft(folder, random.Random(seed)))  # noqa: S311


def crafted_kinds() -> tuple[Kind, ...]:
    """The kind of tries with crafted files."""
    cases = [(name, craft, call) for name, (craft, calls) in CRAFTED.items() for call in calls]
    return (enumerated("crafted files", cases, _make, weight=8),)
