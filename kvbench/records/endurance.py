"""How long drives last that are written so much a day: the arithmetic of rated endurance, once for all who need it.

A drive's endurance is rated in terabytes written (TBW: what the host may write before it is worn out; JEDEC JESD218),
or in drive writes per day over the years of its warranty (DWPD), which come to the same: TBW = DWPD x capacity x 365
days x years. TB is 10^12 bytes. Measures nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

DAY_S: Final = 86_400
DAYS: Final = 365
"""Of a year, as ratings count them."""


@dataclass(frozen=True, slots=True)
class RatedDrives:
    """Equal drives that share what is written evenly."""

    tbw_bytes: float
    """Of each: what it is rated to be written."""
    capacity_bytes: int | None = None
    """Of each; None: not given."""
    drives: int = 1

    @staticmethod
    def of(
        tbw_bytes: int | None, dwpd: float | None, capacity_bytes: int | None, warranty_years: float, drives: int
    ) -> "RatedDrives":
        """By either rating. Raises ValueError where it is none, or two."""
        if (tbw_bytes is None) == (dwpd is None):
            raise ValueError(
                "the endurance of a drive is rated in terabytes written or in drive writes per day: give one"
            )
        if tbw_bytes is not None:
            return RatedDrives(tbw_bytes, capacity_bytes, drives)
        if capacity_bytes is None:
            raise ValueError("drive writes per day are of a drive's capacity: give that too")
        assert dwpd is not None
        return RatedDrives(dwpd * capacity_bytes * DAYS * warranty_years, capacity_bytes, drives)

    def drive_writes_per_day(self, bytes_per_day: float) -> float | None:
        """How often each is written full in a day; None where its capacity is not given."""
        return None if self.capacity_bytes is None else bytes_per_day / (self.capacity_bytes * self.drives)

    def years(self, bytes_per_day: float) -> float | None:
        """Until the rating is used up; None where nothing is written."""
        return self.tbw_bytes * self.drives / bytes_per_day / DAYS if bytes_per_day > 0 else None

    def as_dict(self, bytes_per_day: float) -> dict[str, Any]:
        """The rating, and what so many bytes a day are of it, for JSON."""
        return {
            "rated_tbw_bytes": self.tbw_bytes,
            "drive_capacity_bytes": self.capacity_bytes,
            "drives": self.drives,
            "drive_writes_per_day": self.drive_writes_per_day(bytes_per_day),
            "years": self.years(bytes_per_day),
        }


def rated_drives(section: Mapping[str, Any] | None) -> RatedDrives | None:
    """Of the section `drive` of a configuration, as run files hold it; None where there is none."""
    if not section:
        return None
    keys = ("tbw_bytes", "dwpd", "capacity_bytes", "warranty_years", "count")
    return RatedDrives.of(*(section.get(key) for key in keys))  # type: ignore[arg-type]  # checked when it was read


def drive_writes_per_day(bytes_per_day: float, capacity_bytes: int) -> float | None:
    """How often so much room is written full in a day; None where there is none."""
    return bytes_per_day / capacity_bytes if capacity_bytes else None
