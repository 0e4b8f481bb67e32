"""This machine: processor, memory, GPU, engines; and what to do about it."""

from keras_qat.doctor.machine.advice import advise
from keras_qat.doctor.machine.engines import EngineState
from keras_qat.doctor.machine.machine import Machine, read_machine

__all__ = ["EngineState", "Machine", "advise", "read_machine"]
