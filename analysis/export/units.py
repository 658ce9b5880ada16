"""The unit of every column of a run file, told by its name, as docs/hdf5-schema.md has it. Knows no table."""

from typing import Final

_ENDINGS: Final = {
    "_gib_per_s": "GiB/s",
    "_ns_per_s": "ns/s",
    "_ns": "ns",
    "_us": "us",
    "_pct": "%",
    "_bytes": "bytes",
    "_tokens": "tokens",
    "_objects": "objects",
    "_requests": "requests",
    "_ops": "operations",
    "_rows": "rows",
    "_sectors": "sectors",
}
_WHOLE: Final = {"nbytes": "bytes", "tokens": "tokens", "gib_per_s": "GiB/s"}


def unit_of(column: str) -> str:
    """The unit of a column: `ns`, `bytes`, ... "" for codes, names, numbers of things, and what counts what it is
    called by (`operations`)."""
    ending = next((unit for ending, unit in _ENDINGS.items() if column.endswith(ending)), "")
    return _WHOLE.get(column, ending)
