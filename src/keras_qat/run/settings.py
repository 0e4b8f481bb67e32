"""What a run is made of: one frozen value, read by the command line, saved with the results."""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from keras_qat.errors import UserError
from keras_qat.types import AugmentationName, Monitor, Precision, RangeMode, TrainingPrecision


@dataclass(frozen=True)
class Settings:
    """The settings of `keras-qat run`.

    Args:
        model: name of a network, such as resnet50 or resnet101v2, or the path of a .keras file of your own.
        weights: float weights of a network by name: "imagenet", or the path of a .weights.h5 or .keras file. Without,
            on digits only, the float baseline is trained first and cached.
        data: "digits" (embedded), a folder of images, of CLASS/IMAGE, or of train/CLASS/IMAGE and val/CLASS/IMAGE, a
            folder of TFRecord shards as `keras-qat prepare-imagenet` writes them, or tfds:NAME.
        preprocessing: how images are prepared for a .keras file, as MODE:SIZE or MODE:SIZE:RESIZE, such as unit:96 or
            caffe:224:256. Not needed where the model begins with a Rescaling or Normalization layer.
        skip_bad: leave out files that are no image or only a part of one, and corrupt records, instead of stopping.
        target: the engine to deploy to: onnxruntime, openvino or tensorrt.
        overrides: a JSON file of rules that change the target's placement (docs/overrides.md).
        calibration_images: how many training images choose the ranges.
        calibration_method: minmax, ema, percentile, entropy, mse or auto.
        use_cache: take the ranges of an earlier run with the same model, images and method from the cache.
        weight_method: the range of each output channel of a kernel: absmax, or mse, with the least squared error.
        bias_correction: take back the shift that rounding puts on the mean of each layer's output.
        epochs: epochs of fine-tuning.
        steps_per_epoch: the most steps of one epoch; all the training images if not given.
        batch_size: images in a batch, for calibration and fine-tuning.
        accumulate: steps whose gradients are averaged: large batches in little memory.
        learning_rate: of fine-tuning, before the schedule.
        optimizer: adam, sgd-momentum or sgd.
        schedule: warmup-cosine, cosine, piecewise (warm-up, then 1.0@1,0.1@2,0.01@7), constant, or pieces of your own.
        distillation: the float model's share in the loss; 1 needs no labels, 0 trains on the labels alone.
        temperature: of the distillation.
        batch_norm: freeze, train, or freeze_after=N epochs.
        range_mode: what training does to the ranges of activations: fixed, ema or learned.
        freeze_ranges_after: epochs after which ema or learned ranges stay.
        weight_decay: of kernels.
        clip_norm: the most that the norm of all gradients together may be.
        label_smoothing: share of a label that is spread over all classes.
        training_precision: float32 or mixed_bfloat16.
        devices: GPUs that fine-tune together, each with its share of a batch; 0 takes all.
        monitor: choose the best epoch by loss or by accuracy, on training images held out for that.
        augment: vary the images that fine-tuning trains on: none, flip (mirror one in two, at random), or crop (cut out
            35% to 100% of the area at random, too). The checkpoints of each choice have a folder of their own.
        validation_images: evaluate on that many validation images; on all if not given.
        output: the folder of all runs; each makes a folder of its own in it.
        run_folder: the folder of this run, instead of one in `output` named after model, data and target.
        seed: the same seed gives the same table on the same machine.
        opset: ONNX operator set of the files, 13 to 21; 17 if not given, 19 for fp16.
        precision: floating-point type of what the quantized files don't quantize: fp32 or fp16. The float baseline is
            fp32 in any case.
        embed_preprocessing: the ONNX files read uint8 RGB pixels and normalize them themselves. All images of the run
            are then rounded to whole pixels, so that Keras and the files see the same numbers.
        skip_baseline: don't evaluate the float model (no agreement is reported then).
        skip_fine_tuning: stop after post-training quantization.
        skip_saved_model: don't write TensorFlow SavedModels.
        skip_diagnosis: don't measure the error of each tensor and kernel, which the report shows.
    """

    model: str = "resnet50"
    weights: str | None = None
    data: str = "digits"
    preprocessing: str | None = None
    skip_bad: bool = False
    target: str = "onnxruntime"
    overrides: Path | None = None
    calibration_images: int = 256
    calibration_method: str = "mse"
    use_cache: bool = True
    weight_method: str = "mse"
    bias_correction: bool = True
    epochs: int = 10
    steps_per_epoch: int | None = None
    batch_size: int = 64
    accumulate: int = 1
    learning_rate: float = 3e-6
    optimizer: str = "adam"
    schedule: str = "warmup-cosine"
    distillation: float = 1.0
    temperature: float = 1.0
    batch_norm: str = "freeze"
    range_mode: RangeMode = "fixed"
    freeze_ranges_after: int | None = None
    weight_decay: float = 0.0
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    training_precision: TrainingPrecision = "float32"
    devices: int = 1
    monitor: Monitor = "loss"
    augment: AugmentationName = "none"
    validation_images: int | None = None
    output: Path = Path("runs")
    run_folder: Path | None = None
    seed: int = 0
    opset: int | None = None
    precision: Precision = "fp32"
    embed_preprocessing: bool = False
    skip_baseline: bool = False
    skip_fine_tuning: bool = False
    skip_saved_model: bool = False
    skip_diagnosis: bool = False

    def __post_init__(self) -> None:
        """Refuse what no stage could use."""
        for name in ("calibration_images", "epochs", "batch_size", "validation_images", "steps_per_epoch"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"`{name}` must be at least 1. Received: {value}. Give a larger number.")

    @property
    def folder(self) -> Path:
        """Where this run writes: model, data and target in the name, and the precision if it is not fp32.

        It is `run_folder` if that is given.

        Example:
            >>> Settings(data="tfds:cars/1.0.0").folder.name
            'resnet50-tfds-cars-1.0.0-onnxruntime'
        """
        if self.run_folder is not None:
            return self.run_folder
        precision = "" if self.precision == "fp32" else f"-{self.precision}"
        # Of a path the last part; of tfds:NAME/CONFIG:VERSION all of it, since the versions of many sets are alike.
        whole = self.data.startswith("tfds:")
        data = re.sub("[/:]", "-", self.data) if whole else Path(self.data).resolve().name
        return Path(self.output) / f"{self.name}-{data}-{self.target}{precision}"

    @property
    def own_model(self) -> Path | None:
        """The .keras file that the model is, if it isn't a network known by its name."""
        path = Path(self.model)
        return path if path.suffix.lower() == ".keras" else None

    @property
    def name(self) -> str:
        """What folders and reports call the model.

        Example:
            >>> Settings(model="ResNet50").name, Settings(model="nets/mine.keras").name
            ('resnet50', 'mine')
        """
        return self.model.lower() if self.own_model is None else self.own_model.stem

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, value: Any) -> "Settings":
        """What `to_dict` made.

        Raises:
            UserError: it isn't a dictionary of settings.

        Example:
            >>> settings = Settings(overrides=Path("rules.json"))
            >>> Settings.from_dict(settings.to_dict()) == settings
            True
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(value, dict) or not set(value) <= known:
            raise UserError(
                f"These aren't the settings of a run. Received: {value!r}. Give the settings.json that "
                "`keras-qat run` of this version wrote."
            )
        hints = {**get_type_hints(cls), **_PATHS}
        wrong = next((name for name, one in value.items() if not _fits(one, hints[name])), None)
        if wrong is not None:
            raise UserError(
                f"These aren't the settings of a run: `{wrong}` can't be that. Received: {value[wrong]!r}. Mend it, or "
                "give the settings.json that `keras-qat run` of this version wrote."
            )
        paths = {name: Path(value[name]) for name in _PATHS if value.get(name) is not None}
        return cls(**{**value, **paths})


_PATHS: Mapping[str, Any] = {"output": str, "overrides": str | None, "run_folder": str | None}
"""The fields that are text in JSON."""


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of JSON is of a field's type."""
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if options := get_args(hint):
        return any(_fits(value, option) for option in options)
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, int | float) if hint is float else isinstance(value, hint)
