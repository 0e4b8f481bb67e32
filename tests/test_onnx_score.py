"""What somebody else's ONNX file shows of its single score, seen through what leaves its threshold where it is."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import parser

from keras_qat.data import Preprocessing
from keras_qat.errors import UnsupportedModelError
from keras_qat.evaluation import open_model
from keras_qat.evaluation.single_score import onnx_score

SIDE = 2
RAW = Preprocessing("raw", SIDE, SIDE, channels=1)

CONSTANTS = """
    float[1, 1] w = {-2}, float[1] b = {0.5}, int32[1] b_int32 = {50}, float b_scale = {0.01}, float s = {0.25},
    int8 z = {0}, float zero = {0}
"""


def write(path: Path, operators: str, output: str = "float[n, 1] y") -> Path:
    """A file that computes `m`, the mean of a gray image of shape (n, 1), and what the operators make of it."""
    model = parser.parse_model(
        f"""<ir_version: 8, opset_import: ["": 17]>
        foreign (float[n, {SIDE}, {SIDE}, 1] image) => ({output}) <{CONSTANTS}> {{
            m = ReduceMean <axes = [1, 2], keepdims = 0> (image)
            {operators}
        }}"""
    )
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


LOGITS = {
    "a bias behind": "h = MatMul(m, w) y = Add(h, b)",
    "a bias before": "h = MatMul(m, w) y = Add(b, h)",
    "of a Gemm": "h = Gemm(m, w) y = Add(h, b)",
    "a quantized bias": "c = DequantizeLinear(b_int32, b_scale) h = MatMul(m, w) y = Add(h, c)",
    "a bias in a node": "c = Constant <value_floats: floats = [0.5]> () h = MatMul(m, w) y = Add(h, c)",
    "quantized on the way": """h = MatMul(m, w) q = QuantizeLinear(h, s, z) d = DequantizeLinear(q, s, z)
                               y = Add(d, b)""",
    "quantized at the end": """h = MatMul(m, w) a = Add(h, b) q = QuantizeLinear(a, s, z)
                               y = DequantizeLinear(q, s, z)""",
}

PROBABILITIES = {
    "quantized": "h = MatMul(m, w) p = Sigmoid(h) q = QuantizeLinear(p, s, z) y = DequantizeLinear(q, s, z)",
    "a mean": "k = Mul(image, s) p = Sigmoid(k) y = ReduceMean <axes = [1, 2], keepdims = 0> (p)",
    "a pool": """k = Transpose <perm = [0, 3, 1, 2]> (image) p = Sigmoid(k) g = GlobalAveragePool(p)
                 y = Flatten(g)""",
}

NEITHER = {
    "a sum of two probabilities": "h = MatMul(m, w) p = Sigmoid(h) r = Sigmoid(m) y = Add(p, r)",
    "a probability and a number": "h = MatMul(m, w) p = Sigmoid(h) y = Add(p, b)",
    "a logit and a probability": "h = MatMul(m, w) p = Sigmoid(m) y = Add(h, p)",
    "a probability times a number": "h = MatMul(m, w) p = Sigmoid(h) y = Mul(p, s)",
    "the image itself": "y = Identity(m)",
}


@pytest.mark.parametrize(
    ("operators", "meaning"),
    [
        pytest.param(operators, meaning, id=name)
        for meaning, cases in (("logit", LOGITS), ("probability", PROBABILITIES), (None, NEITHER))
        for name, operators in cases.items()
    ],
)
def test_the_operators_show_it(operators: str, meaning: str | None, tmp_path: Path) -> None:
    assert onnx_score(write(tmp_path / "m.onnx", operators)) == meaning


@pytest.mark.parametrize(
    "operators",
    [
        "h = MatMul(m, w) p = Sigmoid(h) y = QuantizeLinear(p, s, z)",
        "h = MatMul(m, w) p = Sigmoid(h) y = Cast <to = 3> (p)",
    ],
)
def test_integers_have_another_threshold(operators: str, tmp_path: Path) -> None:
    assert onnx_score(write(tmp_path / "m.onnx", operators, "int8[n, 1] y")) is None


def test_what_is_read_is_where_the_engine_has_its_threshold(tmp_path: Path) -> None:
    """Gray images of 0 and 1, the logit 0.5 - 2 m: the first is of the second class, in both forms."""
    images = np.stack([np.zeros((SIDE, SIDE, 1)), np.ones((SIDE, SIDE, 1))]).astype("float32")
    for operators, threshold in ((LOGITS["quantized at the end"], 0), ("p = Sigmoid(a)", 0.5)):
        whole = operators if threshold == 0 else f"h = MatMul(m, w) a = Add(h, b) {operators} y = Identity(p)"
        path = write(tmp_path / "m.onnx", whole)
        scores = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"image": images})[0]
        assert (scores[:, 0] > threshold).tolist() == [True, False]
        with open_model(path, preprocessing=RAW).runtime:
            assert onnx_score(path) == ("logit" if threshold == 0 else "probability")


def test_the_refusal_says_how_to_export(tmp_path: Path) -> None:
    path = write(tmp_path / "m.onnx", NEITHER["a sum of two probabilities"])
    with pytest.raises(
        UnsupportedModelError, match="a Sigmoid at its end, or with the MatMul, Gemm or Conv that makes"
    ):
        open_model(path, preprocessing=RAW)
