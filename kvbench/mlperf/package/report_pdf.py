"""systems/<system>.pdf: the figures of each run, the system, and plots of its operations, drawn by matplotlib.

The plots are those of the HTML report (`kvbench report`), of one trial of each option that keeps a run file.
"""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import kvbench_analysis as ka
from kvbench_analysis.report.collect import collect
from matplotlib.backends.backend_pdf import PdfPages
from matplotlib.figure import Figure

from kvbench.mlperf.aggregation import FIGURES
from kvbench.mlperf.tree.declared import summary_of, summary_options
from kvbench.mlperf.tree.numbers import AMOUNT, Section
from kvbench.mlperf.tree.parts import Run
from kvbench.mlperf.tree.recorded import Recorded
from kvbench.mlperf.tree.untrusted import dig, shown

_PAGE_INCHES: Final = (8.27, 11.69)
_LINES: Final = 68
_LETTERS: Final = 96
_POINTS: Final = 8.5


def write_pdf(path: Path, title: str, description: str, runs: Sequence[Run]) -> None:
    """Write the PDF of a system: `description` is the text of its YAML. Raises KvbenchError for a damaged run file."""
    with PdfPages(path, metadata={"Title": title, "Creator": "kvbench"}) as pages:
        for run in runs:
            _text_pages(pages, title, list(_figures(run)))
        _text_pages(pages, f"{title}: the system", description.splitlines())
        for run in runs:
            for option in run.options.values():
                trial = next((t for t in option.trials.values() if t.records is not None), None)
                if trial is not None and trial.records is not None:
                    name = f"option {option.number}, trial {trial.number}"
                    for figure in _plots(trial.records.path, name):
                        _add(pages, figure)


def _figures(run: Run) -> Iterator[str]:
    recorded = Recorded(run)
    yield f"MLPerf Storage, KV cache, {run.division} division: run {run.path.name}"
    yield f"submitter {run.submitter}, system {run.system}"
    if recorded.rehearsal:
        yield "A REHEARSAL: NOT A SUBMISSION"
    summary = summary_of(run)
    clients, hosts, trials = (summary.count(key) for key in ("total_ranks", "host_count", "trials_per_option"))
    yield f"clients: {clients}, hosts: {hosts}, trials of each option: {trials}"
    yield ""
    width = max(len(figure.name) for figure in FIGURES) + 2
    options = summary_options(run)
    yield "".ljust(width) + "".join(f"option {option}".rjust(14) for option in options)
    for figure in FIGURES:
        values = [entry.number(figure.name) for entry in options.values()]
        yield figure.name.ljust(width) + "".join(_digits(value).rjust(14) for value in values)
    yield ""
    yield from textwrap.wrap(
        "Bandwidth in GiB/s (the key says gbps) and tokens/s are sums over the clients of a trial, averaged over the "
        "trials. Device P95 in ms is the largest of all clients' and trials' percentiles, not a percentile of all "
        "operations; the rules call the load of an object, and the fsync of one, device latency: it is that of the "
        "storage tier as the application sees it, with the one copy that a load needs.",
        _LETTERS,
    )
    for option, entry in options.items():
        yield from _ours(option, entry)


def _ours(option: int, entry: Section) -> Iterator[str]:
    population = entry["kvbench.population"]
    if not isinstance(population, Mapping) or not population:
        return
    yield ""
    yield (
        f"Option {option}, all operations of all clients and trials, in ms".ljust(70)
        + "P50".rjust(10)
        + "P95".rjust(10)
    )
    for name, figures in population.items():
        values = [AMOUNT.read(dig(figures, key)) for key in ("p50_ms", "p95_ms")]
        yield f"  {shown(name)}".ljust(70) + "".join(_digits(value).rjust(10) for value in values)


def _digits(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 10_000 else f"{value:.5g}"


def _plots(path: Path, name: str) -> Iterator[Figure]:
    for entry in collect(ka.load(path), name).figures.values():
        if entry.figure is not None:
            drawn = entry.figure.to_matplotlib()
            drawn.text(0.988, 0.995, name, ha="right", va="top", fontsize=8)
            yield drawn


def _text_pages(pages: PdfPages, title: str, lines: Sequence[str]) -> None:
    wrapped = [part for line in lines for part in (textwrap.wrap(line, _LETTERS, subsequent_indent="    ") or [""])]
    for start in range(0, max(len(wrapped), 1), _LINES):
        figure = Figure(figsize=_PAGE_INCHES, facecolor="white")
        figure.text(0.07, 0.96, _plain(title), fontsize=13, fontweight="bold", va="top")
        text = "\n".join(wrapped[start : start + _LINES])
        figure.text(0.07, 0.93, _plain(text), fontsize=_POINTS, family="monospace", va="top", linespacing=1.25)
        _add(pages, figure)


def _add(pages: PdfPages, figure: Figure) -> None:
    pages.savefig(figure)  # type: ignore[no-untyped-call]


def _plain(text: str) -> str:
    """Text as it is: a `$` would begin a formula."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text).replace("$", r"\$")
