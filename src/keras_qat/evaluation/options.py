"""The options of an evaluation, as one value.

Keras and NumPy are not imported here: the command line reads the options before it loads either.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_qat.errors import MANY, MOST_IMAGES_AT_ONCE, MOST_THREADS, UserError, settle_numbers
from keras_qat.files import to_json_value

if TYPE_CHECKING:
    from keras_qat.data import Preprocessing


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated, and on which images: one model file, or two on the same images.

    Args:
        file: the .keras, .onnx, .xml, .engine or .plan file, or the folder of a SavedModel.
        data: the images, as for `keras-qat run`: "digits", a folder with val/CLASS/IMAGE, a folder of photos (the fifth
            that a run judges on), a folder of TFRecord shards, or tfds:NAME.
        engine: the engine that runs the file: keras, onnxruntime, openvino, tensorrt, tensorrt-rtx, onnxruntime-cuda or
            tensorflow. If not given, the file's suffix decides.
        preprocessing: how images are prepared, as MODE:SIZE or MODE:SIZE:RESIZE, such as caffe:224:256, with :squash or
            :letterbox behind it where training didn't crop. If not given, what is written in the file or beside it, or
            what a .keras file's first Rescaling or Normalization shows.
        batch_size: images in one run of the model. A file with a fixed batch has its own.
        k: number of classes that top-k accuracy accepts, or the number of all classes if they are fewer.
        images: number of validation images to evaluate on. If not given, all.
        seed: seed that decides which digits or photos are validation images, and which of them --images takes. On the
            command line, if not given, that of the settings.json beside the file, or 0.
        threads: threads of one inference, for ONNX Runtime and OpenVINO on the CPU. If not given, all cores.
        compare: another model file, to compare with on the same images.
        compare_engine: the engine that runs the other file. If not given, the file's suffix decides.
        skip_bad: leave out files that are not images or only parts of one, and corrupt records, instead of stopping.
        trust: let the code in a SavedModel or TensorRT engine run that keras-qat did not write (docs/security.md).

    Raises:
        UserError: If a number is out of range, or an engine is given without a file to compare with.

    Example:
        >>> EvaluationSettings(Path("qat.onnx"), "digits", compare=Path("baseline.onnx")).files
        ((PosixPath('qat.onnx'), None), (PosixPath('baseline.onnx'), None))
    """

    file: Path
    data: str
    engine: str | None = None
    preprocessing: "Preprocessing | None" = None
    batch_size: int = 32
    k: int = 5
    images: int | None = None
    seed: int = 0
    threads: int | None = None
    compare: Path | None = None
    compare_engine: str | None = None
    skip_bad: bool = False
    trust: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers out of range, and an engine that has nothing to run."""
        settle_numbers(self, batch_size=(1, MOST_IMAGES_AT_ONCE), threads=(1, MOST_THREADS), seed=(0, MANY))
        if self.compare is None and self.compare_engine is not None:
            raise UserError(
                "There is no file for that engine. "
                f"Received: compare_engine={self.compare_engine!r} without a file to compare with. Name one."
            )

    @property
    def files(self) -> tuple[tuple[Path, str | None], ...]:
        """Each file with its engine."""
        first = (self.file, self.engine)
        return (first,) if self.compare is None else (first, (self.compare, self.compare_engine))

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON can hold them."""
        return dict(to_json_value(self))
