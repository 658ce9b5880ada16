"""Writing a report: the page, and the picture files beside each other; each is there whole or not at all."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from kvbench_analysis.report.collect import Content, Given, collect
from kvbench_analysis.report.compared import comparison_figures
from kvbench_analysis.report.page import page
from kvbench_analysis.tables.distinct import check_distinct
from kvbench_analysis.tables.load import Run

from kvbench.records.outputs import PAGE, check_folder, check_output, make_folder, write_output


def write_report(
    runs: Sequence[Run],
    path: str | os.PathLike[str],
    *,
    png: str | os.PathLike[str] | None = None,
    given: Given = Given(),  # noqa: B008 - it is frozen
) -> Path:
    """Write the page of `runs` to `path`, whose directory is made, replacing a page that is there; return its path.

    With `png`, its plots are also written to that directory, which is made: `KEY.png` of a single run, else
    `run-N-KEY.png` and `comparison-KEY.png`. `given`: objectives and prices of all runs, and what a search found.
    Raises KvbenchError for a damaged run file, where a run is given twice, and naming what cannot be written or is not
    to be replaced; ValueError without runs.
    """
    if not runs:
        raise ValueError("a report needs at least one run")
    check_distinct(runs)
    output = check_output(path, PAGE, inputs=[run.path for run in runs], stream=True)
    if png is not None:
        check_folder(Path(png))
    contents = [collect(run, name, given) for run, name in zip(runs, _names(runs), strict=True)]
    write_output(output, page(contents).encode("utf-8", "replace"), PAGE)
    if png is not None:
        _pictures(contents, Path(png))
    return output.path


def _pictures(contents: Sequence[Content], directory: Path) -> None:
    make_folder(directory, "the pictures", "choose another --png")
    several = len(contents) > 1
    for number, content in enumerate(contents, start=1):
        for shown in content.figures.values():
            if shown.figure:
                shown.figure.save(directory / (f"run-{number}-{shown.key}.png" if several else f"{shown.key}.png"))
    for shown in comparison_figures(contents) if several else ():
        if shown.figure:
            shown.figure.save(directory / f"comparison-{shown.key}.png")


def _names(runs: Sequence[Run]) -> Iterator[str]:
    """The file's name, with its directory where two are equal, and a number where that does not tell them apart."""
    stems = [run.path.stem for run in runs]
    full = [str(run.path.with_suffix("")) if stems.count(run.path.stem) > 1 else run.path.stem for run in runs]
    for number, name in enumerate(full, start=1):
        yield f"{name} ({number})" if full.count(name) > 1 else name
