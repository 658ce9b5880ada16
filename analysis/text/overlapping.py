"""How shares of batches are marked, and what the mark says: in the summary and in the report. Computes no figure."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from kvbench_analysis.text import units

MARK: Final = "*"
"""At a share of the time of batches."""

OF_BATCHES: Final = (
    f"{MARK} of batches: the operations of a batch overlap, so that none has a device, host or run-queue time of its "
    "own; shares are of the time of the threads, which is that of the batches and of what does not overlap"
)
HELPERS: Final = (
    "helpers: processor time of other threads of the process for these batches, by the batches' wall time, beside "
    "which it passed; may exceed 100 %"
)
NOT_KNOWN: Final = "not known: these operations overlap, and the file does not say what their batches add up to"
"""Why there is no share."""

_BRIEF: Final = f"{MARK} of batches, whose operations overlap and have no split of their own"
_BRIEF_HELPERS: Final = "; helpers: processor time of other threads, beside the batches"

_PARTS: Final = {"device_share": "device", "host_share": "host", "runq_share": "run queue"}


def share(value: float, split_of: Any) -> str:
    """`units.share`, with the mark where it is one of batches."""
    told = units.share(value)
    return f"{told}{MARK}" if split_of == "batches" and told != units.NONE else told


def helper(value: float) -> str:
    """The share of helpers; nothing where there were none."""
    return f"{units.share(value)}{MARK}" if value > 0 else ""


def split(row: Mapping[Any, Any]) -> str:
    """The shares of a row in words: `device 40 %, host 50 %, run queue 10 %`, with what they are of before them."""
    if row["split_of"] == "unknown":
        return "its split is not known: operations overlap"
    told = ", ".join(f"{name} {units.share(row[column])}" for column, name in _PARTS.items())
    if row["split_of"] != "batches":
        return told
    helped = f", helpers {units.share(row['helper_share'])}" if row["helper_share"] > 0 else ""
    return f"of batches: {told}{helped}"


def notes(split_of: Iterable[Any], helpers: Iterable[float] = (), *, brief: bool = False) -> str:
    """What is to be said once beneath tables whose rows have these `split_of` and shares of helpers; "": nothing."""
    kinds, helped = set(split_of), any(value > 0 for value in helpers)
    said = [OF_BATCHES] if "batches" in kinds else []
    said += [HELPERS] if helped else []
    if brief and said:
        said = [_BRIEF + (_BRIEF_HELPERS if helped else "")]
    said += [f"{units.NONE} {NOT_KNOWN}"] if "unknown" in kinds else []
    return ". ".join(said) + "." if said else ""
