"""Rows as they come: seen once by every taker, and released when everybody has seen them and somebody keeps them."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from kvbench.records.recorder import RowStore
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE
from kvbench.records.stream import Keeper, RowStream, Taker


class Seen:
    """Remembers the numbers of the rows that it was shown (in `tokens` and `context_tokens`), and the rounds."""

    keeping = True

    def __init__(self) -> None:
        self.records: list[int] = []
        self.requests: list[int] = []
        self.rounds = 0

    def take_records(self, rows: NDArray[Any]) -> None:
        self.records += rows["tokens"].tolist()

    def take_requests(self, rows: NDArray[Any]) -> None:
        self.requests += rows["context_tokens"].tolist()

    def flush(self) -> None:
        self.rounds += 1


class Position:
    """A reader of two stores who has seen so many rows of each."""

    def __init__(self, *seen: int) -> None:
        self.seen = list(seen)


def add(store: RowStore, count: int, column: str = "tokens") -> None:
    for number in range(store.count, store.count + count):
        _, row = store.reserve()
        store.rows[row][column] = number
        store.commit()


@pytest.fixture
def stores() -> list[RowStore]:
    return [RowStore(RECORD_DTYPE, chunk_rows=4) for _ in range(2)]


@pytest.fixture
def requests() -> RowStore:
    return RowStore(REQUEST_DTYPE, chunk_rows=4)


def stream_of(
    stores: Sequence[RowStore], requests: RowStore, taker: Taker | None = None, keeper: Keeper | None = None
) -> RowStream:
    return RowStream(stores, requests, [taker] if taker else [], keeper, pytest.fail, interval_s=0.001)


def wait_for(condition: Callable[[], bool], thread: threading.Thread | None = None) -> None:
    for _ in range(60_000):
        if condition():
            return
        threading.Event().wait(0.001)
    pytest.fail("it did not happen within a minute")


def test_every_row_is_seen_once_by_all_takers_while_rows_are_added(stores: list[RowStore], requests: RowStore) -> None:
    taker, keeper = Seen(), Seen()
    stream = stream_of(stores, requests, taker, keeper)
    stream.start()
    writers = [threading.Thread(target=add, args=(store, 3000)) for store in stores]
    writers.append(threading.Thread(target=add, args=(requests, 3000, "context_tokens")))
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    stream.stop()
    for seen in (taker, keeper):
        assert sorted(seen.records) == sorted([*range(3000), *range(3000)])
        assert seen.requests == list(range(3000))
    assert (list(stream.kept_records), stream.kept_requests) == ([3000, 3000], 3000)
    assert [store.nbytes for store in stores] == [0, 0]


def test_there_are_rounds_without_rows(stores: list[RowStore], requests: RowStore) -> None:
    taker = Seen()
    stream = stream_of(stores, requests, taker)
    stream.start()
    wait_for(lambda: taker.rounds > 3)
    stream.stop()
    assert taker.records == []


def test_without_a_keeper_no_row_leaves_memory(stores: list[RowStore], requests: RowStore) -> None:
    stream = stream_of(stores, requests, Seen())
    add(stores[0], 100)
    stream.hand_on()
    assert sum(map(len, stores[0].views())) == 100
    assert list(stream.kept_records) == [0, 0]


def test_what_the_keeper_does_not_keep_stays_in_memory(stores: list[RowStore], requests: RowStore) -> None:
    keeper = Seen()
    stream = stream_of(stores, requests, keeper=keeper)
    add(stores[0], 9)
    stream.hand_on()
    keeper.keeping = False
    add(stores[0], 20)
    stream.hand_on()
    assert list(stream.kept_records) == [9, 0]
    assert stores[0].released == 8
    assert [row for view in stores[0].views(9) for row in view["tokens"].tolist()] == list(range(9, 29))


def test_a_slow_reader_finds_his_rows(stores: list[RowStore], requests: RowStore) -> None:
    stream = stream_of(stores, requests, keeper=Seen())
    add(stores[1], 5)
    with stream.read_by(lambda: Position(0, 2)) as position:
        add(stores[1], 20)
        stream.hand_on()
        assert stores[1].released == 0
        position.seen[1] = 17
        stream.hand_on()
        assert stores[1].released == 16
    stream.hand_on()
    assert stores[1].released == 24


def test_requests_are_not_held_back_for_readers_of_records(stores: list[RowStore], requests: RowStore) -> None:
    stream = stream_of(stores, requests, keeper=Seen())
    with stream.read_by(lambda: Position(0, 0)):
        add(requests, 8, "context_tokens")
        stream.hand_on()
    assert requests.released == 8


def test_a_stream_that_was_never_started_hands_on_all_when_it_is_stopped(
    stores: list[RowStore], requests: RowStore
) -> None:
    taker = Seen()
    stream = stream_of(stores, requests, taker)
    add(stores[0], 3)
    stream.stop()
    stream.stop()
    assert taker.records == [0, 1, 2]
    assert taker.rounds == 1


def test_a_taker_that_breaks_is_reported_once_and_no_row_is_released_any_more(
    stores: list[RowStore], requests: RowStore
) -> None:
    class Breaking(Seen):
        def take_records(self, rows: NDArray[Any]) -> None:
            raise ZeroDivisionError("of the test")

    told: list[str] = []
    stream = RowStream(stores, requests, [Breaking()], Seen(), told.append, interval_s=0.001)
    add(stores[0], 9)
    stream.start()
    wait_for(lambda: bool(told))
    stream.stop()
    assert len(told) == 1
    assert "ZeroDivisionError: of the test" in told[0]
    assert sum(map(len, stores[0].views())) == 9


def test_a_round_that_hangs_is_not_waited_for_longer_than_asked(stores: list[RowStore], requests: RowStore) -> None:
    class Hanging(Seen):
        inside, go_on = threading.Event(), threading.Event()

        def flush(self) -> None:
            self.inside.set()
            assert self.go_on.wait(60)

    taker = Hanging()
    stream = stream_of(stores, requests, taker)
    stream.start()
    assert taker.inside.wait(60)
    assert not stream.hand_on(timeout_s=0.01)
    taker.go_on.set()
    stream.stop()


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 40)), max_size=12), st.integers(1, 9))
def test_released_rows_are_whole_chunks_below_the_limit_and_the_others_stay(
    steps: list[tuple[int, int]], chunk_rows: int
) -> None:
    store = RowStore(RECORD_DTYPE, chunk_rows)
    for count, upto in steps:
        add(store, count)
        if upto > store.count:
            with pytest.raises(ValueError, match="committed"):
                store.release(upto)
            continue
        before = store.released
        store.release(upto)
        assert store.released == max(before, upto // chunk_rows * chunk_rows)
        rows = [row for view in store.views(store.released) for row in view["tokens"].tolist()]
        assert rows == list(range(store.released, store.count))
        if store.released:
            with pytest.raises(ValueError, match="memory holds them"):
                store.views(store.released - 1)
