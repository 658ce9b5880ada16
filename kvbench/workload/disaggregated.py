"""The two halves of disaggregated serving: what prefill ranks are asked for, and what decode ranks make of it.

A prefill rank carries out its schedule without the decode reads. A decode rank has no schedule of its own: it is told
of a request by its number, and finds out what it reads from the same schedule, which is the same on every machine. So
nothing but numbers has to travel. This module does not know how.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from kvbench.workload.request import ObjectRef, Request
from kvbench.workload.wrapped import Wrapped

_MOST_PASSED_OVER: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class PrefillSchedule(Wrapped):
    """`schedule` (implements `request.Schedule`) up to the decode reads, which are marked as another rank's."""

    def stream(self, user: int) -> Iterator[Request]:
        """The requests of one stream; those that decode are marked `decode_elsewhere`."""
        for request in self.schedule.stream(user):
            yield replace(request, decode_passes=0, generation_ns=0, decode_elsewhere=request.decode_passes > 0)


@dataclass(frozen=True, slots=True)
class DecodeSchedule:
    """The schedule of a decode rank (implements `request.Schedule`): nothing before it is handed something."""

    largest_tokens: int
    users: int = 1
    closed_loop: bool = False

    def stream(self, user: int) -> Iterator[Request]:
        return iter(())

    def preconditioning(self) -> Iterator[ObjectRef]:
        return iter(())

    def largest_object_tokens(self) -> int:
        return self.largest_tokens


class Handover:
    """From the number of a prefill rank's request to the request that a decode rank carries out."""

    def __init__(self, find: Callable[[int, int], Request], number_of: Callable[[int, int], int]) -> None:
        """`find(rank, number)` gives a request of a prefill rank's schedule, or raises LookupError; `number_of(rank,
        number)` a number for it that is unique on the decode rank."""
        self._find = find
        self._number_of = number_of

    def request(self, rank: int, number: int) -> Request:
        """What is left to do of request `number` of prefill rank `rank`: its decode reads. Raises LookupError."""
        found = self._find(rank, number)
        return replace(found, number=self._number_of(rank, number), arrival_ns=0, handed_over=True)


class Lanes:
    """Finds requests by number in streams that never end, such as those of one user each.

    The requests of a lane are made in order and each is asked for once; those passed over are kept until they are.
    """

    def __init__(
        self, lane_of: Callable[[int, int], Hashable], open_lane: Callable[[Hashable], Iterator[Request]]
    ) -> None:
        """`lane_of(rank, number)` is the lane of a request, and `open_lane(lane)` its requests from the first."""
        self._lane_of = lane_of
        self._open_lane = open_lane
        self._lanes: dict[Hashable, Iterator[Request]] = {}
        self._passed_over: dict[tuple[Hashable, int], Request] = {}

    def find(self, rank: int, number: int) -> Request:
        """Request `number` of `rank`. Raises LookupError where its lane does not have it."""
        lane = self._lane_of(rank, number)
        found = self._passed_over.pop((lane, number), None)
        return self._next(lane, number) if found is None else found

    def _next(self, lane: Hashable, number: int) -> Request:
        requests = self._lanes.get(lane)
        if requests is None:
            requests = self._lanes[lane] = self._open_lane(lane)
        for passed, request in enumerate(requests):
            if request.number == number:
                return request
            if request.decode_passes:
                self._passed_over[lane, request.number] = request
            if passed > _MOST_PASSED_OVER:
                # The lane does not hold what is looked for.
                break
        raise LookupError(f"no request {number} in lane {lane}: the ranks' schedules differ")
