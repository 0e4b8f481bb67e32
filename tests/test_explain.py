"""A placement as table and pictures, and `keras-qat explain`."""

import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_qat import Overrides, Rule, explain, plan, quantize, trace
from keras_qat.cli.program import app, run_program
from keras_qat.errors import UserError
from keras_qat.placement import Flowing, Picture, load_placement, picture, save_placement, why_nothing
from keras_qat.types import Placement, QuantizedTensor, QuantSpec, TensorRange

layers = keras.layers
Program = Callable[..., tuple[int, str, str]]


def small_model() -> keras.Model:
    """Image, pad, conv + batch norm + ReLU, and a residual Add of the ReLU and a second convolution."""
    x = image = keras.Input((8, 8, 3), name="image")
    x = layers.ZeroPadding2D(1, name="pad")(x)
    x = layers.Conv2D(4, 3, name="conv_a")(x)
    x = layers.BatchNormalization(name="bn")(x)
    x = relu = layers.ReLU(name="relu")(x)
    x = layers.Conv2D(4, 1, name="conv_b")(x)
    return keras.Model(image, layers.Add(name="add")([relu, x]))


@pytest.fixture(scope="module")
def placement() -> Placement:
    return plan(trace(small_model()).graph, "tensorrt")


@pytest.fixture
def ranges() -> dict[str, TensorRange]:
    """Scales 1/127 and 0.05."""
    return {"image": TensorRange(1.0, "mse", 8), "relu": TensorRange(6.35, "mse", 8)}


@pytest.fixture
def program(capfd: pytest.CaptureFixture[str]) -> Program:
    """Run `keras-qat explain …`: (exit code, standard output, standard error)."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run_program(["explain", *arguments], app)
        captured = capfd.readouterr()
        return code, captured.out, " ".join(captured.err.split())

    return call


def arrows(drawn: Picture) -> set[tuple[str, str, Flowing]]:
    """Each arrow as (first line of its source, first line of its sink, what flows)."""
    first = {box.key: box.lines[0] for box in drawn.boxes}
    return {(first[arrow.source], first[arrow.sink], arrow.flowing) for arrow in drawn.arrows}


# --- the picture, by hand ---------------------------------------------------------------------------------------------


def test_boxes_are_kernels_pairs_and_the_output(placement: Placement) -> None:
    drawn = picture(placement, None)
    assert [box.lines for box in drawn.boxes] == [
        ("image (input)",),
        ("pad (zero pad)",),
        ("conv_a (conv)", "bn (batch norm)", "relu (relu)", "int8 weights"),
        ("conv_b (conv)", "int8 weights"),
        ("add (add)",),
        ("int8 zero-point 0",),
        ("int8 zero-point 0",),
        ("output",),
    ]
    assert [box.key for box in drawn.boxes if box.pair] == ["q0", "q1"]


def test_arrows_say_what_flows(placement: Placement) -> None:
    """Two pairs; the padded image is on the grid too; conv_b is added in its own kernel; nothing inside a kernel."""
    pair = "int8 zero-point 0"
    assert arrows(picture(placement, None)) == {
        ("image (input)", pair, Flowing.QUANTIZED),
        (pair, "pad (zero pad)", Flowing.QUANTIZED),
        ("pad (zero pad)", "conv_a (conv)", Flowing.QUANTIZED),
        ("conv_a (conv)", pair, Flowing.QUANTIZED),
        (pair, "conv_b (conv)", Flowing.QUANTIZED),
        (pair, "add (add)", Flowing.QUANTIZED),
        ("conv_b (conv)", "add (add)", Flowing.FLOAT),
        ("add (add)", "output", Flowing.FLOAT),
    }


def test_float_weights_and_shared_ranges_are_seen() -> None:
    x = image = keras.Input((8, 8, 3), name="image")
    x = layers.MaxPooling2D(2, name="max_pool")(layers.ReLU(name="relu")(layers.Conv2D(4, 1, name="conv")(x)))
    graph = trace(keras.Model(image, layers.Conv2D(2, 1, name="last")(x))).graph
    overrides = Overrides((Rule("last", weights=False), Rule("conv", weight_bits=4)))
    drawn = picture(plan(graph, "onnxruntime", overrides=overrides), None)
    lines = {box.lines[0]: box for box in drawn.boxes}
    assert lines["last (conv)"].lines[-1] == "float weights"
    assert not lines["last (conv)"].integer
    assert lines["conv (conv)"].lines[-1] == "int4 weights"
    assert "Q/DQ of max_pool, with the range of relu" in [box.tooltip for box in drawn.boxes]


def test_second_output_of_a_layer_has_its_maker() -> None:
    image = keras.Input((4, 4, 4), name="image")
    left, right = keras.ops.moments(image, axes=[1, 2], keepdims=True)
    graph = trace(keras.Model(image, [layers.Conv2D(2, 1, name="l")(left), layers.Conv2D(2, 1, name="r")(right)])).graph
    drawn = picture(plan(graph, "tensorrt"), None)
    assert len([box for box in drawn.boxes if box.pair]) == 2
    assert sum(box.lines[0].startswith("moments") for box in drawn.boxes) == 1


# --- as text ----------------------------------------------------------------------------------------------------------


def test_dot_has_every_box_and_arrow(placement: Placement, ranges: dict[str, TensorRange]) -> None:
    text = explain(placement, format="dot", ranges=ranges)
    drawn = picture(placement, ranges)
    assert len(re.findall(r"^  \w+ \[label=", text, re.MULTILINE)) == len(drawn.boxes)
    assert len(re.findall(r"^  \w+ -> \w+ \[", text, re.MULTILINE)) == len(drawn.arrows)
    assert text.count('color="#9e9e9e"') == 2, "grey: what flows in float"
    assert r'label="int8 zero-point 0\nscale 0.05"' in text
    assert 'tooltip="conv_b → add[1]: the addition runs inside' in text


def test_mermaid_has_every_box_and_arrow(placement: Placement, ranges: dict[str, TensorRange]) -> None:
    text = explain(placement, format="mermaid", ranges=ranges)
    drawn = picture(placement, ranges)
    assert text.startswith("flowchart TD\n")
    assert len(re.findall(r"^  \w+[(\[].*:::", text, re.MULTILINE)) == len(drawn.boxes)
    assert re.findall(r"^  (\w+) --> (\w+)$", text, re.MULTILINE) == [(a.source, a.sink) for a in drawn.arrows]
    assert '(["int8 zero-point 0<br/>scale 0.05"]):::pair' in text
    grey = next(line for line in text.splitlines() if line.endswith("stroke:#9e9e9e") and "linkStyle" in line)
    assert len(grey.split()[1].split(",")) == 2


def test_names_that_would_end_the_text_are_escaped() -> None:
    image = keras.Input((4, 4, 3), name="image")
    shared = layers.Conv2D(3, 1, name='a"b')
    graph = trace(keras.Model(image, shared(shared(image)))).graph
    placement = plan(graph, "tensorrt")
    assert '"a\\"b#2 (conv)\\nint8 weights"' in explain(placement, format="dot")
    assert '["a#quot;b#35;2 (conv)<br/>int8 weights"]' in explain(placement, format="mermaid")


def test_table_with_scales(placement: Placement, ranges: dict[str, TensorRange]) -> None:
    lines = explain(placement, ranges=ranges).splitlines()
    assert lines[0] == "| from → to | type | scale | reason |"
    assert "| relu → conv_b[0] | int8 zero-point 0 | 0.05 |" in "\n".join(lines)
    assert "| image → pad[0] | int8 zero-point 0 | 0.007874 |" in "\n".join(lines)
    assert {line.replace("\\|", "").count("|") for line in lines} == {5}


def test_a_reason_of_the_user_stays_in_its_cell(placement: Placement) -> None:
    edge = placement.edges[0]
    placement = Placement("tensorrt", (), (type(edge)("a", "b", 0, quantized=False, reason="one | two\nthree"),), ())
    assert explain(placement).splitlines()[-1] == r"| a → b[0] | float | one \| two three |"


def test_unknown_format(placement: Placement) -> None:
    with pytest.raises(UserError, match=r"Received: format='svg'.*table, mermaid, dot"):
        explain(placement, format="svg")  # type: ignore[arg-type]


@pytest.mark.parametrize("form", ["table", "mermaid", "dot"])
def test_ranges_of_another_placement(placement: Placement, form: str) -> None:
    with pytest.raises(UserError, match="none of 'relu'"):
        explain(placement, format=form, ranges={"image": TensorRange(1.0, "mse", 8)})  # type: ignore[arg-type]


# --- the command ------------------------------------------------------------------------------------------------------


def test_command_prints_the_table_of_a_model_file(program: Program, tmp_path: Path, placement: Placement) -> None:
    small_model().save(tmp_path / "small.keras")
    code, out, _ = program("--model", str(tmp_path / "small.keras"), "--target", "tensorrt")
    assert (code, out) == (0, explain(placement) + "\n")


def test_command_with_everything(
    program: Program, tmp_path: Path, placement: Placement, ranges: dict[str, TensorRange]
) -> None:
    small_model().save(tmp_path / "small.keras")
    overrides = Overrides((Rule("add", inputs=(0,)),))
    overrides.save(tmp_path / "overrides.json")
    (tmp_path / "ranges.json").write_text(json.dumps({name: asdict(r) for name, r in ranges.items()}))
    code, out, _ = program(
        *("--model", str(tmp_path / "small.keras"), "--target", "tensorrt", "--format", "dot"),
        *("--overrides", str(tmp_path / "overrides.json"), "--ranges", str(tmp_path / "ranges.json")),
        *("--output", str(tmp_path / "made" / "small.dot")),
    )
    assert (code, out) == (0, "")
    expected = plan(trace(small_model()).graph, "tensorrt", overrides=overrides)
    assert (tmp_path / "made" / "small.dot").read_text(encoding="utf-8") == (
        explain(expected, format="dot", ranges=ranges) + "\n"
    )
    assert expected.quantized_edges == placement.quantized_edges
    assert "rule 1, 'add'" in explain(expected)


def test_command_knows_the_zoo(program: Program, tiny_network: str) -> None:
    code, out, _ = program(tiny_network, "--format", "mermaid")
    assert code == 0
    assert program("--model", tiny_network, "--format", "mermaid") == (code, out, "")
    assert "stem_conv (conv)<br/>stem_bn (batch norm)<br/>stem_relu (relu)<br/>int8 weights" in out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--model", "resnet51"], "Did you mean 'resnet50'"),
        (["--model", "none.keras"], "no such model file"),
        (["--model", "{folder}/text.keras"], "can't be read as a Keras model"),
        (["--target", "tpu"], "Received: 'tpu'"),
        (["--format", "svg"], "svg"),
        (["--model", "tinyresnet", "--overrides", "none.json"], "Can't read none.json"),
        (["--model", "tinyresnet", "--overrides", "{folder}/text.keras"], "isn't JSON"),
        (["--model", "tinyresnet", "--overrides", "{folder}/typo.json"], "Did you mean 'stem_conv'"),
        (["--model", "tinyresnet", "--ranges", "{folder}/text.keras"], "isn't JSON"),
        (["--model", "tinyresnet", "--ranges", "{folder}/typo.json"], "doesn't hold ranges"),
        (["--model", "tinyresnet", "--ranges", "{folder}/empty.json"], "have no range"),
        (["--model", "tinyresnet", "--output", "{folder}/text.keras/table.md"], "Can't write"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes_exit_with_2(
    program: Program, tmp_path: Path, tiny_network: str, arguments: list[str], part: str
) -> None:
    assert tiny_network == "tinyresnet"
    (tmp_path / "text.keras").write_text("not a model")
    (tmp_path / "typo.json").write_text('{"rules": [{"select": "stem_cnov", "inputs": false}]}')
    (tmp_path / "empty.json").write_text("{}")
    code, _, message = program(*(argument.replace("{folder}", str(tmp_path)) for argument in arguments))
    assert code == 2
    assert part in message
    assert message.count("error:") == 1
    assert "Traceback" not in message


@pytest.mark.parametrize("lost", ["kernels", "joined"])
def test_a_placement_file_without_a_part_is_refused(tmp_path: Path, lost: str) -> None:
    """Such a part has a default in Python, but every file has it: a file without it is damaged."""
    spec = QuantSpec(8, signed=True, narrow=False)
    path = tmp_path / "placement.json"
    save_placement(Placement("tensorrt", (QuantizedTensor("conv", spec, "conv"),), (), ()), path)
    value = json.loads(path.read_text())
    (value if lost == "kernels" else value["tensors"][0]).pop(lost)
    path.write_text(json.dumps(value))
    with pytest.raises(UserError, match=rf"doesn't hold a placement: `{lost}` is missing"):
        load_placement(path)


def test_a_placement_that_quantizes_nothing_says_why(caplog: pytest.LogCaptureFixture) -> None:
    image = keras.Input((4, 4, 3), name="image")
    softmax = keras.layers.Softmax(name="soft")(keras.layers.Flatten(name="flat")(image))
    model = keras.Model(image, softmax)
    with caplog.at_level("WARNING", "keras_qat"):
        quantize(model, np.ones((2, 4, 4, 3), "float32") * np.arange(2)[:, None, None, None], "tensorrt")
    (text,) = [record.getMessage() for record in caplog.records if "Nothing is quantized" in record.getMessage()]
    assert text.startswith("Nothing is quantized for tensorrt: 0 Q/DQ pairs, 0 kernels. ")
    assert "soft: " in text
    quantized = keras.Model(image, keras.layers.Conv2D(2, 3)(image))
    assert why_nothing(plan(trace(quantized).graph, "tensorrt")) is None
