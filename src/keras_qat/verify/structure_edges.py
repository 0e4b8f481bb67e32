"""One Q/DQ pair against the spec of its tensor: integer type, zero-point, scale.

The placement's edges against the file's.

Placement and file are not cut alike: passes merge a padding or a batch norm into a convolution, and a dropout leaves no
node at all. An edge whose two ends were merged must be one that the plan refused. Where the producer of an edge left no
node, the edge goes on at what that producer reads, and the decisions on the way add up. All that is left must pass as
many Q/DQ pairs in the file as in the plan.

Inputs of one node that read the same tensor are not told apart: `Add([x, x])` with a pair at one of the two must read
`x` once through a pair and once without.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from keras_qat.graph import OUTPUT
from keras_qat.types import EdgeDecision, Placement, QuantSpec
from keras_qat.verify.deployed import FILE, DeployedFile, Finding, Read, constant


def pair_problems(dequantize: ir.Node, spec: QuantSpec, scale: np.floating | None) -> Iterator[str]:
    """What is wrong with a pair.

    Args:
        dequantize: its second node.
        spec: how the placement quantizes the tensor.
        scale: the simulated scale, as the file should store it; `None` if it isn't known.
    """
    above = dequantize.inputs[0]
    quantize = None if above is None else above.producer()
    if quantize is None or quantize.op_type != "QuantizeLinear":
        yield "a DequantizeLinear stands there without its QuantizeLinear"
        return
    stored = [_scale_and_zero_point(node) for node in (quantize, dequantize)]
    if None in stored:
        yield "its pair has a scale or a zero-point that is not stored in the file"
        return
    (s, z), (s_again, z_again) = (one for one in stored if one is not None)
    if not (_same(s, s_again) and _same(z, z_again)):
        yield "QuantizeLinear and DequantizeLinear of its pair differ in scale or zero-point"
    if (str(z.dtype), z.shape) != (spec.storage, ()) or int(z) != spec.zero_point:
        yield (
            f"its zero-point should be {spec.zero_point} in {spec.storage}, of shape (); the file has "
            f"{z.tolist()} in {z.dtype}, of shape {z.shape}"
        )
    yield from _scale_problems(s, scale)


def not_positive(s: np.ndarray) -> bool:
    """Whether any scale is zero, negative, infinite or NaN."""
    return not np.all(np.isfinite(s) & (s > 0))


def _scale_problems(s: np.ndarray, simulated: np.floating | None) -> Iterator[str]:
    if s.shape != ():
        yield f"its scale should be one number, of shape (); the file has shape {s.shape}"
    elif not_positive(s):
        yield f"its scale should be positive and finite; the file has {float(s):.6g}"
    elif simulated is not None and np.float32(s) != np.float32(simulated):
        yield f"its scale should be the simulated {float(simulated):.8g}; the file has {float(s):.8g}"


def _scale_and_zero_point(node: ir.Node) -> tuple[np.ndarray, np.ndarray] | None:
    found = [value for value in node.inputs[1:3] if value is not None and constant(value)]
    arrays = [value.const_value.numpy() for value in found if value.const_value is not None]
    return (arrays[0], arrays[1]) if len(arrays) == 2 else None  # noqa: PLR2004


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")


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


def edge_findings(
    file: DeployedFile, placement: Placement, scales: Mapping[str, np.floating[Any]]
) -> Iterator[Finding]:
    """Hold every edge of the placement to the file, and every edge of the file to the placement.

    Args:
        file: from `read_deployed`.
        placement: the plan.
        scales: the simulated scale of each tensor, as the file should store it; may be empty.
    """
    groups: dict[tuple[str, str], list[_Planned]] = defaultdict(list)
    for one in _planned(file, placement):
        if one.source in file.merged:
            groups[one.source, one.edge.consumer].append(one)
        else:
            yield Finding(one.source, f"no node of the file stands for it, and {one.edge.consumer!r} reads it")
    explained: set[int] = set()
    checked: set[str] = set()
    for (source, consumer), edges in groups.items():
        if source in file.merged.get(consumer, ()) and consumer != OUTPUT:
            yield from _merged(edges)
            continue
        numbers = [n for n, r in enumerate(file.reads) if source in r.sources and consumer in r.consumers]
        explained.update(numbers)
        reads = [file.reads[n] for n in numbers]
        yield from _compare(edges, reads)
        for read in reads:
            yield from _pair_findings(read, edges, placement.specs, scales, checked)
    yield from _unplanned(read for n, read in enumerate(file.reads) if n not in explained)


def _planned(file: DeployedFile, placement: Placement) -> Iterator[_Planned]:
    into: dict[str, list[EdgeDecision]] = defaultdict(list)
    for edge in placement.edges:
        into[edge.consumer].append(edge)
    for edge in placement.edges:
        if edge.consumer != OUTPUT and edge.consumer not in file.merged:
            continue  # It left no node: its edges are part of those behind it.
        at, tensors = edge, [edge.tensor] if edge.quantized else []
        while (source := _node_of(at.tensor, into)) not in file.merged and len(into.get(source, ())) == 1:
            (at,) = into[source]
            tensors += [at.tensor] if at.quantized else []
        yield _Planned(source, edge, tuple(tensors))


def _node_of(tensor: str, nodes: Mapping[str, Any]) -> str:
    """The node that makes a tensor: `split:1` is the second output of `split`."""
    name, _, number = tensor.rpartition(":")
    return name if name and number.isdigit() and tensor not in nodes else tensor


def _merged(edges: list[_Planned]) -> Iterator[Finding]:
    for one in edges:
        if one.tensors:
            yield Finding(
                one.edge.consumer, f"it should read {one.tensors[0]!r} through a Q/DQ pair; one node computes both"
            )


def _compare(edges: list[_Planned], reads: list[Read]) -> Iterator[Finding]:
    """The numbers of pairs on the way from one Keras node to another."""
    planned = {len(one.tensors) for one in edges}
    passed = {len(read.pairs) for read in reads}
    if planned == passed:
        return
    one = next((one for one in edges if len(one.tensors) not in passed), edges[0])
    layer, tensor = one.edge.consumer, (*one.tensors, one.edge.tensor)[0]
    if not reads:
        yield Finding(layer, f"it should read {tensor!r}, and doesn't")
    elif planned == {0}:
        yield Finding(layer, f"it should read {tensor!r} in float ({one.edge.reason}); the file quantizes it")
    elif planned == {1} and 0 in passed:
        yield Finding(layer, f"it should read {tensor!r} through a Q/DQ pair; the file has none there")
    else:
        expected, found = (" and ".join(map(str, sorted(counts))) for counts in (planned, passed))
        yield Finding(layer, f"it should read {tensor!r} through {expected} Q/DQ pairs; the file has {found}")


def _pair_findings(
    read: Read,
    edges: list[_Planned],
    specs: Mapping[str, QuantSpec],
    scales: Mapping[str, np.floating[Any]],
    checked: set[str],
) -> Iterator[Finding]:
    """The pairs of one read against the specs of the tensors that they stand for, each pair once."""
    one = next((one for one in edges if len(one.tensors) == len(read.pairs)), None)
    if one is None:
        return
    for tensor, dequantize in zip(one.tensors, read.pairs, strict=True):
        name = str(dequantize.outputs[0].name)
        if name not in checked:
            checked.add(name)
            for problem in pair_problems(dequantize, specs[tensor], scales.get(tensor)):
                yield Finding(one.edge.consumer, f"reading {tensor!r}, {problem}")


def _unplanned(reads: Iterator[Read]) -> Iterator[Finding]:
    """What flows in the file and is no edge of the placement."""
    for read in reads:
        if not (read.sources and read.consumers):
            yield Finding(FILE, f"at {read.where!r}, a node stands for no layer")
        elif not read.inside:
            yield Finding(read.consumers[0], f"it reads {read.sources[0]!r}, which the model doesn't")
        elif read.pairs:
            yield Finding(read.consumers[0], f"a Q/DQ pair stands inside it, before the node {read.where!r}")
