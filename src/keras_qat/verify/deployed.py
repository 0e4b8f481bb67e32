"""What verification found: a frozen value.

An ONNX file read back in the placement's terms: which Keras nodes read which, and through which Q/DQ pairs.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from keras_qat.errors import StorageError
from keras_qat.graph import OUTPUT
from keras_qat.onnx import is_helper, keras_nodes

FILE = "the file"
"""The layer of a finding that belongs to no layer."""


@dataclass(frozen=True)
class Finding:
    """One place where a file is not as was planned.

    Args:
        layer: the Keras node where it shows, or `"the file"`.
        problem: what is wrong there.
    """

    layer: str
    problem: str

    def __str__(self) -> str:
        """One line for a reader."""
        return f"{self.layer}: {self.problem}"


@dataclass(frozen=True)
class FileVerification:
    """The result for one file.

    Args:
        path: the file.
        edges: how many edges of the placement it was held to.
        findings: what is wrong, the first layer of the network first; empty for a right file.
    """

    path: Path
    edges: int
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether the file is as was planned."""
        return not self.findings


PAIR = frozenset({"QuantizeLinear", "DequantizeLinear"})


@dataclass(frozen=True)
class Read:
    """One tensor that flows from one ONNX node to another.

    Args:
        sources: the Keras nodes that the node which makes it stands for.
        consumers: those of the node that reads it; `("/output",)` where it leaves the model.
        pairs: the DequantizeLinear nodes that it passes, from the consumer upwards.
        where: name of the ONNX node that reads it.
    """

    sources: tuple[str, ...]
    consumers: tuple[str, ...]
    pairs: tuple[ir.Node, ...]
    where: str

    @property
    def inside(self) -> bool:
        """Whether it stays within one Keras node, as from the Sigmoid to the Mul of a SiLU."""
        return not set(self.sources).isdisjoint(self.consumers)


@dataclass(frozen=True)
class DeployedFile:
    """A file in the placement's terms.

    Args:
        model: the file itself.
        merged: for each Keras node that the file has, all that share an ONNX node with it, itself included.
        reads: every tensor that flows between nodes, in the order of the file.
    """

    model: ir.Model
    merged: Mapping[str, frozenset[str]]
    reads: tuple[Read, ...]


def read_deployed(path: str | Path) -> DeployedFile:
    """Read a file that `export_onnx` wrote.

    Raises:
        StorageError: the file is missing, no ONNX file, or doesn't say which Keras nodes it is made of.
    """
    try:
        model = ir.load(path)
    except Exception as error:
        # The protobuf reader's exceptions have no public base class.
        raise StorageError(f"Can't read the ONNX file. Received: {str(path)!r}: {error}. Export it again.") from error
    if not any(keras_nodes(node) for node in model.graph):
        raise StorageError(
            f"The file doesn't say which Keras layers it is made of. Received: {str(path)!r}, with "
            f"{len(model.graph)} nodes and no `keras_qat.nodes`. Export it with this version of keras-qat."
        )
    return DeployedFile(model, _merged(model.graph), tuple(_reads(model.graph)))


def constant(value: ir.Value | None) -> bool:
    """Whether a value is stored in the file."""
    return value is not None and value.const_value is not None


def _merged(graph: ir.Graph) -> dict[str, frozenset[str]]:
    merged: dict[str, frozenset[str]] = defaultdict(frozenset)
    for value in graph.inputs:
        merged[str(value.name)] |= {str(value.name)}
    for node in graph:
        if node.op_type not in PAIR:
            names = keras_nodes(node)
            for name in names:
                merged[name] |= set(names)
    return dict(merged)


def _reads(graph: ir.Graph) -> Iterator[Read]:
    for node in graph:
        names = keras_nodes(node)
        if node.op_type in PAIR or is_helper(node) or names == (OUTPUT,):
            continue
        for value in node.inputs:
            if value is not None and not _stored(value):
                sources, pairs = _upwards(value, through_output=False)
                yield Read(sources, names, pairs, str(node.name))
    for value in graph.outputs:
        sources, pairs = _upwards(value, through_output=True)
        yield Read(sources, (OUTPUT,), pairs, str(value.name))


def _stored(value: ir.Value) -> bool:
    """Whether a value is a constant, as it is or behind a DequantizeLinear."""
    node = value.producer()
    return constant(value) or (node is not None and node.op_type == "DequantizeLinear" and constant(node.inputs[0]))


def _upwards(value: ir.Value, *, through_output: bool) -> tuple[tuple[str, ...], tuple[ir.Node, ...]]:
    """The Keras nodes that make a tensor, and the pairs on the way."""
    pairs: tuple[ir.Node, ...] = ()
    while True:
        node = value.producer()
        if node is None:
            return (str(value.name),), pairs
        passed = node.op_type in PAIR or is_helper(node) or (through_output and keras_nodes(node) == (OUTPUT,))
        above = node.inputs[0] if passed else None
        if above is None:
            return keras_nodes(node), pairs
        pairs = (*pairs, node) if node.op_type == "DequantizeLinear" else pairs
        value = above
