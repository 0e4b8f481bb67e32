"""Accuracy, agreement and latency of a model in any engine; where quantization loses accuracy."""

from keras_qat.evaluation.advice import Advice, advise
from keras_qat.evaluation.diagnose import diagnose
from keras_qat.evaluation.diagnosis import Diagnosis, KernelDiagnosis, OutputDiagnosis, TensorDiagnosis
from keras_qat.evaluation.latency import Latency, measure_latency
from keras_qat.evaluation.predict import Predictions, predict
from keras_qat.evaluation.tensor_errors import TensorError, tensor_errors

__all__ = [
    "Advice",
    "Diagnosis",
    "KernelDiagnosis",
    "Latency",
    "OutputDiagnosis",
    "Predictions",
    "TensorDiagnosis",
    "TensorError",
    "advise",
    "diagnose",
    "measure_latency",
    "predict",
    "tensor_errors",
]
