"""Whether a run did the work that a search varied the load of, on the same storage."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from kvbench_analysis.tables.load import Run

from kvbench.records.search import Asked

_MOST_NAMED: Final = 4
_OF_EACH_RUN: Final = frozenset(
    {"name", "objectives", "prices", "drive", "records", "twin", "seed", "duration_s", "warmup_s", "workload.path"}
)
"""Keys that say nothing of the work and the storage; of a trace, its content is compared."""
_CALIBRATION: Final = "calibration."


def unlike(run: Run, asked: Asked) -> list[str]:
    """In what the run differs from the search: keys of the configuration, `ranks`, `trace`, `directory`; the load
    itself aside."""
    try:
        searched = json.loads(asked.config)
        searched = dict(_flat(searched)) if isinstance(searched, dict) else {}
    except (ValueError, RecursionError):
        searched = {}
    own = dict(_flat(run.config))
    keys = (key for key in sorted(own.keys() | searched.keys()) if own.get(key) != searched.get(key))
    aside = _OF_EACH_RUN | {asked.key}
    found = [key for key in keys if key not in aside and not key.startswith(_CALIBRATION)]
    ranks, digest = run.attributes.get("ranks"), run.attributes.get("trace_digest", "")
    found += ["ranks"] if ranks is not None and int(ranks) != asked.ranks else []
    found += ["trace"] if str(digest) != asked.trace_digest else []
    # A relative one was relative to wherever that was.
    if "directory" in run.nodes and (asked.place.startswith("/") or "://" in asked.place):
        found += (
            ["directory"]
            if asked.place.rstrip("/") not in {str(each).rstrip("/") for each in run.nodes["directory"]}
            else []
        )
    return found


def caution(run: Run, asked: Asked) -> str:
    """A sentence where the run differs from the search; else empty."""
    found = unlike(run, asked)
    if not found:
        return ""
    more = f" and {len(found) - _MOST_NAMED} more" if len(found) > _MOST_NAMED else ""
    return f" The search was of something else than this run, which differs in {', '.join(found[:_MOST_NAMED])}{more}."


def _flat(section: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{key}.")
        else:
            yield above + key, value
