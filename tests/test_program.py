"""How the program ends: by a signal, on a full disk, with a closed output, or by a bug."""

import errno
import logging
import os
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cyclopts
import pytest

from keras_qat.cli.process import BROKEN_PIPE, INTERRUPTED, SHOW_TRACEBACK, main
from keras_qat.cli.program import app, run_program
from keras_qat.cli.shared import logging_to

# A program of keras-qat's frame, whose command is one of these. Each says "begun" first.
_COMMANDS = """
import sys, time
import cyclopts
from keras_qat.cli import main
app = cyclopts.App(name="it", suppress_keyboard_interrupt=False)

def wait():
    print("begun", flush=True)
    time.sleep(60)

@app.command
def unwinds():
    try:
        wait()
    finally:
        print("unwound", flush=True)

@app.command
def swallows():
    print("begun", flush=True)
    for _ in range(600):
        try:
            time.sleep(0.1)
        except KeyboardInterrupt:
            print("swallowed", flush=True)

@app.command
def replaces():
    try:
        wait()
    except KeyboardInterrupt:
        raise RuntimeError("from native code")

@app.command
def native():
    import hashlib
    print("begun", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)  # minutes, in which Python runs no handler

@app.command
def hangs_at_exit():
    import atexit, threading
    atexit.register(time.sleep, 60)
    threading.Thread(target=time.sleep, args=(60,)).start()
    wait()

main(command=app)
"""


class Started:
    """A process of one of the commands above, once it has begun."""

    def __init__(self, command: str) -> None:
        # Whoever started the tests may have ignored SIGINT, as a shell does in the background.
        old = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-c", _COMMANDS, command.replace("_", "-")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        signal.signal(signal.SIGINT, old)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "begun\n"

    def end(self, *numbers: signal.Signals) -> tuple[int, str, float]:
        """Exit code, both outputs, and the seconds to the end after these signals."""
        start = time.monotonic()
        for number in numbers:
            self.process.send_signal(number)
            time.sleep(0.3)
        try:
            out, err = self.process.communicate(timeout=20)
        finally:
            self.process.kill()
        return self.process.returncode, out + err, time.monotonic() - start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", ["unwinds", "replaces", "hangs_at_exit"])
def test_a_signal_ends_the_program_soon(command: str, number: signal.Signals) -> None:
    code, output, seconds = Started(command).end(number)
    assert code == 128 + number
    assert seconds < 3
    assert output == ("unwound\n" if command == "unwinds" else "") + f"error: {INTERRUPTED}\n"


def test_a_signal_that_does_not_reach_the_command_ends_the_program_after_a_while() -> None:
    started = [Started("swallows"), Started("native")]
    for one in started:
        one.process.send_signal(signal.SIGTERM)
    for one in started:
        code, output, seconds = one.end()
        assert (code, seconds < 5) == (143, True)
        assert output.endswith(f"error: {INTERRUPTED}\n")


def test_a_second_signal_ends_the_program_at_once() -> None:
    code, _, seconds = Started("swallows").end(signal.SIGINT, signal.SIGTERM)
    assert (code, seconds < 2) == (130, True)


def command_that(act: Callable[[], None]) -> cyclopts.App:
    """A program that does one thing."""
    program = cyclopts.App(name="it", suppress_keyboard_interrupt=False)
    program.default(act)
    return program


def fails_with(error: BaseException) -> cyclopts.App:
    def act() -> None:
        raise error

    return command_that(act)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.fixture
def details(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the details of a bug go to."""
    monkeypatch.delenv(SHOW_TRACEBACK, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_a_bug_is_called_one_and_its_details_are_in_a_file(details: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_program([], fails_with(KeyError("surprise"))) == 4
    message = " ".join(capfd.readouterr().err.split())
    (file,) = details.iterdir()
    assert "bug of keras-qat" in message
    assert "Received: KeyError: 'surprise'" in message
    assert str(file) in message
    assert "Traceback" not in message
    text = file.read_text(encoding="utf-8")
    assert "raise error\nKeyError: 'surprise'" in text
    assert re.search(r"^keras: \d", text, re.MULTILINE)


def test_the_traceback_is_shown_where_no_file_can_be_written_or_a_developer_asks(
    details: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(details / "nowhere"))
    assert run_program([], fails_with(KeyError("surprise"))) == 4
    assert "raise error" in capfd.readouterr().err
    monkeypatch.undo()
    monkeypatch.setenv(SHOW_TRACEBACK, "1")
    assert run_program([], fails_with(KeyError("surprise"))) == 4
    assert "raise error" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.npz"), "No space left on device. Received: 'a.npz'"),
        (OSError("Can't write data (errno = 28, error message = 'No space left on device')"), "Make room on the disk"),
        (PermissionError(errno.EACCES, "Permission denied", b"a\xff"), "Permission denied. Received: 'a"),
        (MemoryError(), "Use smaller batches"),
        (RuntimeError("RESOURCE_EXHAUSTED: OOM when allocating"), "Use smaller batches"),
        (caused(RuntimeError("writing"), OSError(errno.EDQUOT, "Disk quota exceeded")), "Make room on the disk"),
        (caused(RuntimeError("reading"), OSError(errno.EIO, "Input/output error")), "Check the disk"),
        (ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow"), "pip install --force-reinstall"),
    ],
)
def test_a_failure_of_the_machine_is_no_bug(
    error: Exception, said: str, details: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_program([], fails_with(error)) == 2
    assert said in " ".join(capfd.readouterr().err.split())
    assert list(details.iterdir()) == []


def test_recursion_without_end_and_errors_of_other_kinds_are_bugs(
    details: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def recurse() -> None:
        recurse()

    class PanicError(BaseException):
        """As native code in Rust raises it."""

    assert run_program([], command_that(recurse)) == 4
    assert run_program([], fails_with(PanicError("at line 3"))) == 4
    assert len(list(details.iterdir())) == 2
    assert "Received: PanicError: at line 3" in " ".join(capfd.readouterr().err.split())


def test_a_bug_in_the_handling_of_an_error_is_a_bug(details: Path) -> None:
    bug = KeyError("surprise")
    bug.__context__ = PermissionError(errno.EACCES, "Permission denied")
    assert run_program([], fails_with(bug)) == 4
    assert len(list(details.iterdir())) == 1


@pytest.mark.parametrize(
    ("code", "ended", "said"),
    [(None, 0, ""), (0, 0, ""), (7, 7, ""), ("A library gives up.", 2, "A library gives up.")],
)
def test_a_library_may_end_the_program(code: object, ended: int, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_program([], fails_with(SystemExit(code))) == ended
    assert capfd.readouterr().err == (f"error: {said}\n" if said else "")


def test_called_with_arguments_the_program_changes_nothing_of_the_process(
    capfd: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    """As in a notebook, whose process goes on behind it."""
    # A shell starts a program in the background with SIGINT ignored.
    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def state() -> tuple[object, ...]:
        wakeup = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(wakeup)
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        return wakeup, handlers, logging.raiseExceptions, sys.unraisablehook, list(sys.meta_path), sys.stderr.errors

    before, during = state(), []
    threads = threading.active_count()
    with pytest.raises(SystemExit) as stopped:
        main([], command=command_that(lambda: during.append((state(), threading.active_count()))))
    assert (stopped.value.code, during) == (0, [(before, threads)])
    assert state() == before
    with pytest.raises(SystemExit) as stopped:
        main([], command=command_that(lambda: signal.raise_signal(signal.SIGINT)))
    assert stopped.value.code == 130
    assert state() == before
    assert INTERRUPTED in capfd.readouterr().err


def test_a_broken_installation_is_said_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "cyclopts.py").write_text("raise ImportError('libc is too old')")
    done = subprocess.run(
        [sys.executable, "-c", "from keras_qat.cli import main; main()", "--version"],
        env={
            **os.environ,
            SHOW_TRACEBACK: "",
            "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == (
        "error: A library that keras-qat needs can't be loaded. Received: ImportError: libc is too old. "
        "Install both again: pip install --force-reinstall keras-qat\n"
    )


@pytest.mark.parametrize("text", ["\\[a]", "[/red]", "[bold"])
def test_a_message_is_printed_as_it_is(text: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_program([text], app) == 2
    assert text in capfd.readouterr().err


def shell(line: str, folder: Path) -> tuple[int, str]:
    """Exit code and standard error of a line of bash."""
    program = f'{sys.executable} -c "from keras_qat.cli import main; main()"'
    done = subprocess.run(  # noqa: S603
        ["bash", "-o", "pipefail", "-c", line.replace("keras-qat", program)],  # noqa: S607
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stderr


def test_an_output_that_is_closed_or_full_ends_the_program_in_order(tmp_path: Path) -> None:
    (tmp_path / "é.yaml").write_text("target: [")
    assert shell("keras-qat --help | true", tmp_path) == (BROKEN_PIPE, "")
    assert shell("keras-qat --version >&-", tmp_path) == (0, "")
    code, error = shell("keras-qat --version > /dev/full", tmp_path)
    assert (code, error.splitlines()[0][:31]) == (2, "error: No space left on device.")
    assert "Traceback" not in error
    code, error = shell("PYTHONIOENCODING=ascii keras-qat run --config é.yaml", tmp_path)
    assert (code, "Traceback" in error) == (2, False)
    assert "\\xe9.yaml" in error
    code, error = shell("keras-qat run --config $'caf\\xe9.yaml'", tmp_path)
    assert (code, "Traceback" in error) == (2, False)
    assert "caf\\udce9" in error


def test_a_full_disk_under_the_log_is_said_once_and_the_command_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    full = Path("/dev/full").open("w", encoding="utf-8")  # noqa: SIM115 - the handler closes it
    monkeypatch.setattr(logging.FileHandler, "_open", lambda _: full)
    logger = logging.getLogger("keras_qat")

    def act() -> None:
        with logging_to(tmp_path / "a.log") as note:
            logger.info("one")
            note("two")
            logger.info("three")

    assert run_program([], command_that(act)) == 0
    lines = capfd.readouterr().err.splitlines()
    assert [line for line in lines if "log file" not in line] == ["one", "three"]
    (said,) = [line for line in lines if "log file" in line]
    assert "No space left on device" in said
    assert "a.log" in said


def test_tensorflows_start_up_lines_are_hidden_and_all_others_are_not() -> None:
    source = textwrap.dedent("""
        import os
        from keras_qat.cli.start_up_lines import without_start_up_lines
        with without_start_up_lines():
            os.write(2, b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\\n")
            os.write(2, b"E0000 00:00:1758131045.203198 3722035 cuda_dnn.cc:8579] Unable to register cuDNN factory\\n")
            os.write(2, b"2026-11-27 21:09:33.561613: E external/xla/cuda_platform.cc:51] failed call to cuInit\\n")
            os.write(2, b"2026-11-27 21:09:33.561613: F tensorflow/core/cpu_feature_guard.cc:1] needs AVX\\n")
            os.write(2, b"error: a message of ours\\n")
    """)
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)  # noqa: S603
    assert done.stderr.splitlines() == [
        "2026-11-27 21:09:33.561613: F tensorflow/core/cpu_feature_guard.cc:1] needs AVX",
        "error: a message of ours",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--epochs", "1.5"],
        ["run", "--seed", "-0.5"],
        ["run", "--validation-images", "2.7"],
        ["prepare-imagenet", "--archives", "a", "--output", "b", "--shards", "2", "1.2"],
        ["benchmark", "a.onnx", "--batch-sizes", "1", "8.5"],
        ["evaluate", "a.onnx", "--data", "digits", "-k", "1.5"],
        ["run", "--config", "options.yaml"],
    ],
)
def test_a_fraction_is_no_whole_number(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("options.yaml").write_text("seed: 1.5\n")
    assert run_program(arguments, app) == 2
    error = capsys.readouterr().err
    assert "takes a whole number. Received: " in error
    assert run_program(["run", "--learning-rate", "0.5", "--epochs", "2.0", "--model", "none.keras"], app) == 2
    assert "There is no such model file" in capsys.readouterr().err
