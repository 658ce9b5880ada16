"""A schedule whose requests come at a slower pace: the same requests, and all their times so many times as long."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from kvbench.workload.request import Request
from kvbench.workload.wrapped import Wrapped


@dataclass(frozen=True, slots=True)
class StretchedSchedule(Wrapped):
    """`schedule`, with arrival, think and generation times that are `times` as long. The clock of the workload, which
    times to live count by, stays as it is."""

    times: float

    def stream(self, user: int) -> Iterator[Request]:
        """The requests of one stream, in their order."""
        return (_stretched(request, self.times) for request in self.schedule.stream(user))


def _stretched(request: Request, times: float) -> Request:
    return replace(
        request,
        arrival_ns=round(request.arrival_ns * times),
        generation_ns=round(request.generation_ns * times),
        followers=None if request.followers is None else partial(_followers, request.followers, times),
    )


def _followers(followers: Callable[[], Sequence[Request]], times: float) -> list[Request]:
    return [_stretched(request, times) for request in followers()]
