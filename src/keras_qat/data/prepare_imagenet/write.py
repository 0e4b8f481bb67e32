"""All the shards of a run: which images each holds, and the writing of those that are missing."""

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.prepare_imagenet.listing import Listing
from keras_qat.data.prepare_imagenet.manifest import Reports, save_manifest
from keras_qat.data.prepare_imagenet.shard import RECORD_BYTES, ShardReport, write_shard
from keras_qat.data.records.shards import shard_name
from keras_qat.errors import UserError
from keras_qat.progress import track
from keras_qat.storage import require_space

_logger = logging.getLogger(__name__)

_MOST_WORKERS = 8
# What is drawn for one split has nothing to do with the other.
_STREAMS = {"train": 0, "validation": 1}
# The temporary names of shards, of any run, of the manifest, and of the checksums.
_BEGUN = (".*-?????-of-?????-????????", ".prepared-????????.json", ".SHA256SUMS-????????")


@dataclass(frozen=True, eq=False)
class Task:
    """One shard to write."""

    name: str
    listing: Listing
    images: NDArray[np.int64]


def plan_shards(listing: Listing, count: int, seed: int) -> Sequence[Task]:
    """The shards of a split: a seeded permutation of its images, cut into parts that differ by at most one image.

    Raises:
        UserError: there are more shards than images.
    """
    if count > len(listing):
        raise UserError(
            f"There are more {listing.split} shards than images. Received: {count} shards, {len(listing)} images. "
            "Give fewer shards."
        )
    order = np.random.default_rng((seed, _STREAMS[listing.split])).permutation(len(listing))
    parts = np.array_split(order, count)
    return [Task(shard_name(listing.split, i, count), listing, part) for i, part in enumerate(parts)]


def write_shards(
    output: Path,
    tasks: Sequence[Task],
    done: Reports,
    words: Mapping[str, str],
    settings: Mapping[str, Any],
    workers: int | None,
    *,
    skip_bad: bool,
) -> Reports:
    """Write the shards that aren't there yet.

    Args:
        output: the folder to write to.
        tasks: all the shards.
        done: those that an earlier run wrote.
        words: as of `write_shard`.
        settings: what the manifest says of the run.
        workers: threads; 8, or as many as there are processors, if not given.
        skip_bad: as of `write_shard`.

    Returns:
        The reports of all shards.

    Raises:
        DataError: as from `write_shard`.
        StorageError: likewise, or the disk is too full.
    """
    for path in (path for pattern in _BEGUN for path in output.glob(pattern)):
        # What a killed run left.
        path.unlink()
    reports = {task.name: done[task.name] for task in tasks if _is_done(output, task.name, done, skip_bad=skip_bad)}
    pending = [task for task in tasks if task.name not in reports]
    if reports:
        _logger.info("%d of %d shards are there already.", len(reports), len(tasks))
    require_space(
        output, sum(int(task.listing.size[task.images].sum()) + RECORD_BYTES * len(task.images) for task in pending)
    )
    save_manifest(output, settings, reports)
    executor = ThreadPoolExecutor(workers or min(_MOST_WORKERS, os.cpu_count() or 1))
    try:
        futures = {
            executor.submit(
                write_shard, output / task.name, task.listing, task.images, words, skip_bad=skip_bad
            ): task.name
            for task in pending
        }
        for future in track(as_completed(futures), "writing shards", total=len(futures)):
            name = futures[future]
            reports[name] = future.result()
            save_manifest(output, settings, reports)
            _log(reports[name])
    finally:
        executor.shutdown(cancel_futures=True)
    return reports


def _is_done(output: Path, name: str, done: Reports, *, skip_bad: bool) -> bool:
    """Whether an earlier run wrote the shard; one with images left out counts only where that is allowed still."""
    path = output / name
    report = done.get(name)
    return (
        report is not None
        and path.is_file()
        and path.stat().st_size == report.size
        and (skip_bad or not report.skipped)
    )


def _log(report: ShardReport) -> None:
    for name, was in report.encoded.items():
        _logger.info("%s was a %s and is encoded anew as an RGB JPEG.", name, was)
    for why in report.skipped.values():
        _logger.warning("Left out: %s", why)
