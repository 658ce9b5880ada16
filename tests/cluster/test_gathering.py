"""What travels in a gathering: its messages, the memory for them, and how costs are counted."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.cluster import gather
from kvbench.cluster.comm import SerialComm
from kvbench.cluster.counted import Ledger, counting
from kvbench.cluster.gather import Gathering, choose_gathering, gather_rows, read_memory
from kvbench.cluster.topology import discover
from kvbench.errors import KvbenchError
from kvbench.records.schema import RECORD_DTYPE
from kvbench.units import KIB, MIB

ROW = np.dtype([("rank", "<i4"), ("number", "<i4")])


def rows_of(rank: int, count: int) -> npt.NDArray[Any]:
    rows = np.zeros(count, ROW)
    rows["rank"], rows["number"] = rank, np.arange(count)
    return rows


@given(
    st.lists(st.integers(0, 40), max_size=12),
    st.integers(1, 30),
    st.integers(1, 5),
)
def test_rows_of_many_ranks_survive_being_put_into_messages(counts: list[int], chunk_rows: int, most: int) -> None:
    """Whatever is full first: the rows of a message, or the ranks that it can name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gather, "_MOST_RANKS", most)
        parts = [(rank, rows_of(rank, count)) for rank, count in enumerate(counts)]
        found: dict[int, list[int]] = {}
        lasts = []
        for message in gather._messages(parts, ROW, chunk_rows):
            assert len(message) <= gather._message_bytes(ROW, chunk_rows, most)
            opened, last = gather._opened(message, ROW)
            lasts.append(last)
            for rank, rows in opened:
                assert (rows["rank"] == rank).all()
                found.setdefault(rank, []).extend(rows["number"].tolist())
    assert lasts == [False] * (len(lasts) - 1) + [True]
    assert found == {rank: list(range(count)) for rank, count in enumerate(counts) if count}
    assert list(found) == sorted(found)


@pytest.mark.parametrize("memory_bytes", [64 * KIB, MIB, 32 * MIB, 1024 * MIB])
def test_four_messages_fit_in_the_memory_that_is_given(memory_bytes: int) -> None:
    rows = Gathering(memory_bytes=memory_bytes).chunk_rows(RECORD_DTYPE)
    assert rows >= 1
    assert 4 * gather._message_bytes(RECORD_DTYPE, rows) <= memory_bytes
    assert rows == gather.CHUNK_ROWS or 4 * gather._message_bytes(RECORD_DTYPE, rows + 1) > memory_bytes


def test_a_message_is_as_long_as_the_default_memory_allows_and_no_longer_than_is_useful() -> None:
    assert Gathering().chunk_rows(RECORD_DTYPE) == gather.CHUNK_ROWS


@pytest.mark.parametrize(("text", "said"), [("1KiB", "64 KiB is the least"), ("much", "--gather-memory: ")])
def test_memory_that_is_no_size_or_too_small_is_refused(text: str, said: str) -> None:
    with pytest.raises(KvbenchError, match=said):
        read_memory(text)


def test_one_rank_is_gathered_straight_or_as_a_node_of_its_own() -> None:
    topology = discover(SerialComm())
    assert choose_gathering(topology).way == "ranks"
    by_nodes = choose_gathering(topology, "nodes")
    assert by_nodes.way == "nodes"
    got: list[int] = []
    gather_rows(topology.comm, [rows_of(0, 5)], ROW, lambda _, rows: got.extend(rows["number"]), 2, by_nodes)
    assert got == [0, 1, 2, 3, 4]


def test_costs_are_entered_for_the_innermost_step() -> None:
    ledger = Ledger()
    comm = counting(SerialComm(), ledger)
    with ledger.step("outer"):
        comm.Barrier()
        with ledger.step("inner"):
            comm.Allgather(np.zeros(3, np.int64), np.zeros((1, 3), np.int64))
            comm.Dup().Gather(np.zeros(2, np.int64), None)
        comm.Ibcast(np.zeros(1, np.int64))
    outer, inner = ledger.costs["outer"], ledger.costs["inner"]
    assert (outer.entered, outer.calls, outer.bytes_out, outer.bytes_in) == (1, 2, 8, 0)
    assert (inner.entered, inner.calls, inner.bytes_out, inner.bytes_in) == (1, 3, 40, 24)
    assert outer.seconds > 0
