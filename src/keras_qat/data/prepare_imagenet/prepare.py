"""From the official archives of ILSVRC 2012 to TFRecord shards that any loader of ImageNet reads."""

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.prepare_imagenet.archive import archive_error, open_archive
from keras_qat.data.prepare_imagenet.check import check_shards, write_checksums
from keras_qat.data.prepare_imagenet.devkit import DEVKIT, read_devkit
from keras_qat.data.prepare_imagenet.listing import TRAIN, VALIDATION, Listing, list_train, list_validation
from keras_qat.data.prepare_imagenet.manifest import Reports, open_manifest, save_manifest
from keras_qat.data.prepare_imagenet.shard import RECORD_BYTES, ShardReport, write_shard
from keras_qat.data.records.shards import shard_name
from keras_qat.errors import UserError
from keras_qat.progress import track
from keras_qat.storage import require_space, require_writable

_logger = logging.getLogger(__name__)

OFFICIAL = {"train": 1_281_167, "validation": 50_000}
OFFICIAL_CLASSES = 1000
_MOST_WORKERS = 8
_MOST_SHARDS = 99_999


@dataclass(frozen=True)
class Prepared:
    """What was made of the archives.

    Args:
        counts: how many records each split has.
        classes: how many classes.
        size: of all shards, in bytes.
        encoded: images that were encoded anew: file name → what they were.
        skipped: images that were left out: file name → why.
    """

    counts: Mapping[str, int]
    classes: int
    size: int
    encoded: Mapping[str, str]
    skipped: Mapping[str, str]

    @property
    def official(self) -> bool:
        """Whether these are the numbers of images and classes of ILSVRC 2012."""
        return self.counts == OFFICIAL and self.classes == OFFICIAL_CLASSES


@dataclass(frozen=True, eq=False)
class _Task:
    """One shard to write."""

    name: str
    listing: Listing
    images: NDArray[np.int64]


def prepare_imagenet(
    archives: Path,
    output: Path,
    *,
    shards: tuple[int, int] = (1024, 128),
    workers: int | None = None,
    seed: int = 0,
    skip_bad: bool = False,
) -> Prepared:
    """Write the images of ILSVRC 2012 into TFRecord shards, and check them.

    The archives are read in place, image by image: nothing is unpacked, and no archive is held in memory. A run that
    was killed goes on with the shards that are missing; the result is the same, byte for byte.

    Args:
        archives: the folder of `ILSVRC2012_img_train.tar`, `ILSVRC2012_img_val.tar` and
            `ILSVRC2012_devkit_t12.tar.gz`, as they are downloaded.
        output: the folder to write to.
        shards: how many for training and for validation.
        workers: threads that write shards; 8, or as many as there are processors, if not given.
        seed: of the order of the images.
        skip_bad: leave out files that are no image, and log which.

    Returns:
        What was made.

    Raises:
        DataError: an archive is missing, truncated or another; `output` holds other shards; a file is no image.
        StorageError: `output` can't be written, is on a disk that is too full, or reads back differently.
        UserError: a number is out of range.
    """
    _require_numbers(shards, workers, seed)
    for name in (TRAIN, VALIDATION, DEVKIT):
        if not (archives / name).is_file():
            raise archive_error(archives / name, "there is no such file")
    require_writable(output)
    settings = {
        "seed": seed,
        "shards": list(shards),
        "archives": {name: (archives / name).stat().st_size for name in (TRAIN, VALIDATION, DEVKIT)},
    }
    done = open_manifest(output, settings)
    devkit = read_devkit(archives / DEVKIT)
    with ExitStack() as stack:
        train, validation = (stack.enter_context(open_archive(archives / name)) for name in (TRAIN, VALIDATION))
        listings = (list_train(train, devkit), list_validation(validation, devkit))
        tasks = [task for listing, count in zip(listings, shards, strict=True) for task in _tasks(listing, count, seed)]
        reports = _write(output, tasks, done, devkit.words, settings, workers, skip_bad=skip_bad)
    counts = {
        listing.split: check_shards(
            output, listing, {task.name: reports[task.name] for task in tasks if task.listing is listing}
        )
        for listing in listings
    }
    write_checksums(output, reports)
    return Prepared(
        counts=counts,
        classes=len(devkit.words),
        size=sum(report.size for report in reports.values()),
        encoded={name: was for report in reports.values() for name, was in report.encoded.items()},
        skipped={name: why for report in reports.values() for name, why in report.skipped.items()},
    )


def _require_numbers(shards: tuple[int, int], workers: int | None, seed: int) -> None:
    if not all(1 <= count <= _MOST_SHARDS for count in shards):
        raise UserError(f"There must be from 1 to {_MOST_SHARDS} shards. Received: shards={shards}. Give 1024 and 128.")
    if workers is not None and workers < 1:
        raise UserError(f"At least 1 worker is needed. Received: workers={workers}. Give 1 or more.")
    if seed < 0:
        raise UserError(f"A seed can't be negative. Received: seed={seed}. Give 0 or more.")


def _tasks(listing: Listing, count: int, seed: int) -> Sequence[_Task]:
    """The shards of a split: a seeded permutation of its images, cut into parts that differ by at most one image."""
    if count > len(listing):
        raise UserError(
            f"There are more {listing.split} shards than images. Received: {count} shards, {len(listing)} images. "
            "Give fewer shards."
        )
    order = np.random.default_rng((seed, tuple(OFFICIAL).index(listing.split))).permutation(len(listing))
    parts = np.array_split(order, count)
    return [_Task(shard_name(listing.split, i, count), listing, part) for i, part in enumerate(parts)]


def _write(
    output: Path,
    tasks: Sequence[_Task],
    done: Reports,
    words: Mapping[str, str],
    settings: Mapping[str, Any],
    workers: int | None,
    *,
    skip_bad: bool,
) -> Reports:
    """Write the shards that aren't there yet; the reports of all."""
    for task in tasks:
        # What a killed run left.
        for path in output.glob(f".{task.name}-????????"):
            path.unlink()
    reports = {task.name: done[task.name] for task in tasks if _is_done(output, task.name, done, skip_bad=skip_bad)}
    pending = [task for task in tasks if task.name not in reports]
    if reports:
        _logger.info("%d of %d shards are there already.", len(reports), len(tasks))
    require_space(
        output, sum(int(task.listing.size[task.images].sum()) + RECORD_BYTES * len(task.images) for task in pending)
    )
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
