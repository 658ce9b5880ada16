"""The drives under test, as their maker rates them: for figures of endurance alone, which a run does not depend on."""

from typing import Self

from pydantic import Field, model_validator

from kvbench.config.types import Bytes, Count, Factor
from kvbench.config.workload import Section
from kvbench.records.endurance import RatedDrives


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
        self.rated  # noqa: B018 - raises where it is not
        return self

    @property
    def rated(self) -> RatedDrives:
        """Raises ValueError."""
        return RatedDrives.of(self.tbw_bytes, self.dwpd, self.capacity_bytes, self.warranty_years, self.count)
