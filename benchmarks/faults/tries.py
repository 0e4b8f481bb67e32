"""A try: what is done to a copy of the user's folder, and which command runs in it; and the bench that plays tries."""

import random
import shlex
import shutil
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from faults import user_folder
from faults.commands import Call
from faults.handle import Answer, Worker
from faults.judging import Reference, Snapshot, Verdict, judge, litter, lost, make_reference, results, snapshot

Case = TypeVar("Case")


def nothing(folder: Path) -> None:
    """Prepare nothing."""


@dataclass(frozen=True)
class Try:
    """One try.

    Args:
        call: the command.
        note: what is wrong, in words.
        prepare: makes it wrong in a copy of the user's folder.
        first: a command that runs before that and must succeed.
        detectable: whether the damage could be seen, as `judging` defines it.
        must_fail: whether the command must not succeed.
        compare: whether the results are compared with those of the undamaged command.
        allowed: further paths that the command may change.
        fault: a fault for the worker to inject.
    """

    call: Call
    note: str
    prepare: Callable[[Path], None] = nothing
    first: Call | None = None
    detectable: bool = False
    must_fail: bool = False
    compare: bool = False
    allowed: tuple[str, ...] = ()
    fault: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Played:
    """A try that was played.

    Args:
        name: kind and number, which repeat it.
        call: the command line.
        note: what was wrong.
        verdict: how it ended.
        answer: what was printed.
        folder: the copy of the user's folder, as the try left it.
    """

    name: str
    call: Call
    note: str
    verdict: Verdict
    answer: Answer
    folder: Path

    @property
    def command_line(self) -> str:
        """The command, to paste into a shell."""
        line = shlex.join(["keras-qat", *self.call.arguments])
        return line if len(line) < 400 else f"{line[:400]} …"  # noqa: PLR2004


class References:
    """What each command gives if nothing is wrong, found when it is first asked for. Threads share it."""

    def __init__(self) -> None:
        self._known: dict[str, Reference] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def of(self, call: Call, find: Callable[[], Reference]) -> Reference:
        """The reference of a call."""
        key = repr(call.arguments)
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            if key not in self._known:
                self._known[key] = find()
            return self._known[key]


@dataclass
class Bench:
    """Where one thread plays tries.

    Args:
        root: a folder for copies of the user's folder.
        template: the user's folder.
        references: shared by all threads.
        patience: seconds after which a command hangs.
        spare: a second worker, for two commands at once.
    """

    root: Path
    template: Path
    references: References
    patience: float = 60.0
    worker: Worker = field(init=False)
    spare: Worker = field(init=False)

    def __post_init__(self) -> None:
        """Make the workers, which start when they are asked."""
        self.root.mkdir(parents=True, exist_ok=True)
        self.worker, self.spare = Worker(self.root), Worker(self.root)

    def close(self) -> None:
        """End the workers."""
        self.worker.close()
        self.spare.close()

    def fresh(self) -> Path:
        """A new copy of the user's folder, always at the same place."""
        folder = self.root / "user"
        shutil.rmtree(folder, ignore_errors=True)
        user_folder.copy(self.template, folder)
        user_folder.add_special(folder)
        return folder

    def ask(self, call: Call, folder: Path, **options: Any) -> Answer:
        """Run a command in the folder."""
        return self.worker.ask(call.arguments, folder, self.patience, **options)

    def reference(self, call: Call, first: Call | None = None) -> Reference:
        """What the command gives in an undamaged folder."""

        def once() -> tuple[Answer, dict[str, Any]]:
            folder = self.fresh()
            if first is not None:
                self.ask(first, folder)
            answer = self.ask(call, folder, fault={"kind": "count"})
            if answer.code != 0:
                line = (
                    f"keras-qat {shlex.join(call.arguments)} fails in an undamaged folder, so that its tries say little"
                )
                print(f"{line}:\n{answer.err}", file=sys.stderr)
            return answer, results(folder, answer, call.writes)

        return self.references.of(call, lambda: make_reference(once(), once()))

    def play(self, attempt: Try) -> tuple[Verdict, Answer]:
        """Play a try in which a command reads or is told something wrong."""
        call = attempt.call
        reference = self.reference(call, attempt.first) if attempt.compare else None
        folder = self.fresh()
        if attempt.first is not None:
            self.ask(attempt.first, folder)
        attempt.prepare(folder)
        before = snapshot(folder)
        answer = self.ask(call, folder, fault=attempt.fault)
        found = results(folder, answer, call.writes) if attempt.compare else {}
        verdict = judge(answer, reference, found, detectable=attempt.detectable, must_fail=attempt.must_fail)
        return self.with_losses(verdict, before, folder, call, attempt.allowed), answer

    def with_losses(
        self, verdict: Verdict, before: Snapshot, folder: Path, call: Call, allowed: Collection[str] = ()
    ) -> Verdict:
        """The verdict, or that files of the user are lost, or temporary ones left behind."""
        after = snapshot(folder)
        gone = lost(before, after, {"cache", "home", *call.writes, *allowed})
        gone += [line for line in lost(before, after, ()) if line.split(" is ")[0] in call.keeps]
        if gone:
            return Verdict("lost", f"{'; '.join(gone[:4])} ({len(gone)} in all)")
        if verdict.ending in {"worked", "clear error", "exit 3", "undetectable"} and (left := litter(before, after)):
            return Verdict("litter", f"{left[0]} ({len(left)} in all)")
        return verdict


@dataclass(frozen=True)
class Kind:
    """A kind of tries.

    Args:
        name: as `--only` and the table have it.
        play: plays the try of a number with its own random numbers: (call, note, verdict, answer).
        cheap: whether a try takes a second or less.
        weight: how often it is tried, compared with others.
    """

    name: str
    play: Callable[[Bench, random.Random, int], tuple[Call, str, Verdict, Answer]]
    cheap: bool = True
    weight: float = 1.0

    @property
    def cost(self) -> float:
        """About how long a try takes, compared with a cheap one."""
        return 1.0 if self.cheap else 6.0


def simple(name: str, make: Callable[[random.Random], Try], *, cheap: bool = True, weight: float = 1.0) -> Kind:
    """A kind of random tries, played by `Bench.play`."""
    return enumerated(name, [make], lambda case, choice: case(choice), cheap=cheap, weight=weight)


def enumerated(
    name: str,
    cases: Sequence[Case],
    make: Callable[[Case, random.Random], Try],
    *,
    cheap: bool = True,
    weight: float = 1.0,
) -> Kind:
    """A kind with a list of cases, all of which are tried, in an order of their own, before the first comes again."""
    order = list(cases)
    random.Random(name).shuffle(order)  # noqa: S311

    def play(bench: Bench, choice: random.Random, number: int) -> tuple[Call, str, Verdict, Answer]:
        attempt = make(order[number % len(order)], choice)
        verdict, answer = bench.play(attempt)
        return attempt.call, attempt.note, verdict, answer

    return Kind(name, play, cheap, weight)


def play(bench: Bench, kind: Kind, seed: int, number: int) -> Played:
    """Play one try, which depends on kind, seed and number alone."""
    name = f"{kind.name}:{number}"
    call, note, verdict, answer = kind.play(bench, random.Random(f"{seed}/{name}"), number)  # noqa: S311
    return Played(name, call, note, verdict, answer, bench.root / "user")
