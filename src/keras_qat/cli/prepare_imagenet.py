"""`keras-qat prepare-imagenet`: from the official archives of ImageNet to TFRecord shards."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from keras_qat import data
from keras_qat.cli.shared import SKIP_NOW, AtLeastOne, Flag, Json, offering_skip_bad, show
from keras_qat.text import size_text


def prepare_imagenet_command(
    *,
    archives: Path,
    output: Path,
    shards: Annotated[tuple[int, int], Parameter(negative=())] = (1024, 128),
    workers: Annotated[int | None, AtLeastOne] = None,
    seed: int = 0,
    skip_bad: Annotated[bool, Flag] = False,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Write ImageNet into TFRecord shards, straight from the archives of ILSVRC 2012, and check them.

    The archives are not unpacked. After an interruption, the same command continues with the shards that are missing.

    Examples:
        keras-qat prepare-imagenet --archives downloads/ --output imagenet/

        keras-qat run --model resnet50 --weights imagenet --data imagenet/

    Args:
        archives: The folder of ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz.
        output: The folder to write train-00000-of-01024 and so on to; about 150 GB.
        shards: Number of shards of training images, and of validation images.
        workers: Number of shards that are written at a time. If not given, 8, or the number of processors if that is
            less.
        seed: Seed of the order of the images.
        skip_bad: Leave out files that are not images, instead of stopping.
        as_json: Print JSON instead of text.
    """
    with offering_skip_bad(SKIP_NOW, given=skip_bad):
        prepared = data.prepare_imagenet(archives, output, shards=shards, workers=workers, seed=seed, skip_bad=skip_bad)
    record = {**asdict(prepared), "official": prepared.official, "output": str(output)}
    show(lambda: _summary(prepared, output, shards) + "\n", record, as_json=as_json)


def _summary(prepared: "data.Prepared", output: Path, shards: tuple[int, int]) -> str:
    counts = ", ".join(
        f"{images:,} {split} images in {count} shards"
        for (split, images), count in zip(prepared.counts.items(), shards, strict=True)
    )
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(prepared.encoded.values()).items()))
    official = " / ".join(f"{number:,}" for number in (*data.OFFICIAL.values(), data.OFFICIAL_CLASSES))
    lines = [
        f"{output}: {counts}, {prepared.classes:,} classes, {size_text(prepared.size)}.",
        f"These {'are' if prepared.official else 'are not'} the official counts ({official}).",
        *([f"Encoded anew as RGB JPEG: {kinds}."] if kinds else []),
        *([f"Left out, since they are not images: {len(prepared.skipped)}."] if prepared.skipped else []),
        f"All records were read again. Check a copy with: cd {output} && sha256sum -c SHA256SUMS",
    ]
    return "\n".join(lines)
