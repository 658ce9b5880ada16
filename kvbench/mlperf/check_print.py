"""A verdict on a tree, for people: what was found, rule by rule, and how it stands with each rule."""

from collections import Counter
from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kvbench.mlperf.checker import Verdict, in_order
from kvbench.mlperf.foreign import shown
from kvbench.mlperf.rules import RULES

_STYLES: Final = {"violation": "bold red", "not recorded": "yellow", "note": "cyan", "ok": "green"}


def print_verdict(verdict: Verdict, console: Console) -> None:
    """Print `verdict` on `console`: a row for each rule, then what was found, then the count of violations."""
    worst: dict[str, str] = {}
    for weight in ("note", "not recorded", "violation"):
        worst |= {finding.id: weight for finding in verdict.findings if finding.weight == weight}
    counts = Counter(finding.id for finding in verdict.violations)
    rules = Table("rule", "id", "", box=None, title="Rules", title_justify="left")
    for rule in in_order(RULES.values()):
        state = worst.get(rule.id, "ok")
        word = f"{counts[rule.id]} x violated" if state == "violation" else "ok" if state == "note" else state
        rules.add_row(rule.number, rule.id, Text(word, _STYLES["ok" if word == "ok" else state]))
    console.print(rules)
    if verdict.findings:
        found = Table("rule", "where", "found", "wanted", box=None, title="Found", title_justify="left")
        for finding in verdict.findings:
            name = Text(f"{finding.number} {finding.id}", _STYLES[finding.weight])
            what = finding.found if finding.weight == "violation" else f"{finding.weight}: {finding.found}"
            found.add_row(name, Text(finding.path), Text(what), Text(finding.wanted))
        console.print()
        console.print(found)
    console.print()
    runs = sum(1 for _ in verdict.tree.runs())
    tree = f"{shown(str(verdict.tree.path))}: {runs} run{'s' if runs != 1 else ''}"
    if verdict.violations:
        line = f"{len(verdict.violations)} violations of {len(verdict.broken)} rules"
        console.print(Text(f"{tree}, {line}", _STYLES["violation"]))
    else:
        console.print(Text(f"{tree}, no violation", _STYLES["ok"]))
