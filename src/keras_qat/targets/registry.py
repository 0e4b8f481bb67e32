"""The targets by name.

A target as a table that a human can read.
"""

from keras_qat.errors import UserError
from keras_qat.targets.onnxruntime import ONNXRUNTIME
from keras_qat.targets.openvino import OPENVINO
from keras_qat.targets.target import Inputs, OpRule, Target
from keras_qat.targets.tensorrt import TENSORRT
from keras_qat.types import OpKind

_TARGETS: dict[str, Target] = {}


def register_target(target: Target) -> None:
    """Make a target known by its name."""
    _TARGETS[target.name] = target


def find_target(name: str | Target) -> Target:
    """The target of that name.

    Raises:
        UserError: no such target.

    Example:
        >>> find_target("tensorrt").storage
        'int8'
    """
    if isinstance(name, Target):
        return name
    if name not in _TARGETS:
        raise UserError(f"Unknown target. Received: {name!r}. Choose one of: {', '.join(sorted(_TARGETS))}.")
    return _TARGETS[name]


register_target(TENSORRT)
register_target(ONNXRUNTIME)
register_target(OPENVINO)


_INPUTS = {Inputs.NONE: "float", Inputs.ALL: "all", Inputs.ALL_BUT_FUSED_CONV: "all but one conv-fed branch"}


def describe_target(target: Target) -> str:
    """One line for each kind of operation that the table names, in Markdown.

    Example:
        >>> print(describe_target(Target("plain", "int8", unsigned_non_negative=False, rules={})))
        Activations: int8, zero-point 0. Fused into the operation before: relu.
        <BLANKLINE>
        | operation | inputs quantized | output | kernel | because | source |
        | --- | --- | --- | --- | --- | --- |
        | any other | float | – | – | the engine has no integer kernel for it |  |
    """
    specs = [target.activation_spec(non_negative=non_negative) for non_negative in (False, True)]
    signed, non_negative = (f"{spec.storage}, zero-point {spec.zero_point}" for spec in specs)
    types = signed if signed == non_negative else f"{signed}; where nothing is negative {non_negative}"
    facts = [f"Activations: {types}.", f"Fused into the operation before: {_names(target.fused_activations)}."]
    if target.shares_range:
        facts.append(f"Inputs and output on one scale: {_names(target.shares_range)}.")
    if target.int32_dense_bias:
        facts.append("The bias of a dense layer is stored as int32.")
    if target.pools_strides:
        facts.append("The stride of 1x1 convolutions is taken out into a max-pool of single pixels.")
    lines = [
        " ".join(facts),
        "",
        "| operation | inputs quantized | output | kernel | because | source |",
        "| --- | --- | --- | --- | --- | --- |",
        *(_line(str(kind), rule) for kind, rule in target.rules.items()),
        _line("any other", OpRule()),
    ]
    return "\n".join(lines)


def _line(kind: str, rule: OpRule) -> str:
    output, kernel = "quantized" if rule.output else "–", "int8" if rule.weights else "–"
    return f"| {kind} | {_INPUTS[rule.inputs]} | {output} | {kernel} | {rule.because} | {rule.source} |"


def _names(kinds: frozenset[OpKind]) -> str:
    return ", ".join(sorted(map(str, kinds))) or "none"
