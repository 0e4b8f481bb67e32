"""`keras-qat verify`: is a file what was planned, and does it compute what was simulated?"""

from pathlib import Path
from typing import Annotated

from keras_qat.cli.options import (
    SKIP_ANEW,
    SKIP_NOW,
    AtLeastOne,
    Flag,
    Json,
    offering_skip_bad,
    require_all,
    require_json_output,
)
from keras_qat.cli.show import show
from keras_qat.data_names import require_source
from keras_qat.errors import GateMissedError
from keras_qat.file_system import is_folder
from keras_qat.paths import require_model_file, require_onnx_or_run
from keras_qat.run_folder import saved_settings
from keras_qat.storage import read_text, write_json


def verify_command(
    path: Path,
    /,
    *,
    model: Path | None = None,
    placement: Path | None = None,
    data: str | None = None,
    preprocessing: str | None = None,
    images: Annotated[int, AtLeastOne] = 128,
    seed: int | None = None,
    skip_bad: Annotated[bool, Flag] = False,
    output: Path | None = None,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Hold the ONNX files of a run, or one file, to what they were made from; print a row for each.

    Its Q/DQ pairs are held to the placement, edge for edge; its numbers to the Keras model, tensor by tensor; and its
    classes to the model's, on images. A miss is named, and the exit code is 3.

    Examples:
        keras-qat verify runs/resnet50-digits-onnxruntime

        keras-qat verify deploy/qat.onnx --model qat.keras --placement placement.json --data photos/

    Args:
        path: The folder of a run, as `keras-qat run` or `keras-qat quantize` names it at its end, or an ONNX file.
        model: The .keras file that the ONNX file was exported from; that of the same name beside it if not given.
        placement: The placement.json of its run; of a quantized model that beside the ONNX file, if there is one.
        data: Images to compare classes on, as in `keras-qat evaluate`. A run has its own: say where they are now, if
            they were moved. One file is compared on random numbers without.
        preprocessing: How images are prepared, as MODE:SIZE or MODE:SIZE:RESIZE, such as caffe:224:256; what is written
            in the file or beside it, or what the model's first Rescaling or Normalization shows, if not given.
        images: How many images to compare classes on.
        seed: That of the run; by the settings.json beside the file, or 0, if not given. It decides which digits or
            photos are validation images, chooses among them, and draws the random numbers.
        skip_bad: Leave out files that are no image or only a part of one, and corrupt records, instead of stopping; for
            one file: a run does as its `--skip-bad` said.
        output: Write all figures to this JSON file, too.
        as_json: Print JSON instead of the table.
    """
    require_all(
        (require_onnx_or_run, path),
        (require_model_file, model),
        (read_text, placement),
        (require_source, data),
        (require_json_output, output),
    )
    from keras_qat.data import Preprocessing
    from keras_qat.saved_run import seed_for
    from keras_qat.verify_files import VerificationSettings, verification_table, verify_files

    settings = VerificationSettings(
        path=path,
        model=model,
        placement=placement,
        data=data,
        preprocessing=None if preprocessing is None else Preprocessing.parse(preprocessing),
        images=images,
        seed=seed_for(path, seed),
        skip_bad=skip_bad,
    )
    # A run does as it did, whatever is said here.
    advice, given = (SKIP_ANEW, saved_settings(path).skip_bad) if is_folder(path) else (SKIP_NOW, skip_bad)
    with offering_skip_bad(advice, given=given):
        found = verify_files(settings)
    record = {**found.to_dict(), "settings": settings.to_dict()}
    show(lambda: verification_table(found), record, as_json=as_json)
    if output is not None:
        write_json(output, record)
    if found.miss is not None:
        raise GateMissedError(found.miss)
