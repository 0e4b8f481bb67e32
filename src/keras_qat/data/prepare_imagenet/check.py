"""The last step: what lies on the disk is what the archives hold."""

from pathlib import Path

import numpy as np

from keras_qat.data.prepare_imagenet.listing import Listing
from keras_qat.data.prepare_imagenet.manifest import Reports
from keras_qat.data.records.record_set import open_records
from keras_qat.errors import DataError, StorageError
from keras_qat.storage import write_text

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
