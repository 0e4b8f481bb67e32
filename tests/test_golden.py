"""The placements of the six ResNets are those that were read by hand; `make golden` writes them anew."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("regenerate", Path(__file__).parent / "golden" / "regenerate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden = _load()


@pytest.mark.parametrize("target", golden.TARGETS)
@pytest.mark.parametrize("model", golden.MODELS)
def test_placement_is_the_one_that_was_read(model: str, target: str) -> None:
    kept = golden.golden_path(model, target).read_text(encoding="utf-8")
    assert golden.golden_text(model, target) == kept, "read the difference, then run `make golden`"


@pytest.mark.parametrize("target", golden.TARGETS)
def test_depth_adds_blocks_and_nothing_else(target: str) -> None:
    """By the architecture: a block more is three convolutions and one Add more, in the same pattern."""

    def counts(model: str) -> tuple[int, int, int]:
        title = golden.golden_path(model, target).read_text(encoding="utf-8").splitlines()[0]
        pairs, edges, kernels = (int(word) for word in title.split(": ")[1].replace(",", "").split() if word.isdigit())
        return pairs, edges, kernels

    # Each inner block has three pairs of its own; where the Add's other branch is quantized too, one more.
    more = 1 if target == "onnxruntime" else 0
    for version in ("", "v2"):
        # In V2 a batch norm opens the block, which reads the block's input quantized.
        opening = 1 if version else 0
        shallow = counts(f"resnet50{version}")
        for model, blocks in (("resnet101", 17), ("resnet152", 34)):
            deep = counts(f"{model}{version}")
            grown = tuple(b - a for a, b in zip(shallow, deep, strict=True))
            assert grown == (
                blocks * (3 + opening + more),
                blocks * (4 + opening + more),
                blocks * 3,
            )
