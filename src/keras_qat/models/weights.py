"""Weights from a file or another model into a model, or an error that says why they don't fit.

Keras matches the tensors of a file to layers by their order, and its own errors name paths inside HDF5. So
the shapes are compared before anything is loaded: if each shape occurs equally often, the file is taken for one of the
same network.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py

from keras_qat.errors import StorageError, WeightsError
from keras_qat.files import load_keras_file, require_own_numbers, require_weights
from keras_qat.text import shortened

_Shapes = Counter[tuple[int, ...]]
"""How often each shape occurs among the weights of a network."""


def load_weights(model: Any, path: Path) -> None:
    """Load the weights of `path` into `model`, in place.

    Args:
        model: a built `keras.Model`.
        path: a file with the suffix `.weights.h5`, `.h5` or `.keras`.

    Raises:
        WeightsError: If the file is missing, truncated, of another network, or has another suffix.
    """
    loader = _LOADERS.get(path.suffix.lower())
    if loader is None:
        raise WeightsError(
            f"Weights of that kind can't be read. Received: {str(path)!r}. "
            "Give a .weights.h5, .h5 or .keras file, 'imagenet' to download, or None for random weights."
        )
    require_weights(path)
    loader(model, path)


def copy_weights(source: Any, model: Any, origin: str) -> None:
    """Copy the weights of `source` to `model`, in place.

    Args:
        source: a `keras.Model` of the same network; its input may have another size.
        model: a built `keras.Model`.
        origin: where the weights come from, for the error message.

    Raises:
        WeightsError: If `source` and `model` are different networks.
    """
    _require_same_shapes(_model_shapes(source), model, origin)
    try:
        model.set_weights(source.get_weights())
    except ValueError as error:
        raise _other_network(origin, model, str(error)) from error


def _load_h5(model: Any, path: Path) -> None:
    try:
        require_own_numbers(path)
        shapes = _file_shapes(path)
    except StorageError as error:
        raise WeightsError(str(error)) from error
    except Exception as error:  # HDF5 reports damage as OSError, RuntimeError or UnicodeDecodeError.
        raise _corrupt(path, error) from error
    _require_same_shapes(shapes, model, str(path))
    try:
        model.load_weights(path)
    except UnicodeDecodeError as error:
        raise _corrupt(path, error) from error
    except (ValueError, KeyError) as error:
        raise _other_network(str(path), model, str(error)) from error
    except Exception as error:
        raise _corrupt(path, error) from error


def _load_whole(model: Any, path: Path) -> None:
    try:
        source = load_keras_file(path)
    except StorageError as error:
        raise WeightsError(str(error)) from error
    copy_weights(source, model, str(path))


_LOADERS: Mapping[str, Callable[[Any, Path], None]] = {".h5": _load_h5, ".keras": _load_whole}


def _model_shapes(model: Any) -> _Shapes:
    return Counter(tuple(v.shape) for v in model.variables)


def _file_shapes(path: Path) -> _Shapes:
    shapes: _Shapes = Counter()

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset) and not name.startswith("optimizer"):
            shapes[tuple(item.shape)] += 1

    with h5py.File(path) as file:
        file.visititems(visit)
    return shapes


def _require_same_shapes(given: _Shapes, model: Any, origin: str) -> None:
    wanted = _model_shapes(model)
    if given == wanted:
        return
    classes = model.output_shape[-1]
    # If only the number of classes differs, just the kernel and the bias of the classifier are left on both sides.
    missing, surplus = wanted - given, given - wanted
    if sorted(map(len, missing.elements())) == sorted(map(len, surplus.elements())) == [1, 2]:
        theirs = next(shape for shape in surplus if len(shape) == 1)[0]
        raise WeightsError(
            f"The weights are for {theirs} classes, but {model.name} is built for {classes}. "
            f"Received: {origin}. Give data of {theirs} classes, or weights that were trained for {classes}."
        )
    detail = f"they hold {given.total()} tensors, the network {wanted.total()}; {surplus.total()} don't fit it"
    raise _other_network(origin, model, detail)


def _other_network(origin: str, model: Any, detail: str) -> WeightsError:
    return WeightsError(
        f"The weights are not those of {model.name}: {shortened(detail)}. Received: {origin}. "
        f"Give weights of {model.name}, or name the network that they belong to."
    )


def _corrupt(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"The file can't be read as weights, it is truncated or something else: "
        f"{shortened(error)}. "
        f"Received: {str(path)!r}. Copy or download it again and compare its size with the original."
    )
