"""From the official archives of ImageNet to TFRecord shards."""
