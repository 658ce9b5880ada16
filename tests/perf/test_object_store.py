"""Does a tier of objects in a bucket move as much as the library that it asks does alone, in a plain loop?

One thread, the same objects, as many requests in flight, the same client. The plain loop takes no note of anything, and
has no batches: it always has as many in flight. It puts what it read to where the tier does, as an engine has to have
it there; what it does without is shown besides. The server is that of the test bed, on this machine.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import obstore
import pytest
from conftest import Figure, in_turns
from obstore.store import LocalStore

sys.path.insert(0, str(Path(__file__).parent.parent / "faults" / "harness"))
from s3_server import BUCKET, brought_up, call_server

from kvbench.records.schema import RECORD_DTYPE, Op
from kvbench.tiers.arena import Arena, Lease
from kvbench.tiers.object.address import Address
from kvbench.tiers.object.library import open_store
from kvbench.tiers.object.naming import name_of_object
from kvbench.tiers.object.requests import Requests
from kvbench.tiers.object.tier import ObjectTier
from kvbench.tiers.payload import Payload
from kvbench.tiers.transfer import Batch
from kvbench.units import KIB, MIB, SEGMENT_BYTES

DEPTH = 32
BATCH = 2 * DEPTH
"""As large as those of a run become, whose arena has two segments for each request in flight."""
SECONDS = 2.0
PREFIX = "perf"
Report = Callable[[Figure], None]


@pytest.fixture(scope="module")
def s3() -> Iterator[None]:
    """The test bed's server, and where it is."""
    checked = call_server("check")
    if checked.returncode:
        pytest.skip(f"needs an S3 server: {checked.stderr.strip()}")
    with brought_up(f"p{os.getpid() % 10**7}") as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield


@dataclass(frozen=True)
class Both:
    """The tier and the plain loop, over one store and one arena."""

    tier: ObjectTier
    requests: Requests
    leases: Sequence[Lease]
    nbytes: int
    payload: Payload

    def tier_moves(self, does: Op) -> float:
        """Objects a second that batches of the tier move."""
        rows, moved = np.zeros(BATCH * RECORD_DTYPE.itemsize, np.uint8), 0
        stop = np.zeros(1, np.int32)
        start_s = time.perf_counter()
        for first in count(0, BATCH):
            keys = [(first + at) % (4 * BATCH) for at in range(BATCH)]
            memories = [lease.memory(0, self.nbytes, 0, self.nbytes) for lease in self.leases]
            batch = Batch(does, keys, memories, rows, 0, stop)
            self.tier.run(batch)
            assert (batch.begun, batch.errors) == (BATCH, {})
            moved += BATCH
            took_s = time.perf_counter() - start_s
            if took_s > SECONDS and moved >= 4 * BATCH:
                return moved / took_s
        raise AssertionError

    def loop_moves(self, does: Op, lands: bool = True) -> float:
        """Objects a second that a plain loop moves."""
        store, numbers, moved = self.requests._store, count(), 0
        start_s = time.perf_counter()
        memories = [lease.memory(0, self.nbytes, 0, self.nbytes) for lease in self.leases]
        views = [memory.buffer[memory.extents[0, 0] :][: self.nbytes] for memory in memories]

        async def lane() -> None:
            nonlocal moved
            for number in numbers:
                path, view = f"{PREFIX}/{name_of_object(number % (4 * BATCH))}", views[number % BATCH]
                if does == Op.WRITE:
                    await obstore.put_async(store, path, view.data, use_multipart=False)
                else:
                    data = await (await obstore.get_async(store, path)).bytes_async()
                    if lands:
                        view[:] = np.frombuffer(memoryview(data), np.uint8)
                moved += 1
                if time.perf_counter() - start_s > SECONDS and moved >= 4 * BATCH:
                    return

        async def lanes() -> None:
            await asyncio.gather(*(lane() for _ in range(DEPTH)))

        asyncio.run(lanes())
        return moved / (time.perf_counter() - start_s)


SIZES = pytest.mark.parametrize("nbytes", [64 * KIB, MIB], ids=["64KiB", "1MiB"])


@contextmanager
def over(requests: Requests, nbytes: int) -> Iterator[Both]:
    """Both ways to move objects of `nbytes`."""
    tier = ObjectTier(requests, PREFIX, f"s3://{BUCKET}/{PREFIX}", DEPTH, 8 * MIB)
    payload = Payload("stamped", run=1, seed=1)
    with Arena(BATCH * SEGMENT_BYTES, 1, payload.body).lease(nbytes) as lease:
        leases = [lease, *lease.beside([nbytes] * (BATCH - 1))]
        yield Both(tier, requests, leases, nbytes, payload)
    tier.close()


@pytest.fixture
def both(s3: None, nbytes: int) -> Iterator[Both]:
    """With objects on the server."""
    with over(Requests(open_store(Address.parse(f"s3://{BUCKET}")), "s3", 0), nbytes) as made:
        made.loop_moves(Op.WRITE)
        yield made


@SIZES
@pytest.mark.parametrize("does", [Op.WRITE, Op.READ], ids=["put", "get"])
def test_a_tier_moves_as_much_as_the_library_alone(both: Both, does: Op, report: Report) -> None:
    ratios, ours, plain = in_turns(lambda: both.tier_moves(does), lambda: both.loop_moves(does))
    name = f"object / plain loop, {'put' if does == Op.WRITE else 'get'}, {both.nbytes // KIB} KiB, depth {DEPTH}"
    figure = Figure(name, ratios, ">= 0.9", f"{ours:.0f} / {plain:.0f} objects/s")
    report(figure)
    assert figure.ratio >= 0.9


@SIZES
def test_what_it_costs_to_have_an_object_where_it_is_to_lie_is_shown(both: Both, report: Report) -> None:
    """No limit: the plain loop leaves what it read in the library's memory."""
    ratios, ours, plain = in_turns(lambda: both.tier_moves(Op.READ), lambda: both.loop_moves(Op.READ, lands=False))
    name = f"object / plain loop that drops it, get, {both.nbytes // KIB} KiB"
    report(Figure(name, ratios, "shown", f"{ours:.0f} / {plain:.0f} objects/s"))
    assert min(ratios) > 0


@SIZES
def test_what_the_tier_itself_costs_is_shown(tmpfs: Path, nbytes: int, report: Report) -> None:
    """No limit: without a server, as files in memory that the library reads, little is left but what both cost."""
    with over(Requests(LocalStore(tmpfs), "s3", 0), nbytes) as both:
        both.loop_moves(Op.WRITE)
        ratios, ours, plain = in_turns(lambda: both.tier_moves(Op.READ), lambda: both.loop_moves(Op.READ))
    name = f"object / plain loop, get, {nbytes // KIB} KiB, files on tmpfs, no server"
    report(Figure(name, ratios, "shown", f"{ours:.0f} / {plain:.0f} objects/s"))
    assert min(ratios) > 0
