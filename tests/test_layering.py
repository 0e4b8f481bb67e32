"""The import order of docs/architecture.md: each package knows only those below it, and each by its face."""

import ast
from collections.abc import Mapping
from pathlib import Path

import pytest

import keras_qat

PACKAGE = "keras_qat"
SOURCE = Path(keras_qat.__file__).parent

ORDER: tuple[frozenset[str], ...] = tuple(
    frozenset(rung.split())
    for rung in (
        "types errors text _version",
        "files progress machine",
        "graph targets",
        "placement feed",
        "layers",
        "transform onnx",
        "calibration training",
        "runtimes",
        "evaluation",
        "verify doctor",
        "export report",
        "run",
        "cli",
        "__init__",
    )
)
"""From the bottom up: a package imports only from lower rungs, and never from its neighbours."""

ASIDE: Mapping[str, frozenset[str]] = {
    "data": frozenset({"types", "errors", "files", "progress", "text", "machine"}),
    "models": frozenset({"types", "errors", "files", "progress", "text", "data", "graph", "layers", "onnx"}),
}
"""Packages beside the ladder, and all that each may import."""

USES_ASIDE = frozenset({"evaluation", "verify", "export", "run", "cli", "__init__"})
"""The stages take arrays and models, whoever made them; only what joins the stages knows `data` and `models`."""


def allowed(part: str) -> frozenset[str]:
    """All the packages that `part` may import."""
    if part in ASIDE:
        return ASIDE[part]
    rung = next(i for i, names in enumerate(ORDER) if part in names)
    lower = frozenset().union(*ORDER[:rung])
    return lower | frozenset(ASIDE) if part in USES_ASIDE else lower


def part_of(module: str) -> str:
    """The package of a dotted module: `keras_qat.graph.read` → `graph`; the root itself → `__init__`."""
    return [*module.split("."), "__init__"][1]


def imported_modules(source: str, module: str) -> set[str]:
    """The dotted modules of this project that a module imports anywhere in its text, within functions too."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*module.split(".")[: -node.level], *filter(None, [node.module])])
            # `from keras_qat import graph` means the package `graph`, not the root.
            names.update(f"{PACKAGE}.{alias.name}" for alias in node.names) if base == PACKAGE else names.add(base)
    return {name for name in names if name.split(".")[0] == PACKAGE}


def imported_parts(source: str, module: str) -> set[str]:
    """The packages that a module imports."""
    known = frozenset().union(*ORDER, ASIDE)
    parts = {part_of(name) for name in imported_modules(source, module)}
    return {part if part in known else "__init__" for part in parts}


def violations(sources: Mapping[str, str]) -> list[str]:
    """What breaks the order in `sources`, a text for each dotted module."""
    found = []
    for module, source in sorted(sources.items()):
        part = part_of(module)
        wrong = imported_parts(source, module) - allowed(part) - {part}
        found += [f"{module} imports {name}" for name in sorted(wrong)]
    return found


def past_a_face(sources: Mapping[str, str]) -> list[str]:
    """The imports of a module inside another package, in place of the package itself."""
    return [
        f"{module} imports {name}"
        for module, source in sorted(sources.items())
        for name in sorted(imported_modules(source, module))
        if name.count(".") > 1 and part_of(name) != part_of(module)
    ]


def package_sources() -> dict[str, str]:
    sources = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        sources[".".join((PACKAGE, *parts))] = path.read_text(encoding="utf-8")
    return sources


def exported(stub: Path) -> Mapping[str, str]:
    """The names of a package's face and the module of each, as its stub says."""
    nodes = ast.parse(stub.read_text(encoding="utf-8")).body
    return {alias.name: node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_each_package_imports_only_lower_ones() -> None:
    assert violations(package_sources()) == []


def test_packages_know_each_other_by_their_faces() -> None:
    assert past_a_face(package_sources()) == []


def test_every_package_has_its_place() -> None:
    """A new package must be put on a rung, else the order says nothing about it."""
    assert {part_of(module) for module in package_sources()} == frozenset().union(*ORDER, ASIDE)


@pytest.mark.parametrize("stub", sorted(SOURCE.rglob("__init__.pyi")), ids=lambda stub: stub.parent.name)
def test_a_face_gives_what_it_lists(stub: Path) -> None:
    """A name that is also a module's would be the module once somebody has imported that."""
    package = ".".join((PACKAGE, *stub.parent.relative_to(SOURCE).parts))
    face = __import__(package, fromlist=["__all__"])
    names = exported(stub)
    assert set(face.__all__) == set(names)
    assert not {name for name in names if (stub.parent / f"{name}.py").exists() or (stub.parent / name).is_dir()}
    for name, module in names.items():
        assert getattr(face, name) is getattr(__import__(f"{package}.{module}", fromlist=[name]), name)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("graph.read", "from keras_qat.placement import plan"),
        ("graph.read", "def late():\n    from keras_qat.layers.quantized import quantized_layer"),
        ("placement.planning", "import keras_qat.transform.apply as apply"),
        ("placement.planning", "from keras_qat import transform"),
        ("graph.read", "from keras_qat.targets import Target"),
        ("graph.read", "from ..placement import plan"),
        ("graph.read", "from .. import placement"),
        ("layers.quantized", "from keras_qat import apply_placement"),
        ("training.fine_tuning", "from keras_qat.calibration import calibrate"),
        ("calibration.measure", "from keras_qat.data import ImageSet"),
        ("data.load", "from keras_qat.graph import trace"),
        ("data.load", "from keras_qat.models import find"),
        ("models.zoo", "from keras_qat.runtimes import open_runtime"),
        ("onnx.reader", "from keras_qat.models import read_model_facts"),
        ("onnx.reader", "from keras_qat.runtimes import open_runtime"),
        ("types", "from keras_qat.files import read_text"),
    ],
)
def test_the_guard_sees_a_violation(module: str, source: str) -> None:
    assert len(violations({f"{PACKAGE}.{module}": source})) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("graph.read", "import keras\nfrom keras_qat.types import OpKind\nfrom keras_qat.graph.facts import Node"),
        ("graph.read", "from . import facts\nfrom ..errors import UserError"),
        ("layers.quantized", "from keras_qat.graph import register_kind"),
        ("calibration.measure", "from keras_qat.transform import rebuild"),
        ("models.zoo", "from keras_qat.data import Preprocessing"),
        ("models.file_facts", "from keras_qat.onnx import read_onnx_file"),
        ("runtimes.openvino_runtime", "from keras_qat.onnx import read_onnx_file"),
        ("run.pipeline", "from keras_qat.data import ImageSet\nfrom keras_qat.run.start import open_start"),
        ("graph.read", "import keras_qat_other"),
    ],
)
def test_the_guard_lets_the_order_pass(module: str, source: str) -> None:
    assert violations({f"{PACKAGE}.{module}": source}) == []


def test_the_guard_sees_an_import_past_a_face() -> None:
    source = "from keras_qat.placement import plan\nfrom keras_qat.placement.planning import plan"
    assert past_a_face({f"{PACKAGE}.run.pipeline": source}) == [
        "keras_qat.run.pipeline imports keras_qat.placement.planning"
    ]
    assert past_a_face({f"{PACKAGE}.placement.edges": source}) == []


@pytest.mark.parametrize("part", ["types", "errors"])
def test_vocabulary_imports_no_framework(part: str) -> None:
    tree = ast.parse((SOURCE / f"{part}.py").read_text(encoding="utf-8"))
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    assert not names & {"keras", "tensorflow", "numpy", "onnx", "onnx_ir", "onnxruntime"}
