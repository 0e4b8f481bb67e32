"""From the official archives of ILSVRC 2012 to TFRecord shards that any loader of ImageNet reads.

`prepared.json` in the output folder says what is being prepared and which shards are done: a killed run resumes, but
only with the settings that it began with. At the end all records are read again and compared with the archives.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_qat import files
from keras_qat.data.imagenet import listing as ilsvrc
from keras_qat.data.imagenet.archive import archive_error, open_archive
from keras_qat.data.imagenet.shard import Shard, ShardReport, plan_shards, write_shard
from keras_qat.data.records import record_set
from keras_qat.data.records.shard_names import has_shards
from keras_qat.errors import MOST_THREADS, DataError, StorageError, require_seed, require_whole
from keras_qat.progress import track

_logger = logging.getLogger(__name__)

OFFICIAL = {"train": 1_281_167, "validation": 50_000}
"""The number of images in each split of ILSVRC 2012."""

OFFICIAL_CLASSES = 1000

_ARCHIVES = (ilsvrc.TRAIN, ilsvrc.VALIDATION, ilsvrc.DEVKIT)
_MANIFEST = "prepared.json"
_CHECKSUMS = "SHA256SUMS"
_MOST_SHARDS = 99_999
_MOST_WORKERS = 8

_Reports = Mapping[str, ShardReport]
"""The reports of shards, by their names."""


@dataclass(frozen=True)
class Prepared:
    """What was made of the archives.

    Args:
        counts: the number of records in each split.
        classes: the number of classes.
        size: the size of all shards in bytes.
        encoded: the images that were encoded anew: `CLASS/FILE` → what they were.
        skipped: the files that were left out: `CLASS/FILE` → why.
    """

    counts: Mapping[str, int]
    classes: int
    size: int
    encoded: Mapping[str, str]
    skipped: Mapping[str, str]

    @property
    def official(self) -> bool:
        """Whether there are as many images and classes as in ILSVRC 2012."""
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
    was killed resumes with the shards that are missing; the result is the same, byte for byte.

    Args:
        archives: the folder of `ILSVRC2012_img_train.tar`, `ILSVRC2012_img_val.tar` and
            `ILSVRC2012_devkit_t12.tar.gz`, as they are downloaded.
        output: the folder to write to.
        shards: the number of training and of validation shards.
        workers: the number of threads that write shards; 8, or as many as there are processors, if not given.
        seed: the seed of the order of the images.
        skip_bad: leave out files that are no image, and log which.

    Returns:
        The counts of what was written, and the images that were encoded anew or left out.

    Raises:
        BrokenImageError: If a file is no image and `skip_bad` is not set.
        DataError: If an archive is missing, truncated or not the official one, or `output` holds other shards.
        StorageError: If `output` can't be written, is on a disk with too little space, or reads back differently.
        UserError: If a number is out of range.
    """
    _require_numbers(shards, workers, seed)
    for name in _ARCHIVES:
        if not files.is_file(archives / name, DataError):
            raise archive_error(archives / name, "there is no such file")
    with files.locked(output, "shards"):
        settings = {
            "seed": seed,
            "shards": list(shards),
            "archives": {name: (archives / name).stat().st_size for name in _ARCHIVES},
        }
        done = _read_manifest(output, settings)
        devkit = ilsvrc.read_devkit(archives / ilsvrc.DEVKIT)
        with open_archive(archives / ilsvrc.TRAIN) as train, open_archive(archives / ilsvrc.VALIDATION) as validation:
            listings = (ilsvrc.list_train(train, devkit), ilsvrc.list_validation(validation, devkit))
            plans = [plan_shards(listing, count, seed) for listing, count in zip(listings, shards, strict=True)]
            planned = [shard for plan in plans for shard in plan]
            reports = _write_shards(output, planned, done, devkit.words, settings, workers, skip_bad=skip_bad)
        counts = {
            listing.split: _check_shards(output, listing, {shard.name: reports[shard.name] for shard in plan})
            for listing, plan in zip(listings, plans, strict=True)
        }
        sums = (f"{report.sha256}  {name}\n" for name, report in sorted(reports.items()))
        files.write_text(output / _CHECKSUMS, "".join(sums))
    return Prepared(
        counts=counts,
        classes=len(devkit.words),
        size=sum(report.size for report in reports.values()),
        encoded={key: was for report in reports.values() for key, was in report.encoded.items()},
        skipped={key: why for report in reports.values() for key, why in report.skipped.items()},
    )


def _require_numbers(shards: tuple[int, int], workers: int | None, seed: int) -> None:
    for count in shards:
        require_whole("shards", count, most=_MOST_SHARDS)
    if workers is not None:
        require_whole("workers", workers, most=MOST_THREADS)
    require_seed(seed)


def _read_manifest(output: Path, settings: Mapping[str, Any]) -> _Reports:
    """The reports of the shards that an earlier run wrote with the same settings; none for a new folder."""
    path = output / _MANIFEST
    written = has_shards(output)
    if not files.is_there(path):
        if written:
            raise DataError(
                f"{output} has shards, but no {_MANIFEST} that says how they were made. Received: {str(output)!r}. "
                "Choose another folder, or move them away."
            )
        if files.is_there(output / _CHECKSUMS):
            raise DataError(
                f"A file of another tool would be replaced. Received: {str(output / _CHECKSUMS)!r}. Choose another "
                "folder, or move it away."
            )
        return {}
    try:
        stored = files.read_json(path)
        before = stored["settings"]
        reports = {name: ShardReport(**report) for name, report in stored["shards"].items()}
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{path} isn't what `keras-qat prepare-imagenet` writes. Received: {error!r}. "
            "Choose another folder, or remove this one."
        ) from error
    if not written:
        # A run that failed before its first shard may be repeated with other settings.
        return {}
    other = sorted(key for key in {*before, *settings} if before.get(key) != settings.get(key))
    if other:
        changed = ", ".join(f"{key} {settings.get(key)} (was {before.get(key)})" for key in other)
        raise DataError(
            f"The shards in {output} were begun with other settings. Received: {changed}. "
            "Go on with the settings as they were, or choose another folder."
        )
    return reports


def _write_manifest(output: Path, settings: Mapping[str, Any], reports: _Reports) -> None:
    shards = {name: asdict(report) for name, report in sorted(reports.items())}
    files.write_json(output / _MANIFEST, {"settings": settings, "shards": shards})


def _write_shards(
    output: Path,
    shards: Sequence[Shard],
    done: _Reports,
    words: Mapping[str, str],
    settings: Mapping[str, Any],
    workers: int | None,
    *,
    skip_bad: bool,
) -> _Reports:
    """Write the shards that an earlier run has not written, and return the reports of all."""
    reports = {shard.name: done[shard.name] for shard in shards if _is_done(output, shard.name, done, skip_bad)}
    pending = [shard for shard in shards if shard.name not in reports]
    if reports:
        _logger.info("%d of %d shards are there already.", len(reports), len(shards))
    files.require_space(output, sum(shard.estimated_size for shard in pending))
    _write_manifest(output, settings, reports)
    executor = ThreadPoolExecutor(workers or min(_MOST_WORKERS, os.cpu_count() or 1))
    try:
        futures = {
            executor.submit(write_shard, output / shard.name, shard, words, skip_bad=skip_bad): shard.name
            for shard in pending
        }
        for future in track(as_completed(futures), "writing shards", total=len(futures)):
            name = futures[future]
            reports[name] = future.result()
            _write_manifest(output, settings, reports)
            _log(reports[name])
    finally:
        executor.shutdown(cancel_futures=True)
    return reports


def _is_done(output: Path, name: str, done: _Reports, skip_bad: bool) -> bool:
    """Whether an earlier run wrote the shard; one that lacks broken images counts only with `skip_bad`."""
    path, report = output / name, done.get(name)
    if report is None or not path.is_file() or path.stat().st_size != report.size:
        return False
    return skip_bad or not report.skipped


def _log(report: ShardReport) -> None:
    for key, was in report.encoded.items():
        _logger.info("%s was a %s and is encoded anew as an RGB JPEG.", key, was)
    for why in report.skipped.values():
        _logger.warning("Left out: %s", why)


def _check_shards(output: Path, listing: ilsvrc.Listing, reports: _Reports) -> int:
    """Read all shards of a split again, with their checksums, count each class, and return the number of records.

    Their index goes into the cache, where the first `load_records` finds it.
    """
    advice = f"Delete that shard from {output}, check the disk, and run the same command again."
    paths = [output / name for name in sorted(reports)]
    try:
        records = record_set.open_records(listing.split, paths, refresh=True)
    except DataError as error:
        raise StorageError(f"What was written reads back differently: {error} {advice}") from error
    skipped = {key for report in reports.values() for key in report.skipped}
    kept = [listing.key(image) not in skipped for image in range(len(listing))] if skipped else slice(None)
    labels = listing.label[kept]
    expected, written = (np.unique(each, return_counts=True) for each in (labels, records.index.label))
    if not all(map(np.array_equal, expected, written)):
        raise StorageError(
            f"The {listing.split} shards hold other images than the archive. Received: {len(records.index)} records "
            f"of {len(written[0])} classes, expected {len(labels)} of {len(expected[0])}. {advice}"
        )
    return len(records.index)
