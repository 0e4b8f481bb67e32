"""`keras-qat benchmark`: latency and throughput of model files side by side."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from keras_qat.cli.options import AtLeastOne, Json, require_all, require_json_output, require_output_file
from keras_qat.cli.show import show
from keras_qat.errors import UserError
from keras_qat.paths import require_engine_model
from keras_qat.storage import write_json


def benchmark_command(
    *files: Path,
    batch_sizes: Annotated[tuple[int, ...], Parameter(consume_multiple=True, negative=(), validator=Number(gte=1))] = (
        1,
        8,
        32,
    ),
    runs: Annotated[int, AtLeastOne] = 50,
    warm_up: Annotated[int, Parameter(validator=Number(gte=0))] = 10,
    threads: Annotated[int | None, AtLeastOne] = None,
    engine: str | None = None,
    as_json: Annotated[bool, Json] = False,
    output: Path | None = None,
    plot: Path | None = None,
) -> None:
    """Time model files in turn, A B C A B C …, on random numbers; print latency, throughput and ratios to the first.

    A file with a fixed batch is timed at that batch only. The figures are explained in docs/benchmark.md.

    Examples:
        keras-qat benchmark baseline.onnx ptq.onnx qat.onnx

        keras-qat benchmark float.onnx int8.onnx --batch-sizes 1 16 --threads 4 --output latency.json --plot latency.png

    Args:
        files: The .onnx, .xml, .engine, .plan and .keras files and SavedModel folders to time, first the one that the
            others are compared with.
        batch_sizes: Images in a run.
        runs: Counted runs of each file at each batch size.
        warm_up: Runs of each before, not counted.
        threads: Threads of one inference, for ONNX Runtime and OpenVINO on the CPU; all cores if not given.
        engine: What runs all files, such as openvino or onnxruntime-cuda (docs/engines.md has all); by each file's
            suffix if not given.
        as_json: Print JSON instead of the table.
        output: Write all figures to this JSON file, too.
        plot: Draw latency by batch size into this .png or .svg file, too. Needs keras-qat[plot].
    """
    if not files:
        raise UserError("There is nothing to time. Received: no file. Name a model file, such as qat.onnx.")
    require_all(
        *((require_engine_model, file) for file in files),
        (require_json_output, output),
        (require_output_file, plot),
    )
    from keras_qat.evaluation import benchmark_files
    from keras_qat.report import benchmark_table, plot_latency, read_environment, require_plot

    if plot is not None:
        require_plot(plot)
    found = benchmark_files(files, engine=engine, threads=threads, batch_sizes=batch_sizes, runs=runs, warm_up=warm_up)
    environment = read_environment()
    record = {**found.to_dict(), "environment": asdict(environment)}
    show(lambda: benchmark_table(found, environment), record, as_json=as_json)
    if output is not None:
        write_json(output, record)
    if plot is not None:
        plot_latency(found, plot, title=f"{environment.cpu}, {environment.cores} cores")
