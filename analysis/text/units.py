"""Numbers for people: times, sizes, counts and rates with three significant digits. Not for programs."""

import math

NONE = "-"
"""What is printed where there is no figure."""


def digits(value: float) -> str:
    """Three significant digits, without an exponent: `3.21`, `32.1`, `321`, and `3 210` (all digits, in groups)."""
    if not math.isfinite(value):
        return NONE
    if value == 0:
        return "0"
    if abs(value) >= 999.5:
        return count(round(value))
    # Rounded first: 9.999 has three digits as 10.0, not as 10.00.
    places = max(0, 2 - math.floor(math.log10(abs(float(f"{value:.3g}")))))
    return f"{value:.{min(places, 4)}f}"


def duration(ns: float) -> str:
    """`850 ns`, `12.3 us`, `4.56 ms`, `7.89 s`."""
    if not math.isfinite(ns):
        return NONE
    for unit, factor in (("s", 1e9), ("ms", 1e6), ("us", 1e3)):
        if abs(ns) >= factor * 0.9995:
            return f"{digits(ns / factor)} {unit}"
    return f"{digits(ns)} ns" if ns else "0"


def percentile(ns: float, operations: float, needed: int) -> str:
    """`duration`, marked with `~` where fewer than the `needed` operations stand behind it."""
    return duration(ns) if operations >= needed or not math.isfinite(ns) else f"~{duration(ns)}"


def size(nbytes: float) -> str:
    """`64 MiB`, `1.5 GiB`, with three significant digits."""
    if not math.isfinite(nbytes):
        return NONE
    for unit, factor in (("PiB", 2**50), ("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(nbytes) >= factor:
            number = nbytes / factor
            return f"{number:.0f} {unit}" if number >= 100 else f"{number:.3g} {unit}"
    return f"{nbytes:.0f} B"


def count(number: float) -> str:
    """A whole number with thin groups: `1 234 567`."""
    return f"{int(number):,}".replace(",", " ") if math.isfinite(number) else NONE


def count_of(number: float, noun: str) -> str:
    """`1 request`, `1 234 requests`."""
    return f"{count(number)} {noun}{'' if number == 1 else 's'}"


def share(value: float) -> str:
    """`70 %`, `0.4 %`."""
    if not math.isfinite(value):
        return NONE
    percent = value * 100
    return f"{percent:.0f} %" if percent >= 9.95 or round(percent, 1) == round(percent) else f"{percent:.1f} %"
