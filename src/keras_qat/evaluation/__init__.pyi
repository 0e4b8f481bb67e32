from .advice import LOST_BITS, Advice, advise, diagnosis_record
from .comparison import Comparison, Proportion, compare, proportion
from .diagnosis import DB_PER_BIT, Diagnosis, KernelDiagnosis, OutputDiagnosis, TensorDiagnosis, diagnose, percent
from .file_evaluation import Evaluation, ScoredFile, evaluate_file
from .latency import (
    Benchmark,
    Latency,
    Skip,
    TimedFile,
    Timing,
    benchmark,
    benchmark_files,
    measure_latency,
    time_in_turn,
)
from .options import EvaluationSettings
from .predictions import Predictions, class_scores, convert, fixed_batch, predict, random_inputs
from .served_model import Classification, RankedClass, ServedModel, classify, open_model, rank, require_classes

__all__ = [
    "DB_PER_BIT",
    "LOST_BITS",
    "Advice",
    "Benchmark",
    "Classification",
    "Comparison",
    "Diagnosis",
    "Evaluation",
    "EvaluationSettings",
    "KernelDiagnosis",
    "Latency",
    "OutputDiagnosis",
    "Predictions",
    "Proportion",
    "RankedClass",
    "ScoredFile",
    "ServedModel",
    "Skip",
    "TensorDiagnosis",
    "TimedFile",
    "Timing",
    "advise",
    "benchmark",
    "benchmark_files",
    "class_scores",
    "classify",
    "compare",
    "convert",
    "diagnose",
    "diagnosis_record",
    "evaluate_file",
    "fixed_batch",
    "measure_latency",
    "open_model",
    "percent",
    "predict",
    "proportion",
    "random_inputs",
    "rank",
    "require_classes",
    "time_in_turn",
]
