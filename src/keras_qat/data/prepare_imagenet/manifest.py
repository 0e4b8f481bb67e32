"""`prepared.json`: what is being prepared and which shards are done; a killed run goes on, and only as it began."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keras_qat.data.prepare_imagenet.shard import ShardReport
from keras_qat.data.records import has_shards
from keras_qat.errors import DataError
from keras_qat.storage import read_json, write_json

MANIFEST = "prepared.json"

Reports = Mapping[str, ShardReport]


def open_manifest(output: Path, settings: Mapping[str, Any]) -> Reports:
    """The reports of the shards that an earlier run wrote with the same settings; none in a new folder.

    Args:
        output: where the shards go.
        settings: all that the shards depend on, as JSON can hold it.

    Raises:
        DataError: shards with other settings, or of unknown origin, are there; or another file of that name.
    """
    path = output / MANIFEST
    written = has_shards(output)
    if not path.exists():
        if written:
            raise DataError(
                f"{output} has shards, but no {MANIFEST} that says how they were made. Received: {str(output)!r}. "
                "Choose another folder, or move them away."
            )
        return {}
    try:
        stored = read_json(path)
        before = stored["settings"]
        reports = {name: ShardReport(**report) for name, report in stored["shards"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} isn't what `keras-qat prepare-imagenet` writes. Received: {error!r}. "
            "Choose another folder, or remove this one."
        ) from error
    if not written:
        # A try that failed before its first shard binds nobody.
        return {}
    other = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
    if other:
        changed = ", ".join(f"{key} {settings.get(key)} (was {before.get(key)})" for key in other)
        raise DataError(
            f"The shards in {output} were begun with other settings. Received: {changed}. "
            "Go on with the settings as they were, or choose another folder."
        )
    return reports


def save_manifest(output: Path, settings: Mapping[str, Any], reports: Reports) -> None:
    """Write down which shards are done.

    Raises:
        StorageError: it can't be written.
    """
    shards = {name: asdict(report) for name, report in sorted(reports.items())}
    write_json(output / MANIFEST, {"settings": settings, "shards": shards})
