"""Batches are kept as they come, and as a uniform sample where there are too many."""

import threading

import numpy as np

from kvbench.records.batches import ALL_RANKS_BATCHES, FEWEST, MOST, BatchLog, BatchSplit
from kvbench.records.schema import Op, Phase, TimedBy

CODES = (1, Op.READ, Phase.MEASURE, 0)


def split(number: int) -> BatchSplit:
    return BatchSplit.of_sums((number, 2 * number, 10, 4, 1, 5, 2, 4096))


def test_a_batch_is_kept_as_it_was_told() -> None:
    log = BatchLog(rank=3)
    log.add(7, CODES, 20, BatchSplit(1000, 900, 400, 100, 400, 50, 81920, helper_ns=30, depth=8))
    log.close()
    (row,) = log.rows()
    told = {name: int(row[name]) for name in row.dtype.names or ()}
    assert told == {
        "batch": 7, "t_start_ns": 1000, "wall_ns": 900, "device_ns": 400, "host_ns": 400, "runq_ns": 100,
        "copy_ns": 50, "helper_ns": 30, "nbytes": 81920, "rank": 3, "operations": 20, "depth": 8, "tier": 1,
        "op": Op.READ, "phase": Phase.MEASURE, "timed_by": 0,
    }  # fmt: skip


def test_a_batch_of_one_operation_is_left_to_its_row() -> None:
    log = BatchLog(0)
    log.add(1, CODES, 1, split(1))
    log.close()
    assert len(log.rows()) == 0


def test_batches_whose_operations_overlap_are_summed_exactly_those_of_one_operation_too() -> None:
    log = BatchLog(rank=3, ranks=ALL_RANKS_BATCHES)
    overlapping = (1, Op.READ, Phase.MEASURE, TimedBy.URING)
    for number in range(1000):
        log.add(number, overlapping, 1 + number % 2, BatchSplit(number, 10, 4, 1, 5, 0, 4096, 2, 8))
        log.add(number, CODES, 2, split(number))
    log.close()
    (row,) = log.splits()
    assert {name: int(row[name]) for name in row.dtype.names or ()} == {
        "rank": 3, "tier": 1, "op": Op.READ, "phase": Phase.MEASURE, "timed_by": TimedBy.URING, "batches": 1000,
        "operations": 1500, "nbytes": 4_096_000, "wall_ns": 10_000, "device_ns": 5000, "host_ns": 4000,
        "runq_ns": 1000, "copy_ns": 0, "helper_ns": 2000,
    }  # fmt: skip


def test_all_batches_are_kept_while_there_is_room_for_them() -> None:
    log = BatchLog(0)
    for number in range(2000):
        log.add(number, CODES, 2, split(number))
    log.close()
    assert log.sample.level == 0
    assert log.rows()["batch"].tolist() == list(range(2000))


def test_of_too_many_batches_a_sample_stands_for_all() -> None:
    ranks = ALL_RANKS_BATCHES // 100
    log = BatchLog(5, ranks)
    for number in range(20_000):
        log.add(number, CODES, 2, split(number))
    log.close()
    rows = log.rows()
    assert FEWEST <= len(rows) <= 100
    assert abs(len(rows) * 2**log.sample.level / 20_000 - 1) < 0.5
    assert (np.diff(rows["batch"]) > 0).all()


def test_a_rank_of_very_many_keeps_a_few_and_one_alone_no_more_than_a_bound() -> None:
    assert BatchLog(0, 10**9).sample._budget == FEWEST
    assert BatchLog(0, 1).sample._budget == MOST


def test_threads_add_at_the_same_time_and_none_is_lost() -> None:
    log = BatchLog(0)

    def add(thread: int) -> None:
        for number in range(3000):
            log.add(thread * 10_000 + number, CODES, 2, split(number))

    threads = [threading.Thread(target=add, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    assert sorted(log.rows()["batch"].tolist()) == [t * 10_000 + n for t in range(4) for n in range(3000)]
