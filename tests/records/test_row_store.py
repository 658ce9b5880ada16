"""The rows of one worker: reserved, filled in place, counted, and seen without a copy."""

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.records.recorder import RowStore
from kvbench.records.schema import RECORD_DTYPE


def fill(store: RowStore, count: int) -> None:
    for number in range(store.count, store.count + count):
        _, row = store.reserve()
        store.rows[row]["nbytes"] = number
        store.commit()


@given(st.integers(0, 50), st.integers(1, 9), st.integers(0, 60))
def test_views_give_the_committed_rows_from_start_on_in_order(count: int, chunk_rows: int, start: int) -> None:
    store = RowStore(RECORD_DTYPE, chunk_rows)
    fill(store, count)
    seen = [number for view in store.views(start) for number in view["nbytes"].tolist()]
    assert seen == list(range(start, count))
    assert store.count == count


def test_a_reserved_row_does_not_count_before_it_is_committed() -> None:
    store = RowStore(RECORD_DTYPE)
    store.reserve()
    assert store.count == 0
    assert store.views() == []


def test_the_bytes_that_are_reserved_are_those_of_the_row() -> None:
    store = RowStore(RECORD_DTYPE, chunk_rows=4)
    fill(store, 2)
    chunk, row = store.reserve()
    chunk.view(RECORD_DTYPE)[row]["wall_ns"] = 77
    store.commit()
    assert store.views()[0]["wall_ns"].tolist() == [0, 0, 77]
    assert (chunk.dtype, chunk.shape) == (np.dtype(np.uint8), (4 * RECORD_DTYPE.itemsize,))


def test_views_share_memory_with_the_store() -> None:
    store = RowStore(RECORD_DTYPE)
    fill(store, 3)
    chunk, _ = store.reserve()
    assert np.shares_memory(store.views()[0], chunk)


def test_memory_is_taken_only_in_chunks_that_are_used() -> None:
    store = RowStore(RECORD_DTYPE, chunk_rows=10)
    assert store.nbytes == 0
    fill(store, 11)
    assert store.nbytes == 20 * RECORD_DTYPE.itemsize


def test_another_thread_sees_only_whole_rows_while_rows_are_added() -> None:
    store = RowStore(RECORD_DTYPE, chunk_rows=64)
    writer = threading.Thread(target=fill, args=(store, 20_000))
    writer.start()
    seen = 0
    while writer.is_alive() or seen < store.count:
        for view in store.views(seen):
            assert view["nbytes"].tolist() == list(range(seen, seen + len(view)))
            seen += len(view)
    assert seen == 20_000


@given(
    st.integers(1, 9),
    st.lists(st.tuples(st.integers(1, 12), st.integers(0, 12), st.booleans()), max_size=40),
    st.data(),
)
def test_rows_that_are_reserved_together_lie_together_however_many(
    chunk_rows: int, takes: list[tuple[int, int, bool]], data: st.DataObject
) -> None:
    store = RowStore(RECORD_DTYPE, chunk_rows)
    for asked, used, release in takes:
        chunk, first = store.reserve(asked)
        rows = chunk.view(RECORD_DTYPE)[first : first + asked]
        assert len(rows) == asked
        rows["nbytes"] = np.arange(store.count, store.count + asked)
        store.commit(min(used, asked))
        if release:
            store.release(data.draw(st.integers(0, store.count)))
        start = data.draw(st.integers(store.released, store.count))
        seen = [number for view in store.views(start) for number in view["nbytes"].tolist()]
        assert seen == list(range(start, store.count))
    assert store.nbytes % RECORD_DTYPE.itemsize == 0


def test_a_chunk_that_has_no_room_for_rows_that_belong_together_is_left_behind() -> None:
    store = RowStore(RECORD_DTYPE, chunk_rows=10)
    fill(store, 8)
    _, first = store.reserve(3)
    store.commit(3)
    assert (first, store.nbytes) == (0, 20 * RECORD_DTYPE.itemsize)
    assert [len(view) for view in store.views()] == [8, 3]
    store.release(8)
    assert (store.released, store.nbytes) == (8, 10 * RECORD_DTYPE.itemsize)


def test_committing_without_reserving_is_an_error() -> None:
    with pytest.raises(ValueError, match="without a reserved row"):
        RowStore(RECORD_DTYPE).commit()
