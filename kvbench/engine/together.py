"""Requests that several ranks serve together, each with its part of every block: none goes on before all have loaded.

Plain state without a lock of its own: the dispatcher calls it under its own. All ranks of a group have the same
requests, and decide the same in the same order, so that what is known by its number is known to all.
"""

from collections import Counter
from collections.abc import Iterable

from kvbench.engine.operation import ActiveRequest


class Together:
    """One rank's part in a group of `ranks`."""

    def __init__(self, ranks: int) -> None:
        self._ranks = ranks
        self._loaded: Counter[int] = Counter()
        """Requests that some ranks have loaded, with how many."""
        self._waiting: dict[int, ActiveRequest] = {}
        self._outgoing: list[int] = []

    def wait(self, active: ActiveRequest) -> None:
        """This rank has loaded its part of a request, which goes on when `take_in` gives it back."""
        self._waiting[active.request.number] = active
        self._outgoing.append(active.request.number)

    def say(self) -> list[int]:
        """The numbers of requests that were loaded here since this was asked last."""
        said, self._outgoing = self._outgoing, []
        return said

    def take_in(self, numbers: Iterable[int]) -> list[ActiveRequest]:
        """What ranks of the group have said, this one among them; returns the requests that may go on."""
        going_on = []
        for number in numbers:
            self._loaded[number] += 1
            if self._loaded[number] == self._ranks:
                del self._loaded[number]
                going_on.append(self._waiting.pop(number))
        return going_on
