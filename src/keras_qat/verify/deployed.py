"""An ONNX file read back in the placement's terms: which Keras nodes read which, and through which Q/DQ pairs."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from keras_qat.errors import StorageError
from keras_qat.graph import OUTPUT
from keras_qat.onnx import PAIR, PRECISION_KEY, OnnxFile, is_constant, is_helper, keras_nodes, read_onnx_file, upstream

FILE = "the file"
"""The layer of a mismatch that belongs to no layer."""


@dataclass(frozen=True)
class Mismatch:
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
class Read:
    """One tensor that flows from one ONNX node to another.

    Args:
        sources: the Keras nodes that the producing ONNX node stands for.
        consumers: those that the reading node stands for; `("/output",)` where the tensor leaves the model.
        pairs: the DequantizeLinear nodes between the two, from the consumer upwards.
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
        content: the file itself.
        merged: for each Keras node that the file has, all that share an ONNX node with it, itself included.
        reads: every tensor that flows between nodes, in the order of the file.
    """

    content: OnnxFile
    merged: Mapping[str, frozenset[str]]
    reads: tuple[Read, ...]

    @property
    def nodes(self) -> tuple[ir.Node, ...]:
        """All ONNX nodes, in the order of the file."""
        return tuple(self.content.model.graph)


def read_deployed(path: str | Path) -> DeployedFile:
    """Read a file that `export_onnx` wrote.

    Args:
        path: the file.

    Raises:
        StorageError: If the file can't be read, or does not say which Keras nodes it is made of.
    """
    content = read_onnx_file(path)
    graph = content.model.graph
    if PRECISION_KEY not in content.metadata:
        raise StorageError(
            f"The file doesn't say which Keras layers it is made of. Received: {str(path)!r}, with "
            f"{len(graph)} nodes and without the metadata of keras-qat. Export it with this version of keras-qat."
        )
    return DeployedFile(content, _merged(graph), tuple(_reads(graph)))


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
        if _passes_on(node) or names == (OUTPUT,):
            continue
        for value in node.inputs:
            if value is not None and not is_constant(value, _dequantizes):
                sources, pairs = _origin(value, through_output=False)
                yield Read(sources, names, pairs, str(node.name))
    for value in graph.outputs:
        sources, pairs = _origin(value, through_output=True)
        yield Read(sources, (OUTPUT,), pairs, str(value.name))


def _origin(value: ir.Value, *, through_output: bool) -> tuple[tuple[str, ...], tuple[ir.Node, ...]]:
    """The Keras nodes that compute a tensor, and the DequantizeLinear nodes on the way."""

    def through(node: ir.Node) -> bool:
        return _passes_on(node) or (through_output and keras_nodes(node) == (OUTPUT,))

    *passed, first = upstream(value, through)
    makers = [tensor.producer() for tensor in passed]
    maker = first.producer()
    sources = (str(first.name),) if maker is None else keras_nodes(maker)
    return sources, tuple(node for node in makers if node is not None and _dequantizes(node))


def _passes_on(node: ir.Node) -> bool:
    return node.op_type in PAIR or is_helper(node)


def _dequantizes(node: ir.Node) -> bool:
    return node.op_type == "DequantizeLinear"
