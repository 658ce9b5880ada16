"""What stands in the rows of operations, and what a million of them take."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from rank_harness import Rank, Script, ref, request

from kvbench.records.schema import RECORD_DTYPE, RESIDENT_UNKNOWN, Op, Path, Phase
from kvbench.tiers.arena import SECTOR_BYTES
from kvbench.units import MIB

MakeRank = Callable[..., Rank]


def script(*, decode_passes: int = 2) -> Script:
    keys = np.random.default_rng(2).integers(0, 6, 60).tolist()
    return Script([[request(n, ref(key, 1 + key), decode_passes=decode_passes) for n, key in enumerate(keys)]])


@pytest.fixture
def mixed(make_rank: MakeRank) -> Rank:
    """A rank that wrote, read, moved and deleted."""
    rank = make_rank((7, 8), tiers=("memory", "file"), threads=4, promote=True)
    rank.run(script())
    assert set(rank.rows["op"].tolist()) == {Op.READ, Op.WRITE, Op.DEMOTE, Op.PROMOTE, Op.DELETE}
    return rank


def test_every_row_adds_up_and_names_where_it_comes_from(mixed: Rank) -> None:
    rows = mixed.rows
    assert (rows["device_ns"] + rows["host_ns"] + rows["runq_ns"] == rows["wall_ns"]).all()
    assert (rows["copy_ns"] <= rows["host_ns"]).all()
    assert set(rows["rank"].tolist()) == {3}
    assert set(rows["phase"].tolist()) == {Phase.MEASURE}
    for thread, store in enumerate(mixed.engine.stores):
        assert all((view["thread"] == thread).all() for view in store.views())


def test_rows_count_the_bytes_and_tokens_of_their_object(mixed: Rank) -> None:
    rows = mixed.rows
    moved = rows[rows["op"] != Op.DELETE]
    assert (moved["nbytes"] == moved["tokens"].astype(np.int64) * SECTOR_BYTES).all()
    assert (rows["nbytes"][rows["op"] == Op.DELETE] == 0).all()
    assert (rows["tokens"][rows["op"] == Op.DELETE] > 0).all()


def test_a_move_is_counted_on_the_slower_tier(mixed: Rank) -> None:
    rows = mixed.rows
    for op in (Op.DEMOTE, Op.PROMOTE):
        assert (rows["tier"][rows["op"] == op] == 1).all()
        assert (rows["path"][rows["op"] == op] == Path.BUFFERED).all()
    assert (rows["path"][(rows["op"] == Op.WRITE) & (rows["tier"] == 0)] == Path.COPY).all()


def test_reads_of_files_say_what_was_in_the_page_cache(mixed: Rank) -> None:
    rows = mixed.rows
    from_files = np.isin(rows["op"], (Op.READ, Op.PROMOTE)) & (rows["tier"] == 1)
    assert (rows["resident_pct"][from_files] <= 100).all()
    assert (rows["resident_pct"][~from_files] == RESIDENT_UNKNOWN).all()


def test_the_old_copy_of_a_promoted_object_is_deleted_right_after_it(make_rank: MakeRank) -> None:
    rank = make_rank((2, 8), tiers=("memory", "file"), threads=1, promote=True)
    rank.run(Script([[request(0, ref(1, 2)), request(1, ref(2, 2)), request(2, ref(1, 2))]]))
    *_, promote, delete = rank.rows
    assert (promote["op"], delete["op"], promote["request"], delete["request"]) == (Op.PROMOTE, Op.DELETE, 2, 2)
    assert delete["t_start_ns"] - delete["queue_ns"] >= promote["t_start_ns"] + promote["wall_ns"], "wanted only then"


def test_full_verification_compares_every_sector_that_was_read_from_a_tier(make_rank: MakeRank) -> None:
    rank = make_rank((7, 8), tiers=("memory", "file"), verify="full")
    rank.run(script())
    read = rank.rows[rank.rows["op"] == Op.READ]
    assert rank.engine.verified_sectors == read["nbytes"].sum() // SECTOR_BYTES


def test_a_request_adds_up_the_time_of_its_operations_on_storage(make_rank: MakeRank) -> None:
    rank = make_rank((7, 40), tiers=("memory", "file"))
    rank.run(script())
    rows = rank.rows[np.isin(rank.rows["op"], (Op.READ, Op.WRITE)) & (rank.rows["tier"] == 1)]
    for logged in rank.log:
        assert logged["storage_ns"] == rows["wall_ns"][rows["request"] == logged["request"]].sum()
    assert rank.log["storage_ns"].sum() > 0


A_MILLION_ROWS = """
import psutil
from kvbench.engine.engine import CHUNK_ROWS
from kvbench.records.recorder import RowStore
from kvbench.records.schema import RECORD_DTYPE

stores = [RowStore(RECORD_DTYPE, CHUNK_ROWS) for _ in range(16)]
before = psutil.Process().memory_info().rss
row = bytes([1]) * RECORD_DTYPE.itemsize
for store in stores:
    for _ in range(62_500):
        rows, index = store.reserve()
        rows.data[index * len(row) : (index + 1) * len(row)] = row
        store.commit()
print(sum(store.count for store in stores), psutil.Process().memory_info().rss - before)
"""


def test_a_million_operations_add_less_than_150_mib() -> None:
    """In a process of its own: memory that other tests gave back would hide what the rows take."""
    done = subprocess.run([sys.executable, "-c", A_MILLION_ROWS], check=True, capture_output=True, text=True)
    count, added_bytes = map(int, done.stdout.split())
    assert count == 1_000_000
    assert 1_000_000 * RECORD_DTYPE.itemsize <= added_bytes < 150 * MIB
