"""A model file judged by itself: its accuracy on labelled images, compared with another's, or one image's classes."""

from keras_qat.evaluate_file.classify import classify
from keras_qat.evaluate_file.evaluate import evaluate_file
from keras_qat.evaluate_file.open_model import ServedModel, open_model, require_classes
from keras_qat.evaluate_file.settings import EvaluationSettings

__all__ = [
    "EvaluationSettings",
    "ServedModel",
    "classify",
    "evaluate_file",
    "open_model",
    "require_classes",
]
