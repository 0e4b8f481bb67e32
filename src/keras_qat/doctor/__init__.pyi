from .examination import Examination, examine
from .findings import Finding, Severity
from .machine import EngineState, Machine, read_machine
from .machine_advice import advise
from .terminal import file_table, machine_table

__all__ = [
    "EngineState",
    "Examination",
    "Finding",
    "Machine",
    "Severity",
    "advise",
    "examine",
    "file_table",
    "machine_table",
    "read_machine",
]
