"""The drives under test, as their maker rates them: for figures of endurance alone (`records.endurance`), on which
nothing of a run depends."""

from typing import Self

from pydantic import Field, model_validator

from kvbench.config.types import Bytes, Count, Factor
from kvbench.config.workload import Section


class Drive(Section):
    """Equal drives that what is written is spread over."""

    tbw_bytes: Bytes | None = Field(default=None, ge=1)
    """Rated endurance of each: bytes written, as 3500TB."""
    dwpd: Factor | None = Field(default=None, gt=0)
    """In its place: drive writes per day, over the warranty."""
    capacity_bytes: Bytes | None = Field(default=None, ge=1)
    """Of each."""
    warranty_years: Factor = Field(default=5.0, gt=0)
    count: Count = Field(default=1, ge=1)
    """Drives, of all nodes together."""

    @model_validator(mode="after")
    def _is_rated(self) -> Self:
        if (self.tbw_bytes is None) == (self.dwpd is None):
            raise ValueError("drive: give tbw_bytes, or dwpd with capacity_bytes, and not both")
        if self.dwpd is not None and self.capacity_bytes is None:
            raise ValueError("drive: dwpd is of capacity_bytes: give that too")
        return self
