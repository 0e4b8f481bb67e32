"""The commands that judge model files.

`keras-qat verify` compares the ONNX files of a run, or one file, with what they were made from. `keras-qat evaluate`
measures the accuracy of a model file, alone or beside another, or classifies one image.
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
from keras_qat import evaluation, files, machine, report, run, verify
from keras_qat.cli import shared
from keras_qat.cli.shared import logging_to, show
from keras_qat.cli.written import JSON, LOG
from keras_qat.data import require_source
from keras_qat.errors import GateMissedError, UserError

if TYPE_CHECKING:
    VerifyOptions = Any
    EvaluateOptions = Any
else:
    VerifyOptions = shared.option_group(
        "VerifyOptions", run.declared(run.VerificationSettings, preprocessing=str | None), without={"path"}
    )
    _EVALUATION = run.declared(
        evaluation.EvaluationSettings,
        preprocessing=str | None,
        batch_size=Annotated[int, shared.AtLeastOne],
        k=Annotated[int, Parameter(name=["-k", "--k"], validator=Number(gte=1))],
        images=Annotated[int | None, shared.AtLeastOne],
        threads=Annotated[int | None, shared.AtLeastOne],
        skip_bad=Annotated[bool, shared.Flag],
        trust=Annotated[bool, shared.Flag],
    )
    # `--image` replaces the data, and the seed of the file's run replaces the default.
    EvaluateOptions = shared.option_group("EvaluateOptions", _EVALUATION, optional={"data", "seed"}, without={"file"})

_OF_A_DATA_SET = ("compare", "compare_engine", "images", "skip_bad")
"""Options of `evaluate` that mean nothing for one image."""


def verify_command(
    path: Path,
    /,
    *,
    group: Annotated[VerifyOptions, Parameter(name="*")] | None = None,
    output: Annotated[Path | None, JSON] = None,
    as_json: Annotated[bool, shared.Json] = False,
) -> None:
    """Compare the ONNX files of a run, or one file, with what they were made from; print a row for each file.

    The Q/DQ pairs of a file are compared with the placement, edge for edge, its numbers with the Keras model, tensor by
    tensor, and its classes with the model's, on images. A difference is named, and the exit code is 3.

    Examples:
        keras-qat verify runs/resnet50-digits-onnxruntime

        keras-qat verify deploy/qat.onnx --model qat.keras --placement placement.json --data photos/

    Args:
        path: The folder of a run, as `keras-qat run` or `keras-qat quantize` names it at its end, or an ONNX file.
        group: What the files are compared with, and on which images.
        output: Write all figures to this JSON file, too.
        as_json: Print JSON instead of the table.
    """
    given = shared.given(group)
    shared.require_all(
        (run.require_file_or_run, path),
        (files.require_model_file, given.get("model")),
        (files.read_text, given.get("placement")),
        (require_source, given.get("data")),
    )
    settings = run.VerificationSettings(path, **_parsed(given))
    # A run leaves out images as its own settings say.
    of_run = files.is_folder(path)
    if of_run:
        run.require_files_for("verify", run.RunFolder(path))
    advice = shared.SKIP_ANEW if of_run else shared.SKIP_NOW
    skips = run.RunFolder(path).settings().skip_bad if of_run else settings.skip_bad
    with shared.offering_skip_bad(advice, given=skips):
        verification = run.verify_files(settings)
    record = {**verification.to_dict(), "settings": settings.to_dict()}
    show(lambda: verify.verification_table(verification), record, as_json=as_json)
    if output is not None:
        files.write_json(output, record)
    if verification.miss is not None:
        raise GateMissedError(verification.miss)


def evaluate_command(
    file: Path,
    /,
    *,
    group: Annotated[EvaluateOptions, Parameter(name="*")] | None = None,
    image: Path | None = None,
    as_json: Annotated[bool, shared.Json] = False,
    output: Annotated[Path | None, JSON] = None,
    log_file: Annotated[Path | None, LOG] = None,
) -> None:
    """Run a model file on validation images in its engine; print its accuracy. Or compare two, or classify one image.

    The figures are explained in docs/evaluate.md.

    Examples:
        keras-qat evaluate runs/resnet50-imagenet-tensorrt/qat.onnx --data /data/imagenet

        keras-qat evaluate qat.engine --data /data/imagenet --compare baseline.onnx --output accuracy.json

        keras-qat evaluate qat.onnx --image cat.jpg -k 3

    Args:
        file: The .keras, .onnx, .xml, .engine or .plan file, or the folder of a SavedModel.
        group: The images, the engine, and the file to compare with.
        image: Classify this image, instead of --data.
        as_json: Print JSON instead of the table.
        output: Write the JSON to this file, too.
        log_file: Append log, settings and result to this file, with times.
    """
    given = shared.given(group)
    data = given.get("data")
    if (data is None) == (image is None):
        raise UserError(
            "A model runs either on a data set or on one image. "
            f"Received: --data {data}, --image {image}. Give one of the two."
        )
    if image is not None:
        _require_no_data_set(given)
    with logging_to(log_file) as note:
        shared.require_all(
            (files.require_engine_model, file),
            (files.require_engine_model, given.get("compare")),
            (shared.trusting(given.get("trust", False)), file),
            (shared.trusting(given.get("trust", False)), given.get("compare")),
            (require_source, data),
            (files.require_image, image),
        )
        given = _parsed(given)
        if image is None:
            settings = evaluation.EvaluationSettings(file, **{**given, "seed": run.seed_for(file, given.get("seed"))})
            note(f"Settings: {json.dumps(settings.to_dict())}")
            table, record = _evaluated(settings)
        else:
            chosen = {"k": evaluation.EvaluationSettings.k, **given}
            chosen = {name: chosen.get(name) for name in ("engine", "preprocessing", "k", "threads")}
            chosen["trust"] = given.get("trust", False)
            logged = {"file": str(file), "image": str(image), "engine": chosen["engine"], "k": chosen["k"]}
            note(f"Settings: {json.dumps(logged)}")
            classification = evaluation.classify(file, image, **chosen)
            table, record = report.classification_table(classification), classification.to_dict()
        note(f"Result: {json.dumps(record)}")
        if output is not None:
            files.write_json(output, record)
        show(lambda: table, record, as_json=as_json)


def _parsed(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options with their preprocessing as a value."""
    text = given.get("preprocessing")
    return {**given} if text is None else {**given, "preprocessing": data_sets.read_preprocessing(text)}


def _require_no_data_set(given: Mapping[str, Any]) -> None:
    """Refuse options that mean nothing for one image."""
    idle = [f"--{name.replace('_', '-')} {given[name]}" for name in _OF_A_DATA_SET if given.get(name)]
    if idle:
        raise UserError(f"That goes with --data only. Received: {', '.join(idle)} with --image. Drop one of the two.")


def _evaluated(settings: "evaluation.EvaluationSettings") -> tuple[Table, dict[str, Any]]:
    with shared.offering_skip_bad(shared.SKIP_NOW, given=settings.skip_bad):
        result = evaluation.evaluate_file(settings)
    record = {**result.to_dict(), "settings": settings.to_dict(), "environment": asdict(machine.read_environment())}
    return report.evaluation_table(result), record
