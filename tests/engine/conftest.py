"""What the tests of this folder share; makes `rank_harness` importable for them."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent / "harness"))

from rank_harness import MOST_THREADS, SEED, Rank, config_of

from kvbench.tiers.arena import Arena
from kvbench.tiers.payload import Payload
from kvbench.units import SEGMENT_BYTES


@pytest.fixture(scope="session")
def payload() -> Payload:
    return Payload("stamped", run=0x600D, seed=SEED)


@pytest.fixture(scope="session")
def arena(payload: Payload) -> Arena:
    """One segment for each thread; lent to one load after the other."""
    return Arena(MOST_THREADS * SEGMENT_BYTES, MOST_THREADS, payload.body)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory where the machine has one, so that fdatasync takes no time."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    made = Path(tempfile.mkdtemp(prefix="kvbench-test-", dir=memory))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def make_rank(folder: Path, arena: Arena, payload: Payload) -> Iterator[Callable[..., Rank]]:
    """From tier sizes in sectors and settings (see `config_of`) to a rank; the default is one file tier."""
    made: list[Rank] = []

    def make(sectors: Sequence[int] = (100,), **settings: Any) -> Rank:
        made.append(Rank(config_of(**settings), folder, sectors, arena, payload))
        return made[-1]

    yield make
    for rank in made:
        rank.close()
