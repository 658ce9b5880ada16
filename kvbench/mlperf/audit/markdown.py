"""An audit in Markdown. What stands in a tree is text from elsewhere: nothing of it becomes markup."""

import re
from collections.abc import Iterator, Sequence
from typing import Final

from kvbench.mlperf.audit.audit import LeafAudit
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

_MARKUP: Final = re.compile(r"([\\`*_\[\]<>|#~])")
_INSIDE_A_WORD: Final = re.compile(r"(?<=\w)\\_(?=\w)")


def as_markdown(audits: Sequence[LeafAudit]) -> str:
    """The whole audit."""
    return "\n".join(_lines(audits)) + "\n"


def _lines(audits: Sequence[LeafAudit]) -> Iterator[str]:
    yield from (f"# {TITLE}", "")
    yield from _table(OVERVIEW, overview(audits), left=4)
    yield ""
    yield "; ".join(f"**{weight}**: {meaning}" for weight, meaning in MEANING) + "."
    yield from ("", LEGEND)
    for audit in audits:
        yield from ("", f"## {_escaped(audit.leaf.name)}", "")
        if not audit.leaf.has_figures:
            yield "The leaf holds no figures."
            continue
        if audit.leaf.options:
            yield from _table(FIGURES, figures(audit), left=0)
            yield ""
        for finding in audit.findings:
            yield f"- **{finding.weight}** {_escaped(finding.what)}"
            yield f"  - effect: {_escaped(finding.effect)}"
            yield from (f"  - {_escaped(str(one))}" for one in finding.evidence)
        if not audit.findings:
            yield "No finding."
        if rest := not_audited(audit):
            yield from ("", "Not audited:", "")
            yield from (f"- {_escaped(what)}: {_escaped(why)}" for what, why in rest)
        if clean := nothing_found(audit):
            yield from ("", f"Looked at, nothing found: {', '.join(clean)}.")


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> Iterator[str]:
    rule = ["---" if place < left else "---:" for place in range(len(columns))]
    yield f"| {' | '.join(columns)} |"
    yield f"| {' | '.join(rule)} |"
    yield from (f"| {' | '.join(map(_escaped, row))} |" for row in rows)


def _escaped(text: str) -> str:
    return _INSIDE_A_WORD.sub("_", _MARKUP.sub(r"\\\1", text))
