from .advice import LOST_BITS, Advice, advise, diagnosis_record
from .classification import Classification, RankedClass, classify, rank
from .comparison import Comparison, Proportion, compare, proportion
from .diagnosis import DB_PER_BIT, Diagnosis, KernelDiagnosis, OutputDiagnosis, TensorDiagnosis, diagnose, percent
from .feeding import arrays_of_inputs, as_inputs, convert, fixed_batch, of_size, random_inputs, run_batch
from .file_evaluation import evaluate_file
from .judge_outputs import judge, judge_pairs
from .judges import JUDGES, TaskJudge
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
from .output_scores import Figure, OutputScores, decibels
from .predictions import Predictions, class_scores, predict
from .scored_file import Evaluation, ScoredFile
from .served_model import ServedModel, open_model, require_classes

__all__ = [
    "DB_PER_BIT",
    "JUDGES",
    "LOST_BITS",
    "Advice",
    "Benchmark",
    "Classification",
    "Comparison",
    "Diagnosis",
    "Evaluation",
    "EvaluationSettings",
    "Figure",
    "KernelDiagnosis",
    "Latency",
    "OutputDiagnosis",
    "OutputScores",
    "Predictions",
    "Proportion",
    "RankedClass",
    "ScoredFile",
    "ServedModel",
    "Skip",
    "TaskJudge",
    "TensorDiagnosis",
    "TimedFile",
    "Timing",
    "advise",
    "arrays_of_inputs",
    "as_inputs",
    "benchmark",
    "benchmark_files",
    "class_scores",
    "classify",
    "compare",
    "convert",
    "decibels",
    "diagnose",
    "diagnosis_record",
    "evaluate_file",
    "fixed_batch",
    "judge",
    "judge_pairs",
    "measure_latency",
    "of_size",
    "open_model",
    "percent",
    "predict",
    "proportion",
    "random_inputs",
    "rank",
    "require_classes",
    "run_batch",
    "time_in_turn",
]
