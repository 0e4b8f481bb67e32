"""`keras-qat quantize`: from a `.keras` file to a verified INT8 ONNX file, with nothing trained."""

from pathlib import Path
from typing import Annotated

from keras_qat.cli.options import SKIP_NOW, AtLeastOne, Flag, Json, offering_skip_bad, require_all
from keras_qat.data_names import require_source
from keras_qat.errors import UserError
from keras_qat.paths import require_model_file
from keras_qat.settings import Settings
from keras_qat.storage import read_text, require_creatable
from keras_qat.targets import find_target
from keras_qat.types import Precision


def quantize_command(
    model: Path,
    /,
    *,
    data: str,
    target: str = "onnxruntime",
    preprocessing: str | None = None,
    skip_bad: Annotated[bool, Flag] = False,
    calibration_images: Annotated[int, AtLeastOne] = 256,
    calibration_method: str = "mse",
    weight_method: str = "mse",
    bias_correction: bool = True,
    overrides: Path | None = None,
    validation_images: Annotated[int | None, AtLeastOne] = None,
    batch_size: Annotated[int, AtLeastOne] = 64,
    precision: Precision = "fp32",
    opset: int | None = None,
    embed_preprocessing: Annotated[bool, Flag] = False,
    output: Path = Path("runs"),
    run_folder: Path | None = None,
    seed: int = 0,
    as_json: Annotated[bool, Json] = False,
) -> None:
    """Quantize a trained Keras model to an ONNX file for an engine; prove that it computes what it should.

    Needs a folder of a few hundred images like those that the model will see. They need no labels; with labels, the
    accuracy is reported, too. Writes the files, their proof and report.html to a folder that is named at the end.

    Examples:
        keras-qat quantize my.keras --data photos/

        keras-qat quantize my.keras --data photos/ --target tensorrt --preprocessing unit:96

    Args:
        model: The .keras file.
        data: A folder of images, of CLASS/IMAGE, or of train/CLASS/IMAGE and val/CLASS/IMAGE; TFRecord shards;
            tfds:NAME; or digits.
        target: The engine to deploy to: onnxruntime, openvino or tensorrt.
        preprocessing: How images are prepared for the model, as MODE:SIZE or MODE:SIZE:RESIZE, such as unit:96 or
            caffe:224:256. Not needed where the model begins with a Rescaling or Normalization layer.
        skip_bad: Leave out files that are no image or only a part of one, and corrupt records, instead of stopping.
        calibration_images: How many images choose the ranges.
        calibration_method: minmax, ema, percentile, entropy, mse or auto.
        weight_method: The range of each output channel of a kernel: absmax, or mse, with the least squared error.
        bias_correction: Take back the shift that rounding puts on the mean of each layer's output.
        overrides: A JSON file of rules that change the target's placement (docs/overrides.md).
        validation_images: Compare with the float model on that many images; on all that were held out if not given.
        batch_size: Images in a batch of calibration.
        precision: Floating-point type of what isn't quantized: fp32 or fp16.
        opset: ONNX operator set, 13 to 21; 17 if not given, 19 for fp16.
        embed_preprocessing: The file reads uint8 pixels and normalizes them itself.
        output: The folder of all runs; each makes a folder of its own in it.
        run_folder: The folder to write to, instead of one in `output` named after model, data and target.
        seed: The same seed takes the same images.
        as_json: Print JSON instead of the table.
    """
    if model.suffix.lower() != ".keras":
        raise UserError(
            f"A model is quantized from its .keras file. Received: {str(model)!r}. Save it with "
            "`model.save('my.keras')`; networks by name, such as resnet50, go with `keras-qat run`."
        )
    settings = Settings(
        model=str(model),
        data=data,
        target=target,
        preprocessing=preprocessing,
        skip_bad=skip_bad,
        calibration_images=calibration_images,
        calibration_method=calibration_method,
        weight_method=weight_method,
        bias_correction=bias_correction,
        overrides=overrides,
        validation_images=validation_images,
        batch_size=batch_size,
        precision=precision,
        opset=opset,
        embed_preprocessing=embed_preprocessing,
        output=output,
        run_folder=run_folder,
        seed=seed,
        skip_fine_tuning=True,
        skip_saved_model=True,
    )
    require_all(
        (require_model_file, model),
        (require_source, data),
        (find_target, target),
        (read_text, overrides),
        (require_creatable, settings.folder),
    )
    from keras_qat.cli.results import show_results
    from keras_qat.pipeline import run

    with offering_skip_bad(SKIP_NOW, given=skip_bad):
        show_results([(run(settings), settings.folder)], as_json=as_json)
