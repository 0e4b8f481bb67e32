"""Images and labels: the embedded digits, or a folder of your own."""

from keras_qat.data.decode import decode_errors
from keras_qat.data.image_set import ImageSet
from keras_qat.data.load import DATA_SETS, load_data
from keras_qat.data.preprocessing import Preprocessing
from keras_qat.data.splits import Splits

__all__ = ["DATA_SETS", "ImageSet", "Preprocessing", "Splits", "decode_errors", "load_data"]
