"""Write the golden placements anew: `make golden`. Read the difference before you commit it.

One line for each edge (`-` where it stays float), then one for each kernel.
"""

from functools import cache
from pathlib import Path

import keras

from keras_qat import Placement, QuantSpec, plan, trace
from keras_qat.graph import Graph
from keras_qat.models import build_model, find

FOLDER = Path(__file__).parent
MODELS = ("resnet50", "resnet101", "resnet152", "resnet50v2", "resnet101v2", "resnet152v2")
TARGETS = ("tensorrt", "onnxruntime", "openvino")


def golden_path(model: str, target: str) -> Path:
    """Where a placement is kept."""
    return FOLDER / f"{model}-{target}.txt"


def golden_text(model: str, target: str) -> str:
    """The placement of a network of the zoo, as it is kept."""
    return render(plan(_graph(model), target), title=f"{model} for {target}")


@cache
def _graph(model: str) -> Graph:
    keras.backend.clear_session()  # layers without a name are numbered from the start
    return trace(build_model(find(model), weights=None, num_classes=10, size=32)).graph


def render(placement: Placement, title: str) -> str:
    """A placement as text."""
    tensors = {t.tensor: t for t in placement.tensors}
    counts = f"{len(tensors)} pairs on {len(placement.quantized_edges)} edges, {len(placement.weights)} kernels"
    lines = [f"{title}: {counts}"]
    for edge in placement.edges:
        kind = "-"
        if edge.quantized:
            tensor = tensors[edge.tensor]
            shared = "" if tensor.range_of == tensor.tensor else f", range of {tensor.range_of}"
            kind = f"{_integers(tensor.spec)}{shared}"
        lines.append(f"{edge.tensor} → {edge.consumer}[{edge.index}]: {kind}")
    lines += [f"kernel of {w.layer}: {'-' if w.spec is None else _integers(w.spec)}" for w in placement.weights]
    return "\n".join(lines) + "\n"


def _integers(spec: QuantSpec) -> str:
    channel = "" if spec.axis is None else f" per axis {spec.axis}"
    return f"{spec.storage} zero {spec.zero_point} [{spec.q_min}, {spec.q_max}]{channel}"


if __name__ == "__main__":
    for one in MODELS:
        for engine in TARGETS:
            golden_path(one, engine).write_text(golden_text(one, engine), encoding="utf-8")
