"""What a model reads and answers, as far as data must fit it: names, shapes and types of its inputs and outputs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

_FED: dict[str, str] = {"bfloat16": "float32"}
"""Types that NumPy lacks, and what a model is fed in their place; its engine casts."""


@dataclass(frozen=True)
class ArraySpec:
    """One input or output of a model.

    Args:
        name: its name, by which `.npz` and HDF5 files and dictionaries name the array for it.
        shape: its shape, the batch axis first; `None` for a size that is free.
        dtype: the name of its NumPy type.

    Example:
        >>> str(ArraySpec("sensor", (None, 128, 6)))
        'sensor: float32 (?, 128, 6)'
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str = "float32"

    def __str__(self) -> str:
        """The name, type and shape, as messages show them."""
        return f"{self.name}: {self.dtype} {shape_text(self.shape)}"

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether arrays of a shape, the batch axis first, fit.

        Example:
            >>> ArraySpec("x", (None, 4)).fits((10, 4)), ArraySpec("x", (None, 4)).fits((10, 5))
            (True, False)
        """
        return sizes_fit(self.shape[1:], shape[1:])


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model, in its order.

    Args:
        inputs: what it reads.
        outputs: what it answers, in flattened order; labels must fit them. Empty if that isn't known: labels are then
            taken as they are.

    Example:
        >>> model = Signature((ArraySpec("left", (None, 4)), ArraySpec("right", (None, 2))))
        >>> model.input_names
        ('left', 'right')
    """

    inputs: tuple[ArraySpec, ...]
    outputs: tuple[ArraySpec, ...] = ()

    @classmethod
    def of(cls, inputs: Iterable[Any], outputs: Iterable[Any] = ()) -> "Signature":
        """The signature of anything that has names, shapes and types: tensors of Keras, or what an engine reads.

        Args:
            inputs: objects with `name`, `shape` and `dtype`, such as `model.inputs`.
            outputs: such objects. Those of a Keras model aren't named after their layers.

        Example:
            >>> import keras
            >>> str(Signature.of([keras.Input((8, 3), name="sensor")]).inputs[0])
            'sensor: float32 (?, 8, 3)'
        """
        return cls(tuple(map(_spec, inputs)), tuple(map(_spec, outputs)))

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return tuple(spec.name for spec in self.inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return tuple(spec.name for spec in self.outputs)


def sizes_fit(expected: Sequence[int | None], received: Sequence[int]) -> bool:
    """Whether sizes are as many as expected, and each is the expected one where that is fixed.

    Example:
        >>> sizes_fit((None, 3), (8, 3)), sizes_fit((3,), (3, 1))
        (True, False)
    """
    return len(expected) == len(received) and all(e in (None, r) for e, r in zip(expected, received, strict=True))


def shape_text(shape: Sequence[int | None]) -> str:
    """A shape as messages show it.

    Example:
        >>> shape_text((None, 4)), shape_text((3,))
        ('(?, 4)', '(3,)')
    """
    sizes = ", ".join("?" if size is None else str(size) for size in shape)
    return f"({sizes}{',' if len(shape) == 1 else ''})"


def _spec(tensor: Any) -> ArraySpec:
    dtype = str(getattr(tensor.dtype, "name", tensor.dtype))
    return ArraySpec(str(tensor.name), tuple(tensor.shape), _FED.get(dtype, dtype))
