"""What things cost, as a configuration or a file of prices says it; nothing here knows what they are worth."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

HOURS_PER_YEAR: Final = 8766.0
"""365.25 days."""
HOURS_PER_MONTH: Final = HOURS_PER_YEAR / 12


@dataclass(frozen=True)
class StoragePrice:
    """Of storage, in one of the ways in which it is paid for."""

    way: str
    """`rented`, by the GB and month; `drive`, bought and worn out."""
    gb_hour: float
    """Of 10^9 bytes."""
    source: str


@dataclass(frozen=True)
class Prices:
    """In one currency."""

    currency: str
    gpu_hour: float
    """Of one GPU."""
    gpu_source: str
    storage: tuple[StoragePrice, ...]


def prices_of(content: object) -> Prices | None:
    """What `configs/prices.yaml` explains, checked before (`config.prices`); None where it is nothing of the kind."""
    if not isinstance(content, Mapping):
        return None
    try:
        return _prices(content)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None


def _prices(content: Mapping[str, Any]) -> Prices:
    storage = []
    rented, drive = content.get("storage_gb_month"), content.get("drive")
    if rented:
        price = float(rented["price"])
        storage.append(StoragePrice("rented", price / HOURS_PER_MONTH, str(rented["source"])))
    if drive:
        per_gb = float(drive["price"]) / float(drive["capacity_gb"])
        storage.append(StoragePrice("drive", per_gb / (float(drive["years"]) * HOURS_PER_YEAR), str(drive["source"])))
    gpu = content["gpu_hour"]
    return Prices(str(content["currency"]), float(gpu["price"]), str(gpu["source"]), tuple(storage))
