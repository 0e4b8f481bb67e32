"""Random networks of all layers: the float file is the network, and the INT8 file its simulation.

A few dozen networks; `HYPOTHESIS_PROFILE=thorough pytest tests/test_random_graphs.py` tries two thousand others.
"""

import os
import random
from pathlib import Path

import hypothesis
import keras
import pytest
from hypothesis import strategies

from file_checks import TARGETS, check_float_file, check_quantized_file, predict
from graph_parts import LEFT_OUT, drawable
from graph_strategy import Graph, draw_graph
from keras_qat import trace
from keras_qat.errors import UserError


def names_a_layer(error: UserError, model: keras.Model) -> bool:
    """Whether a refusal quotes the name of a layer or operation of the model, and says what was received."""
    nodes = trace(model).graph.nodes
    return "Received: " in str(error) and any(f"{node.name}'" in str(error) for node in nodes)


def check(graph: Graph, target: str, folder: Path, *, bias_correction: bool) -> UserError | None:
    """Check both files of a graph.

    Returns:
        The refusal, if keras-qat refuses the graph.
    """
    inputs = list(graph.inputs)
    expected = predict(graph.model, inputs)
    try:
        check_float_file(graph.model, inputs, expected, folder)
        check_quantized_file(graph.model, inputs, expected, target, folder, bias_correction=bias_correction)
    except UserError as error:
        if not names_a_layer(error, graph.model):
            raise AssertionError(f"The refusal names no layer: {error}") from error
        return error
    return None


hypothesis.settings.register_profile(
    "few",
    max_examples=24,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[hypothesis.Phase.generate],
    suppress_health_check=list(hypothesis.HealthCheck),
)
hypothesis.settings.register_profile(
    "thorough", hypothesis.settings.get_profile("few"), max_examples=2000, derandomize=False
)
_PROFILE = hypothesis.settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "few"))


def test_what_is_documented_can_be_drawn() -> None:
    """A layer or operation joins by itself. What doesn't is left out for a reason."""
    page = (Path(__file__).resolve().parents[1] / "docs" / "layers.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1].removeprefix("image.") for line in page.splitlines() if line.startswith("| `")}
    assert rows - set(drawable()) == set(LEFT_OUT) & rows


@pytest.mark.usefixtures("eagerly")
@_PROFILE
@hypothesis.given(
    rng=strategies.randoms(use_true_random=False),
    target=strategies.sampled_from(TARGETS),
    bias_correction=strategies.booleans(),
)
def test_files_of_a_random_network(
    rng: random.Random, target: str, bias_correction: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    graph = draw_graph(rng)
    hypothesis.assume(graph is not None)
    assert graph is not None
    hypothesis.note(repr(graph))
    check(graph, target, tmp_path_factory.mktemp("files"), bias_correction=bias_correction)
