"""A diagnosis, read back from the JSON file that a run or `keras-qat diagnose --output` wrote."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_qat.errors import UserError
from keras_qat.evaluation import Advice, Diagnosis, KernelDiagnosis, OutputDiagnosis, TensorDiagnosis
from keras_qat.placement.rule import rule_from_json
from keras_qat.storage import read_json
from keras_qat.types import QuantSpec

_SQNR = ("alone", "cumulative", "weights")


@dataclass(frozen=True)
class DiagnosisFile:
    """What such a file holds.

    Args:
        diagnosis: the figures.
        advice: what to try, as it was said then.
    """

    diagnosis: Diagnosis
    advice: tuple[Advice, ...]


def load_diagnosis(path: Path) -> DiagnosisFile:
    """The diagnosis in a file.

    Raises:
        StorageError: `path` can't be read.
        UserError: it isn't JSON, or doesn't hold a diagnosis.
    """
    value = read_json(path)
    try:
        return DiagnosisFile(_diagnosis(value), tuple(map(_advice, value["advice"])))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} doesn't hold a diagnosis: {type(error).__name__}: {error}. Received: {str(path)!r}. Write it anew "
            "with `keras-qat diagnose RUN --output FILE`."
        ) from error


def _diagnosis(value: Mapping[str, Any]) -> Diagnosis:
    return Diagnosis(
        tensors=tuple(TensorDiagnosis(**_figures(one)) for one in value["tensors"]),
        kernels=tuple(KernelDiagnosis(**_figures(one)) for one in value["kernels"]),
        outputs=tuple(OutputDiagnosis(**_figures(one)) for one in value["outputs"]),
        images=int(value["images"]),
    )


def _figures(one: Mapping[str, Any]) -> dict[str, Any]:
    """The fields with a spec, and with numbers for the strings that infinities are in JSON."""
    spec = {"spec": QuantSpec(**one["spec"])} if "spec" in one else {}
    numbers = {key: float(one[key]) for key in _SQNR if one.get(key) is not None}
    return {**one, **spec, **numbers}


def _advice(one: Mapping[str, Any]) -> Advice:
    rule = None if one["rule"] is None else rule_from_json(one["rule"])
    return Advice(one["about"], one["finding"], one["remedy"], rule)
