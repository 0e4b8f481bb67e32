from .augmentation import AUGMENTATIONS, Augmentation, find_augmentation
from .geometry import Fit, Geometry, Interpolation
from .image_converter import converter_preprocessing, read_preprocessing
from .image_files import decode_errors, decode_file
from .image_set import ImageSet
from .imagenet.prepare import OFFICIAL, OFFICIAL_CLASSES, Prepared, prepare_imagenet
from .load import DATA_SETS, load_data, load_validation
from .names import require_source
from .normalizations import MEANINGS, OF_CHANNELS, Channels, Mode
from .preprocessing import Preprocessing
from .records.record_set import RecordSource
from .records.shard_folder import has_shards, load_records, load_records_validation
from .sources import FileSource, Skipped
from .splits import Labelled, Splits

__all__ = [
    "AUGMENTATIONS",
    "DATA_SETS",
    "MEANINGS",
    "OFFICIAL",
    "OFFICIAL_CLASSES",
    "OF_CHANNELS",
    "Augmentation",
    "Channels",
    "FileSource",
    "Fit",
    "Geometry",
    "ImageSet",
    "Interpolation",
    "Labelled",
    "Mode",
    "Prepared",
    "Preprocessing",
    "RecordSource",
    "Skipped",
    "Splits",
    "converter_preprocessing",
    "decode_errors",
    "decode_file",
    "find_augmentation",
    "has_shards",
    "load_data",
    "load_records",
    "load_records_validation",
    "load_validation",
    "prepare_imagenet",
    "read_preprocessing",
    "require_source",
]
