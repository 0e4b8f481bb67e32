from .apply import apply_placement, fake_quantize_name, scope_name
from .replay import LayerCopy, copy_layer, rebuild

__all__ = [
    "LayerCopy",
    "apply_placement",
    "copy_layer",
    "fake_quantize_name",
    "rebuild",
    "scope_name",
]
