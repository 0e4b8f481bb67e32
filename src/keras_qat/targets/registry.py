"""The targets and the engines by name, and a target's table in words.

A new engine or target is a table file like those that are listed here; a new engine also needs an adapter in
`keras_qat.runtimes`.
"""

from collections.abc import Iterable, Mapping

from keras_qat.errors import UserError
from keras_qat.targets import frameworks, onnxruntime, openvino, tensorrt
from keras_qat.targets.target import Engine, Inputs, OpRule, Target
from keras_qat.types import OpKind

_BUILT_IN = (onnxruntime.ONNXRUNTIME, openvino.OPENVINO, tensorrt.TENSORRT)

_TARGETS: dict[str, Target] = {target.name: target for target in _BUILT_IN}

ENGINES: Mapping[str, Engine] = {
    engine.name: engine
    for engine in (
        frameworks.KERAS,
        onnxruntime.CPU_ENGINE,
        openvino.ENGINE,
        tensorrt.ENGINE,
        tensorrt.RTX_ENGINE,
        onnxruntime.CUDA_ENGINE,
        frameworks.TENSORFLOW,
    )
}
"""A file is opened in the first engine that accepts it, unless another is named."""

_INPUTS = {Inputs.NONE: "float", Inputs.ALL: "all", Inputs.ALL_BUT_FUSED_CONV: "all but one conv-fed branch"}


def register_target(target: Target) -> None:
    """Make a target known by its name, in place of any other target of that name."""
    _TARGETS[target.name] = target


def find_target(name: str | Target) -> Target:
    """The target of a name.

    Args:
        name: of a target; a `Target` is returned as it is.

    Raises:
        UserError: If there is no target of that name.

    Example:
        >>> find_target("tensorrt").storage
        'int8'
    """
    if isinstance(name, Target):
        return name
    if name not in _TARGETS:
        raise UserError(f"Unknown target. Received: {name!r}. Choose one of: {', '.join(sorted(_TARGETS))}.")
    return _TARGETS[name]


def find_targets(names: Iterable[str | Target] = ()) -> tuple[Target, ...]:
    """The targets of these names, or all that keras-qat comes with if none is named.

    Raises:
        UserError: If there is no target of one of these names.

    Example:
        >>> [target.title for target in find_targets()]
        ['ONNX Runtime', 'OpenVINO', 'TensorRT']
    """
    return tuple(map(find_target, names)) or _BUILT_IN


def judges_of(name: str) -> tuple[str, ...]:
    """The engines that may judge the files of a target, best first; the default ones if the target is not registered.

    Example:
        >>> judges_of("tensorrt")
        ('tensorrt', 'onnxruntime')
    """
    return _TARGETS[name].judges if name in _TARGETS else Target.judges


def find_engine(name: str) -> Engine:
    """The engine of a name.

    Raises:
        UserError: If there is no engine of that name.

    Example:
        >>> find_engine("openvino").suffixes
        ('.xml', '.onnx')
    """
    if name not in ENGINES:
        raise UserError(f"Unknown engine. Received: {name!r}. Choose one of: {', '.join(ENGINES)}.")
    return ENGINES[name]


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
    if target.rounds_float_kernels:
        facts.append("The bias of a float kernel behind a quantized input is stored as int32, without loss.")
    if target.pools_strides:
        facts.append("The stride of 1x1 convolutions is taken out into a max-pool of single pixels.")
    if target.pins_scales:
        facts.append("Operations that change no number, such as + 1e-30, keep scales where they are.")
    if target.rounds_softmax:
        facts.append("A softmax runs in float.")
    if target.convolves_transposed:
        facts.append("A transposed convolution is stored as a convolution whose output channels are pixels.")
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
