"""Where rows go while they come: one thread of a rank hands each committed row to everybody who wants to see it, once.

Workers fill rows and know nothing of this. Rows that everybody has seen, and that somebody keeps (`Keeper`: a file, or
a summary of them), are released, so that a rank's memory does not grow with the length of its run. This module knows
nothing of what the rows mean, and writes no file.
"""

import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

from numpy.typing import NDArray

from kvbench.records.recorder import RowStore

INTERVAL_S: Final = 0.4
"""Between two rounds: a row is seen at most so long after its commit, and the time of one round."""


class Taker(Protocol):
    """Sees every row of the rank once, in the order of its store, all calls from one thread at a time."""

    def take_records(self, rows: NDArray[Any]) -> None:
        """Rows of RECORD_DTYPE, on the node's own clock; views that are valid during the call only."""

    def take_requests(self, rows: NDArray[Any]) -> None:
        """Rows of REQUEST_DTYPE, likewise."""

    def flush(self) -> None:
        """The end of a round; there is one every `INTERVAL_S`, also when no row has come."""


class Keeper(Taker, Protocol):
    """A taker for whose sake rows need not stay in memory."""

    @property
    def keeping(self) -> bool:
        """After `flush`: whether it keeps all rows of this round and of all before, or what is wanted of them. Once it
        is False, it does not become True again, and what it kept until then is that of the last round that was."""


class Reader(Protocol):
    """Somebody else who reads the stores of the records in his own time."""

    @property
    def seen(self) -> Sequence[int]:
        """Rows of each store that he needs no more."""


R = TypeVar("R", bound=Reader)


class RowStream:
    """Hands the rows of `records` (one store for each thread) and `requests` to `takers`, from a thread of its own.

    What a taker raises ends the stream, and is told to `report_failure` with its traceback. Without a `keeper` (which
    is a taker too) all rows stay in memory.
    """

    def __init__(
        self,
        records: Sequence[RowStore],
        requests: RowStore,
        takers: Sequence[Taker],
        keeper: Keeper | None,
        report_failure: Callable[[str], None],
        interval_s: float = INTERVAL_S,
    ) -> None:
        self._stores = [*records, requests]
        self._takers = list(takers) if keeper is None else [keeper, *takers]
        self._keeper = keeper
        self._report_failure = report_failure
        self._interval_s = interval_s
        self._taken = [0] * len(self._stores)
        self._kept = [0] * len(self._stores)
        self._readers: list[Reader] = []
        self._broken = False
        self._round = threading.Lock()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kvbench-stream", daemon=True)

    @property
    def kept_records(self) -> Sequence[int]:
        """Rows of each store of the records that the keeper has; those from there on are in memory."""
        return self._kept[:-1]

    @property
    def kept_requests(self) -> int:
        """The same of the requests."""
        return self._kept[-1]

    @property
    def started(self) -> bool:
        """Whether rows may have been handed on."""
        return self._thread.ident is not None

    def start(self) -> None:
        """Begin to hand on rows."""
        self._thread.start()

    def stop(self) -> None:
        """Hand on what is left and end. Call it when no row comes any more; a second time it does nothing."""
        if self._end.is_set():
            return
        self._end.set()
        if self.started:
            self._thread.join()
        self.hand_on()

    def hand_on(self, timeout_s: float = -1) -> bool:
        """One round now, from the calling thread; False when a round under way does not end within `timeout_s`
        (negative: waits for it)."""
        if not self._round.acquire(timeout=timeout_s):
            return False
        try:
            if not self._broken:
                self._hand_on()
        except BaseException:  # noqa: BLE001 - a thread has nobody above it: what it does not report is lost
            self._broken = True
            self._report_failure(f"internal error\n{traceback.format_exc()}")
        finally:
            self._round.release()
        return True

    @contextmanager
    def read_by(self, make_reader: Callable[[], R]) -> Iterator[R]:
        """A context in which no record is released that the reader, which is made here, has not seen."""
        with self._round:
            reader = make_reader()
            self._readers.append(reader)
        try:
            yield reader
        finally:
            with self._round:
                self._readers.remove(reader)

    def _run(self) -> None:
        while not self._end.wait(self._interval_s):
            self.hand_on()

    def _hand_on(self) -> None:
        for index, store in enumerate(self._stores):
            is_request = index == len(self._stores) - 1
            for rows in store.views(self._taken[index]):
                for taker in self._takers:
                    (taker.take_requests if is_request else taker.take_records)(rows)
                self._taken[index] += len(rows)
        for taker in self._takers:
            taker.flush()
        if self._keeper is not None and self._keeper.keeping:
            self._kept = list(self._taken)
            self._release()

    def _release(self) -> None:
        for index, store in enumerate(self._stores):
            readers = self._readers if index < len(self._stores) - 1 else []
            store.release(min([self._kept[index], *(reader.seen[index] for reader in readers)]))
