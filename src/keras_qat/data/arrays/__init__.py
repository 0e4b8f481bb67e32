"""Data sets of arrays: sensors, tensors of any rank, images that are prepared already. TensorFlow is not needed."""
