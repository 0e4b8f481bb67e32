"""Thousands of tries to make keras-qat lose something, hang, crash, or be wrong without a word.

    python benchmarks/robustness.py --minutes 60 --keep failures

Every try has its own copy of a user's folder, with photos, models, runs and notes. Something is wrong in it: a damaged
file, a wrong option or path, a kill, a power cut, a full disk, a signal, a second process. The command's end is judged
by `faults/judging.py`; the user's files are compared before and after. The table has a row for each kind of fault. The
exit code is 1 if any try was silently wrong, ended in a traceback or a dead process, hung, or lost something.

A try depends on `--seed`, its kind and its number alone: `--only "wrong paths:17"` repeats it. Limits: power cuts are
simulated for files that Python renames, and damage below the file system isn't tried. Full disks and read-only folders
need the right to mount (root on Linux); without it they are left out, and a line says so.
"""

import json
import re
import resource
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from shutil import copytree, rmtree
from stat import S_ISDIR, S_ISLNK, S_ISREG

import cyclopts
from faults import crafted, damage, handle, interruptions, tries, wrong_options
from faults.judging import ENDINGS, FAILURES, Ending
from rich.console import Console
from rich.table import Table

app = cyclopts.App(help=__doc__)

_BUILD_S = 300.0
_SHOWN, _EVERY = 20_000, 100
_RARE: frozenset[Ending] = frozenset({"undetectable", "unclear error", "litter"})


@dataclass(frozen=True)
class Result:
    """One try, as the report has it."""

    name: str
    ending: Ending
    reason: str
    command: str
    note: str
    seconds: float

    @property
    def kind(self) -> str:
        """The kind of the try."""
        return self.name.rpartition(":")[0]


def all_kinds() -> tuple[tries.Kind, ...]:
    """Every kind of tries that this machine allows."""
    mountable = handle.may_mount()
    return (
        *wrong_options.option_kinds(lambda: mountable),
        *interruptions.interruption_kinds(mountable=mountable),
        *crafted.crafted_kinds(),
        *damage.damage_kinds(),
    )


def schedule(kinds: Sequence[tries.Kind], limit: int | None) -> Iterator[tuple[tries.Kind, int]]:
    """Kinds and numbers of tries, in turn and by weight, so that a run of any length has some of all.

    Args:
        kinds: the kinds.
        limit: the number of tries.
    """
    done = Counter[str]()
    while limit is None or done.total() < limit:
        kind = min(kinds, key=lambda kind: (done[kind.name] + 0.5) * kind.cost / kind.weight)
        yield kind, done[kind.name]
        done[kind.name] += 1


@dataclass
class Session:
    """What the threads share that play tries.

    Args:
        todo: kinds and numbers.
        seed: seed of all random numbers.
        end: when no further try begins, as `time.monotonic` has it.
        keep: a folder for what failed.
        log: prints each failure as it is seen.
    """

    todo: Iterator[tuple[tries.Kind, int]]
    seed: int
    end: float
    keep: Path | None = None
    log: Console | None = None
    found: list[Result] = field(default_factory=list)
    errors: list[BaseException] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def work(self, bench: tries.Bench) -> None:
        """Play tries until the time is over."""
        try:
            while (chosen := self._next()) is not None:
                start = time.monotonic()
                played = tries.play(bench, chosen[0], self.seed, chosen[1])
                self._note(played, time.monotonic() - start)
        except BaseException as error:  # noqa: BLE001 - raised again by the main thread
            self.errors.append(error)

    def _next(self) -> tuple[tries.Kind, int] | None:
        with self._lock:
            return None if self.errors or time.monotonic() >= self.end else next(self.todo, None)

    def _note(self, played: tries.Played, seconds: float) -> None:
        verdict = played.verdict
        line = played.command_line
        result = Result(played.name, verdict.ending, verdict.reason, line, played.note, round(seconds, 2))
        with self._lock:
            self.found.append(result)
            if self.log is not None and len(self.found) % _EVERY == 0:
                failed = sum(row.ending in FAILURES for row in self.found)
                self.log.print(f"{len(self.found)} tries, {failed} failed")
            if self.log is not None and result.ending in {*FAILURES, "unclear error", "litter"}:
                text = f"{result.ending}: {result.name}: {result.note}\n    {line}\n    {result.reason}"
                self.log.print(text, markup=False, highlight=False, soft_wrap=True)
            if self.keep is not None and result.ending in FAILURES:
                _keep(result, played, self.keep)


def play_all(session: Session, root: Path, *, patience: float = 60.0, processes: int = 2) -> list[Result]:
    """Make the user's folder, then play tries in several processes until the time is over.

    Args:
        session: what is played.
        root: an empty folder.
        patience: seconds after which a command hangs.
        processes: processes that run commands.
    """
    template = root / "template"
    template.mkdir(parents=True)
    references = tries.References()
    benches = [tries.Bench(root / f"bench-{i}", template, references, patience) for i in range(processes)]
    try:
        built = benches[0].worker.ask(None, template, _BUILD_S)
        if built.code != 0:
            raise RuntimeError(f"The user's folder can't be made:\n{built.err}")
        threads = [threading.Thread(target=session.work, args=(bench,), daemon=True) for bench in benches]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for bench in benches:
            bench.close()
    if session.errors:
        raise session.errors[0]
    return session.found


def _keep(result: Result, played: tries.Played, keep: Path) -> None:
    """Keep the command, what it printed, and the user's folder."""
    place = keep / re.sub("[^A-Za-z0-9.]+", "-", result.name)
    rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    printed = {"out": played.answer.out[-_SHOWN:], "err": played.answer.err[-_SHOWN:]}
    report = {**asdict(result), "arguments": played.call.arguments, **printed}
    (place / "try.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    copytree(played.folder, place / "user", symlinks=True, ignore=_special)


def _special(folder: str, names: list[str]) -> list[str]:
    """The entries that aren't to be copied: a FIFO or a device has no end."""
    kinds = {name: (Path(folder) / name).lstat().st_mode for name in names}
    return [name for name, kind in kinds.items() if not (S_ISREG(kind) or S_ISDIR(kind) or S_ISLNK(kind))]


def table_of(found: Sequence[Result]) -> Table:
    """A row for each kind, and one for all."""
    endings = [ending for ending in ENDINGS if ending not in _RARE or any(row.ending == ending for row in found)]
    table = Table("kind", "tried", *endings)
    for column in table.columns[1:]:
        column.justify = "right"
    kinds = list(dict.fromkeys(row.kind for row in found))
    for kind in [*sorted(kinds), ""]:
        rows = [row for row in found if kind in {row.kind, ""}]
        counts = Counter(row.ending for row in rows)
        table.add_row(kind or "all", str(len(rows)), *(str(counts[ending]) for ending in endings), end_section=not kind)
    return table


@app.default
def main(
    *,
    seed: int = 0,
    minutes: float = 60.0,
    tries: int | None = None,
    only: tuple[str, ...] = (),
    patience: float = 60.0,
    processes: int = 2,
    keep: Path | None = None,
    output: Path | None = None,
    as_json: bool = False,
) -> None:
    """Play tries of every kind in turn, and print the table.

    Args:
        seed: seed of all random numbers.
        minutes: when no further try begins.
        tries: the number of tries, if the time is not to decide.
        only: kinds by the beginning of their names, or one try such as "wrong paths:17".
        patience: seconds after which a command hangs.
        processes: commands that run at a time.
        keep: folder for the failed tries: command, what it printed, and the user's folder.
        output: JSON file for all tries.
        as_json: print JSON instead of the table.
    """
    # A shell starts a program in the background with SIGINT ignored, and its children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # Nothing here writes larger files, whatever a try has made of them.
    resource.setrlimit(resource.RLIMIT_FSIZE, (handle.FILE_SIZE, handle.FILE_SIZE))
    log = Console(stderr=True, width=200)
    kinds = all_kinds()
    if not handle.may_mount():
        log.print("Full disks and read-only folders are left out: this user may not mount.")
    todo = _chosen(kinds, only, tries)
    with tempfile.TemporaryDirectory(prefix="robustness-", ignore_cleanup_errors=True) as root:
        session = Session(todo, seed, time.monotonic() + 60 * minutes, keep, log)
        found = play_all(session, Path(root), patience=patience, processes=processes)
    rows = [asdict(row) for row in found]
    if output is not None:
        output.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=2) + "\n")
    else:
        Console(width=160).print(table_of(found))
    sys.exit(int(any(row.ending in FAILURES for row in found)))


def _chosen(kinds: Sequence[tries.Kind], only: Sequence[str], limit: int | None) -> Iterator[tuple[tries.Kind, int]]:
    """The tries that `--only` names."""
    single = [name.rpartition(":") for name in only if name.rpartition(":")[2].isdigit()]
    if single:
        return iter([(kind, int(number)) for name, _, number in single for kind in kinds if kind.name == name])
    chosen = [kind for kind in kinds if not only or any(kind.name.startswith(name) for name in only)]
    if not chosen:
        sys.exit(
            f"No kind of tries has that name. Received: --only {', '.join(only)}. Kinds: "
            f"{', '.join(kind.name for kind in kinds)}."
        )
    return schedule(chosen, limit)


if __name__ == "__main__":
    app()
