"""The record of a run, read back from its results.json."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_qat.errors import UserError
from keras_qat.evaluation import Latency, TensorError
from keras_qat.report.environment import Environment
from keras_qat.report.record import Record, Row
from keras_qat.storage import read_json
from keras_qat.training import EpochRecord


def load_record(path: Path) -> Record:
    """The record of a results.json that `keras-qat run` wrote.

    Args:
        path: the file. One from before the history of fine-tuning was kept has an empty one.

    Raises:
        StorageError: `path` can't be read.
        UserError: it isn't JSON, or doesn't hold a record.
    """
    value = read_json(path)
    try:
        return _record(value)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} doesn't hold the results of a run: {type(error).__name__}: {error}. Received: {str(path)!r}. "
            "Give the folder of a run that `keras-qat run` of this version finished."
        ) from error


def _record(value: Mapping[str, Any]) -> Record:
    rows = tuple(map(_row, value["rows"]))
    if not rows:
        raise ValueError("it has no rows")
    history = tuple(EpochRecord(**epoch) for epoch in value.get("history", ()))
    environment = Environment(**value["environment"])
    return Record(**{**value, "rows": rows, "history": history, "environment": environment})


def _row(value: Mapping[str, Any]) -> Row:
    latencies = {key: Latency(**value[key]) for key in ("keras_latency", "deployed_latency")}
    errors = tuple(TensorError.from_dict(error) for error in value["tensor_errors"])
    return Row(**{**value, **latencies, "tensor_errors": errors})
