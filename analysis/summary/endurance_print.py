"""Endurance and what was done before the load, as text for tables and as plain values for JSON. Makes no figures."""

from typing import Any

import numpy as np
from kvbench_analysis.figures.endurance import Endurance
from kvbench_analysis.figures.preconditioning import Preconditioning
from kvbench_analysis.text import units
from kvbench_analysis.text.safe import plain

TextTable = tuple[str, list[str], list[list[str]]]
"""Title, headings, rows."""


def endurance_table(found: Endurance) -> TextTable:
    """All ranks together, and the nodes where there are several."""
    places = found.places[found.places["scope"] != "rank"].to_dict("records")
    told = any(np.isfinite(row["disk_bytes_per_day"]) for row in places)
    inside = any(np.isfinite(row["drive_amplification"]) for row in places)
    shown = places if len(places) > 2 else places[:1]
    rows = [
        [
            "all ranks" if row["scope"] == "all" else f"node {row['node']}",
            units.size(row["written_bytes"]),
            terabytes(row["written_bytes_per_day"]),
            *([terabytes(row["disk_bytes_per_day"]), _times(row["amplification"])] if told else []),
            *([_times(row["drive_amplification"])] if inside else []),
        ]
        for row in shown
    ]
    heads = ["", "written", "a day", *(["disks, a day", "amplification"] if told else [])]
    heads += ["inside drives"] if inside else []
    return "Written to storage in the measured window, and in a day of it", heads, rows


def endurance_notes(found: Endurance) -> list[str]:
    """What the rating comes to, and what the disks' counters are."""
    notes = []
    if np.isfinite(found.total["disk_bytes_per_day"]):
        notes.append(
            "Disks count all that reaches them, of whatever process; amplification is that by what was written."
        )
    if np.isfinite(found.total["drive_amplification"]):
        notes.append(
            "Inside drives: what they wrote to their flash by what hosts wrote to them, from before the load to after."
        )
    if found.rated is not None:
        per_day = found.wearing_bytes_per_day
        basis = "what the disks counted" if np.isfinite(found.total["disk_bytes_per_day"]) else "what was written"
        notes.append(f"Endurance at this load, all day, by {basis}: {rated_text(found.rated.as_dict(per_day))}.")
    return notes


def rated_text(rated: dict[str, Any]) -> str:
    """`0.42 drive writes per day, 11.9 years of 1 drive rated for 3500 TB`."""
    number, years, dwpd = rated["drives"], rated["years"], rated["drive_writes_per_day"]
    drives = f"{number} drive{'' if number == 1 else 's'} rated for {terabytes(rated['rated_tbw_bytes'])}"
    lasting = "no end" if years is None else f"{years:.3g} years"
    full = "" if dwpd is None else f"{dwpd:.3g} drive writes per day, "
    return f"{full}{lasting} of {drives}{' each' if number > 1 else ''}"


def terabytes(nbytes: float) -> str:
    """`3.21 TB` (10^12 bytes), as drives are rated; smaller in GB."""
    if not np.isfinite(nbytes):
        return units.NONE
    return f"{nbytes / 1e12:.4g} TB" if nbytes >= 1e12 else f"{nbytes / 1e9:.3g} GB"


def endurance_json(found: Endurance | None) -> dict[str, Any] | None:
    """With the names of `Endurance`."""
    if found is None:
        return None
    rated = None if found.rated is None else found.rated.as_dict(found.wearing_bytes_per_day)
    return {"places": [plain(row) for row in found.places.to_dict("records")], "rated": rated}


def preconditioning_json(found: Preconditioning | None) -> dict[str, Any] | None:
    """With the names of `Preconditioning`."""
    if found is None:
        return None
    return {
        "asked": found.asked,
        "steady_round": found.steady_round,
        "seconds": found.seconds,
        "written_bytes": found.written_bytes,
        "capacity_bytes": found.capacity_bytes,
        "rounds": [plain(row) for row in found.rounds.to_dict("records")],
    }


def _times(value: float) -> str:
    return f"{value:.3g}" if np.isfinite(value) else units.NONE
