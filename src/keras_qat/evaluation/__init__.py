"""Accuracy, agreement and latency of a model in any engine; where quantization loses accuracy."""

from keras_qat.evaluation.advice import Advice, advise, diagnosis_record
from keras_qat.evaluation.benchmark import benchmark, benchmark_files
from keras_qat.evaluation.benchmark_record import Benchmark, Skip, TimedFile, Timing
from keras_qat.evaluation.classification import Classification, RankedClass, rank
from keras_qat.evaluation.compare import Comparison, compare
from keras_qat.evaluation.diagnose import diagnose
from keras_qat.evaluation.diagnosis import Diagnosis, KernelDiagnosis, OutputDiagnosis, TensorDiagnosis
from keras_qat.evaluation.evaluation_record import Evaluation, ScoredFile
from keras_qat.evaluation.latency import Latency, measure_latency
from keras_qat.evaluation.predict import Predictions, class_scores, predict
from keras_qat.evaluation.proportion import Proportion, proportion
from keras_qat.evaluation.tensor_error import TensorError
from keras_qat.evaluation.tensor_errors import tensor_errors
from keras_qat.evaluation.timed_runtime import TimedRuntime

__all__ = [
    "Advice",
    "Benchmark",
    "Classification",
    "Comparison",
    "Diagnosis",
    "Evaluation",
    "KernelDiagnosis",
    "Latency",
    "OutputDiagnosis",
    "Predictions",
    "Proportion",
    "RankedClass",
    "ScoredFile",
    "Skip",
    "TensorDiagnosis",
    "TensorError",
    "TimedFile",
    "TimedRuntime",
    "Timing",
    "advise",
    "benchmark",
    "benchmark_files",
    "class_scores",
    "compare",
    "diagnose",
    "diagnosis_record",
    "measure_latency",
    "predict",
    "proportion",
    "rank",
    "tensor_errors",
]
