"""Commands that are cut off, and must then be repeated: kills, power cuts, full disks, signals, two at once.

The same command is run again afterwards, in a whole process and with nothing wrong. It must succeed and give what it
gives when nothing happened; what it refuses then, or can't find, is lost.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from faults.commands import CALLS, Call
from faults.handle import Answer, environment
from faults.judging import (
    FAILURES,
    Reference,
    Snapshot,
    Verdict,
    difference,
    judge_process,
    results,
    snapshot,
)
from faults.tries import Bench, Kind

_SIGNAL_ENDS_S = 5.0
_IMPORT_S = 5.0

_ENDED_BY: Mapping[int, tuple[int, ...]] = {
    signal.SIGINT: (130, -signal.SIGINT),
    signal.SIGTERM: (143, 130, -signal.SIGTERM),
}

QUICK = ("export", "report", "prepare-imagenet", "explain")
"""Commands that write files and take about a second."""

WRITING = ("quantize", "train", "run", *QUICK)


def _call(choice: random.Random, names: Sequence[str]) -> Call:
    call = CALLS[choice.choice(names)]
    if call.command == "explain":
        call = replace(call, given={**call.given, "--output": "out/placement.md"}, writes=("out",))
    return call


Played = tuple[Call, str, Verdict, Answer]


def _again(bench: Bench, call: Call, reference: Reference, before: Snapshot, folder: Path) -> tuple[Verdict, Answer]:
    """Run the same command again, which must give what it gives if nothing was wrong."""
    answer = bench.ask(call, folder)
    found = results(folder, answer, call.writes)
    verdict = judge_process(answer)
    if verdict is not None and verdict.ending not in FAILURES:
        verdict = Verdict("lost", f"the same command again: {verdict.reason}")
    if verdict is None:
        changed = difference(_written(reference), found)
        verdict = Verdict("worked")
        if answer.code != reference.code:
            verdict = Verdict("exit 3", answer.err.strip()[-200:])
        elif changed:
            verdict = Verdict("silent wrong", f"the same command again gives {changed}")
    return bench.with_losses(verdict, before, folder, call), answer


def _written(reference: Reference) -> Reference:
    """What the command wrote. What it prints may say that it went on from where it was."""
    kept = {name: value for name, value in reference.results.items() if not name.startswith("standard output")}
    return replace(reference, results=kept)


def _kill_at_a_rename(calls: Sequence[str], bench: Bench, choice: random.Random, number: int) -> Played:
    call = _call(choice, calls)
    reference = bench.reference(call)
    position = (number // 2 + choice.randrange(1000)) % max(1, len(reference.calls))
    before_it = number % 2 == 0
    what = reference.calls[position] if reference.calls else "nothing"
    note = f"killed {'before' if before_it else 'after'} call {position} of {len(reference.calls)}, {what}"
    fault = {"kind": "kill", "call": position, "before": before_it}
    return call, note, *_cut_off(bench, call, reference, fault=fault)


def _kill_at_a_moment(calls: Sequence[str], bench: Bench, choice: random.Random, _: int) -> Played:
    call = _call(choice, calls)
    reference = bench.reference(call)
    seconds = choice.uniform(0, reference.seconds)
    return call, f"killed after {seconds:.2f} s", *_cut_off(bench, call, reference, kill_after=seconds)


def _power_cut(calls: Sequence[str], bench: Bench, choice: random.Random, number: int) -> Played:
    call = _call(choice, calls)
    reference = bench.reference(call)
    renames = [name for name in reference.calls if name in {"rename", "replace"}]
    position = (number + choice.randrange(1000)) % max(1, len(renames))
    fault = {"kind": "power cut", "call": position, "seed": choice.randrange(2**31)}
    note = f"power cut after rename {position} of {len(renames)}, seed {fault['seed']}"
    verdict, answer = _cut_off(bench, call, reference, fault=fault)
    return call, note, verdict, answer


def _cut_off(bench: Bench, call: Call, reference: Reference, **how: object) -> tuple[Verdict, Answer]:
    folder = bench.fresh()
    before = snapshot(folder)
    first = bench.ask(call, folder, **how)
    if first.hung:
        return Verdict("hang", f"no end after {first.seconds:.0f} s"), first
    early = bench.with_losses(Verdict("worked"), before, folder, call)
    verdict, answer = _again(bench, call, reference, before, folder)
    if early.ending == "lost" and verdict.ending != "lost":
        verdict = early
    return verdict, replace(answer, err=f"{first.err}\n--- again\n{answer.err}")


def _full_disk(calls: Sequence[str], bench: Bench, choice: random.Random, _: int) -> Played:
    call = _call(choice, calls)
    reference = bench.reference(call)
    at = "cache" if choice.random() < 0.2 else call.writes[0]  # noqa: PLR2004
    room = round(4096 * 2 ** choice.uniform(0, 8))
    folder = bench.fresh()
    before = snapshot(folder)
    first = bench.ask(call, folder, fault={"kind": "small disk", "at": at, "room": room})
    verdict = judge_process(first)
    note = f"{room} bytes of room in {at}"
    if verdict is not None and verdict.ending in FAILURES:
        return call, note, verdict, first
    early = bench.with_losses(Verdict("worked"), before, folder, call)
    again, answer = _again(bench, call, reference, before, folder)
    if early.ending == "lost":
        again = early
    # If nothing was lost, what counts is how the full disk was told.
    if again.ending == "worked":
        again = verdict or Verdict("worked")
    return call, note, again, replace(first, err=f"{first.err}\n--- again\n{answer.err}")


def _signal(calls: Sequence[str], bench: Bench, choice: random.Random, _: int) -> Played:
    # What takes long is signalled more often.
    call = _call(choice, [name for name in calls if name not in QUICK] or calls)
    reference = bench.reference(call)
    number = choice.choice((signal.SIGINT, signal.SIGTERM))
    moment = choice.uniform(0, reference.seconds + _IMPORT_S)
    twice = choice.random() < 0.3  # noqa: PLR2004
    folder = bench.fresh()
    before = snapshot(folder)
    first = _send(call, folder, number, moment, twice=twice)
    note = f"{number.name} after {moment:.2f} s{', twice' if twice else ''}"
    verdict = judge_process(replace(first, code=0) if first.code in _ENDED_BY[number] else first)
    if first.hung:
        verdict = Verdict("hang", f"it hadn't ended {first.seconds - moment:.0f} s after {number.name}")
    if verdict is not None and verdict.ending in FAILURES:
        return call, note, verdict, first
    verdict, answer = _again(bench, call, reference, before, folder)
    return call, note, verdict, replace(answer, err=f"{first.err}\n--- again\n{answer.err}")


def _send(call: Call, folder: Path, number: signal.Signals, moment: float, *, twice: bool) -> Answer:
    """Run the command in a process of its own, as a user would, and send it a signal."""
    command = [sys.executable, "-c", "from keras_qat.cli import main; main()", *call.arguments]
    own = environment() | {"XDG_CACHE_HOME": str(folder / "cache"), "HOME": str(folder / "home")}
    with (folder / "special" / "err").open("w+", encoding="utf-8") as err:
        process = subprocess.Popen(  # noqa: S603
            command, cwd=folder, env=own, stdout=subprocess.DEVNULL, stderr=err, start_new_session=True
        )
        hung = False
        start = time.monotonic()
        try:
            process.wait(timeout=moment)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            try:
                if twice:
                    time.sleep(0.3)
                    process.send_signal(number)
                process.wait(timeout=_SIGNAL_ENDS_S * _business())
            except subprocess.TimeoutExpired:
                hung = True
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        seconds = time.monotonic() - start
        err.seek(0)
        text = err.read()
    (folder / "special" / "err").unlink()
    return Answer(process.returncode, "", text, seconds, hung)


def _business() -> float:
    """How many processes share a processor, at least 1: a process ends later on a busy machine."""
    return max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def _two_at_once(calls: Sequence[str], bench: Bench, choice: random.Random, _: int) -> Played:
    call = _call(choice, calls)
    reference = bench.reference(call)
    later = choice.uniform(0, reference.seconds)
    folder = bench.fresh()
    # A worker that isn't running yet would start minutes after the other.
    bench.spare.ask(["--version"], folder, bench.patience)
    before = snapshot(folder)
    bench.worker.begin(call.arguments, folder)
    time.sleep(later)
    bench.spare.begin(call.arguments, folder)
    answers = [worker.end(2 * bench.patience) for worker in (bench.spare, bench.worker)]
    note = f"two at once, {later:.2f} s apart"
    verdicts = [judge_process(answer) for answer in answers]
    for verdict, answer in zip(verdicts, answers, strict=True):
        if verdict is not None and verdict.ending in {*FAILURES, "unclear error"}:
            return call, note, verdict, answer
    verdict, answer = _again(bench, call, reference, before, folder)
    refused = next((one for one in verdicts if one is not None), None)
    if verdict.ending == "worked" and refused is not None:
        verdict = refused
    return call, note, verdict, replace(answer, err="\n--- other\n".join(one.err for one in (*answers, answer)))


def interruption_kinds(calls: Sequence[str] = WRITING, *, mountable: bool) -> tuple[Kind, ...]:
    """Kinds of tries that cut commands off. Full disks need a mount."""
    playing = {
        "kill at a rename": (_kill_at_a_rename, 5),
        "kill at a moment": (_kill_at_a_moment, 3),
        "power cut": (_power_cut, 5),
        "signal": (_signal, 4),
        "two at once": (_two_at_once, 2),
        **({"full disk": (_full_disk, 4)} if mountable else {}),
    }
    return tuple(Kind(name, partial(play, calls), False, weight) for name, (play, weight) in playing.items())
