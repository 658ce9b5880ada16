"""What schedules that are made of another have in common with it. Changes nothing."""

from collections.abc import Iterator
from dataclasses import dataclass

from kvbench.workload.request import ObjectRef, Schedule


@dataclass(frozen=True, slots=True)
class Wrapped:
    """All of `schedule` but its requests, which `stream` of a derived class has otherwise."""

    schedule: Schedule

    @property
    def users(self) -> int:
        """As of the schedule."""
        return self.schedule.users

    @property
    def closed_loop(self) -> bool:
        """As of the schedule."""
        return self.schedule.closed_loop

    def preconditioning(self) -> Iterator[ObjectRef]:
        """As of the schedule."""
        return self.schedule.preconditioning()

    def largest_object_tokens(self) -> int:
        """As of the schedule."""
        return self.schedule.largest_object_tokens()
