"""Accuracy, agreement and latency of a model in any engine."""

from keras_qat.evaluation.latency import Latency, measure_latency
from keras_qat.evaluation.predict import Predictions, predict

__all__ = ["Latency", "Predictions", "measure_latency", "predict"]
