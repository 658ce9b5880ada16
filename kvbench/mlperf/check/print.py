"""A verdict on a tree, for people: what was found, rule by rule, and how it stands with each rule."""

from collections import Counter
from typing import Final

from rich.console import Console
from rich.text import Text

from kvbench.console import make_table
from kvbench.mlperf.check.checker import WHERE_RUNS_ARE, Verdict, in_order
from kvbench.mlperf.rules import RULES
from kvbench.mlperf.tree.untrusted import printable

_STYLES: Final = {
    "violation": "bold red",
    "not recorded": "yellow",
    "not checked": "yellow",
    "note": "cyan",
    "ok": "green",
}


def print_verdict(verdict: Verdict, console: Console) -> None:
    """Print `verdict` on `console`: a row for each rule, then what was found, then the count of violations."""
    worst = dict.fromkeys(verdict.unchecked, "not checked")
    for weight in ("note", "not checked", "not recorded", "violation"):
        worst |= {finding.id: weight for finding in verdict.findings if finding.weight == weight}
    counts = Counter(finding.id for finding in verdict.violations)
    rules = make_table(("rule", "id", ""), left=3)
    for rule in in_order(RULES.values()):
        state = worst.get(rule.id, "ok")
        word = f"{counts[rule.id]} x violated" if state == "violation" else "ok" if state == "note" else state
        if state == "not checked" and rule.id in verdict.unchecked:
            word = f"{word}: {verdict.unchecked[rule.id]}"
        rules.add_row(rule.number, rule.id, Text(word, _STYLES["ok" if word == "ok" else state]))
    console.print("Rules", style="italic")
    console.print(rules)
    for finding in verdict.findings:
        if finding.weight == "not checked" and finding.id in verdict.unchecked:
            # Its row says so, with the reason.
            continue
        console.print()
        head = Text.assemble((finding.weight, _STYLES[finding.weight]), f"  {finding.number} {finding.id}")
        console.print(head, soft_wrap=True)
        for name, text in (("in", finding.path), ("found", finding.found), ("wanted", finding.wanted)):
            console.print(Text(f"    {name:7}{text}"), soft_wrap=True)
    tree = f"{printable(str(verdict.tree.path))}: {_count(verdict.runs, 'run')}"
    console.print()
    if verdict.violations:
        line = f"{_count(len(verdict.violations), 'violation')} of {_count(len(verdict.broken), 'rule')}"
        console.print(Text(f"{tree}, {line}", _STYLES["violation"]), soft_wrap=True)
    elif verdict.passed:
        console.print(Text(f"{tree}, no violation", _STYLES["ok"]), soft_wrap=True)
    if verdict.old:
        line = (
            "it has the form of drafts, and was checked by it: handed in as it is, it would be refused (see the notes)"
        )
        console.print(Text(line, _STYLES["not recorded"]), soft_wrap=True)
    if not verdict.runs:
        line = f"{tree} of the KV cache, so that nothing could be checked but the directories: {WHERE_RUNS_ARE}"
        console.print(Text(line, _STYLES["violation"]), soft_wrap=True)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
