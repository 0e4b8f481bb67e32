"""The checks of a machine: a table of functions, each with what is wrong, what it costs, and what to do."""

from collections.abc import Callable, Iterator, Mapping

from keras_qat.doctor.findings import Severity, Symptom
from keras_qat.doctor.machine import Machine
from keras_qat.machine import TENSORFLOW, X86, backend_packages, first_installed

_GIGABYTE = 10**9
_DISK, _MEMORY = 2 * _GIGABYTE, 4 * _GIGABYTE
"""A machine should have this much. A run of ResNet50 writes 0.7 GB, its training 0.4 GB of checkpoints
(docs/imagenet.md)."""

_INT8_TENSOR_CORES = (7, 5)
"""The first compute capability that has them: "Hardware and Precision",
https://docs.nvidia.com/deeplearning/tensorrt/latest/getting-started/support-matrix.html."""


def no_vnni(machine: Machine) -> Iterator[Symptom]:
    """An x86 CPU that doesn't multiply int8 in hardware. The flags of other CPUs are unknown (`read_cpu`)."""
    if machine.cpu.vnni is False:
        yield Symptom(
            Severity.WARNING,
            f"the CPU has no VNNI ({machine.cpu.name})",
            "INT8 gains little on it, and OpenVINO's kernels and ONNX Runtime's default one saturate, so that results "
            "differ from those on other CPUs",
            "In your own ONNX Runtime session: options.add_session_config_entry('session.x64quantprecision', '1'), as "
            "keras-qat does. For OpenVINO quantize the weights to 7 bits, by --overrides. Measure latency on a CPU "
            "with AVX512-VNNI or AVX-VNNI, or on a GPU.",
        )


def unknown_vnni(machine: Machine) -> Iterator[Symptom]:
    """An x86 CPU whose flags are unknown."""
    if machine.architecture.lower() in X86 and machine.cpu.vnni is None:
        yield Symptom(
            Severity.NOTE,
            "whether the CPU has VNNI is unknown: this system has no /proc/cpuinfo",
            "keras-qat takes ONNX Runtime's exact mode, which is slow on CPUs with VNNI",
            "Look the CPU up; time your own session without session.x64quantprecision, if it has VNNI.",
        )


def few_cores(machine: Machine) -> Iterator[Symptom]:
    """A process that may use only a part of the cores."""
    if machine.usable_cores < machine.cores:
        yield Symptom(
            Severity.NOTE,
            f"this process may use {machine.usable_cores} of {machine.cores} cores",
            "engines that start a thread for each core get in each other's way",
            f"keras-qat evaluate and benchmark: --threads {machine.usable_cores}.",
        )


def little_memory(machine: Machine) -> Iterator[Symptom]:
    """Too little memory to calibrate a network such as ResNet50."""
    if machine.available_bytes is not None and machine.available_bytes < _MEMORY:
        yield Symptom(
            Severity.WARNING,
            f"{machine.available_bytes / _GIGABYTE:.1f} GB of memory are available",
            "calibrating or training networks such as ResNet50 may run out of it",
            "Close other programs, or use a smaller batch size.",
        )


def full_disk(machine: Machine) -> Iterator[Symptom]:
    """A disk that a run may not fit on."""
    for disk in machine.disks:
        if disk.free_bytes < _DISK:
            yield Symptom(
                Severity.WARNING,
                f"{disk.free_bytes / _GIGABYTE:.1f} GB are free for {disk.purpose}: {disk.path}",
                "a run of ResNet50 writes about 1 GB, and stops where it can't",
                "Make room; XDG_CACHE_HOME moves the cache, --output a run.",
            )


def no_backend(machine: Machine) -> Iterator[Symptom]:
    """A backend of Keras that is not installed."""
    packages = backend_packages(machine.keras_backend)
    if first_installed(packages) is None:
        yield Symptom(
            Severity.ERROR,
            f"Keras's backend is {machine.keras_backend}, which is not installed",
            "nothing can be calibrated or trained",
            f"pip install {packages[0]}; or, on a CPU: pip install 'keras-qat[cpu]'. KERAS_BACKEND chooses another.",
        )


def two_packages(machine: Machine) -> Iterator[Symptom]:
    """Two packages that install the same module, so that the later one has overwritten files of the other."""
    for pair in (TENSORFLOW, ("onnxruntime", "onnxruntime-gpu")):
        if all(package in machine.packages for package in pair):
            yield Symptom(
                Severity.WARNING,
                f"{' and '.join(pair)} are both installed, and are the same module",
                "which of the two is imported depends on which was installed last",
                f"pip uninstall {' '.join(pair)}, then install the one you want.",
            )


def old_gpu(machine: Machine) -> Iterator[Symptom]:
    """GPUs without tensor cores for INT8."""
    for gpu in machine.gpus:
        capability = tuple(int(part) for part in gpu.compute_capability.split(".") if part.isdigit())
        if capability and capability < _INT8_TENSOR_CORES:
            yield Symptom(
                Severity.WARNING,
                f"{gpu.name} has compute capability {gpu.compute_capability}",
                "it has no INT8 tensor cores, and TensorRT's current releases don't support it",
                "Use a GPU of compute capability 7.5 (Turing) or later.",
            )


def idle_gpu(machine: Machine) -> Iterator[Symptom]:
    """A GPU that no engine uses."""
    on_gpu = [engine for engine in machine.engines if "GPU" in engine.opens]
    if machine.gpus and not any(engine.state == "ready" for engine in on_gpu):
        yield Symptom(
            Severity.WARNING,
            "there is a GPU, and no engine that runs on it",
            "files for TensorRT can only be judged by ONNX Runtime on the CPU",
            "pip install 'keras-qat[tensorrt]'.",
        )


def nothing_runs(machine: Machine) -> Iterator[Symptom]:
    """A machine on which no engine can run."""
    if not machine.usable:
        yield Symptom(
            Severity.ERROR,
            "no engine can run here",
            "no file can be judged or timed",
            "pip install onnxruntime 'keras-qat[cpu]'.",
        )


ADVICE: Mapping[str, Callable[[Machine], Iterator[Symptom]]] = {
    "nothing-runs": nothing_runs,
    "no-backend": no_backend,
    "no-vnni": no_vnni,
    "two-packages": two_packages,
    "idle-gpu": idle_gpu,
    "old-gpu": old_gpu,
    "little-memory": little_memory,
    "full-disk": full_disk,
    "few-cores": few_cores,
    "unknown-vnni": unknown_vnni,
}
"""The checks by name, in the order in which they are shown."""


def advise(machine: Machine) -> dict[str, tuple[Symptom, ...]]:
    """The symptoms of a machine by check; checks that see none are left out."""
    found = {name: tuple(check(machine)) for name, check in ADVICE.items()}
    return {name: symptoms for name, symptoms in found.items() if symptoms}
