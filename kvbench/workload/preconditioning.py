"""The writes that fill the cache before the clock starts, as a schedule of their own."""

from collections.abc import Iterator
from dataclasses import dataclass

from kvbench.workload.request import ObjectRef, Request, Schedule


@dataclass(frozen=True, slots=True)
class PreconditionSchedule:
    """One request for each object that `schedule` wants to find in the cache: it writes the object and nothing else."""

    schedule: Schedule
    closed_loop: bool = False
    users: int = 1

    def stream(self, user: int) -> Iterator[Request]:
        """The writes, in the order of the schedule."""
        for number, reference in enumerate(self.schedule.preconditioning()):
            yield Request(
                number=number,
                user=0,
                qos=0,
                arrival_ns=0,
                context_tokens=reference.tokens,
                output_tokens=0,
                history=(),
                context=(reference,),
                prefill=True,
                decode_passes=0,
                generation_ns=0,
            )

    def preconditioning(self) -> Iterator[ObjectRef]:
        """Nothing comes before it."""
        return iter(())

    def largest_object_tokens(self) -> int:
        """As of the schedule that it prepares."""
        return self.schedule.largest_object_tokens()
