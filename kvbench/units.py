"""Sizes and durations with units: `4GiB` (2^30) and `4GB` (10^9) are different numbers, and both are understood."""

import difflib
import re
import sys
from collections.abc import Mapping
from fractions import Fraction
from typing import Final

_SIZE_UNITS: Final[dict[str, int | Fraction]] = {"B": 1} | {
    f"{prefix}{suffix}": base**power
    for suffix, base in (("iB", 1024), ("B", 1000))
    for power, prefix in enumerate("KMGTP", start=1)
}
_TIME_UNITS: Final[dict[str, int | Fraction]] = {
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "min": Fraction(60),
    "h": Fraction(3600),
}
_NUMBER: Final = r"\d+(?:\.\d*)?(?:[eE][+-]?\d{1,3})?"
_NUMBER_AND_UNIT: Final = re.compile(rf"\s*({_NUMBER})\s*([A-Za-z]*)\s*")
_WITH_EXPONENT: Final = re.compile(r"[+-]?\d+(?:\.\d*)?[eE][+-]?\d{1,3}", re.ASCII)

_SURROGATES: Final = re.compile("[\ud800-\udfff]")

_MOST_SECONDS: Final = 1e300
"""So that a unit and a sum still find room in a float."""

KIB: Final = 1024
MIB: Final = 1024**2
GIB: Final = 1024**3

SECTOR_BYTES: Final = 4 * KIB
"""Unit of payload, of object sizes and of direct I/O."""

SEGMENT_BYTES: Final = 4 * MIB
"""Unit in which a rank's arena is lent to its threads, the most that a system call moves, and the period of the
payload's random body."""


def parse_bytes(text: object) -> int:
    """Bytes in `text`: a whole number (`1e9` is one), or a number with one of B, KB, KiB, ... PB, PiB (upper-case
    prefix).

    Raises ValueError when the number or its unit is not understood, or the size is not a whole number of bytes.
    """
    text = as_whole(text)
    if isinstance(text, int) and not isinstance(text, bool) and text >= 0:
        return text
    match = _NUMBER_AND_UNIT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError("expected a size of 0 or more: bytes, or a number with a unit, such as 4GiB or 500MB")
    number, unit = match.groups()
    size = Fraction(number) * (_unit(unit, _SIZE_UNITS, "size") if unit else 1)
    if size.denominator != 1:
        raise ValueError("expected a size that is a whole number of bytes")
    return int(size)


def parse_seconds(text: object) -> float:
    """Seconds in `text`: a number (`1e-3` is one), or a number with one of ms, s, min, h.

    Raises ValueError when the number or its unit is not understood.
    """
    if isinstance(text, int | float) and not isinstance(text, bool) and 0 <= text <= _MOST_SECONDS:
        return float(text)
    match = _NUMBER_AND_UNIT.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise ValueError(
            "expected a duration of 0 or more: seconds, or a number with a unit, such as 10s, 500ms or 2min"
        )
    number, unit = match.groups()
    seconds = Fraction(number) * (_unit(unit, _TIME_UNITS, "time") if unit else 1)
    if seconds > _MOST_SECONDS:
        raise ValueError(f"expected a duration of at most {_MOST_SECONDS:.0e} seconds")
    return float(seconds)


def as_whole(value: object) -> object:
    """`value` as an int where it is a whole number in other clothes: `1e9`, which YAML takes for text, or 1.0e+9, which
    it takes for a number with a fraction. Anything else as it is."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _WITH_EXPONENT.fullmatch(value):
        number = Fraction(value)
        return int(number) if number.denominator == 1 else value
    return value


def printable(text: str) -> str:
    """`text` with what a terminal would obey instead of show as question marks, but for ends of lines.

    For what comes from files and configurations: names in them could move the cursor, or worse.
    """
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in storable(text))


def storable(text: str) -> str:
    """`text` as every file and every terminal that takes Unicode can have it.

    A file's name may hold bytes that are no text; in Python's `str` they are surrogates, which no encoding has. They
    become escapes: `/mnt/\\xff`.
    """
    return _SURROGATES.sub(lambda found: _escape(ord(found[0])), text)


def _escape(code: int) -> str:
    byte = code - 0xDC00
    return f"\\x{byte:02x}" if 0x80 <= byte <= 0xFF else f"\\u{code:04x}"


def format_bytes(nbytes: float) -> str:
    """`nbytes` with the largest binary unit that leaves a number of at least 1, for people: `3.3 GiB`."""
    for unit, factor in (("PiB", 1024**5), ("TiB", 1024**4), ("GiB", GIB), ("MiB", MIB), ("KiB", KIB)):
        if abs(nbytes) >= factor:
            return f"{nbytes / factor:.4g} {unit}"
    return f"{nbytes:.0f} B"


def _unit(unit: str, units: Mapping[str, int | Fraction], kind: str) -> int | Fraction:
    if unit in units:
        return units[unit]
    folded = {name.lower(): name for name in units}
    near = difflib.get_close_matches(unit.lower(), folded, n=1, cutoff=0.4)
    hint = f": did you mean {folded[near[0]]}?" if near else ""
    raise ValueError(f"unknown unit of {kind} {unit!r}{hint} (known: {', '.join(units)})")


def for_stderr(text: str) -> bytes:
    """`text` for those who write to file descriptor 2 itself."""
    return storable(text).encode(getattr(sys.stderr, "encoding", None) or "utf-8", "backslashreplace")
