"""The results of systems side by side: the four headline figures of 6.3.4.5 of each option, with the number of clients,
and the bandwidth that each client and each host had of it.

A row says beside its figures whether the tree that it is from can be handed in, and what an audit says of them: what
breaks rules is marked, not left out.
"""

import csv
import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path, PurePosixPath
from typing import Final

from kvbench.errors import KvbenchError
from kvbench.mlperf.aggregation import HEADLINE, Figure, aggregate, results_of
from kvbench.mlperf.check.checker import Finding, Verdict
from kvbench.mlperf.tree.code_images import SHARED_POOL
from kvbench.mlperf.tree.declared import declared_options, summary_of, summary_options
from kvbench.mlperf.tree.numbers import Section
from kvbench.mlperf.tree.parts import DIVISIONS, Run
from kvbench.mlperf.tree.untrusted import MISSING, printable, shown

COLUMNS: Final = (
    "submitter",
    "division",
    "system",
    "run",
    "option",
    "clients",
    "hosts",
    HEADLINE[0].title,
    "per client",
    "per host",
    *(figure.title for figure in HEADLINE[1:]),
    "status",
    "audit",
)
_NUMBERS_FROM: Final = COLUMNS.index("option")
_NUMBERS_TO: Final = COLUMNS.index("status")
_REHEARSAL: Final = "kvbenchRehearsal"
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class Row:
    """An option of a run."""

    run: Run
    option: int
    clients: int | None
    hosts: int | None
    figures: tuple[float | None, ...]
    """In the order of HEADLINE; None for one that is no number."""
    status: str
    marks: str = ""
    """What an audit found of these figures; "" for nothing, or no audit."""

    @property
    def sound(self) -> bool:
        """Whether no rule is broken."""
        return self.status == "ok"

    def cells(self) -> list[str]:
        """The row as text, in the order of COLUMNS."""
        names = (self.run.submitter, self.run.division, self.run.system, self.run.path.name)
        counts = (str(self.option), _text(self.clients), _text(self.hosts))
        bandwidth, *others = self.figures
        shares = (_share(bandwidth, count) for count in (self.clients, self.hosts))
        figures = (_text(value) for value in (bandwidth, *shares, *others))
        return [*map(shown, names), *counts, *figures, self.status, self.marks or "-"]


def table_rows(verdicts: Iterable[Verdict], marks: Mapping[tuple[Path, int], str] | None = None) -> list[Row]:
    """The rows of the trees, as their run summaries give the figures; by option, the most bandwidth first. Percentiles
    that a summary does not have are computed from the ranks' results, as the rules do. `marks` is what an audit says of
    a run's option.

    Raises KvbenchError where two trees hold the same run, which would stand there twice.
    """
    rows: list[Row] = []
    seen: dict[tuple[str, ...], Path] = {}
    for verdict in verdicts:
        for run in verdict.tree.runs():
            same = seen.setdefault((run.submitter, run.division, run.system, run.path.name), run.path)
            if same is not run.path:
                raise KvbenchError(f"{same} and {run.path} are the same run of one system: give each tree once")
            rows += _rows(verdict, run, marks or {})
    return sorted(rows, key=lambda row: (row.option, -(row.figures[0] or 0.0), row.cells()))


def as_markdown(rows: Sequence[Row]) -> str:
    """A table in Markdown."""
    rule = ["---:" if _is_number(place) else "---" for place in range(len(COLUMNS))]
    lines = [COLUMNS, rule, *([cell.replace("|", r"\|") for cell in row.cells()] for row in rows)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def as_csv(rows: Sequence[Row]) -> str:
    """Comma-separated values with a header; names that a spreadsheet would take for a formula get an apostrophe."""
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in rows:
        writer.writerow([f"'{cell}" if cell.startswith(_FORMULA) and cell != "-" else cell for cell in row.cells()])
    return text.getvalue()


def as_html(rows: Sequence[Row]) -> str:
    """A page of its own, which needs no network."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in COLUMNS)
    body = "\n".join(
        f'<tr class="{"sound" if row.sound else "broken"}">{"".join(_html_cells(row.cells()))}</tr>' for row in rows
    )
    return _PAGE.format(head=head, body=body)


FORMATS: Final = {"md": as_markdown, "csv": as_csv, "html": as_html}


def _html_cells(cells: Sequence[str]) -> Iterator[str]:
    for place, cell in enumerate(cells):
        yield f"<td{' class=n' if _is_number(place) else ''}>{html.escape(cell)}</td>"


def _is_number(column: int) -> bool:
    return _NUMBERS_FROM <= column < _NUMBERS_TO


def _rows(verdict: Verdict, run: Run, marks: Mapping[tuple[Path, int], str]) -> Iterator[Row]:
    runs = tuple(verdict.tree.runs())
    findings = [finding for finding in verdict.violations if _is_about(finding, run, runs)]
    status = _status(findings)
    options = summary_options(run)
    for option in declared_options(run):
        entry = options.get(option)
        yield Row(
            run=run,
            option=option,
            clients=summary_of(run).count("total_ranks"),
            hosts=summary_of(run).count("host_count"),
            figures=tuple(None if entry is None else _figure(run, option, entry, figure) for figure in HEADLINE),
            status=status,
            marks=marks.get((run.path, option), ""),
        )


def _figure(run: Run, option: int, entry: Section, figure: Figure) -> float | None:
    """What the summary says; what it does not have, from the results of all ranks where they are there."""
    if entry[figure.name] is not MISSING:
        return entry.number(figure.name)
    trials = results_of(run, option)
    return None if trials is None else aggregate(trials, figure)


def _status(findings: Sequence[Finding]) -> str:
    ids = dict.fromkeys(finding.id for finding in findings)
    words = ["REHEARSAL"] if _REHEARSAL in ids else []
    broken = [f"{finding.number} {finding.id}" for finding in findings if finding.id != _REHEARSAL]
    if broken:
        words.append(f"VIOLATES {', '.join(dict.fromkeys(broken))}")
    return "; ".join(words) or "ok"


def _is_about(finding: Finding, run: Run, runs: Sequence[Run]) -> bool:
    """Whether a finding counts against the run: it is about it or what it is in, and not about another system."""
    if not run.path.is_relative_to(finding.part):
        return False
    inside = next((other for other in runs if finding.place.is_relative_to(other.path)), None)
    if inside is not None:
        return inside is run
    parts = PurePosixPath(finding.path).parts
    if parts and parts[0] not in DIVISIONS:
        # About a pool of code images: that of all, or that of a submitter.
        return parts[0] in (SHARED_POOL, printable(run.submitter))
    if len(parts) >= 2 and parts[:2] != (run.division, printable(run.submitter)):
        return False
    if len(parts) < 4:
        return True
    name = {"results": parts[3], "systems": PurePosixPath(parts[3]).stem}.get(parts[2])
    return name is None or name == printable(run.system)


def _share(value: float | None, count: int | None) -> float | None:
    return None if value is None or not count else value / count


def _text(value: float | None) -> str:
    return "-" if value is None else str(value) if isinstance(value, int) else f"{value:.5g}"


_PAGE: Final = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>MLPerf Storage, KV cache: results</title>
<style>
body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2em; color: #26292e; background: #fff }}
table {{ border-collapse: collapse }}
th, td {{ padding: .3em .8em; border-bottom: 1px solid #ddd; text-align: left }}
td.n {{ text-align: right; font-variant-numeric: tabular-nums }}
tr.broken td {{ color: #a33 }}
</style></head><body>
<h1>MLPerf Storage, KV cache: results</h1>
<table><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table>
<p>GiB/s and tokens/s: sum over clients, mean over trials. P95: the largest of all clients and trials. What the audit
means: <code>kvbench mlperf audit</code>.</p>
</body></html>
"""
