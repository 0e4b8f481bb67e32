"""`keras-qat run`: from a trained network to verified INT8, with the results table."""

from dataclasses import replace
from typing import Annotated

from cyclopts import Parameter

from keras_qat.cli.options import SKIP_NOW, Json, offering_skip_bad, require_all
from keras_qat.data_names import require_source
from keras_qat.errors import UserError
from keras_qat.paths import require_model_file, require_weights
from keras_qat.settings import Settings
from keras_qat.storage import read_text, require_creatable
from keras_qat.targets import find_target

_ALL = ("all",)


def run_command(
    *,
    settings: Annotated[Settings, Parameter(name="*")] | None = None,
    models: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Quantize, calibrate, fine-tune, export and judge a model; print the results table.

    Without arguments: ResNet50 on the embedded handwritten digits, its float baseline trained first and cached.

    Examples:
        keras-qat run

        keras-qat run --model resnet50 --weights resnet50.weights.h5 --data imagenet/ --target tensorrt

        keras-qat run --model mine.keras --data photos/

        keras-qat run --models all --data digits

    Args:
        settings: What to do.
        models: Several networks one after the other: their names, or "all" for resnet50, resnet50v2, resnet101 and
            resnet101v2.
        as_json: Print JSON instead of the table.
    """
    settings = settings or Settings()
    named = [settings] if models in {(), _ALL} else [replace(settings, model=name) for name in models]
    require_all(
        *((require_model_file, one.own_model) for one in named),
        (require_weights, settings.weights),
        (require_source, settings.data),
        (find_target, settings.target),
        (read_text, settings.overrides),
        *((require_creatable, one.folder) for one in named),
    )
    # TensorFlow takes seconds to load; `--help`, a mistyped option or path needn't wait for it.
    from keras_qat.cli.results import show_results
    from keras_qat.pipeline import run
    from keras_qat.zoo import SEED_MODELS

    names = (SEED_MODELS if models == _ALL else models) or (settings.model,)
    if settings.run_folder is not None and len(names) > 1:
        raise UserError(
            f"Several networks don't fit in one folder. Received: --run-folder {settings.run_folder} with --models "
            f"{' '.join(names)}. Use --output: each network gets a folder in it."
        )
    runs = [replace(settings, model=name) for name in names]
    with offering_skip_bad(SKIP_NOW, given=settings.skip_bad):
        show_results(((run(one), one.folder) for one in runs), as_json=as_json)
