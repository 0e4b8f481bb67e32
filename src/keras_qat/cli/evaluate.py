"""`keras-qat evaluate`: the accuracy of a model file, compared with another's, or the classes of one image."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.table import Table

from keras_qat.cli.log_file import logging_to
from keras_qat.cli.options import SKIP_NOW, AtLeastOne, Flag, Json, offering_skip_bad, require_all, require_output_file
from keras_qat.cli.show import show
from keras_qat.data_names import require_source
from keras_qat.errors import UserError
from keras_qat.paths import require_engine_model, require_image
from keras_qat.storage import write_json


def evaluate_command(
    file: Path,
    /,
    *,
    data: str | None = None,
    engine: str | None = None,
    preprocessing: str | None = None,
    batch_size: Annotated[int, AtLeastOne] = 32,
    k: Annotated[int, Parameter(name=["-k", "--k"], validator=Number(gte=1))] = 5,
    images: Annotated[int | None, AtLeastOne] = None,
    seed: int | None = None,
    threads: Annotated[int | None, AtLeastOne] = None,
    compare: Path | None = None,
    compare_engine: str | None = None,
    image: Path | None = None,
    skip_bad: Annotated[bool, Flag] = False,
    as_json: Annotated[bool, Json] = False,
    output: Path | None = None,
    log_file: Path | None = None,
) -> None:
    """Run a model file on validation images in its engine; print its accuracy. Or compare two, or classify one image.

    The figures are explained in docs/evaluate.md.

    Examples:
        keras-qat evaluate runs/resnet50-imagenet-tensorrt/qat.onnx --data /data/imagenet

        keras-qat evaluate qat.engine --data /data/imagenet --compare baseline.onnx --output accuracy.json

        keras-qat evaluate qat.onnx --image cat.jpg -k 3

    Args:
        file: The .keras, .onnx, .xml, .engine or .plan file, or SavedModel folder.
        data: As in `keras-qat run`: "digits", a folder with val/CLASS/IMAGE, a folder of photos (the fifth that a run
            judges on), TFRecord shards, or tfds:NAME.
        engine: What runs the file: keras, onnxruntime, openvino, tensorrt, tensorrt-rtx, onnxruntime-cuda or
            tensorflow; by the file if not given.
        preprocessing: How images are prepared, as MODE:SIZE or MODE:SIZE:RESIZE, such as caffe:224:256; what is written
            in the file or beside it, or what a .keras file's first Rescaling or Normalization shows, if not given.
        batch_size: Images in a run; a file with a fixed batch has its own.
        k: Of top-k; with fewer classes than that, their number.
        images: Evaluate on that many images; on all if not given.
        seed: That of the run; by the settings.json beside the file, or 0, if not given. It decides which digits or
            photos are validation images, and which images are taken with --images.
        threads: Threads of one inference, for ONNX Runtime and OpenVINO on the CPU; all cores if not given.
        compare: Another file, to compare with on the same images.
        compare_engine: What runs that.
        image: Classify this image, instead of --data.
        skip_bad: Leave out files that are no image or only a part of one, and corrupt records, instead of stopping.
        as_json: Print JSON instead of the table.
        output: Write the JSON to this file, too.
        log_file: Append log, settings and result to this file, with times.
    """
    if (data is None) == (image is None):
        raise UserError(
            "A model runs either on a data set or on one image. "
            f"Received: --data {data}, --image {image}. Give one of the two."
        )
    if image is not None:
        only_of_a_set = {"--compare": compare, "--compare-engine": compare_engine, "--images": images}
        _require_idle({**only_of_a_set, "--skip-bad": skip_bad or None})
    with logging_to(log_file) as note:
        require_all(
            (require_engine_model, file),
            (require_engine_model, compare),
            (require_source, data),
            (require_image, image),
            (require_output_file, output),
        )
        from keras_qat.data import Preprocessing

        prepared = None if preprocessing is None else Preprocessing.parse(preprocessing)
        if image is not None:
            note(f"Settings: {json.dumps({'file': str(file), 'image': str(image), 'engine': engine, 'k': k})}")
            table, record = _classified(file, image, engine=engine, preprocessing=prepared, k=k, threads=threads)
        else:
            from keras_qat.evaluate_file import EvaluationSettings
            from keras_qat.saved_run import seed_for

            settings = EvaluationSettings(
                file=file,
                data=str(data),
                engine=engine,
                preprocessing=prepared,
                batch_size=batch_size,
                k=k,
                images=images,
                seed=seed_for(file, seed),
                threads=threads,
                compare=compare,
                compare_engine=compare_engine,
                skip_bad=skip_bad,
            )
            note(f"Settings: {json.dumps(settings.to_dict())}")
            table, record = _evaluated(settings)
        note(f"Result: {json.dumps(record)}")
        if output is not None:
            write_json(output, record)
        show(lambda: table, record, as_json=as_json)


def _classified(file: Path, image: Path, **options: Any) -> tuple[Table, dict[str, Any]]:
    from keras_qat.evaluate_file import classify
    from keras_qat.report import classification_table

    found = classify(file, image, **options)
    return classification_table(found), found.to_dict()


def _evaluated(settings: Any) -> tuple[Table, dict[str, Any]]:
    from keras_qat.evaluate_file import evaluate_file
    from keras_qat.report import evaluation_table, read_environment

    with offering_skip_bad(SKIP_NOW, given=settings.skip_bad):
        found = evaluate_file(settings)
    record = {**found.to_dict(), "settings": settings.to_dict(), "environment": asdict(read_environment())}
    return evaluation_table(found), record


def _require_idle(options: Mapping[str, Any]) -> None:
    """Refuse options that say something of a data set, where there is one image."""
    given = [f"{name} {value}" for name, value in options.items() if value is not None]
    if given:
        raise UserError(f"That goes with --data only. Received: {', '.join(given)} with --image. Drop one of the two.")
