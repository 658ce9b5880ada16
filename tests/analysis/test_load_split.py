"""What loading was made of, worked out by hand from runs of a few rows."""

from pathlib import Path

import kvbench_analysis as ka
import numpy as np
import pytest
from computed import computing
from condensing import condensed
from kvbench_analysis.figures.load_split import LoadSplit
from served import load_row, request_row, served_run
from synthetic import SyntheticRun

from kvbench.records.schema import Op, Phase, TimedBy


def split_of(run: SyntheticRun, tmp_path: Path) -> LoadSplit:
    found = ka.summarize(ka.load(run.write(tmp_path / "run.h5", overwrite=True))).first_token
    assert found is not None
    return found.load_split


def test_the_thread_that_ended_a_load_tells_what_it_was(tmp_path: Path) -> None:
    # Thread 1 ends last: 10 ms of a read that began before the load, then 20 + 4 + 1 and 10 + 3 + 2 ms, of which the
    # first is another request's. Thread 0 is over before, and does not count, whatever it did.
    rows = [
        load_row(7, -5, 10, thread=1),
        load_row(7, 10, 20, 4, 1, thread=1),
        load_row(1, 40, 10, 3, 2, thread=1),
        load_row(1, 0, 0, 50, thread=0),
        # Later, and on the same thread.
        load_row(1, 300, 100, thread=1, op=Op.WRITE),
    ]
    split = split_of(served_run([request_row(1, 0, 60, 512, 1024)], rows), tmp_path)
    assert split.split_of == "loads"
    assert split.requests == 1
    expected = (30 / 60, 7 / 60, 3 / 60, 20 / 60)
    assert (split.device_share, split.host_share, split.runq_share, split.other_share) == pytest.approx(expected)


def test_loads_are_added_up_by_how_long_they_took(tmp_path: Path) -> None:
    rows = [load_row(1, 0, 90, 10), load_row(2, 200, 0, 100, rank=1), load_row(3, 400, 0, 0, 50, thread=5)]
    requests = [
        request_row(1, 0, 100, 512, 1024),
        request_row(2, 200, 300, 512, 1024, rank=1),
        # Found nothing, and loaded nothing.
        request_row(3, 400, 0, 0, 1024),
    ]
    split = split_of(served_run(requests, rows, ranks=2), tmp_path)
    assert split.requests == 2
    shares = (split.device_share, split.host_share, split.runq_share, split.other_share)
    assert shares == pytest.approx((90 / 400, 110 / 400, 0, 200 / 400))


def test_of_ranks_that_serve_together_the_slowest_counts(tmp_path: Path) -> None:
    rows = [load_row(1, 0, 10), load_row(1, 0, 0, 40, rank=1)]
    run = served_run([request_row(1, 0, 40, 512, 1024)], rows, ranks=2, tensor_parallel=2)
    split = split_of(run, tmp_path)
    assert (split.device_share, split.host_share) == pytest.approx((0, 1))


def test_what_comes_up_for_a_later_turn_is_no_load(tmp_path: Path) -> None:
    rows = [load_row(1, 0, 10), load_row(1, 500, 0, 40, op=Op.PROMOTE)]
    split = split_of(served_run([request_row(1, 0, 10, 512, 1024)], rows), tmp_path)
    assert (split.device_share, split.host_share) == pytest.approx((1, 0))


def test_of_operations_that_overlap_there_are_the_shares_of_their_batches_alone(tmp_path: Path) -> None:
    rows = [load_row(1, 0, 10, timed_by=TimedBy.URING), load_row(1, 0, 12, timed_by=TimedBy.URING)]
    run = served_run([request_row(1, 0, 20, 512, 1024)], rows)
    splits = {
        "rank": [0, 0],
        "tier": [1, 1],
        "op": [Op.READ, Op.WRITE],
        "phase": [Phase.MEASURE] * 2,
        "timed_by": [TimedBy.URING] * 2,
        "batches": [1, 1],
        "operations": [2, 2],
        "nbytes": [8192, 8192],
        "wall_ns": [100, 1000],
        "device_ns": [70, 0],
        "host_ns": [20, 1000],
        "runq_ns": [10, 0],
        "copy_ns": [0, 0],
        "helper_ns": [150, 0],
    }
    run = run.changed(tables={"splits": {name: np.array(values, np.int64) for name, values in splits.items()}})
    split = split_of(run, tmp_path)
    assert split.split_of == "batches"
    assert (split.device_share, split.host_share, split.runq_share) == pytest.approx((0.7, 0.2, 0.1))
    assert split.helper_share == pytest.approx(1.5)
    assert np.isnan(split.other_share)
    assert split_of(run.changed(tables={"splits": None}), tmp_path).split_of == "unknown"


def test_a_sample_has_no_split(tmp_path: Path) -> None:
    split = split_of(condensed(computing(), "sampled", 700), tmp_path)
    assert split.split_of == "unknown"
    assert "sample" in split.unknown
