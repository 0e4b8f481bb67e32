"""The settings of a run: one frozen value, read by the command line and saved with the results.

`Settings` contains the options of calibration, training and export as the values that those packages declare. Each
option has one name, that of its field, in the command line, configuration files and `settings.json` alike. Keras is not
imported here: the command line reads settings before it loads Keras.
"""

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from keras_qat.calibration import CalibrationOptions
from keras_qat.errors import MANY, UserError, settle_numbers
from keras_qat.export import ExportOptions
from keras_qat.files import from_json_value, is_model_path, to_json_value
from keras_qat.text import printable
from keras_qat.training import Distillation, Recipe
from keras_qat.types import AugmentationName


@dataclass(frozen=True)
class Settings:
    """The settings of `keras-qat run`.

    Args:
        model: name of a network, such as resnet50 or resnet101v2, or the path of a .keras file.
        weights: float weights of a network by name: "imagenet", or the path of a .weights.h5 or .keras file. If not
            given, which only digits allow, the float baseline is trained first and cached.
        data: the images: "digits" (embedded), a folder of images, of CLASS/IMAGE, or of train/CLASS/IMAGE and
            val/CLASS/IMAGE, a folder of TFRecord shards as `keras-qat prepare-imagenet` writes them, or tfds:NAME.
        preprocessing: how images are prepared for a .keras file, as MODE:SIZE or MODE:SIZE:RESIZE, such as unit:96 or
            caffe:224:256; SIZE may be HEIGHTxWIDTH, and :squash or :letterbox stands behind it where training didn't
            crop. Not needed where the model begins with a Rescaling or Normalization layer.
        skip_bad: leave out files that are not images or only parts of one, and corrupt records, instead of stopping.
        target: the engine to deploy to: onnxruntime, openvino or tensorrt.
        overrides: a JSON file of rules that change the target's placement (docs/overrides.md).
        calibration: how ranges are chosen.
        recipe: how the quantized model is fine-tuned. Its seed is that of the whole run.
        idle_distillation: the values of a distillation that is switched off, which are used once it is on again.
        devices: number of GPUs that fine-tune together, each with its share of a batch; 0 takes all.
        augment: how the images of fine-tuning are varied: none, flip (mirror one in two, at random), or crop (cut out
            35% to 100% of the area at random, too). The checkpoints of each choice have a folder of their own.
        export: how ONNX files are written.
        validation_images: number of validation images to evaluate on. If not given, all.
        output: the folder of all runs, in which each run makes its own.
        run_folder: the folder of this run, instead of one in `output` named after model, data and target.
        skip_baseline: leave out the evaluation of the float model. No agreement is reported then.
        skip_fine_tuning: stop after post-training quantization.
        skip_saved_model: write no TensorFlow SavedModels.
        skip_diagnosis: leave out the error of each tensor and kernel, which the report shows.

    Raises:
        UserError: If a number isn't whole or is out of range, or an option of a group is refused by that group.
    """

    model: str = "resnet50"
    weights: str | None = None
    data: str = "digits"
    preprocessing: str | None = None
    skip_bad: bool = False
    target: str = "onnxruntime"
    overrides: Path | None = None
    calibration: CalibrationOptions = field(default_factory=CalibrationOptions)
    recipe: Recipe = field(default_factory=Recipe)
    idle_distillation: Distillation = field(default_factory=Distillation)
    devices: int = 1
    augment: AugmentationName = "none"
    export: ExportOptions = field(default_factory=ExportOptions)
    validation_images: int | None = None
    output: Path = Path("runs")
    run_folder: Path | None = None
    skip_baseline: bool = False
    skip_fine_tuning: bool = False
    skip_saved_model: bool = False
    skip_diagnosis: bool = False

    def __post_init__(self) -> None:
        """Refuse a number of images or devices that can't be one."""
        settle_numbers(self, devices=(0, MANY))

    @classmethod
    def of(cls, **options: Any) -> "Settings":
        """Settings from options by their names, whichever group they belong to.

        Raises:
            UserError: If an option is unknown or its value is refused.

        Example:
            >>> Settings.of(target="tensorrt", epochs=3, precision="fp16").recipe.epochs
            3
        """
        return cls().changed(**options)

    def changed(self, **options: Any) -> "Settings":
        """These settings with other values for some options.

        Raises:
            UserError: If an option is unknown or its value is refused.

        Example:
            >>> Settings().changed(seed=7, distillation=0.5).recipe.distillation.weight
            0.5
        """
        unknown = sorted(set(options) - set(OPTIONS))
        if unknown:
            raise UserError(f"Unknown options of a run. Received: {unknown}. Use some of: {', '.join(OPTIONS)}.")
        changes = {
            owner: {OPTIONS[name].field: value for name, value in options.items() if OPTIONS[name].owner is owner}
            for owner in _OWNERS
        }
        teacher = replace(self.recipe.distillation or self.idle_distillation, **_without_zero(changes[Distillation]))
        weight = options.get("distillation", 0 if self.recipe.distillation is None else teacher.weight)
        return replace(
            self,
            calibration=replace(self.calibration, **changes[CalibrationOptions]),
            recipe=replace(self.recipe, **changes[Recipe], distillation=None if weight == 0 else teacher),
            idle_distillation=replace(teacher, weight=1.0) if weight == 0 else Distillation(),
            export=replace(self.export, **changes[ExportOptions]),
            **changes[Settings],
        )

    def options(self) -> dict[str, Any]:
        """The value of every option by its name.

        Example:
            >>> Settings().options()["calibration_images"]
            256
        """
        teacher = self.recipe.distillation
        values = {
            Settings: self,
            CalibrationOptions: self.calibration,
            Recipe: self.recipe,
            Distillation: teacher or self.idle_distillation,
            ExportOptions: self.export,
        }
        options = {name: getattr(values[option.owner], option.field) for name, option in OPTIONS.items()}
        options["distillation"] = 0.0 if teacher is None else teacher.weight
        if options["features"] == "auto":
            options["features"] = ("auto",)
        if not isinstance(self.recipe.schedule, str):
            options["schedule"] = ",".join(f"{multiplier}@{start}" for multiplier, start in self.recipe.schedule)
        return options

    @property
    def seed(self) -> int:
        """The seed of the run, which is that of its recipe."""
        return self.recipe.seed

    @property
    def folder(self) -> Path:
        """The folder that this run writes to.

        It is `run_folder` if that is given. Otherwise its name has the model, the data and the target, and the
        precision unless that is fp32. Control characters and bytes that aren't UTF-8 are written out in it.

        Example:
            >>> Settings(data="tfds:cars/1.0.0").folder.name
            'resnet50-tfds-cars-1.0.0-onnxruntime'
        """
        if self.run_folder is not None:
            return self.run_folder
        precision = "" if self.export.precision == "fp32" else f"-{self.export.precision}"
        # The last part of a path, but all of tfds:NAME/CONFIG:VERSION, since many data sets have the same versions.
        whole = self.data.startswith("tfds:")
        data = re.sub("[/:]", "-", self.data) if whole else Path(self.data).resolve().name
        # Libraries that write models can't be given a name that isn't UTF-8.
        name = printable(f"{self.name}-{data}-{self.target}{precision}")
        return Path(self.output) / name.replace("\\", "_")

    @property
    def model_file(self) -> Path | None:
        """The .keras or .h5 file of the model; `None` for a network by name."""
        path = Path(self.model)
        return path if is_model_path(path) else None

    @property
    def inputs(self) -> tuple[Path, ...]:
        """The paths that the run may read. A name of data that stands for no path is among them.

        Example:
            >>> [path.name for path in Settings(model="mine.keras", data="photos", overrides=Path("rules.json")).inputs]
            ['mine.keras', 'photos', 'rules.json']
        """
        named = (self.model_file, self.weights, self.data, self.overrides)
        return tuple(Path(name) for name in named if name is not None)

    @property
    def name(self) -> str:
        """The name of the model in folders and reports.

        Example:
            >>> Settings(model="ResNet50").name, Settings(model="nets/mine.keras").name
            ('resnet50', 'mine')
        """
        return self.model.lower() if self.model_file is None else self.model_file.stem

    def to_dict(self) -> dict[str, Any]:
        """The options by their names, as JSON can hold them. `--config` reads such a file, too."""
        return dict(to_json_value(self.options()))

    @classmethod
    def from_dict(cls, value: Any) -> "Settings":
        """The settings that `to_dict` gave as `value`.

        Raises:
            UserError: If `value` is not a dictionary of options, or an option has a value of another type.

        Example:
            >>> settings = Settings(overrides=Path("rules.json"))
            >>> Settings.from_dict(settings.to_dict()) == settings
            True
        """
        if not isinstance(value, dict) or not set(value) <= set(OPTIONS):
            raise UserError(
                f"These aren't the settings of a run. Received: {value!r}. Give the settings.json that "
                "`keras-qat run` of this version wrote."
            )
        return cls.of(**{name: _read_option(name, given) for name, given in value.items()})


@dataclass(frozen=True)
class Option:
    """One option, as a class of options declares it.

    Args:
        name: name of the option, such as `calibration_images`.
        kind: type of the option's values.
        default: the value if the option is not given; `MISSING` if it must be given.
        owner: the class that declares the option, and whose docstring explains it.
        field: name of the field of that class. It is the option's name, except for the weight of a distillation.
    """

    name: str
    kind: Any
    default: Any
    owner: type
    field: str


def declared(owner: type, **kinds: Any) -> tuple[Option, ...]:
    """The options that a frozen dataclass declares, in the order of its fields.

    Args:
        owner: the dataclass.
        kinds: types that options have on the command line, by the names of their fields, where they differ from those
            of the fields.

    Example:
        >>> [option.name for option in declared(ExportOptions)]
        ['opset', 'precision', 'embed_preprocessing']
    """
    return tuple(
        Option(item.name, kinds.get(item.name, item.type), item.default, owner, item.name) for item in fields(owner)
    )


_OWNERS = (Settings, CalibrationOptions, Recipe, Distillation, ExportOptions)

_GROUPS = frozenset({"calibration", "recipe", "idle_distillation", "export"})

_KINDS: Mapping[str, Any] = {"schedule": str, "features": tuple[str, ...]}


def _options() -> Iterator[Option]:
    for option in itertools.chain.from_iterable(declared(owner, **_KINDS) for owner in _OWNERS):
        if option.owner is Distillation and option.field == "weight":
            yield replace(option, name="distillation")
        elif option.name == "features":
            yield replace(option, default=("auto",))
        elif option.name != "distillation" and not (option.owner is Settings and option.name in _GROUPS):
            yield option


OPTIONS: Mapping[str, Option] = {option.name: option for option in _options()}
"""Every option of a run by its name, in the order of declaration."""


def _without_zero(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a distillation that `Distillation` takes: a weight of 0 is none."""
    return {name: value for name, value in changes.items() if not (name == "weight" and value == 0)}


def _read_option(name: str, value: Any) -> Any:
    """An option's value from JSON."""
    return from_json_value(
        OPTIONS[name].kind,
        value,
        problem=f"These aren't the settings of a run: `{name}` can't be read",
        remedy="Correct it, or give the settings.json that `keras-qat run` of this version wrote.",
    )
