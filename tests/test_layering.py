"""The import order of docs/architecture.md: each stage knows only the stages before it."""

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
        "types errors _version _backend",
        "file_system sizes",
        "storage progress cpu seeds scores paths data_names",
        "graph targets",
        "placement",
        "layers",
        "transform",
        "calibration training",
        "export",
        "runtimes",
        "evaluation",
        "report doctor",
        "gates",
        "settings model_facts model_file own_model quantization stages",
        "run_folder",
        "baseline judging ptq evaluate_file",
        "qat start",
        "saved_run results",
        "pipeline verify_files",
        "export_file",
        "cli",
        "__init__",
    )
)
"""From the bottom up: a part imports only from lower rungs, and never from its neighbours on its own."""

ASIDE: Mapping[str, frozenset[str]] = {
    "data": frozenset({"types", "errors", "file_system", "storage", "progress", "data_names"}),
    "zoo": frozenset({"types", "errors", "storage", "paths", "data"}),
}
"""Parts beside the ladder, and all that they may import."""

USES_ASIDE = frozenset(
    {
        *("settings", "model_facts", "own_model"),
        *("baseline", "start", "judging", "ptq", "evaluate_file", "qat"),
        *("saved_run", "results", "pipeline", "verify_files", "export_file", "cli", "__init__"),
    }
)
"""The stages take arrays and models, whoever made them; only what joins the stages knows `data` and `zoo`."""


def allowed(part: str) -> frozenset[str]:
    """All the parts that `part` may import."""
    if part in ASIDE:
        return ASIDE[part]
    rung = next(i for i, names in enumerate(ORDER) if part in names)
    lower = frozenset().union(*ORDER[:rung])
    return lower | frozenset(ASIDE) if part in USES_ASIDE else lower


def part_of(module: str) -> str:
    """The part of a dotted module: `keras_qat.graph.trace` → `graph`; the package itself → `__init__`."""
    return [*module.split("."), "__init__"][1]


def imported_parts(source: str, module: str) -> set[str]:
    """The parts that a module imports anywhere in its text, within functions too."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*module.split(".")[: -node.level], *filter(None, [node.module])])
            # `from keras_qat import graph` means the part, not the package.
            names = [f"{PACKAGE}.{alias.name}" for alias in node.names] if base == PACKAGE else [base]
        else:
            continue
        found.update(part_of(name) for name in names if name.split(".")[0] == PACKAGE)
    known = frozenset().union(*ORDER, ASIDE)
    return {part if part in known else "__init__" for part in found}


def violations(sources: Mapping[str, str]) -> list[str]:
    """What breaks the order in `sources`, a text for each dotted module."""
    found = []
    for module, source in sorted(sources.items()):
        part = part_of(module)
        wrong = imported_parts(source, module) - allowed(part) - {part}
        found += [f"{module} imports {name}" for name in sorted(wrong)]
    return found


def package_sources() -> dict[str, str]:
    sources = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE).with_suffix("").parts
        sources[".".join((PACKAGE, *parts))] = path.read_text(encoding="utf-8")
    return sources


def test_each_stage_imports_only_earlier_stages() -> None:
    assert violations(package_sources()) == []


def test_every_part_has_its_place() -> None:
    """A new package must be put on a rung, else the order says nothing about it."""
    assert {part_of(module) for module in package_sources()} == frozenset().union(*ORDER, ASIDE)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("graph.trace", "from keras_qat.placement import plan"),
        ("graph.trace", "def late():\n    from keras_qat.layers.registry import quantized_layer"),
        ("placement.plan", "import keras_qat.transform.apply as apply"),
        ("placement.plan", "from keras_qat import transform"),
        ("graph.trace", "from keras_qat.targets import Target"),
        ("graph.trace", "from ..placement import plan"),
        ("graph.trace", "from .. import placement"),
        ("layers.registry", "from keras_qat import apply_placement"),
        ("training.fine_tune", "from keras_qat.calibration import calibrate"),
        ("calibration.calibrate", "from keras_qat.data import ImageSet"),
        ("data.load", "from keras_qat.graph import trace"),
        ("data.load", "from keras_qat.zoo import find"),
        ("zoo.build", "from keras_qat.progress import track"),
        ("types", "from keras_qat.errors import UserError"),
    ],
)
def test_the_guard_sees_a_violation(module: str, source: str) -> None:
    assert len(violations({f"{PACKAGE}.{module}": source})) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("graph.trace", "import keras\nfrom keras_qat.types import OpKind\nfrom keras_qat.graph.facts import Node"),
        ("graph.trace", "from . import facts\nfrom ..errors import UserError"),
        ("layers.fake_quantize", "from keras_qat.graph import register_kind"),
        ("calibration.probe", "from keras_qat.transform import rebuild"),
        ("zoo.build", "from keras_qat.data import Preprocessing"),
        ("pipeline", "from keras_qat.data import ImageSet\nfrom keras_qat.baseline import float_model"),
        ("graph.trace", "import keras_qat_other"),
    ],
)
def test_the_guard_lets_the_order_pass(module: str, source: str) -> None:
    assert violations({f"{PACKAGE}.{module}": source}) == []


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
