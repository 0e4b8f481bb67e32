"""From the official archives of ILSVRC 2012 to TFRecord shards that any loader of ImageNet reads."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from keras_qat.data.prepare_imagenet.archive import archive_error, open_archive
from keras_qat.data.prepare_imagenet.check import check_shards, write_checksums
from keras_qat.data.prepare_imagenet.devkit import DEVKIT, read_devkit
from keras_qat.data.prepare_imagenet.listing import TRAIN, VALIDATION, list_train, list_validation
from keras_qat.data.prepare_imagenet.manifest import open_manifest
from keras_qat.data.prepare_imagenet.write import plan_shards, write_shards
from keras_qat.errors import DataError, UserError
from keras_qat.file_system import is_file
from keras_qat.storage import require_writable

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
