"""Accuracy, agreement and latency of a model in any engine."""

from keras_qat.evaluation.latency import Latency, measure_latency
from keras_qat.evaluation.predict import Predictions, predict
from keras_qat.evaluation.tensor_errors import TensorError, tensor_errors

__all__ = ["Latency", "Predictions", "TensorError", "measure_latency", "predict", "tensor_errors"]
