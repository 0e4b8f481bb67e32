"""Images in TFRecord shards: framing, index, labels, and the sets that come of them."""
