"""Whether runs did the same work, and if not, in what they differ: what has to be settled before they are compared."""

from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd
from kvbench_analysis.tables.flat import flat
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.virtual import virtual_speed

from kvbench.records.reader import KvbenchError

DIFFERENCE_COLUMNS: Final = ("key", "label", "source", "value")

_NOT_COMPARED: Final = {"name", "workload.path"}
"""A label, and where a trace lay: what was in it counts (trace_digest). Nor is what drives are rated for (drive)."""
_ABSENT: Final = "(not set)"


def differences(groups: Mapping[str, Sequence[Run]]) -> pd.DataFrame:
    """What the runs differ in: one row per key and run, of the keys whose values are not the same in all runs.

    Columns: `key` (a dotted key of the configuration, `ranks`, `nodes`, `tiers.NAME.capacity_bytes (resolved)`,
    `trace_digest`, `precondition`), `label`, `source` (the file) and `value` (text).
    """
    runs = [(label, run, _facts(run)) for label, group in groups.items() for run in group]
    keys = dict.fromkeys(key for _, _, facts in runs for key in facts)
    rows = []
    for key in keys:
        values = [facts.get(key, _ABSENT) for _, _, facts in runs]
        if len(set(values)) > 1:
            rows += [(key, label, str(run.path), value) for (label, run, _), value in zip(runs, values, strict=True)]
    return pd.DataFrame(rows, columns=list(DIFFERENCE_COLUMNS), dtype=object)


def check_ordinary(groups: Mapping[str, Sequence[Run]]) -> None:
    """Raise KvbenchError where one of the runs is full of delays that were put in on purpose."""
    for group in groups.values():
        for run in group:
            virtual = virtual_speed(run)
            if virtual is not None:
                raise KvbenchError(
                    f"{run.path} is {virtual.text}: its figures compare with those of its study alone, which `kvbench "
                    "study show` prints from the table beside it"
                )


def same_work(groups: Mapping[str, Sequence[Run]]) -> bool:
    """Whether all runs have one fingerprint."""
    return len({str(run.attributes.get("fingerprint", "")) for group in groups.values() for run in group}) <= 1


def check_same_work(groups: Mapping[str, Sequence[Run]], found: pd.DataFrame) -> None:
    """Raise KvbenchError, naming all `found` differences, where the runs have different fingerprints."""
    if same_work(groups):
        return
    lines = [
        f"  {key}: " + ", ".join(f"{value} in {_joined(rows['source'])}" for value, rows in table.groupby("value"))
        for key, table in found.groupby("key", sort=False)
    ]
    if not lines:
        versions = sorted(
            {str(run.attributes.get("kvbench_version", "?")) for group in groups.values() for run in group}
        )
        lines = [
            f"  no key of the configuration; made by kvbench {', '.join(versions)}, which make other requests of it"
        ]
    raise KvbenchError(
        "the runs did not do the same work (their fingerprints differ), so their figures cannot be compared:\n"
        + "\n".join(lines)
        + "\nrepeat the runs with one configuration and number of ranks, or compare them all the same with --force"
    )


def _joined(sources: pd.Series) -> str:
    names = list(dict.fromkeys(map(str, sources)))
    return " and ".join(names) if len(names) < 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"


def _facts(run: Run) -> dict[str, str]:
    described = {name: value for name, value in run.config.items() if name != "drive"}
    facts = {key: value for key, value in flat(described) if key not in _NOT_COMPARED}
    for name in ("ranks", "nodes", "trace_digest", "precondition"):
        if name in run.attributes:
            facts[name] = str(run.attributes[name])
    for tier in run.tiers.to_dict("records"):
        if "capacity_bytes" in tier:
            facts[f"tiers.{tier['name']}.capacity_bytes (resolved)"] = str(tier["capacity_bytes"])
    return facts
