from .arrays.array_set import ArraySet
from .augmentation import AUGMENTATIONS, Augmentation, find_augmentation
from .data_set import DataSet
from .geometry import Fit, Geometry, Interpolation
from .image_converter import converter_preprocessing, read_preprocessing
from .image_files import decode_errors, decode_file
from .image_set import ImageSet
from .imagenet.prepare import OFFICIAL, OFFICIAL_CLASSES, Prepared, prepare_imagenet
from .load import DATA_SETS, load_data, load_validation
from .names import reads_images, require_source
from .normalizations import MEANINGS, OF_CHANNELS, Channels, Mode
from .preprocessing import Preprocessing
from .records.record_set import RecordSource
from .records.shard_folder import load_records, load_records_validation
from .records.shard_names import has_shards
from .signature import ArraySpec, Signature
from .sources import FileSource, Skipped
from .splits import Labelled, Splits

__all__ = [
    "AUGMENTATIONS",
    "DATA_SETS",
    "MEANINGS",
    "OFFICIAL",
    "OFFICIAL_CLASSES",
    "OF_CHANNELS",
    "ArraySet",
    "ArraySpec",
    "Augmentation",
    "Channels",
    "DataSet",
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
    "Signature",
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
    "reads_images",
    "require_source",
]
