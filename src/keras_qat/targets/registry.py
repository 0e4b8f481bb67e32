"""The targets by name."""

from keras_qat.errors import UserError
from keras_qat.targets.onnxruntime import ONNXRUNTIME
from keras_qat.targets.openvino import OPENVINO
from keras_qat.targets.target import Target
from keras_qat.targets.tensorrt import TENSORRT

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
