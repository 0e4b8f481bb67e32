"""The placement's edges against the file's, and each Q/DQ pair against the spec of its tensor.

Placement and file are not divided alike: passes merge a padding or a batch norm into a convolution, and a dropout
leaves no node at all. An edge whose two ends were merged must be one that the plan left in float. Where the producer of
an edge left no node, the edge continues at what that producer reads, and the decisions on the way add up. Every other
edge must pass as many Q/DQ pairs in the file as in the plan.

Inputs of one node that read the same tensor are not told apart: `Add([x, x])` with a pair at one of the two must read
`x` once through a pair and once without.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from keras_qat import graph, onnx
from keras_qat.types import EdgeDecision, Placement, QuantSpec
from keras_qat.verify import deployed, structure_kernels


@dataclass(frozen=True)
class _Planned:
    """An edge of the placement in the file's terms.

    Args:
        source: the Keras node that the file has, whose result flows.
        edge: the edge where it arrives.
        tensors: the quantized tensors on the way, from the consumer upwards.
    """

    source: str
    edge: EdgeDecision
    tensors: tuple[str, ...]


def edge_mismatches(
    file: deployed.DeployedFile, placement: Placement, scales: Mapping[str, np.floating[Any]]
) -> Iterator[deployed.Mismatch]:
    """Compare every edge of the placement with the file, and every edge of the file with the placement.

    Args:
        file: from `read_deployed`.
        placement: the plan.
        scales: the scale that the file should store for each tensor, as far as it is known.
    """
    groups: dict[tuple[str, str], list[_Planned]] = defaultdict(list)
    for planned in _planned(file, placement):
        if planned.source in file.merged:
            groups[planned.source, planned.edge.consumer].append(planned)
        else:
            consumer = planned.edge.consumer
            yield deployed.Mismatch(planned.source, f"no node of the file stands for it, and {consumer!r} reads it")
    explained: set[int] = set()
    checked: set[str] = set()
    for (source, consumer), edges in groups.items():
        if source in file.merged.get(consumer, ()) and consumer != graph.OUTPUT:
            yield from _merged(edges)
            continue
        indices = [i for i, read in enumerate(file.reads) if source in read.sources and consumer in read.consumers]
        explained.update(indices)
        reads = [file.reads[i] for i in indices]
        yield from _compare_counts(edges, reads)
        for read in reads:
            yield from _compare_pairs(read, edges, placement.specs, scales, checked)
    yield from _unplanned(read for i, read in enumerate(file.reads) if i not in explained)


def _planned(file: deployed.DeployedFile, placement: Placement) -> Iterator[_Planned]:
    into: dict[str, list[EdgeDecision]] = defaultdict(list)
    for edge in placement.edges:
        into[edge.consumer].append(edge)
    for edge in placement.edges:
        if edge.consumer != graph.OUTPUT and edge.consumer not in file.merged:
            continue  # The consumer left no node: its edges are part of those behind it.
        at, tensors = edge, [edge.tensor] if edge.quantized else []
        while (source := _node_of(at.tensor, into)) not in file.merged and len(into.get(source, ())) == 1:
            (at,) = into[source]
            tensors += [at.tensor] if at.quantized else []
        yield _Planned(source, edge, tuple(tensors))


def _node_of(tensor: str, nodes: Mapping[str, Any]) -> str:
    """The node that computes a tensor: `split:1` is the second output of `split`."""
    name, _, number = tensor.rpartition(":")
    return name if name and number.isdigit() and tensor not in nodes else tensor


def _merged(edges: list[_Planned]) -> Iterator[deployed.Mismatch]:
    for planned in edges:
        if planned.tensors:
            yield deployed.Mismatch(
                planned.edge.consumer,
                f"it should read {planned.tensors[0]!r} through a Q/DQ pair; one node computes both",
            )


def _compare_counts(edges: list[_Planned], reads: list[deployed.Read]) -> Iterator[deployed.Mismatch]:
    """Compare the numbers of pairs on the way from one Keras node to another."""
    expected = {len(planned.tensors) for planned in edges}
    passed = {len(read.pairs) for read in reads}
    if expected == passed:
        return
    first = next((planned for planned in edges if len(planned.tensors) not in passed), edges[0])
    layer, tensor = first.edge.consumer, (*first.tensors, first.edge.tensor)[0]
    if not reads:
        yield deployed.Mismatch(layer, f"it should read {tensor!r}, and doesn't")
    elif expected == {0}:
        yield deployed.Mismatch(
            layer, f"it should read {tensor!r} in float ({first.edge.reason}); the file quantizes it"
        )
    elif expected == {1} and 0 in passed:
        yield deployed.Mismatch(layer, f"it should read {tensor!r} through a Q/DQ pair; the file has none there")
    else:
        wanted, found = (" and ".join(map(str, sorted(counts))) for counts in (expected, passed))
        yield deployed.Mismatch(layer, f"it should read {tensor!r} through {wanted} Q/DQ pairs; the file has {found}")


def _compare_pairs(
    read: deployed.Read,
    edges: list[_Planned],
    specs: Mapping[str, QuantSpec],
    scales: Mapping[str, np.floating[Any]],
    checked: set[str],
) -> Iterator[deployed.Mismatch]:
    """Compare the pairs of one read with the specs of the tensors that they stand for, each pair once."""
    planned = next((planned for planned in edges if len(planned.tensors) == len(read.pairs)), None)
    if planned is None:
        return
    for tensor, dequantize in zip(planned.tensors, read.pairs, strict=True):
        name = str(dequantize.outputs[0].name)
        if name not in checked:
            checked.add(name)
            for problem in _pair_problems(dequantize, specs[tensor], scales.get(tensor)):
                yield deployed.Mismatch(planned.edge.consumer, f"reading {tensor!r}, {problem}")


def _unplanned(reads: Iterator[deployed.Read]) -> Iterator[deployed.Mismatch]:
    """What flows in the file and is no edge of the placement."""
    for read in reads:
        if not (read.sources and read.consumers):
            yield deployed.Mismatch(deployed.FILE, f"at {read.where!r}, a node stands for no layer")
        elif not read.inside:
            yield deployed.Mismatch(read.consumers[0], f"it reads {read.sources[0]!r}, which the model doesn't")
        elif read.pairs:
            yield deployed.Mismatch(read.consumers[0], f"a Q/DQ pair stands inside it, before the node {read.where!r}")


def _pair_problems(dequantize: ir.Node, spec: QuantSpec, simulated: np.floating | None) -> Iterator[str]:
    """What is wrong with a pair: its halves, its integer type and zero-point, its scale.

    Args:
        dequantize: its second node.
        spec: how the placement quantizes the tensor.
        simulated: the scale that the file should store; `None` if it is unknown.
    """
    above = onnx.input_at(dequantize, 0)
    quantize = None if above is None else above.producer()
    if quantize is None or quantize.op_type != "QuantizeLinear":
        yield "a DequantizeLinear stands there without its QuantizeLinear"
        return
    halves = [_scale_and_zero_point(node) for node in (quantize, dequantize)]
    if halves[0] is None or halves[1] is None:
        yield "its pair has a scale or a zero-point that is not stored in the file"
        return
    s, z = halves[0]
    if not all(map(_same, halves[0], halves[1])):
        yield "QuantizeLinear and DequantizeLinear of its pair differ in scale or zero-point"
    if (str(z.dtype), z.shape) != (spec.storage, ()) or int(z) != spec.zero_point:
        yield (
            f"its zero-point should be {spec.zero_point} in {spec.storage}, of shape (); the file has "
            f"{z.tolist()} in {z.dtype}, of shape {z.shape}"
        )
    if s.shape != ():
        yield f"its scale should be one number, of shape (); the file has shape {s.shape}"
    elif not structure_kernels.is_positive(s):
        yield f"its scale should be positive and finite; the file has {float(s):.6g}"
    elif simulated is not None and np.float32(s) != np.float32(simulated):
        yield f"its scale should be the simulated {float(simulated):.8g}; the file has {float(s):.8g}"


def _scale_and_zero_point(node: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    s, z = (onnx.constant_array(onnx.input_at(node, index)) for index in (1, 2))
    return None if s is None or z is None else (s, z)


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
