"""The commands that measure models.

`keras-qat benchmark` compares the latency and throughput of model files. `keras-qat diagnose` shows which tensors and
kernels of a run lose accuracy, and what to try.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

from keras_qat import evaluation, machine, report
from keras_qat import run as runs
from keras_qat.cli import shared
from keras_qat.cli.shared import show
from keras_qat.cli.written import JSON, Output
from keras_qat.data import require_source
from keras_qat.errors import UserError
from keras_qat.files import require_engine_model, write_json
from keras_qat.types import BASELINE

_DIAGNOSIS_BATCH = 16

_BatchSizes = Parameter(consume_multiple=True, negative=(), validator=Number(gte=1))


def benchmark_command(
    *files: Path,
    batch_sizes: Annotated[tuple[int, ...], _BatchSizes] = (1, 8, 32),
    runs: Annotated[int, shared.AtLeastOne] = 50,
    warm_up: Annotated[int, Parameter(validator=Number(gte=0))] = 10,
    threads: Annotated[int | None, shared.AtLeastOne] = None,
    engine: str | None = None,
    trust: Annotated[bool, shared.Flag] = False,
    as_json: Annotated[bool, shared.Json] = False,
    output: Annotated[Path | None, JSON] = None,
    plot: Annotated[Path | None, Output((".png", ".svg"))] = None,
) -> None:
    """Time model files in turn, A B C A B C …, on random numbers; print latency, throughput and ratios to the first.

    A file with a fixed batch is timed at that batch only. The figures are explained in docs/benchmark.md.

    Examples:
        keras-qat benchmark baseline.onnx ptq.onnx qat.onnx

        keras-qat benchmark float.onnx int8.onnx --batch-sizes 1 16 --threads 4 --output latency.json --plot latency.png

    Args:
        files: The .onnx, .xml, .engine, .plan and .keras files and SavedModel folders to time, first the one that the
            others are compared with.
        batch_sizes: Batch sizes to time, in images.
        runs: Number of timed runs of each file at each batch size.
        warm_up: Number of runs of each file before the timed ones.
        threads: Threads of one inference, for ONNX Runtime and OpenVINO on the CPU. If not given, all cores.
        engine: The engine that runs all files, such as openvino or onnxruntime-cuda (docs/engines.md has all). If not
            given, each file's suffix decides.
        trust: Let the code in a SavedModel or TensorRT engine run that keras-qat did not write (docs/security.md).
        as_json: Print JSON instead of the table.
        output: Write all figures to this JSON file, too.
        plot: Draw latency by batch size into this .png or .svg file, too. Needs keras-qat[plot].
    """
    if not files:
        raise UserError("There is nothing to time. Received: no file. Name a model file, such as qat.onnx.")
    shared.require_all(
        *((require_engine_model, file) for file in files),
        *((shared.trusting(trust), file) for file in files),
    )
    if plot is not None:
        report.require_plot(plot)

    benchmark = evaluation.benchmark_files(
        files, engine=engine, threads=threads, batch_sizes=batch_sizes, runs=runs, warm_up=warm_up, trust=trust
    )
    environment = machine.read_environment()
    record = {**benchmark.to_dict(), "environment": asdict(environment)}
    show(lambda: report.benchmark_table(benchmark, environment), record, as_json=as_json)
    if output is not None:
        write_json(output, record)
    if plot is not None:
        report.plot_latency(benchmark, plot, title=f"{environment.cpu}, {environment.cores} cores")


def diagnose_command(
    run: Path,
    /,
    *,
    variant: Literal["ptq", "qat"] = "ptq",
    images: Annotated[int, shared.AtLeastOne] = 64,
    worst: Annotated[int, shared.AtLeastOne] = 10,
    data: str | None = None,
    output: Annotated[Path | None, Output((".json",), of_run=runs.DIAGNOSES)] = None,
    as_json: Annotated[bool, shared.Json] = False,
) -> None:
    """Show which tensors and kernels of a run's quantized model lose the most accuracy, and what to try.

    The errors are measured on training images that were held out of calibration and fine-tuning. The figures are
    explained in docs/diagnose.md.

    Examples:
        keras-qat diagnose runs/resnet50-digits-onnxruntime

        keras-qat diagnose runs/resnet50-imagenet-tensorrt --variant qat --images 256 --output diagnosis.json

    Args:
        run: The folder of a run, as `keras-qat run` names it at its end.
        variant: The model of the run: ptq or qat.
        images: Number of images to measure on.
        worst: Number of tensors and kernels to show.
        data: Where the run's images are now, if they were moved, or if `--data` was a path relative to another folder.
        output: Write all figures and all advice to this JSON file, too.
        as_json: Print JSON instead of the tables.
    """
    folder = runs.RunFolder(run)
    runs.require_files_for("diagnose", folder)
    saved = folder.settings()
    shared.require_all((require_source, data))
    folder.require_model(variant)
    settings = saved if data is None else saved.changed(data=data)
    with shared.offering_skip_bad(shared.SKIP_ANEW, given=settings.skip_bad):
        chosen = runs.load_saved(settings).selection.take(images, settings.seed)
        batches, total = chosen.arrays(_DIAGNOSIS_BATCH), chosen.steps(_DIAGNOSIS_BATCH)
        diagnosis = evaluation.diagnose(folder.model(BASELINE), folder.model(variant), batches, total=total)
    record = evaluation.diagnosis_record(diagnosis)
    head = f"{variant.upper()} of {_described(settings)}.\n\n"
    show(lambda: head + report.describe_diagnosis(diagnosis, worst=worst), record, as_json=as_json)
    if output is not None:
        write_json(output, record)


def _described(settings: runs.Settings) -> str:
    """The model and how it was quantized, which the advice depends on."""
    options = settings.calibration
    corrected = "corrected" if options.bias_correction else "not corrected"
    if options.weight_method != "absmax":
        corrected += f", kernels clipped by {options.weight_method}"
    return (
        f"{settings.model} for {settings.target}, calibrated with {options.calibration_method} on "
        f"{options.calibration_images} images, biases {corrected}"
    )
