"""Many threads, ended threads and forked processes; and which backend is chosen."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kvbench import timed_io
from kvbench.records.schema import RECORD_DTYPE
from kvbench.timed_io import _python, _python_batch, _python_ring

WHOLE = 3
KIB = 1 << 10


def test_sixteen_threads_at_once_each_get_their_own_bytes_and_rows(
    timer: ModuleType, stop: NDArray[np.int32], tmp_path: Path, dirfd: int
) -> None:
    threads, reads, nbytes = 16, 20, 64 * KIB
    rec = np.zeros(threads * reads, RECORD_DTYPE)
    memory = np.zeros((threads, nbytes), np.uint8)
    for index in range(threads):
        (tmp_path / str(index)).write_bytes(bytes([index + 1]) * nbytes)
    gate = threading.Barrier(threads)

    def run(index: int) -> None:
        where = np.array([[index * nbytes, nbytes]], np.int64)
        gate.wait()
        for number in range(reads):
            row = index * reads + number
            timer.read_file(
                rec.view(np.uint8), row, dirfd, str(index), -1, 0, memory.reshape(-1), where, 16 * KIB, WHOLE, stop
            )

    workers = [threading.Thread(target=run, args=(index,)) for index in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert (memory == np.arange(1, threads + 1, dtype=np.uint8)[:, None]).all()
    assert (rec["nbytes"] == nbytes).all()
    assert (rec["errno"] == 0).all()
    assert (rec["device_ns"] + rec["host_ns"] + rec["runq_ns"] == rec["wall_ns"]).all()
    assert (rec[["device_ns", "host_ns", "runq_ns"]].view(np.int64).reshape(len(rec), -1) >= 0).all()
    starts = rec["t_start_ns"].reshape(threads, reads)
    ends = starts + rec["wall_ns"].reshape(threads, reads)
    assert (starts[:, 1:] >= ends[:, :-1]).all(), "a thread's operations follow one another"


def test_an_ended_thread_leaves_no_descriptor_behind(timer: ModuleType, rec: NDArray[Any]) -> None:
    def run() -> None:
        timer.begin(rec.view(np.uint8), 0)
        timer.end(rec.view(np.uint8), 0, 0, 0, 0)

    run()
    descriptors, tasks = len(os.listdir("/proc/self/fd")), set(os.listdir("/proc/self/task"))
    for _ in range(20):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    while set(os.listdir("/proc/self/task")) - tasks:  # join returns before the system's thread has quite ended
        os.sched_yield()
    assert len(os.listdir("/proc/self/fd")) <= descriptors


def test_a_forked_child_times_itself_and_not_its_parent(timer: ModuleType, rec: NDArray[Any]) -> None:
    def schedstats() -> list[str]:
        links = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
        targets = [os.readlink(link) for link in links if os.path.lexists(link)]
        return [target for target in targets if "schedstat" in target]

    if not timer.SCHEDSTAT:
        pytest.skip("this kernel does not show run-queue time (CONFIG_SCHED_INFO)")
    timer.begin(rec.view(np.uint8), 0)
    timer.end(rec.view(np.uint8), 0, 0, 0, 0)
    parent = os.getpid()
    assert f"/proc/{parent}/task/{parent}/schedstat" in schedstats()
    child = os.fork()
    if child == 0:
        timer.begin(rec.view(np.uint8), 0)
        timer.end(rec.view(np.uint8), 0, 0, 0, 0)
        targets = schedstats()
        right = any(f"/{os.getpid()}/" in target for target in targets)
        right = right and f"/proc/{parent}/task/{parent}/schedstat" not in targets
        row = rec[0]
        right = right and row["device_ns"] + row["host_ns"] + row["runq_ns"] == row["wall_ns"]
        os._exit(0 if right else 1)
    assert os.waitpid(child, 0)[1] == 0


def timer_with(setting: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from kvbench import timed_io; print(timed_io.TIMER, timed_io.read_file.__module__)"],
        env=os.environ | {"KVBENCH_TIMER": setting},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_environment_chooses_the_stand_in() -> None:
    assert timer_with("python").stdout.split() == ["python", "kvbench.timed_io._python"]


def test_an_unknown_timer_is_refused_with_the_known_ones() -> None:
    result = timer_with("pyhton")
    assert result.returncode != 0
    assert "KVBENCH_TIMER is 'pyhton': set it to `python` or `extension`" in result.stderr


def test_both_backends_export_the_same_names(timer: ModuleType) -> None:
    assert timed_io.TIMER in ("extension", "python")
    names = {*dir(timer), *dir(_python_batch), *dir(_python_ring)} if timer is _python else {*dir(timer)}
    assert {*timed_io.__all__} - names == {"TIMER", "TIMED_BY"}
