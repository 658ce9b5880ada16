"""What the stopwatch and the recording cost, and whether the interpreter stays out of the timed spans."""

import os
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns, thread_time_ns

import numpy as np
import numpy.typing as npt
from conftest import Figure

from kvbench import timed_io
from kvbench.records.recorder import RowStore
from kvbench.records.schema import RECORD_DTYPE, STOPWATCH_BYTES

KIB = 1024
Report = Callable[[Figure], None]
_BOTH = timed_io.FIRST | timed_io.LAST
_TAGS = struct.Struct("<IIIIHHBBBBBBH")
_STOP = np.zeros(1, dtype=np.int32)


def _mean_ns(action: Callable[[], object], repeats: int = 20_000) -> float:
    start_ns = perf_counter_ns()
    for _ in range(repeats):
        action()
    return (perf_counter_ns() - start_ns) / repeats


def test_stopwatch_and_recording_cost_less_than_timing_in_python(tmpfs: Path, report: Report) -> None:
    """One 4 KiB read with all that a row needs, against the bare system call and against the same from Python."""
    path = tmpfs / "small"
    path.write_bytes(bytes(4 * KIB))
    descriptor = os.open(path, os.O_RDONLY)
    schedstat = os.open("/proc/thread-self/schedstat", os.O_RDONLY)
    buffer = np.zeros(4 * KIB, dtype=np.uint8)
    extents = np.array([[0, 4 * KIB]], dtype=np.int64)
    store = RowStore(RECORD_DTYPE)
    rows, row = store.reserve()
    timed_io.read_file(rows, row, -100, str(path), -1, 0, buffer, extents, 4 * KIB, timed_io.FIRST, _STOP)

    def bare() -> None:
        os.preadv(descriptor, [buffer.data], 0)

    def ours() -> None:
        cells, index = store.reserve()
        _TAGS.pack_into(cells.data, index * RECORD_DTYPE.itemsize + STOPWATCH_BYTES, *range(13))
        timed_io.read_file(cells, index, -100, "", descriptor, 0, buffer, extents, 4 * KIB, 0, _STOP)
        store.commit()

    def in_python() -> None:
        values = [perf_counter_ns(), thread_time_ns(), os.pread(schedstat, 64, 0)]
        os.preadv(descriptor, [buffer.data], 0)
        values += [perf_counter_ns(), thread_time_ns(), os.pread(schedstat, 64, 0)]

    ratios, costs = [], []
    for _ in range(7):
        base, own, python = _mean_ns(bare), _mean_ns(ours), _mean_ns(in_python)
        ratios.append((own - base) / (python - base))
        costs.append((own - base) / 1000)
    detail = f"stopwatch and row {sorted(costs)[3]:.1f} us an operation (aim: at most 5 us)"
    report(Figure("cost of stopwatch and row / the same clocks from Python", ratios, "< 1.5", detail))
    os.close(descriptor)
    os.close(schedstat)
    assert sorted(ratios)[3] < 1.5


def test_a_batch_of_32_costs_less_for_an_operation_than_a_call_each(report: Report) -> None:
    """The stopwatch around nothing, with a row for each operation: in one call, and in one call each."""
    count, store = 32, RowStore(RECORD_DTYPE)
    nothing = np.empty(0, dtype=np.uint8), np.empty((0, 2), dtype=np.int64)
    ends, whole = np.zeros(count, dtype=np.int64), np.zeros(RECORD_DTYPE.itemsize, dtype=np.uint8)

    def together() -> None:
        rows, first = store.reserve(count)
        part = rows[first * RECORD_DTYPE.itemsize : (first + count) * RECORD_DTYPE.itemsize]
        part.reshape(count, -1)[:] = whole
        timed_io.run_copies(rows, first, *nothing, ends, *nothing, ends, 1, 0, _STOP, 0)
        store.commit(count)
        store.release(store.count)

    def each() -> None:
        for _ in range(count):
            rows, row = store.reserve()
            _TAGS.pack_into(rows.data, row * RECORD_DTYPE.itemsize + STOPWATCH_BYTES, *range(13))
            timed_io.copy(rows, row, *nothing, *nothing, 1, _BOTH, _STOP)
            store.commit()
        store.release(store.count)

    ratios, costs = [], []
    for _ in range(7):
        alone, batch = _mean_ns(each, 500), _mean_ns(together, 500)
        ratios.append(batch / alone)
        costs.append(batch / count / 1000)
    detail = f"stopwatch and row {sorted(costs)[3]:.2f} us an operation (aim: at most 1 us)"
    report(Figure("cost of an operation in a batch of 32 / alone", ratios, "< 0.6", detail))
    assert sorted(ratios)[3] < 0.6


def _p95_us(path: Path, threads: int, reads_each: int) -> tuple[float, float]:
    """P95 over all threads of 64 KiB reads: as recorded, and as seen from Python around the call."""
    recorded: list[npt.NDArray[np.int64]] = []
    seen: list[npt.NDArray[np.int64]] = []
    barrier = threading.Barrier(threads)

    def read() -> None:
        store = RowStore(RECORD_DTYPE)
        outside = np.zeros(reads_each, dtype=np.int64)
        buffer = np.zeros(64 * KIB, dtype=np.uint8)
        extents = np.array([[0, 64 * KIB]], dtype=np.int64)
        barrier.wait()
        for number in range(reads_each):
            rows, row = store.reserve()
            start_ns = perf_counter_ns()
            timed_io.read_file(rows, row, -100, str(path), -1, 0, buffer, extents, 64 * KIB, _BOTH, _STOP)
            outside[number] = perf_counter_ns() - start_ns
            store.commit()
        recorded.append(np.concatenate([view["wall_ns"] for view in store.views()]))
        seen.append(outside)

    workers = [threading.Thread(target=read) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return float(np.percentile(np.concatenate(recorded), 95) / 1e3), float(
        np.percentile(np.concatenate(seen), 95) / 1e3
    )


def test_sixteen_threads_do_not_raise_the_recorded_p95(tmpfs: Path, report: Report) -> None:
    path = tmpfs / "block"
    path.write_bytes(bytes(64 * KIB))
    recorded, outside, details = [], [], []
    for _ in range(7):
        one, many = _p95_us(path, 1, 8000), _p95_us(path, 16, 1000)
        recorded.append(many[0] / one[0])
        outside.append(many[1] / one[1])
        details.append((one[0], many[0], many[1]))
    middle = sorted(details)[3]
    detail = f"{middle[0]:.1f}, {middle[1]:.1f} us recorded; {middle[2]:.0f} us around the call"
    figure = Figure("P95 of 64 KiB reads, 16 threads / 1 thread, recorded", recorded, "<= 2", detail)
    report(figure)
    report(Figure("P95 of 64 KiB reads, 16 threads / 1 thread, around the call", outside, "shown", ""))
    assert figure.ratio <= 2
