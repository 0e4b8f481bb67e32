"""A benchmark as a picture by matplotlib: latency by batch size, a line for each file.

A point is the median, the thick whisker reaches up to the 90th percentile and the thin one to the 99th.
"""

from operator import attrgetter
from pathlib import Path
from typing import Any

from keras_qat import evaluation, files, runtimes
from keras_qat.errors import UserError

PLOT_SUFFIXES = (".png", ".svg")

_MARKERS = "osD^vP*X"
_SPREAD = 0.4
"""The share of the distance between two batch sizes over which the files are spread, so that whiskers don't overlap."""

_LOG_FROM = 8.0
"""The ratio of two latencies from which the smaller one isn't legible on a linear axis."""


def require_plot(path: Path) -> None:
    """Check, before anything is measured, that a plot can be drawn to `path`.

    Raises:
        UserError: If the suffix is none of `PLOT_SUFFIXES`, or matplotlib isn't installed.
    """
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise UserError(
            f"A plot is a {' or '.join(PLOT_SUFFIXES)} file. Received: {str(path)!r}. Name it {path.stem}.png."
        )
    _import_figure()


def plot_latency(benchmark: evaluation.Benchmark, path: Path, *, title: str = "") -> None:
    """Draw a benchmark and write it to a file.

    Args:
        benchmark: the figures.
        path: a .png or .svg file.
        title: of the picture.

    Raises:
        StorageError: If the file can't be written.
        UserError: As `require_plot`.
    """
    require_plot(path)
    figure = draw_latency(benchmark, title=title)
    with files.atomic_path(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower())


def draw_latency(benchmark: evaluation.Benchmark, *, title: str = "") -> Any:
    """The picture as a `matplotlib.figure.Figure`, drawn without pyplot and its global state.

    Args:
        benchmark: the figures.
        title: of the picture.

    Raises:
        UserError: If matplotlib isn't installed.
    """
    batches = tuple(dict.fromkeys(timing.batch for timing in sorted(benchmark.timings, key=attrgetter("batch"))))
    width, height = max(5.0, 2.0 + 1.4 * len(batches)), 4.0 + 0.2 * len(benchmark.files)
    figure = _import_figure()(figsize=(width, height), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    lines = []
    for number, file in enumerate(benchmark.files):
        own = {timing.batch: timing for timing in benchmark.timings if timing.file == file.name}
        shift = _SPREAD * ((number + 0.5) / len(benchmark.files) - 0.5)
        places = [place + shift for place, batch in enumerate(batches) if batch in own]
        lines.append(_draw_file(axes, number, places, [own[batch] for batch in batches if batch in own]))
    axes.set_xticks(range(len(batches)), [str(batch) for batch in batches])
    axes.set_xlim(-0.5, len(batches) - 0.5)
    axes.set_xlabel("batch size")
    axes.set_ylabel("latency of a batch, ms")
    _scale(axes, benchmark)
    axes.grid(axis="y", which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(f"{title}\nmedian, p90 (thick) and p99 (thin) of {benchmark.runs} runs".strip(), fontsize="small")
    # The legend is below, since names of files are long. A "$" would start a formula.
    names = [file.name.replace("$", r"\$") for file in benchmark.files]
    figure.legend(lines, names, loc="outside lower center", frameon=False, fontsize="small")
    return figure


def _draw_file(axes: Any, number: int, places: list[float], timings: list[evaluation.Timing]) -> Any:
    """Draw one file, and return its line for the legend."""
    medians = [timing.median_ms for timing in timings]
    color = f"C{number % 10}"
    marker = {"marker": _MARKERS[number % len(_MARKERS)], "markersize": 5}
    (line,) = axes.plot(places, medians, color=color, linewidth=0.8, linestyle=":", **marker)
    axes.vlines(places, medians, [timing.p90_ms for timing in timings], color=color, linewidth=3, alpha=0.6)
    axes.vlines(places, medians, [timing.p99_ms for timing in timings], color=color, linewidth=1)
    return line


def _scale(axes: Any, benchmark: evaluation.Benchmark) -> None:
    """Make the axis logarithmic with plain numbers where latencies are far apart; else let it begin at zero."""
    lowest = min(timing.median_ms for timing in benchmark.timings)
    highest = max(timing.p99_ms for timing in benchmark.timings)
    if highest < _LOG_FROM * lowest:
        axes.set_ylim(bottom=0)
        return
    axes.set_yscale("log")
    ticker = runtimes.import_optional("matplotlib.ticker", title="matplotlib", install="'keras-qat[plot]'")
    axes.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(ticker.StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter(ticker.NullFormatter())


def _import_figure() -> Any:
    return runtimes.import_optional("matplotlib.figure", title="matplotlib", install="'keras-qat[plot]'").Figure
