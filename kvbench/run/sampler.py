"""Once a second, what the node did: processor time, stolen time, memory, pressure, the disks under test.

One rank of each node runs it, in a thread that sleeps between samples. A figure that the node does not offer is -1.
"""

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil

from kvbench import timed_io
from kvbench.records.tables import SAMPLE_DTYPE


class Sampler:
    """Samples from `start` to `stop`; `disks` are names of block devices (`vda`), whose counters are added up.

    `taker` is given each sample as it comes, in the sampler's thread.
    """

    def __init__(
        self,
        node: int,
        disks: Sequence[str],
        taker: Callable[[npt.NDArray[np.void]], None] | None = None,
        interval_s: float = 1.0,
    ) -> None:
        self._node = node
        self._disks = disks
        self._taker = taker
        self._interval_s = interval_s
        self._samples: list[npt.NDArray[np.void]] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kvbench-sampler", daemon=True)

    def start(self) -> None:
        """Begin; the first sample is taken one interval from now."""
        self._thread.start()

    def stop(self) -> npt.NDArray[np.void]:
        """End, and return the samples (SAMPLE_DTYPE)."""
        self._end.set()
        if self._thread.is_alive():
            self._thread.join()
        return np.concatenate(self._samples) if self._samples else np.empty(0, dtype=SAMPLE_DTYPE)

    def _run(self) -> None:
        # psutil keeps, for each thread, the counts that the next percentages are taken from.
        psutil.cpu_times_percent(interval=None)
        while not self._end.wait(self._interval_s):
            sample = self._sample()
            self._samples.append(sample)
            if self._taker is not None:
                self._taker(sample)

    def _sample(self) -> npt.NDArray[np.void]:
        cpu = psutil.cpu_times_percent(interval=None)
        counters = psutil.disk_io_counters(perdisk=True) if self._disks else {}
        disks = [counters[name] for name in self._disks if name in counters]
        network = psutil.net_io_counters()
        row = (
            self._node,
            timed_io.now_ns(),
            cpu.user,
            cpu.system,
            getattr(cpu, "iowait", -1.0),
            getattr(cpu, "steal", -1.0),
            psutil.virtual_memory().available,
            _stalled_us("cpu"),
            _stalled_us("memory"),
            _stalled_us("io"),
            sum(disk.read_bytes for disk in disks) if disks else -1,
            sum(disk.write_bytes for disk in disks) if disks else -1,
            network.bytes_recv if network else -1,
            network.bytes_sent if network else -1,
        )
        return np.array([row], dtype=SAMPLE_DTYPE)


def _stalled_us(resource: str) -> int:
    """Total of the `some` line of /proc/pressure (Documentation/accounting/psi.rst); -1 where the kernel has none."""
    try:
        line = Path(f"/proc/pressure/{resource}").read_text(encoding="ascii").splitlines()[0]
    except (OSError, IndexError):
        return -1
    return int(line.rpartition("total=")[2])
