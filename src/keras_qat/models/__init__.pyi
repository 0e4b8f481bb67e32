from .file_facts import ModelFacts, read_facts_file, read_model_facts
from .own_model import input_preprocessing, load_model_file
from .zoo import SEED_MODELS, Builder, ZooEntry, build_model, find, names, register

__all__ = [
    "SEED_MODELS",
    "Builder",
    "ModelFacts",
    "ZooEntry",
    "build_model",
    "find",
    "input_preprocessing",
    "load_model_file",
    "names",
    "read_facts_file",
    "read_model_facts",
    "register",
]
