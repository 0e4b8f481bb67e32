"""`prepared.json`: what is being prepared and which shards are done; a killed run goes on, and only as it began.

All the shards of a run: which images each holds, and the writing of those that are missing.

The last step: what lies on the disk is what the archives hold.

From the official archives of ILSVRC 2012 to TFRecord shards that any loader of ImageNet reads.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_qat.data.imagenet.archive import DEVKIT, archive_error, open_archive, read_devkit
from keras_qat.data.imagenet.shard import (
    RECORD_BYTES,
    TRAIN,
    VALIDATION,
    Listing,
    ShardReport,
    list_train,
    list_validation,
    write_shard,
)
from keras_qat.data.records.record_set import has_shards, open_records, shard_name
from keras_qat.errors import DataError, StorageError, UserError
from keras_qat.files import is_file, read_json, require_space, require_writable, write_json, write_text
from keras_qat.progress import track

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


CHECKSUMS = "SHA256SUMS"


def check_shards(output: Path, listing: Listing, reports: Reports) -> int:
    """Read all the shards of a split again, with their checksums, and count each class.

    Their index goes into the cache, where the first `load_records` finds it.

    Args:
        output: where the shards are.
        listing: the split's images in the archive.
        reports: of the split's shards, by their names.

    Returns:
        How many records there are.

    Raises:
        StorageError: a record is corrupt, or a class has another number of images than in the archive.
    """
    advice = f"Delete that shard from {output}, check the disk, and run the same command again."
    paths = [output / name for name in sorted(reports)]
    try:
        records = open_records(listing.split, paths, refresh=True)
    except DataError as error:
        raise StorageError(f"What was written reads back differently: {error} {advice}") from error
    skipped = {name for report in reports.values() for name in report.skipped}
    kept = [listing.key(image) not in skipped for image in range(len(listing))] if skipped else slice(None)
    labels = listing.label[kept]
    expected, found = (np.unique(each, return_counts=True) for each in (labels, records.index.label))
    if not all(map(np.array_equal, expected, found)):
        raise StorageError(
            f"The {listing.split} shards hold other images than the archive. Received: {len(records.index)} records "
            f"of {len(found[0])} classes, expected {len(labels)} of {len(expected[0])}. {advice}"
        )
    return len(records.index)


def write_checksums(output: Path, reports: Reports) -> None:
    """Write the SHA-256 of each shard as `sha256sum -c` reads it.

    Raises:
        StorageError: the file can't be written.
    """
    lines = (f"{report.sha256}  {name}\n" for name, report in sorted(reports.items()))
    write_text(output / CHECKSUMS, "".join(lines))


OFFICIAL = {"train": 1_281_167, "validation": 50_000}
OFFICIAL_CLASSES = 1000
_MOST_SHARDS = 99_999


@dataclass(frozen=True)
class Prepared:
    """What was made of the archives.

    Args:
        counts: how many records each split has.
        classes: how many classes.
        size: of all shards, in bytes.
        encoded: images that were encoded anew: `CLASS/FILE` → what they were.
        skipped: images that were left out: likewise → why.
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
        if not is_file(archives / name, DataError):
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
        tasks = [
            task for listing, count in zip(listings, shards, strict=True) for task in plan_shards(listing, count, seed)
        ]
        reports = write_shards(output, tasks, done, devkit.words, settings, workers, skip_bad=skip_bad)
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
