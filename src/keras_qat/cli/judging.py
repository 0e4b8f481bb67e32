"""`keras-qat verify`: is a file what was planned, and does it compute what was simulated?

`keras-qat evaluate`: the accuracy of a model file, compared with another's, or the classes of one image.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number
from rich.table import Table

from keras_qat import data as data_sets
from keras_qat import evaluation, machine, report, run, verify
from keras_qat.cli import options
from keras_qat.cli.output import logging_to, show
from keras_qat.data import require_source
from keras_qat.errors import GateMissedError, UserError
from keras_qat.files import is_folder, read_text, require_engine_model, require_image, require_model_file, write_json

if TYPE_CHECKING:
    VerifyOptions = Any
else:
    _SETTINGS = run.declared(run.VerificationSettings, preprocessing=str | None)
    VerifyOptions = options.option_group("VerifyOptions", [option for option in _SETTINGS if option.name != "path"])


def verify_command(
    path: Path,
    /,
    *,
    group: Annotated[VerifyOptions, Parameter(name="*")] | None = None,
    output: Path | None = None,
    as_json: Annotated[bool, options.Json] = False,
) -> None:
    """Hold the ONNX files of a run, or one file, to what they were made from; print a row for each.

    Its Q/DQ pairs are held to the placement, edge for edge; its numbers to the Keras model, tensor by tensor; and its
    classes to the model's, on images. A difference is named, and the exit code is 3.

    Examples:
        keras-qat verify runs/resnet50-digits-onnxruntime

        keras-qat verify deploy/qat.onnx --model qat.keras --placement placement.json --data photos/

    Args:
        path: The folder of a run, as `keras-qat run` or `keras-qat quantize` names it at its end, or an ONNX file.
        group: What it is held to, and on what.
        output: Write all figures to this JSON file, too.
        as_json: Print JSON instead of the table.
    """
    given = options.given(group)
    options.require_all(
        (run.require_file_or_run, path),
        (require_model_file, given.get("model")),
        (read_text, given.get("placement")),
        (require_source, given.get("data")),
        (options.require_json_output, output),
    )
    if "preprocessing" in given:
        given["preprocessing"] = data_sets.Preprocessing.parse(given["preprocessing"])
    settings = run.VerificationSettings(path, **given)
    # A run leaves out images as its own settings say.
    of_run = is_folder(path)
    advice = options.SKIP_ANEW if of_run else options.SKIP_NOW
    skips = run.RunFolder(path).settings().skip_bad if of_run else settings.skip_bad
    with options.offering_skip_bad(advice, given=skips):
        verification = run.verify_files(settings)
    record = {**verification.to_dict(), "settings": settings.to_dict()}
    show(lambda: verify.verification_table(verification), record, as_json=as_json)
    if output is not None:
        write_json(output, record)
    if verification.miss is not None:
        raise GateMissedError(verification.miss)


def evaluate_command(
    file: Path,
    /,
    *,
    data: str | None = None,
    engine: str | None = None,
    preprocessing: str | None = None,
    batch_size: Annotated[int, options.AtLeastOne] = 32,
    k: Annotated[int, Parameter(name=["-k", "--k"], validator=Number(gte=1))] = 5,
    images: Annotated[int | None, options.AtLeastOne] = None,
    seed: int | None = None,
    threads: Annotated[int | None, options.AtLeastOne] = None,
    compare: Path | None = None,
    compare_engine: str | None = None,
    image: Path | None = None,
    skip_bad: Annotated[bool, options.Flag] = False,
    as_json: Annotated[bool, options.Json] = False,
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
        options.require_all(
            (require_engine_model, file),
            (require_engine_model, compare),
            (require_source, data),
            (require_image, image),
            (options.require_output_file, output),
        )
        prepared = None if preprocessing is None else data_sets.Preprocessing.parse(preprocessing)
        if image is not None:
            note(f"Settings: {json.dumps({'file': str(file), 'image': str(image), 'engine': engine, 'k': k})}")
            table, record = _classified(file, image, engine=engine, preprocessing=prepared, k=k, threads=threads)
        else:
            settings = evaluation.EvaluationSettings(
                file=file,
                data=str(data),
                engine=engine,
                preprocessing=prepared,
                batch_size=batch_size,
                k=k,
                images=images,
                seed=run.seed_for(file, seed),
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


def _classified(file: Path, image: Path, **arguments: Any) -> tuple[Table, dict[str, Any]]:

    found = evaluation.classify(file, image, **arguments)
    return report.classification_table(found), found.to_dict()


def _evaluated(settings: Any) -> tuple[Table, dict[str, Any]]:

    with options.offering_skip_bad(options.SKIP_NOW, given=settings.skip_bad):
        found = evaluation.evaluate_file(settings)
    record = {**found.to_dict(), "settings": settings.to_dict(), "environment": asdict(machine.read_environment())}
    return report.evaluation_table(found), record


def _require_idle(given: Mapping[str, Any]) -> None:
    """Refuse options that say something of a data set, where there is one image."""
    idle = [f"{name} {value}" for name, value in given.items() if value is not None]
    if idle:
        raise UserError(f"That goes with --data only. Received: {', '.join(idle)} with --image. Drop one of the two.")
