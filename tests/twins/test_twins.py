"""What the real thing asks of the kernel for each object, and what its twin does: the same calls, flags and sizes, in
the same order; where they differ, exactly as configs/engines and docs/engines.md say.
"""

import importlib.util
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final

import pytest
from both import BLOCKS, BYTES_PER_TOKEN, PACKED, REAL, calls_of_real, calls_of_twin
from calls import AT_ONCE, Call, by_object

from kvbench.config.engines import read_engine, shipped_engines

PhaseCalls = dict[str, list[str]]

_OBJECT: Final = re.compile(r"/rank-0/(?:[0-9a-f]+/)*[0-9a-f]{16}\.kv$")


def phases_of_real(calls: Sequence[Call]) -> PhaseCalls:
    """What was asked in each phase."""
    return {phase: [c.what for c in calls if c.phase == phase] for phase in ("look-up", "store", "found", "load")}


def phases_of_twin(calls: Sequence[Call], asks_first: bool, at_once: bool) -> PhaseCalls:
    """The same of a twin, whose run says nothing of phases: a store ends with what follows the last write, and what is
    opened, looked at and closed before it is read (untimed, docs/measurement-method.md) is no part of a load. Of what
    is loaded at once its length is asked for then, too."""
    asked = [call.what for call in calls if call.what != "delete"]
    first = next(at for at, what in enumerate(asked) if what.startswith("open"))
    first -= asks_first
    last = max(at for at, what in enumerate(asked) if what.startswith("write"))
    last = next(at for at in range(last, len(asked)) if asked[at] == "close")
    last += asked[last + 1 : last + 2] == ["rename"]
    behind = asked[last + 1 :]
    length = ["look up: there"] if at_once else []
    for look in ([*length, "open to read", "advise", "close"], ["open to read", "close"]):
        for at in range(len(behind) - len(look), -1, -1):
            if behind[at : at + len(look)] == look:
                del behind[at : at + len(look)]
    looks = [what for what in behind if what.startswith("look up")]
    return {
        "look-up": asked[:first],
        "store": asked[first : last + 1],
        "found": looks,
        "load": [what for what in behind if not what.startswith("look up")],
    }


def expected_of_twin(engine: str, real: PhaseCalls, block_bytes: int) -> PhaseCalls:
    """What the twin is to ask where the real thing asks `real`."""
    table = REAL[engine].instead(block_bytes)
    return {
        phase: [said for said in (table.get(what, what) for what in calls) if said is not None]
        for phase, calls in real.items()
    }


def threads_of(objects: dict[str, list[Call]], does: str) -> int:
    return len({call.thread for calls in objects.values() for call in calls if call.what.startswith(does)})


def compared(engine: str, python: Sequence[str], folder: Path, engine_run: str | None = None) -> None:
    """Raises AssertionError where the twin, or the one in its place, does not do what the real thing does."""
    _, twin = read_engine(engine)
    tokens = int(twin.cache["block_tokens"])
    block_bytes = tokens * BYTES_PER_TOKEN
    calls = calls_of_real(engine, python, block_bytes, folder)
    twins_calls = calls_of_twin(engine_run or engine, tokens, folder)
    ending = REAL[engine].ending
    real = by_object(calls, lambda path: path.startswith(str(folder)) and path.endswith(ending))
    found = by_object(twins_calls, lambda path: _OBJECT.search(path) is not None)
    assert len(real) == BLOCKS
    assert len(found) >= BLOCKS
    # The first block is the one that is looked up and missing; what all others are asked for is the same.
    kinds = [phases_of_real(calls) for calls in real.values()]
    expected = [expected_of_twin(engine, kind, block_bytes) for kind in kinds]
    twins = [phases_of_twin(calls, twin.layout.ask_first, REAL[engine].at_once) for calls in found.values()]
    for phases in twins:
        phases["store"] = [what for what in phases["store"] if what not in REAL[engine].of_twin_alone]
    for phase in ("store", "found", "load"):
        assert {tuple(kind[phase]) for kind in twins} == {tuple(kind[phase]) for kind in expected}, phase
    # Some engines ask for all blocks of a prompt, ours up to the first that is missing: the same call.
    looks = {what for kind in twins for what in kind["look-up"]}
    assert looks == {what for kind in expected for what in kind["look-up"]}
    if twin.io.get("request_threads") == "one":
        for does in ("write", "read"):
            assert (threads_of(real, does), threads_of(found, does)) == (1, 1)
    if REAL[engine].at_once:
        for phase in ("store", "load"):
            assert at_once(call for call in calls if call.phase == phase) == [len(real)]
        assert at_once(twins_calls)[-2:] == [len(found)] * 2


def at_once(calls: Iterable[Call]) -> list[int]:
    """How many requests the kernel was handed by each call that takes several."""
    return [int(call.what) for call in calls if call.path == AT_ONCE]


@pytest.mark.parametrize("engine", REAL)
def test_a_twin_asks_the_kernel_for_what_the_real_thing_does(
    engine: str, python_with: Callable[[str], list[str]], tmp_path: Path
) -> None:
    if engine == "nixl-posix" and importlib.util.find_spec("nixl") is None:
        pytest.skip("kvbench has no nixl here: pip install kvbench[nixl]")
    compared(engine, python_with(REAL[engine].package), tmp_path)


@pytest.mark.parametrize(
    ("engine", "another"),
    [("lmcache-disk", "lmcache-native-fs"), ("lmcache-native-fs", "hicache-file"), ("vllm-fs", "lmcache-disk")],
)
def test_another_twin_does_not(
    engine: str, another: str, python_with: Callable[[str], list[str]], tmp_path: Path
) -> None:
    with pytest.raises((AssertionError, StopIteration)):
        compared(engine, python_with(REAL[engine].package), tmp_path, another)


def test_what_is_said_to_be_checked_is_checked_here() -> None:
    for engine in shipped_engines():
        twin, _ = read_engine(engine)
        assert twin.checked == (engine in REAL or engine in PACKED), engine
