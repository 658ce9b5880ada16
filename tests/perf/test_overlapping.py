"""Reads that are in flight together, of one file on a disk past the page cache: rings beside fio and NIXL, and the
engine `nixl` beside NIXL called in a plain loop. Both sides of a ratio read each block of one file once, in a random
order, with as many in flight, into memory of one size and kind: huge pages where it is large enough, as an arena's is.
"""

import json
import mmap
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import pytest
from conftest import Figure, in_turns
from numpy.typing import NDArray

from kvbench.errors import KvbenchError
from kvbench.records.schema import RECORD_DTYPE, Op
from kvbench.tiers.arena import anonymous_memory
from kvbench.tiers.file.nixl_library import load
from kvbench.tiers.file.nixl_transfers import NixlTransfers
from kvbench.tiers.file.overlapping import Names, Overlapping
from kvbench.tiers.file.rings import Rings
from kvbench.tiers.transfer import Batch, Memories
from kvbench.units import KIB, MIB

DEPTH = 32
LISTS = 8
"""Times the depth, that a batch of a run on rings is long."""
SIZES = {4 * KIB: 128 * MIB, 64 * KIB: 512 * MIB, MIB: 512 * MIB}
"""Of a block, and of the file."""
OF_NIXL_ALONE = {(4 * KIB, DEPTH): 0.5, (64 * KIB, DEPTH): 0.65, (MIB, DEPTH): 0.8, (MIB, LISTS * DEPTH): 0.97}
"""By size and length of the list. Beside a list of 32 small reads what is done in Python for their rows, untimed,
counts, the more the faster the drive."""
QUEUES = {"AIO": {"use_aio": "true"}, "io_uring": {"use_uring": "true"}}
BLOCKS = pytest.mark.parametrize("block_bytes", SIZES, ids=lambda nbytes: f"{nbytes // KIB}KiB")
Report = Callable[[Figure], None]


class Slots:
    """A file of blocks, open past the page cache, and memory for DEPTH of them."""

    def __init__(self, folder: Path, block_bytes: int) -> None:
        self.block_bytes = block_bytes
        self.blocks = SIZES[block_bytes] // block_bytes
        self.path = folder / "slots"
        some = np.random.default_rng(1).integers(0, 256, MIB, np.uint8).tobytes()
        with self.path.open("wb") as file:
            for _ in range(SIZES[block_bytes] // MIB):
                file.write(some)
            os.fsync(file.fileno())
        self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECT)
        self.memory = np.frombuffer(anonymous_memory(DEPTH * block_bytes), np.uint8)
        self.memory[:] = 1
        self._rng = np.random.default_rng(2)

    def lists(self, length: int) -> list[NDArray[np.int64]]:
        """All blocks in a random order, as lists of offsets."""
        offsets = self._rng.permutation(self.blocks).astype(np.int64) * self.block_bytes
        return [offsets[at : at + length] for at in range(0, self.blocks, length)]

    def batch(self, places: NDArray[np.int64]) -> Batch:
        """Reads of so many blocks."""
        starts = np.arange(len(places)) % DEPTH * self.block_bytes
        extents = np.stack([starts, np.full(len(places), self.block_bytes)], axis=1)
        memories = Memories(self.memory, extents, np.arange(1, len(places) + 1))
        rows = np.zeros(len(places) * RECORD_DTYPE.itemsize, np.uint8)
        numbers = places.astype(np.uint64)
        return Batch(Op.READ, numbers.tolist(), memories, rows, 0, np.zeros(1, np.int32), numbers=numbers)

    def read_by(self, engine: Overlapping, length: int, hosts: list[float]) -> float:
        """GB/s of batches of `length` blocks; appends the part of the batches' time that the thread was running."""
        batches = [(self.batch(places), places) for places in self.lists(length)]
        began = perf_counter()
        for batch, places in batches:
            engine.run(batch, self.descriptor, Names(), self.block_bytes, 0, str, places)
        seconds = perf_counter() - began
        assert all(batch.begun == len(places) and not batch.errors for batch, places in batches)
        splits = [batch.split for batch, _ in batches if batch.split is not None]
        hosts.append(sum(split.host_ns for split in splits) / sum(split.wall_ns for split in splits))
        return SIZES[self.block_bytes] / seconds / 1e9

    def read_by_fio(self) -> float:
        """GB/s."""
        if shutil.which("fio") is None:
            pytest.fail("fio is not installed: it is what the bandwidth is compared with")
        command = [
            *("fio", "--name=slots", f"--filename={self.path}", f"--size={SIZES[self.block_bytes]}", "--rw=randread"),
            *(f"--bs={self.block_bytes}", "--ioengine=io_uring", "--direct=1", f"--iodepth={DEPTH}", "--fixedbufs"),
            *("--registerfiles", "--iomem=malloc", "--readonly", "--allow_file_create=0", "--invalidate=0"),
            *("--randrepeat=0", "--output-format=json"),
        ]
        # The C library then asks for huge pages.
        environment = {**os.environ, "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=300)
        read = json.loads(done.stdout)["jobs"][0]["read"]
        assert read["io_bytes"] == SIZES[self.block_bytes]
        return float(read["bw_bytes"]) / 1e9


@pytest.fixture
def slots(disk: Path, block_bytes: int) -> Iterator[Slots]:
    made = Slots(disk, block_bytes)
    yield made
    os.close(made.descriptor)


@pytest.fixture
def rings(slots: Slots) -> Iterator[Rings]:
    made = Rings(DEPTH)
    made.open(slots.memory)
    assert made.unregistered_errno == 0
    yield made
    made.close()


@pytest.fixture
def library() -> Any:
    """The module `nixl`."""
    try:
        return load().api
    except KvbenchError as error:
        pytest.fail(str(error))


class PlainLoop:
    """NIXL's own calls, as its users make them: a transfer for each list, asked again and again whether it is done."""

    def __init__(self, nixl: Any, slots: Slots, options: dict[str, str]) -> None:
        self._slots = slots
        self._agent = nixl.nixl_agent("plain-loop", nixl.nixl_agent_config(enable_prog_thread=False, backends=[]))
        self._agent.create_backend("POSIX", options)
        self._agent.register_memory([(slots.memory.ctypes.data, slots.memory.nbytes, 0, "")], "DRAM")
        self._agent.register_memory([(0, SIZES[slots.block_bytes], slots.descriptor, "")], "FILE")

    def read(self, length: int = DEPTH) -> float:
        """GB/s of lists of `length` blocks."""
        agent, slots = self._agent, self._slots
        pairs = []
        for places in slots.lists(length):
            memory, files = np.zeros((2, len(places), 3), np.uint64)
            memory[:, 0] = slots.memory.ctypes.data + np.arange(len(places)) % DEPTH * slots.block_bytes
            memory[:, 1] = files[:, 1] = slots.block_bytes
            files[:, 0], files[:, 2] = places, slots.descriptor
            pairs.append((memory, files))
        began = perf_counter()
        for memory, files in pairs:
            handle = agent.initialize_xfer(
                "READ", agent.get_xfer_descs(memory, "DRAM"), agent.get_xfer_descs(files, "FILE"), agent.name
            )
            state = agent.transfer(handle)
            while state == "PROC":
                state = agent.check_xfer_state(handle)
            assert state == "DONE"
            handle.release()
        return SIZES[slots.block_bytes] / (perf_counter() - began) / 1e9


@BLOCKS
def test_rings_are_as_fast_as_fio_on_io_uring(slots: Slots, rings: Rings, report: Report, block_bytes: int) -> None:
    hosts: list[float] = []
    ratios, ours, fio = in_turns(lambda: slots.read_by(rings, LISTS * DEPTH, hosts), slots.read_by_fio)
    detail = f"{ours:.2f} / {fio:.2f} GB/s; host {median(hosts):.0%}"
    figure = Figure(f"uring / fio io_uring, disk, {block_bytes // KIB} KiB, depth {DEPTH}", ratios, ">= 0.95", detail)
    report(figure)
    assert figure.ratio >= 0.95


@pytest.mark.parametrize("block_bytes", [MIB])
def test_what_huge_pages_do_for_rings_is_shown(slots: Slots, rings: Rings, report: Report) -> None:
    """No limit. What a comparison shows whose sides read into memory of different kinds."""
    huge, small = slots.memory, np.frombuffer(mmap.mmap(-1, DEPTH * MIB, flags=mmap.MAP_PRIVATE), np.uint8)
    small[:] = 1
    others = Rings(DEPTH)
    others.open(small)

    def read(memory: NDArray[np.uint8], engine: Rings) -> float:
        slots.memory = memory
        return slots.read_by(engine, LISTS * DEPTH, [])

    ratios, large, little = in_turns(lambda: read(huge, rings), lambda: read(small, others))
    others.close()
    report(Figure("uring into huge / small pages, disk, 1024 KiB", ratios, "shown", f"{large:.2f} / {little:.2f} GB/s"))
    assert min(ratios) > 0


@BLOCKS
@pytest.mark.parametrize("queue", QUEUES)
def test_rings_are_as_fast_as_nixl(
    slots: Slots, rings: Rings, library: Any, report: Report, block_bytes: int, queue: str
) -> None:
    hosts: list[float] = []
    loop = PlainLoop(library, slots, QUEUES[queue])
    ratios, ours, nixl = in_turns(lambda: slots.read_by(rings, DEPTH, hosts), loop.read)
    detail = f"{ours:.2f} / {nixl:.2f} GB/s; host {median(hosts):.0%}"
    what = f"uring / NIXL POSIX {queue}, disk, lists of {DEPTH} x {block_bytes // KIB} KiB"
    figure = Figure(what, ratios, ">= 1.0", detail)
    report(figure)
    assert figure.ratio >= 1.0


@pytest.mark.parametrize(("block_bytes", "length"), OF_NIXL_ALONE)
@pytest.mark.parametrize("queue", QUEUES)
def test_transfers_cost_little_more_than_nixl_itself(
    slots: Slots, library: Any, report: Report, block_bytes: int, length: int, queue: str
) -> None:
    hosts: list[float] = []
    wanted = OF_NIXL_ALONE[block_bytes, length]
    transfers = NixlTransfers("POSIX", QUEUES[queue])
    transfers.open(slots.memory)
    loop = PlainLoop(library, slots, QUEUES[queue])
    ratios, ours, nixl = in_turns(lambda: slots.read_by(transfers, length, hosts), lambda: loop.read(length))
    transfers.close()
    detail = f"{ours:.2f} / {nixl:.2f} GB/s; host {median(hosts):.0%}"
    what = f"engine nixl / NIXL alone, {queue}, disk, lists of {length} x {block_bytes // KIB} KiB"
    figure = Figure(what, ratios, f">= {wanted}", detail)
    report(figure)
    assert figure.ratio >= wanted
