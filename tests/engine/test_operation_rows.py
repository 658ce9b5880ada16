"""What stands in the rows of operations, and what a million of them take."""

import errno
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from rank_harness import Rank, Script, finish, ref, request

from kvbench import timed_io
from kvbench.records.schema import RECORD_DTYPE, RESIDENT_UNKNOWN, Op, Path, Phase, TimedBy
from kvbench.units import MIB, SECTOR_BYTES

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


EVERY_OP = {Op.READ, Op.WRITE, Op.DEMOTE, Op.PROMOTE, Op.DELETE}


@pytest.mark.parametrize("read_path", ["buffered", "numpy", "double-copy", "mmap-touch", "mmap-copy"])
@pytest.mark.parametrize(
    ("kinds", "sectors", "ops"),
    [
        (["memory"], [7], {Op.READ, Op.WRITE, Op.DELETE}),
        (["file"], [7], {Op.READ, Op.WRITE, Op.DELETE}),
        (["memory", "memory"], [7, 8], EVERY_OP - {Op.READ}),
        (["memory", "file"], [7, 8], EVERY_OP),
        (["memory", "memory", "file"], [6, 7, 8], EVERY_OP),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) and isinstance(value[0], str) else "",
)
def test_a_row_says_who_timed_it(
    make_rank: MakeRank,
    monkeypatch: pytest.MonkeyPatch,
    kinds: list[str],
    sectors: list[int],
    ops: set[Op],
    read_path: str,
) -> None:
    """What is timed around Python code begins and ends in calls of their own, which are watched here."""
    around_python: set[int] = set()
    really_begin = timed_io.begin

    def begin(rows: NDArray[np.uint8], row: int) -> None:
        around_python.add(rows.ctypes.data + row * RECORD_DTYPE.itemsize)
        really_begin(rows, row)

    monkeypatch.setattr(timed_io, "begin", begin)
    rank = make_rank(sectors, tiers=kinds, threads=4, promote=True, read_path=read_path)
    rank.run(script())
    assert ops <= set(rank.rows["op"].tolist())
    for view in (view for store in rank.engine.stores for view in store.views()):
        for number, row in enumerate(view):
            python = view.ctypes.data + number * RECORD_DTYPE.itemsize in around_python
            assert row["timed_by"] == (TimedBy.PYTHON if python else timed_io.TIMED_BY), row


def test_a_row_of_the_null_tier_was_timed_by_the_stopwatch(make_rank: MakeRank) -> None:
    rank = make_rank((9,), tiers=("null",))
    rank.run(script())
    assert set(rank.rows["op"].tolist()) == {Op.READ, Op.WRITE, Op.DELETE}
    assert set(rank.rows["timed_by"].tolist()) == {timed_io.TIMED_BY}


def test_a_row_of_what_failed_before_it_was_timed_was_timed_around_python(
    make_rank: MakeRank, monkeypatch: pytest.MonkeyPatch
) -> None:
    rank = make_rank(read_path="mmap-copy")
    rank.run(Script([[request(0, ref(1))]]))
    monkeypatch.setattr(rank.files, "prepare_read", no_more_memory)
    load, _ = rank.start(Script([[request(1, ref(1), prefill=False)]]))
    finish(load)
    (failed,) = rank.rows[rank.rows["errno"] != 0]
    assert (failed["errno"], failed["timed_by"]) == (errno.ENOMEM, TimedBy.PYTHON)


def no_more_memory(key: int) -> int:
    raise MemoryError


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


@pytest.mark.slow
def test_a_million_operations_add_less_than_150_mib() -> None:
    """In a process of its own: memory that other tests gave back would hide what the rows take."""
    done = subprocess.run([sys.executable, "-c", A_MILLION_ROWS], check=True, capture_output=True, text=True)
    count, added_bytes = map(int, done.stdout.split())
    assert count == 1_000_000
    assert 1_000_000 * RECORD_DTYPE.itemsize <= added_bytes < 150 * MIB
