"""A communicator that counts what a rank says to MPI, by step: for finding out what a run's collective steps cost.

Nothing travels that would not travel without it. Counted are calls, messages from rank to rank, and the bytes that this
rank hands over and gets; what MPI makes of a collective call inside (about log2(ranks) messages a rank) is not seen
here. No run uses it by itself: `tests/perf/costs.py` and the tests do.
"""

import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar, cast

import numpy as np

from kvbench.cluster.comm import Communicator

P = ParamSpec("P")
T = TypeVar("T")
_MAKE_ONE: Final = frozenset({"Dup", "Idup", "Split", "Split_type"})
_FREE: Final = frozenset({"Free", "Abort"})


@dataclass
class Cost:
    """What one step has cost this rank."""

    seconds: float = 0.0
    """Spent in the step itself and not in a step within it; waiting counts."""
    entered: int = 0
    calls: int = 0
    """Of collective operations."""
    sent: int = 0
    """Messages to another rank."""
    received: int = 0
    bytes_out: int = 0
    """Handed over, to a rank or to a collective operation."""
    bytes_in: int = 0


@dataclass
class Ledger:
    """Costs by the name of the step; a step within a step counts for itself."""

    costs: dict[str, Cost] = field(default_factory=dict)
    _steps: list[str] = field(default_factory=lambda: ["other"])
    _since_s: float = field(default_factory=time.perf_counter)

    @property
    def name(self) -> str:
        """Of the step under way; `other` outside all steps."""
        return self._steps[-1]

    @property
    def current(self) -> Cost:
        """That of the step under way."""
        return self.costs.setdefault(self._steps[-1], Cost())

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """What happens in this context is part of step `name`."""
        self._book_time()
        self._steps.append(name)
        self.current.entered += 1
        try:
            yield
        finally:
            self._book_time()
            self._steps.pop()

    def as_step(self, name: str, function: Callable[P, T]) -> Callable[P, T]:
        """`function`, each call of which is a step."""

        @wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> T:
            with self.step(name):
                return function(*args, **kwargs)

        return call

    def _book_time(self) -> None:
        now_s = time.perf_counter()
        self.current.seconds += now_s - self._since_s
        self._since_s = now_s


def counting(comm: Communicator, ledger: Ledger) -> Communicator:
    """`comm`, with everything that is called on it entered into `ledger`, and so with what is made from it."""
    return cast(Communicator, _CountingComm(comm, ledger))


class _CountingComm:
    """Has the methods of the communicator that it stands for."""

    def __init__(self, comm: Communicator, ledger: Ledger) -> None:
        self._comm = comm
        self._ledger = ledger

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._comm, name)
        if not callable(found) or name in _FREE:
            return found

        def call(*args: Any, **kwargs: Any) -> Any:
            result = found(*args, **kwargs)
            self._enter(name, args, kwargs, result)
            if name in _MAKE_ONE:
                # A group that this rank is not in is MPI's null communicator, which nobody uses.
                return _CountingComm(result, self._ledger)
            return result

        return call

    def _enter(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], result: Any) -> None:
        cost = self._ledger.current
        if name in ("Send", "Isend", "send"):
            cost.sent += 1
            cost.bytes_out += _nbytes(args[0])
        elif name in ("Recv", "Irecv"):
            # What is given is room; messages are counted by what they hold where they are sent.
            cost.received += 1
        elif name == "recv":
            cost.received += 1
            cost.bytes_in += _nbytes(result)
        else:
            cost.calls += 1
            if name in ("Bcast", "Ibcast"):
                is_root = self._comm.rank == kwargs.get("root", args[1] if len(args) > 1 else 0)
                cost.bytes_out += _nbytes(args[0]) if is_root else 0
                cost.bytes_in += 0 if is_root else _nbytes(args[0])
            elif len(args) > 1 and name not in _MAKE_ONE:
                cost.bytes_out += _nbytes(args[0])
                cost.bytes_in += _nbytes(args[1])


def _nbytes(content: Any) -> int:
    """Bytes of a buffer, of one with counts, or of an object as it is sent."""
    if content is None:
        return 0
    if isinstance(content, np.ndarray):
        return content.nbytes
    if isinstance(content, tuple | list) and content and isinstance(content[0], np.ndarray):
        return content[0].nbytes
    return len(pickle.dumps(content))
