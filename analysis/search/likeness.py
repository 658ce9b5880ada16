"""Whether a run did the work that a search varied the load of, on the same storage."""

import json
from collections.abc import Mapping
from typing import Any, Final

from kvbench_analysis.tables.flat import flat
from kvbench_analysis.tables.load import Run

from kvbench.records.search import Asked

_MOST_NAMED: Final = 4
_OF_EACH_RUN: Final = frozenset(
    {"name", "objectives", "prices", "drive", "records", "twin", "seed", "duration_s", "warmup_s", "calibration"}
)
"""Sections that say nothing of the work and the storage."""


def unlike(run: Run, asked: Asked) -> list[str]:
    """In what the run differs from the search: keys of the configuration, `ranks`, `trace`, `directory`; the load
    itself aside."""
    try:
        searched = json.loads(asked.config)
    except (ValueError, RecursionError):
        searched = {}
    own, other = _facts(run.config), _facts(searched if isinstance(searched, dict) else {})
    # Of a trace, its content is compared.
    aside = {asked.key, "workload.path"}
    found = [key for key in sorted((own.keys() | other.keys()) - aside) if own.get(key) != other.get(key)]
    if int(run.attributes.get("ranks", asked.ranks)) != asked.ranks:
        found.append("ranks")
    if str(run.attributes.get("trace_digest", "")) != asked.trace_digest:
        found.append("trace")
    # A relative one was relative to wherever that was.
    if "directory" in run.nodes and (asked.place.startswith("/") or "://" in asked.place):
        places = {str(each).rstrip("/") for each in run.nodes["directory"]}
        if asked.place.rstrip("/") not in places:
            found.append("directory")
    return found


def caution(run: Run, asked: Asked) -> str:
    """A sentence where the run differs from the search; else empty."""
    found = unlike(run, asked)
    if not found:
        return ""
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return f" The search was of something else than this run, which differs in {', '.join(found[:_MOST_NAMED])}{more}."


def _facts(config: Mapping[str, Any]) -> dict[str, str]:
    return dict(flat({name: value for name, value in config.items() if name not in _OF_EACH_RUN}))
