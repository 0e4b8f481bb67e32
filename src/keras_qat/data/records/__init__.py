"""Images in TFRecord shards: framing, index, labels, and the sets that come of them."""

from keras_qat.data.records.load import load_records, load_records_validation
from keras_qat.data.records.shards import has_shards
from keras_qat.data.records.source import RecordSource

__all__ = ["RecordSource", "has_shards", "load_records", "load_records_validation"]
