"""(model, placement, ranges) → a new quantized Keras model."""

from keras_qat.transform.apply import apply_placement, fake_quantize_name, scope_name
from keras_qat.transform.layer_copy import LayerCopy
from keras_qat.transform.rebuild import copy_layer, rebuild

__all__ = ["LayerCopy", "apply_placement", "copy_layer", "fake_quantize_name", "rebuild", "scope_name"]
