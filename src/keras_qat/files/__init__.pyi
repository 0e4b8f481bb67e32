from .paths import require_engine_model, require_image, require_model_file, require_onnx_file, require_weights
from .storage import (
    atomic_path,
    is_file,
    is_folder,
    is_there,
    read_json,
    read_text,
    require_creatable,
    require_space,
    require_writable,
    to_json,
    write_json,
    write_text,
)
from .values import from_json_value, to_json_value

__all__ = [
    "atomic_path",
    "from_json_value",
    "is_file",
    "is_folder",
    "is_there",
    "read_json",
    "read_text",
    "require_creatable",
    "require_engine_model",
    "require_image",
    "require_model_file",
    "require_onnx_file",
    "require_space",
    "require_weights",
    "require_writable",
    "to_json",
    "to_json_value",
    "write_json",
    "write_text",
]
