"""The tables: every rule has a reason and a source, and docs/targets.md shows them as they are."""

from pathlib import Path

import pytest

from keras_qat.targets import describe_target, find_target

TARGETS = ("onnxruntime", "openvino", "tensorrt")
PAGE = Path(__file__).resolve().parents[1] / "docs" / "targets.md"


@pytest.mark.parametrize("name", TARGETS)
def test_every_rule_says_why_and_where_that_is_known_from(name: str) -> None:
    for kind, rule in find_target(name).rules.items():
        assert rule.because, kind
        assert "https://" in rule.source or "benchmarks/" in rule.source, kind


@pytest.mark.parametrize("name", TARGETS)
def test_page_shows_the_table(name: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert f"## {name}\n\n{describe_target(find_target(name))}\n" in page, "paste describe_target(…) anew"
