"""What storage earns and costs, as text and as plain values. Makes no figures."""

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, Final

import numpy as np
from kvbench_analysis.figures.worth import Worth
from kvbench_analysis.summary.sharing_print import TextTable
from kvbench_analysis.text import units

WAYS: Final = {"rented": "rented by the GB and month", "drive": "drives, over their years"}


def money(amount: float, currency: str) -> str:
    """Three digits, without an exponent: `-0.0123 USD`."""
    if not math.isfinite(amount):
        return units.NONE
    return f"{np.format_float_positional(float(f'{amount:.3g}'), trim='-')} {currency}"


def worth_table(found: Worth) -> TextTable:
    """For each way in which storage is paid for."""
    million = [
        [
            WAYS.get(row["way"], row["way"]),
            money(found.earned_per_million_tokens, found.currency),
            money(row["cost_per_million_tokens"], found.currency),
            money(row["net_per_million_tokens"], found.currency),
        ]
        for row in found.ways.to_dict("records")
    ]
    headings = ["storage", "earns", "costs", "net"]
    return "Worth of storage, per million prompt tokens served, modelled", headings, million


def worth_notes(found: Worth) -> Iterator[str]:
    """What it was made of."""
    sources = dict.fromkeys([found.gpu_source, *found.ways["source"]])
    yield (
        f"GPU time that was saved, against {units.digits(found.storage_gb)} GB of storage, at "
        f"{units.count(found.tokens_per_hour)} prompt tokens an hour; in an hour it earns "
        f"{money(found.earned_per_hour, found.currency)}. "
        f"Prices: {'; '.join(sources)}."
    )


def worth_json(found: Worth | None) -> dict[str, Any] | None:
    """As docs/summary.md says; None where there is none."""
    if found is None:
        return None
    return {name: each for name, each in asdict(found).items() if name != "ways"} | {
        "ways": found.ways.to_dict("records")
    }
