"""`keras-qat doctor` without a file: what it says of machines, this one and others."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from keras_qat.cli.program import app, run_program
from keras_qat.doctor import Machine, Severity, advise, read_machine
from keras_qat.doctor import machine as engines_module
from keras_qat.doctor import machine as machine_module
from keras_qat.doctor import machine_advice as advice_module
from keras_qat.doctor.machine import read_engines
from keras_qat.doctor.machine_advice import ADVICE
from keras_qat.machine import EXTRAS, Cpu, Disk, Gpu, hardware, memory, read_environment, read_gpus
from keras_qat.runtimes import ADAPTERS

GPU = Gpu("NVIDIA RTX A2000", "550.54", 6138, "8.6")
RICH = 64 * 10**9


@pytest.fixture(scope="module")
def sound() -> Machine:
    """This machine, with nothing to complain of."""
    machine = read_machine()
    return replace(
        machine,
        cpu=Cpu("a new one", vnni=True),
        architecture="x86_64",
        cores=8,
        usable_cores=8,
        available_bytes=RICH,
        gpus=(),
        packages={"onnxruntime": "1.32.0", "tensorflow-cpu": "2.20"},
        disks=(Disk("runs", "/", RICH),),
    )


Change = Callable[[Machine], Machine]

PROVOKED: dict[str, Change] = {
    "no-vnni": lambda m: replace(m, cpu=Cpu("an old one", vnni=False)),
    "unknown-vnni": lambda m: replace(m, cpu=Cpu("some", vnni=None)),
    "few-cores": lambda m: replace(m, usable_cores=2),
    "little-memory": lambda m: replace(m, available_bytes=10**9),
    "full-disk": lambda m: replace(m, disks=(Disk("runs", "/", 10**8),)),
    "two-packages": lambda m: replace(m, packages={**m.packages, "onnxruntime-gpu": "1.32.0"}),
    "old-gpu": lambda m: replace(m, gpus=(replace(GPU, compute_capability="6.1"),)),
    "idle-gpu": lambda m: replace(m, gpus=(GPU,), engines=tuple(one for one in m.engines if "GPU" not in one.opens)),
    "no-backend": lambda m: replace(m, keras_backend="torch"),
    "nothing-runs": lambda m: replace(m, engines=()),
}


@pytest.fixture(autouse=True)
def _only_tensorflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is installed where the tests run, Keras has TensorFlow alone."""
    monkeypatch.setattr(
        advice_module, "first_installed", lambda packages: next((p for p in packages if "tensorflow" in p), None)
    )


@pytest.mark.parametrize("check", PROVOKED)
def test_one_change_provokes_the_advice(check: str, sound: Machine) -> None:
    assert advise(sound) == {}
    (symptom,) = advise(PROVOKED[check](sound))[check]
    assert symptom.problem
    assert symptom.cost
    assert symptom.remedy


def test_every_advice_is_provoked() -> None:
    assert set(PROVOKED) == set(ADVICE)


def test_without_vnni_the_exact_mode_of_onnx_runtime_is_named(sound: Machine) -> None:
    (symptom,) = advise(PROVOKED["no-vnni"](sound))["no-vnni"]
    assert "session.x64quantprecision" in symptom.remedy
    assert symptom.severity is Severity.WARNING


def test_on_arm_vnni_is_no_matter(sound: Machine) -> None:
    assert advise(replace(sound, architecture="aarch64", cpu=Cpu("arm", vnni=None))) == {}


@pytest.mark.parametrize("architecture", ["x86_64", "AMD64", "amd64", "i386", "i686"])
def test_x86_is_known_under_all_its_names(architecture: str, sound: Machine) -> None:
    assert set(advise(replace(sound, architecture=architecture, cpu=Cpu("some", vnni=None)))) == {"unknown-vnni"}
    assert set(advise(replace(sound, architecture=architecture, cpu=Cpu("some", vnni=False)))) == {"no-vnni"}


def test_the_engines_are_those_that_keras_qat_opens() -> None:
    assert {engine.name for engine in read_engines(())} == set(ADAPTERS)
    titles = {engine.name: engine.title for engine in read_engines(())}
    assert titles == {name: adapter.engine.title for name, adapter in ADAPTERS.items()}


def test_the_extras_are_those_of_the_package() -> None:
    known = set(metadata.metadata("keras-qat").get_all("Provides-Extra") or ())
    assert {extra.name for extra in EXTRAS} == known - {"dev", "docs", "benchmark"}
    required = " ".join(metadata.requires("keras-qat") or ())
    assert all(extra.packages[0].split("[")[0] in required for extra in EXTRAS)


def test_versions_are_those_that_the_packages_say_themselves() -> None:
    import onnxruntime

    states = {engine.name: engine for engine in read_engines(())}
    assert states["onnxruntime"].version == onnxruntime.__version__
    assert states["onnxruntime"].state == "ready"


@pytest.mark.parametrize(
    ("installed", "gpus", "state"),
    [
        ({}, (), "not installed"),
        ({"tensorrt-rtx-cu13"}, (), "builds only"),
        ({"tensorrt-rtx-cu13"}, (GPU,), "builds only"),
        ({"tensorrt-rtx-cu13", "cuda-python"}, (GPU,), "ready"),
    ],
)
def test_an_engine_needs_its_package_its_gpu_and_cuda(
    installed: set[str], gpus: tuple[Gpu, ...], state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines_module, "first_installed", lambda ps: next((p for p in ps if p in installed), None))
    monkeypatch.setattr(engines_module, "version_of", lambda package: "1.0" if package in installed else None)
    found = {engine.name: engine for engine in read_engines(gpus)}["tensorrt-rtx"]
    assert found.state == state
    assert bool(found.remedy) == (state != "ready")


class FakeNvml:
    """NVML of a machine with these GPUs: name, bytes of memory and compute capability, `None` where it doesn't say."""

    class NVMLError(Exception):
        """What every failure of NVML is."""

    def __init__(self, driver: str | None, *gpus: tuple[str, int | None, tuple[int, int] | None]) -> None:
        self.driver = driver
        self.gpus = gpus
        self.open = 0

    def _given(self, value: Any) -> Any:
        if value is None:
            raise self.NVMLError("Not Supported")
        return value

    def nvmlInit(self) -> None:  # noqa: N802
        self._given(self.driver)
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlSystemGetDriverVersion(self) -> str | None:  # noqa: N802
        return self.driver

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:  # noqa: N802
        return self._given(self.gpus[index])

    def nvmlDeviceGetName(self, gpu: Any) -> str:  # noqa: N802
        return str(gpu[0])

    def nvmlDeviceGetMemoryInfo(self, gpu: Any) -> Any:  # noqa: N802
        return SimpleNamespace(total=self._given(gpu[1]))

    def nvmlDeviceGetCudaComputeCapability(self, gpu: Any) -> Any:  # noqa: N802
        return self._given(gpu[2])


A2000 = ("NVIDIA RTX A2000", 6138 * 2**20, (8, 6))


@pytest.mark.parametrize(
    ("nvml", "gpus"),
    [
        (FakeNvml("550.54", A2000), (GPU,)),
        (FakeNvml("390.1", ("Tesla", None, None)), (Gpu("Tesla", "390.1", 0, ""),)),
        (FakeNvml("550.54", A2000, ("Tesla", None, None)), (GPU, Gpu("Tesla", "550.54", 0, ""))),
        (FakeNvml("550.54"), ()),
        (FakeNvml(None), ()),  # no driver
    ],
)
def test_gpus_are_those_of_nvml(nvml: FakeNvml, gpus: tuple[Gpu, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "pynvml", nvml)
    assert read_gpus() == gpus
    assert nvml.open == 0


def test_a_gpu_that_fails_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = FakeNvml("550.54", A2000)
    monkeypatch.setattr(nvml, "nvmlDeviceGetHandleByIndex", lambda _: nvml._given(None))
    monkeypatch.setattr(hardware, "pynvml", nvml)
    assert read_gpus() == ()
    assert nvml.open == 0


def test_the_memory_is_that_which_training_counts_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("8000")
    (tmp_path / "memory.current").write_text("5000")
    monkeypatch.setattr(hardware, "_CGROUPS", tmp_path)
    machine = read_machine()
    assert (machine.memory_bytes, machine.available_bytes) == memory() == (8000, 3000)


def test_a_result_names_the_packages_that_it_was_made_with() -> None:
    packages = read_environment().packages
    assert {"keras-qat", "keras", "onnx", "onnxruntime", "numpy"} <= set(packages)
    assert any(name.startswith("tensorflow") for name in packages)


def test_the_backend_is_the_environments_then_that_of_the_file_then_tensorflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert machine_module.keras_backend() == "tensorflow"
    (tmp_path / "keras.json").write_text('{"backend": "jax"}')
    assert machine_module.keras_backend() == "jax"
    (tmp_path / "keras.json").write_text("not json")
    assert machine_module.keras_backend() == "tensorflow"
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert machine_module.keras_backend() == "torch"


def test_the_command_prints_the_machine(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["doctor"], app) == 0
    table = capsys.readouterr().out
    assert run_program(["doctor", "--json"], app) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["machine"]["cores"] == os.cpu_count()
    assert all(engine["name"] in table for engine in record["machine"]["engines"])
    assert all(one["check"] in table for one in record["advice"])


def test_where_nothing_runs_the_exit_code_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "read_engines", lambda _: ())
    assert run_program(["doctor"], app) == 3
    out, err = capsys.readouterr()
    assert "No engine can run" in out
    assert "No engine can run" in err


def test_the_doctors_own_modules_import_no_framework() -> None:
    """Seen from outside of the package, whose `__init__` may import anything."""
    code = """
import sys, types
from pathlib import Path
import importlib.util
source = Path(importlib.util.find_spec("keras_qat").submodule_search_locations[0])
package = types.ModuleType("keras_qat"); package.__path__ = [str(source)]; sys.modules["keras_qat"] = package
from keras_qat.doctor import examine, machine_table, read_machine
machine_table(read_machine())
print([name for name in ("tensorflow", "keras", "torch", "jax", "openvino", "tensorrt") if name in sys.modules])
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603
    assert found.stdout.strip() == "[]"
