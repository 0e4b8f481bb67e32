"""`keras-qat run`: from a trained ResNet to verified INT8, with the results table."""

from dataclasses import replace
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from keras_qat.settings import Settings


def run_command(
    settings: Annotated[Settings, Parameter(name="*")] | None = None,
    *,
    models: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
) -> None:
    """Quantize, calibrate, fine-tune, export and judge a model; print the results table.

    Without arguments: ResNet50 on the embedded handwritten digits, its float baseline trained first and cached.

    Examples:
        keras-qat run

        keras-qat run --model resnet50 --weights resnet50.weights.h5 --data imagenet/ --target tensorrt

        keras-qat run --models all --data digits

    Args:
        settings: What to do.
        models: Several networks one after the other: their names, or "all" for resnet50, resnet50v2, resnet101 and
            resnet101v2.
    """
    # TensorFlow takes seconds to load; `--help` and a mistyped option needn't wait for it.
    from keras_qat.gates import check_gates
    from keras_qat.pipeline import run
    from keras_qat.report import terminal_table
    from keras_qat.zoo import SEED_MODELS

    settings = settings or Settings()
    names = (SEED_MODELS if models == ("all",) else models) or (settings.model,)
    records = []
    for name in names:
        one = replace(settings, model=name)
        records.append(run(one))
        Console().print(terminal_table(records[-1]))
        Console().print(f"Models and results are in {one.folder}", soft_wrap=True)
    for record in records:
        check_gates(record)
