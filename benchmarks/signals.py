"""Send SIGINT and SIGTERM to `keras-qat run` and `keras-qat train` at random moments, and go on from what is left.

    python benchmarks/signals.py --count 100

A tiny network is quantized and fine-tuned on the embedded digits. Each try starts the command on the folder that the
last interrupted try left, waits for a random time, from the start of the interpreter to its end, and sends a signal.
Whenever a try has finished unhindered, its folder is compared with that of an uninterrupted run and removed. At the end
the last folder is finished and compared, too.

Counted are the tries that ended within 5 s with the exit code of the signal (a process that the signal itself ends,
while the interpreter starts or shuts down, counts the same: a shell calls both 130 or 143), those that had finished
before the signal, those with another exit code or with a traceback, those that had to be killed, and results that
differ.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

LIMIT_S = 5.0
KILL_S = 30.0
COLUMNS = ("interrupted", "finished before", "over 5 s", "hung", "exit code", "traceback", "result differs")
MODEL = """
import keras
keras.utils.set_random_seed(0)
x = inputs = keras.Input((8, 8, 3), name="image")
for i in range(3):
    x = keras.layers.Conv2D(8, 3, padding="same", name=f"conv{i}")(x)
    x = keras.layers.BatchNormalization(name=f"bn{i}")(x)
    x = keras.layers.ReLU(name=f"relu{i}")(x)
x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
x = keras.layers.Dense(10, "softmax", name="predictions")(x)
keras.Model(inputs, x).save("tiny.keras")
"""
PROGRAM = [sys.executable, "-c", "from keras_qat.cli import main; main()"]
TRAINING = ["--epochs", "6", "--learning-rate", "0.001"]
RUN = ["run", "--model", "tiny.keras", "--preprocessing", "unit:8", "--data", "digits", *TRAINING]
QUANTIZE = ["quantize", "tiny.keras", "--preprocessing", "unit:8", "--data", "digits"]
COMMANDS = {"run": [*RUN, "--run-folder", "made"], "train": ["train", "made", *TRAINING]}


def program(arguments: list[str], work: Path) -> subprocess.Popen[str]:
    """Start the program with its output in files, which never block."""
    log = (work / "stderr.txt").open("w")
    return subprocess.Popen(  # noqa: S603
        [*PROGRAM, *arguments], cwd=work, stdout=subprocess.DEVNULL, stderr=log, text=True, start_new_session=True
    )


def finish(arguments: list[str], work: Path) -> float:
    """Run the program to its end and return the seconds it took."""
    start = time.monotonic()
    if (code := program(arguments, work).wait()) not in (0, 3):  # 3: the tiny network may miss a gate.
        raise SystemExit(f"{arguments} ended with {code}: {(work / 'stderr.txt').read_text()}")
    return time.monotonic() - start


def result(folder: Path) -> object:
    """What doesn't depend on the speed of the machine."""
    record = json.loads((folder / "results.json").read_text())
    names = ("name", "keras_top1", "deployed_top1", "agreement", "size_bytes", "simulation_agreement")
    files = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    return [{name: row[name] for name in names} for row in record["rows"]], record["best_epoch"], sorted(files)


class Trial:
    """The tries of one command with one signal.

    Args:
        name: of the command.
        number: the signal.
        work: a folder with the model and `whole`, the folder of an uninterrupted run.
        seconds: how long an uninterrupted run takes.
    """

    def __init__(self, name: str, number: signal.Signals, work: Path, seconds: float) -> None:
        self.arguments, self.number, self.work, self.seconds = COMMANDS[name], number, work, seconds
        self.expected = result(work / "whole")
        self.made, self.begun = work / "made", work / "begun"
        self.counts: Counter[str] = Counter()
        self.slowest = 0.0
        self.restart()

    def restart(self) -> None:
        """Remove the folder, or put back what `train` starts from."""
        shutil.rmtree(self.made, ignore_errors=True)
        if self.arguments[0] == "train":
            shutil.copytree(self.begun, self.made)

    def try_once(self, delay: float) -> None:
        """Send the signal after some seconds and see how the process ends."""
        process = program(self.arguments, self.work)
        try:
            code = process.wait(delay)
        except subprocess.TimeoutExpired:
            code = self.interrupt(process)
        else:
            self.finished(code)
        print(f"{self.arguments[0]} {self.number.name} after {delay:.2f} s: {code}", file=sys.stderr, flush=True)
        if "Traceback" in (text := (self.work / "stderr.txt").read_text()):
            self.counts["traceback"] += 1
            print(f"traceback after {delay:.2f} s:\n{text}", file=sys.stderr)

    def interrupt(self, process: subprocess.Popen[str]) -> int:
        """Send the signal, count how the process ends, and return its exit code."""
        start = time.monotonic()
        process.send_signal(self.number)
        try:
            code = process.wait(KILL_S)
        except subprocess.TimeoutExpired:
            self.counts["hung"] += 1
            process.kill()
            return process.wait()
        seconds = time.monotonic() - start
        self.slowest = max(self.slowest, seconds)
        self.counts["over 5 s"] += seconds > LIMIT_S
        if code in (0, 3):  # The signal came when all was written.
            self.finished(code)
        else:
            self.counts["interrupted"] += 1
            if code not in (128 + self.number, -self.number):
                self.counts["exit code"] += 1
                print(f"exit code {code}:\n{(self.work / 'stderr.txt').read_text()}", file=sys.stderr)
        return code

    def finished(self, code: int) -> None:
        """Count a try that has finished, compare what it made, and start anew."""
        self.counts["finished before"] += 1
        self.counts["exit code"] += code not in (0, 3)
        self.compare()
        self.restart()

    def compare(self) -> None:
        """Count a result that isn't that of the uninterrupted run."""
        if (found := result(self.made)) != self.expected:
            self.counts["result differs"] += 1
            print(f"result differs: {found}\nexpected: {self.expected}", file=sys.stderr)

    def end(self) -> None:
        """Finish what the last try left, and compare it."""
        finish(self.arguments, self.work)
        self.compare()


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10, help="signals of each kind, shared by the two commands")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    options = parser.parse_args()
    moments = random.Random(options.seed)  # noqa: S311
    # A shell starts a program in the background with SIGINT ignored, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    table = Table(title=f"Signals at random moments, seed {options.seed}")
    for column in ("Command", "Signal", "Tried", *COLUMNS, "slowest s"):
        table.add_column(column, justify="left" if column in ("Command", "Signal") else "right")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        os.environ["XDG_CACHE_HOME"] = str(work / "cache")
        subprocess.run([sys.executable, "-c", MODEL], cwd=work, check=True)  # noqa: S603
        for name, arguments in COMMANDS.items():
            shutil.rmtree(work / "whole", ignore_errors=True)
            if name == "train":
                finish([*QUANTIZE, "--run-folder", "begun"], work)
                shutil.copytree(work / "begun", work / "made")
            seconds = finish(arguments, work)
            (work / "made").rename(work / "whole")
            for number in (signal.SIGINT, signal.SIGTERM):
                trial = Trial(name, number, work, seconds)
                for _ in range(options.count // 2):
                    trial.try_once(moments.uniform(0.1, 1.05 * seconds))
                trial.end()
                counts = (str(trial.counts[column]) for column in COLUMNS)
                table.add_row(name, number.name, str(options.count // 2), *counts, f"{trial.slowest:.2f}")
                shutil.rmtree(trial.made)
    Console(width=max(120, Console().width)).print(table)


if __name__ == "__main__":
    main()
