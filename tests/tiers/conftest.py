"""What the tests of this folder share: an arena, a payload, and a folder in memory and one on disk."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvbench.tiers.arena import Arena
from kvbench.tiers.payload import Payload
from kvbench.units import KIB, MIB, SEGMENT_BYTES

sys.path.insert(0, str(Path(__file__).parent / "harness"))
sys.path.insert(0, str(Path(__file__).parent.parent / "cli" / "harness"))

TMPFS = Path("/dev/shm")
DEVICE_BYTES = 32 * MIB + 20 * KIB


@pytest.fixture(scope="session")
def payload() -> Payload:
    return Payload("stamped", run=0xA5A50001, seed=7)


@pytest.fixture(scope="session")
def unique() -> Payload:
    return Payload("unique", run=0xA5A50001, seed=7)


@pytest.fixture(scope="session")
def arena(payload: Payload) -> Arena:
    """Three segments for two threads: a lease has two at most, so that an object of 9 MiB is larger than it.

    One for all tests, as there is one for all operations of a run: whatever they leave in it, it stays of use.
    """
    return Arena(3 * SEGMENT_BYTES, threads=2, body=payload.body)


@pytest.fixture(params=["tmpfs", "disk"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """An empty folder in memory, and one wherever the temporary files of this machine are."""
    if request.param == "disk":
        yield tmp_path
        return
    if not os.access(TMPFS, os.W_OK):
        pytest.skip(f"{TMPFS} cannot be written on this machine")
    made = Path(tempfile.mkdtemp(prefix="kvbench-test-", dir=TMPFS))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def backing(tmp_path: Path) -> Path:
    """The file behind the device, full of a byte that means nothing."""
    path = tmp_path / "backing"
    path.write_bytes(b"\x5a" * DEVICE_BYTES)
    return path


@pytest.fixture
def device(backing: Path) -> Iterator[str]:
    """A loop device of DEVICE_BYTES."""
    words = ["losetup", "--find", "--show", str(backing)]
    if shutil.which("losetup") is None or os.geteuid() != 0:
        pytest.skip("a loop device needs losetup and root")
    made = subprocess.run(words, capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no loop device: {made.stderr.strip()}")
    name = made.stdout.strip()
    yield name
    subprocess.run(["losetup", "--detach", name], check=True)
