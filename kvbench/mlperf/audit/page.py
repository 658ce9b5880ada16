"""An audit as one HTML page of its own, which needs no network and runs no script."""

import html
from collections.abc import Iterator, Sequence
from typing import Final

from kvbench.mlperf.audit.audit import LeafAudit
from kvbench.mlperf.audit.finding import Finding
from kvbench.mlperf.audit.shown import (
    FIGURES,
    LEGEND,
    MEANING,
    OVERVIEW,
    TITLE,
    figures,
    not_audited,
    nothing_found,
    overview,
)


def as_html(audits: Sequence[LeafAudit]) -> str:
    """The whole page."""
    return _PAGE.format(title=html.escape(TITLE), body="\n".join(_body(audits)))


def _body(audits: Sequence[LeafAudit]) -> Iterator[str]:
    rows = [
        [
            (f'<a href="#run-{place}">{html.escape(cell)}</a>' if column == 3 else html.escape(cell))
            for column, cell in enumerate(row)
        ]
        for place, row in enumerate(overview(audits))
    ]
    yield _table(OVERVIEW, rows, left=4)
    meaning = "; ".join(f'<b class="{weight}">{weight}</b> {html.escape(text)}' for weight, text in MEANING)
    yield f"<p>{meaning}.</p><p>{html.escape(LEGEND)}</p>"
    for place, audit in enumerate(audits):
        yield f'<section id="run-{place}"><h2>{html.escape(audit.leaf.name)}</h2>'
        if not audit.leaf.has_figures:
            yield "<p>The leaf holds no figures.</p></section>"
            continue
        if audit.leaf.options:
            yield _table(FIGURES, [list(map(html.escape, row)) for row in figures(audit)], left=0)
        yield from map(_finding, audit.findings)
        if not audit.findings:
            yield "<p>No finding.</p>"
        if rest := not_audited(audit):
            lines = "".join(f"<li><b>{html.escape(what)}</b>: {html.escape(why)}</li>" for what, why in rest)
            yield f"<h3>Not audited</h3><ul>{lines}</ul>"
        if clean := nothing_found(audit):
            yield f"<h3>Looked at, nothing found</h3><p>{html.escape(', '.join(clean))}</p>"
        yield "</section>"


def _finding(finding: Finding) -> str:
    evidence = "".join(
        f"<li><code>{html.escape(one.path)}</code> {html.escape(one.key)} <b>{html.escape(one.value)}</b></li>"
        for one in finding.evidence
    )
    return (
        f'<article class="{finding.weight}"><h3><span>{finding.weight}</span> {html.escape(finding.what)}</h3>'
        f"<p>{html.escape(finding.effect)}</p><details><summary>evidence</summary><ul>{evidence}</ul></details></article>"
    )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> str:
    """Cells are HTML; those behind the first `left` are numbers."""
    kinds = [" class=n" if left <= place else "" for place in range(len(columns))]
    head = "".join(f"<th{kind}>{html.escape(name)}</th>" for kind, name in zip(kinds, columns, strict=True))
    lines = "\n".join(
        f"<tr>{''.join(f'<td{kind}>{cell}</td>' for kind, cell in zip(kinds, row, strict=True))}</tr>" for row in rows
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


_PAGE: Final = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<style>
:root {{ --ink: #26292e; --paper: #fff; --line: #d9dce1; --faint: #f4f5f7; --dim: #5b616b;
  --invalidates: #b3261e; --distorts: #9a5b00; --notable: #1f5f99 }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e4e6ea; --paper: #16181c; --line: #3a3f47; --faint: #1f2227;
  --dim: #a0a6b0; --invalidates: #ff8a80; --distorts: #f0b35a; --notable: #82b8ec }} }}
body {{ font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 2em auto;
  max-width: 76em; padding: 0 1.2em; overflow-wrap: anywhere }}
h1 {{ font-size: 1.6em }}
h2 {{ font-size: 1.25em; margin: 2.2em 0 .6em; border-top: 1px solid var(--line); padding-top: .9em }}
h3 {{ font-size: 1em; margin: 1em 0 .3em }}
.scroll {{ overflow-x: auto }} table {{ border-collapse: collapse; font-size: .93em }}
th, td {{ padding: .3em .7em; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top;
  overflow-wrap: normal }}
th {{ color: var(--dim); font-weight: 600 }}
.n {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }}
article {{ border-left: 4px solid; padding: .1em .9em .5em; margin: .8em 0; background: var(--faint) }}
article h3 {{ margin: .5em 0 .2em }} article p {{ margin: .2em 0 .4em }}
article h3 span {{ font-size: .8em; text-transform: uppercase; letter-spacing: .04em; margin-right: .4em }}
.invalidates {{ border-color: var(--invalidates) }} .distorts {{ border-color: var(--distorts) }}
.notable {{ border-color: var(--notable) }}
.invalidates span, b.invalidates {{ color: var(--invalidates) }} .distorts span, b.distorts {{ color: var(--distorts) }}
.notable span, b.notable {{ color: var(--notable) }}
details {{ font-size: .9em; color: var(--dim) }} code {{ font-size: .95em }}
ul {{ margin: .3em 0; padding-left: 1.3em }}
a {{ color: inherit }}
</style></head><body>
<h1>{title}</h1>
{body}
</body></html>
"""
