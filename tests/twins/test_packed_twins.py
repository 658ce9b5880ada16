"""Twins that keep many objects in one file beside the real things: how the file is opened, what is written and read
where, how much is handed to the kernel at once, and by how many threads. Requests of a ring lie in memory, where strace
does not see what they are about: of those it shows their number alone, and the file's bytes are compared by what is
read back, which both check.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from both import BLOCKS, BYTES_PER_TOKEN, PACKED, calls_of_real, calls_of_twin
from calls import AT_ONCE, Call, read_calls

from kvbench.config.engines import read_engine

HEADER_BYTES = 4096
"""That LMCache puts before each chunk."""
KEY_BYTES = len("default\0block-0.object")
"""That Mooncake puts before each object."""


@dataclass(frozen=True)
class Traced:
    """What was asked for while blocks of `block_bytes` were stored and loaded."""

    block_bytes: int
    real: list[Call]
    twin: list[Call]
    device_opens: list[str]
    """How the real thing opened its device, before the first phase."""


def traced(engine: str, python: Sequence[str], folder: Path, engine_run: str = "") -> Traced:
    tokens = int(read_engine(engine)[1].cache["block_tokens"])
    block_bytes = tokens * BYTES_PER_TOKEN
    twin = calls_of_twin(engine_run or engine, tokens, folder)
    real = calls_of_real(engine, python, block_bytes, folder)
    opens = [call.what for call in in_file(list(read_calls(folder / "real.txt")), "slots.device", "open")]
    return Traced(block_bytes, real, twin, opens)


def in_file(calls: Sequence[Call], ending: str, *does: str) -> list[Call]:
    """What was asked of the file, as far as it begins with one of `does`, where any are named."""
    return [call for call in calls if call.path.endswith(ending) and call.what.startswith(does or "")]


def in_phase(calls: Sequence[Call], phase: str) -> list[Call]:
    return [call for call in calls if call.phase == phase]


def places(calls: Sequence[Call]) -> dict[int, str]:
    return {call.offset: call.what for call in calls}


def at_once(calls: Sequence[Call]) -> list[int]:
    """How many requests were handed over by each call that takes several."""
    return [int(call.what) for call in calls if call.path == AT_ONCE]


def test_lmcache_raw_block(python_with: Callable[[str], list[str]], tmp_path: Path) -> None:
    slots_as_the_real_one(traced("lmcache-raw-block", python_with(PACKED["lmcache-raw-block"]), tmp_path))


def slots_as_the_real_one(asked: Traced) -> None:
    """Raises AssertionError where the twin does not do what LMCache does."""
    whole = {f"write {asked.block_bytes}"}
    stored, loaded = in_phase(asked.real, "store"), in_phase(asked.real, "load")
    # The real thing: a header and the chunk behind it, slot after slot; the chunk alone is read.
    written = places(stored)
    chunks = {offset for offset, what in written.items() if what in whole}
    assert len(chunks) == BLOCKS
    assert {offset: what for offset, what in written.items() if what not in whole} == {
        offset - HEADER_BYTES: f"write {HEADER_BYTES}" for offset in chunks
    }
    assert sorted(places(loaded)) == sorted(chunks)
    assert {call.what for call in loaded} == {f"read {asked.block_bytes}"}
    # Its twin: the chunk alone, which is read where it was written.
    blocks = in_file(asked.twin, "objects.slab", *whole)
    read = in_file(asked.twin, "objects.slab", f"read {asked.block_bytes}")
    assert len(places(blocks)) == len(blocks) == BLOCKS
    assert sorted(places(read)) == sorted(places(blocks))
    # Both: one after the other, by one thread, and nothing else is asked of the file.
    for calls in (stored, loaded, blocks, read):
        assert len({call.thread for call in calls}) == 1
    assert not at_once(asked.twin)
    assert not in_file(asked.twin, "objects.slab", "fsync", "fdatasync")
    # The program makes its file first. What is opened later is looked at in the page cache, untimed.
    assert asked.device_opens[1:] == ["open to write, direct"]
    assert [call.what for call in in_file(asked.twin, "objects.slab", "open")][:2] == [
        "open to write, create, exclusive, direct",
        "open to read, direct",
    ]


def test_mooncake_bucket(python_with: Callable[[str], list[str]], tmp_path: Path) -> None:
    buckets_as_the_real_one(traced("mooncake-bucket", python_with(PACKED["mooncake-bucket"]), tmp_path))


def buckets_as_the_real_one(asked: Traced) -> None:
    """Raises AssertionError where the twin does not do what Mooncake does."""
    stored, loaded = in_phase(asked.real, "store"), in_phase(asked.real, "load")
    # The real thing: a bucket of all objects in one write, and what is in it in a file of its own.
    assert [call.what for call in in_file(stored, ".bucket")] == [
        "open to write, create, truncate",
        f"write {BLOCKS * (asked.block_bytes + KEY_BYTES)}",
        "close",
    ]
    assert [call.what.partition(" ")[0] for call in in_file(stored, ".meta")] == ["open", "write", "close"]
    # It is opened once to load from it, directly, and all reads are handed over at once, by one thread.
    assert [call.what for call in in_file(loaded, ".bucket")] == ["open to read, direct", "close"]
    assert at_once(loaded) == [BLOCKS]
    # Its twin: the same, but that writes are handed over too, to a bucket that is open.
    opened = [call.what for call in in_file(asked.twin, ".bucket", "open")]
    assert opened[:1] == ["open to write, create, exclusive"]
    assert opened[-1:] == ["open to read, direct"]
    assert [number for number in at_once(asked.twin) if number > 1] == [BLOCKS, BLOCKS]
    assert not in_file(asked.twin, ".bucket", f"write {asked.block_bytes}", f"read {asked.block_bytes}")
    assert not in_file(asked.twin, ".bucket", "fsync", "fdatasync")


@pytest.mark.parametrize(
    ("engine", "another", "same"),
    [
        ("lmcache-raw-block", "mooncake-bucket", slots_as_the_real_one),
        ("mooncake-bucket", "lmcache-raw-block", buckets_as_the_real_one),
    ],
)
def test_another_twin_does_not(
    engine: str,
    another: str,
    same: Callable[[Traced], None],
    python_with: Callable[[str], list[str]],
    tmp_path: Path,
) -> None:
    asked = traced(engine, python_with(PACKED[engine]), tmp_path, another)
    with pytest.raises((AssertionError, StopIteration)):
        same(asked)
