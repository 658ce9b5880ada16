"""Rules LEAF-01 and RPT-01: the one file that says what a leaf is, and tables of results that agree with each other."""

import re
from collections.abc import Iterator
from typing import Final

from kvbench.mlperf.rules.code import OF_BEFORE
from kvbench.mlperf.rules.registry import Problem, rule
from kvbench.mlperf.tree.document import Document
from kvbench.mlperf.tree.parts import Run, Submitter
from kvbench.mlperf.tree.untrusted import dig, items, shown

_PUBLIC_ID: Final = "Public ID"
_MOST_NAMED: Final = 20


def _old(run: Run) -> str:
    return OF_BEFORE if run.old else ""


def _no_rollup(submitter: Submitter) -> str:
    return "" if submitter.rollup.exists else "no results/results.json"


@rule("LEAF-01", "runLeafMetadata", Run, nothing=_old)
def run_leaf_metadata(run: Run) -> Iterator[Problem]:
    """Exactly one metadata file, called by the leaf's time; without it the tables leave the leaf out."""
    if run.old:
        return
    wanted = f"exactly one kv_cache_{run.path.name}_metadata.json"
    if len(run.metadata_files) != 1:
        names = ", ".join(shown(entry.name) for entry in run.metadata_files[:_MOST_NAMED])
        yield Problem(run.path, f"{len(run.metadata_files)} metadata files{': ' if names else ''}{names}", wanted)
    for entry in run.metadata_files[:1]:
        if not re.fullmatch(rf"kv_cache_{re.escape(run.path.name)}_metadata\.json", entry.name):
            yield Problem(entry.path, f"the name {shown(entry.name)}", wanted)
    document = run.metadata.document
    if document.exists and not (document.readable and isinstance(document.content, dict)):
        yield Problem(document.path, document.problem or "no JSON object", wanted)


@rule("RPT-01", "rollupTableAgreement", Submitter, nothing=_no_rollup)
def rollup_table_agreement(submitter: Submitter) -> Iterator[Problem]:
    """Each Public ID of the table of all results is in a table below it, and the reverse."""
    rollup = submitter.rollup
    if not rollup.exists:
        return
    for table in (rollup, *submitter.tables):
        if not table.readable:
            yield Problem(table.path, table.problem, "a table of results in JSON")
    below = {name: table.path for table in submitter.tables for name in _ids(table)}
    above = dict.fromkeys(_ids(rollup))
    for name in [name for name in above if name not in below][:_MOST_NAMED]:
        yield Problem(rollup.path, f"{_PUBLIC_ID} {shown(name)}, in no table below it", "the same in both")
    for name in [name for name in below if name not in above][:_MOST_NAMED]:
        yield Problem(below[name], f"{_PUBLIC_ID} {shown(name)}, not in results/results.json", "the same in both")


def _ids(table: Document) -> list[str]:
    """The Public IDs in the rows of a table; rows of other commands have none."""
    rows = items(table.content)
    return [name for row in rows if isinstance(name := dig(row, _PUBLIC_ID), str) and name.strip()]
