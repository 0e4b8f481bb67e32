from .arrays import arrays_of, check_shapes, in_order, inputs_by_name, split_batch, to_numpy
from .forms import Source, is_array, is_tf_dataset, open_source

__all__ = [
    "Source",
    "arrays_of",
    "check_shapes",
    "in_order",
    "inputs_by_name",
    "is_array",
    "is_tf_dataset",
    "open_source",
    "split_batch",
    "to_numpy",
]
