"""What the real thing asks of the kernel for each object, and what its twin does: the same calls, flags and sizes, in
the same order; where they differ, exactly as configs/engines and docs/engines.md say.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from calls import Call, by_object, read_calls

from kvbench.config.engines import read_engine

HERE: Final = Path(__file__).parent
PhaseCalls = dict[str, list[str]]

BLOCKS: Final = 4
BYTES_PER_TOKEN: Final = 4096
MODEL: Final = "model={layers: 8, kv_heads: 1, head_dim: 128}"
_OBJECT: Final = re.compile(r"/rank-0/(?:[0-9a-f]+/)*[0-9a-f]{16}\.kv$")
_TRIAL: Final = "7121a10b7ec70000"
"""The object with which a run tries its storage."""


@dataclass(frozen=True)
class Real:
    """A real package: its program, what its objects end in, and what its twin leaves out or does otherwise."""

    package: str
    ending: str
    otherwise: dict[str, str | None] = field(default_factory=dict)
    """A call of the real thing, and the twin's in its place; None: it has none. `BLOCK` stands for a block's bytes."""
    of_twin_alone: tuple[str, ...] = ()


REAL: Final = {
    "lmcache-disk": Real("lmcache", ".pt"),
    "lmcache-fs": Real(
        "lmcache",
        ".data",
        {"write 28": None, "read 4096": None, "read BLOCK-4068": "read BLOCK"},
    ),
    "lmcache-native-fs": Real("lmcache", ".data"),
    "vllm-fs": Real(
        "vllm",
        ".bin",
        {"open to write, create, exclusive, truncate, direct": "open to write, create, truncate, direct"},
        of_twin_alone=("open: not there",),
    ),
    "hicache-file": Real("sglang", ".bin"),
}


def traced(command: Sequence[str], trace: Path, cwd: Path) -> None:
    done = subprocess.run(
        ["strace", "-f", "-e", "trace=file,desc", "-o", str(trace), *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def of_real(engine: str, python: Sequence[str], block_bytes: int, folder: Path) -> dict[str, list[Call]]:
    """The calls of the real package on each of its objects."""
    place = folder / "real"
    place.mkdir()
    program = HERE / "real" / f"{engine.replace('-', '_')}.py"
    traced([*python, str(program), str(place), str(block_bytes), str(BLOCKS)], folder / "real.txt", folder)
    ending = REAL[engine].ending
    calls = (call for call in read_calls(folder / "real.txt") if call.phase not in ("", "other", "delete"))
    return by_object(calls, lambda path: path.startswith(str(place)) and path.endswith(ending))


def of_twin(engine: str, tokens: int, folder: Path, engine_run: str | None = None) -> dict[str, list[Call]]:
    """The calls of a run of its twin, which stores a prompt of as many blocks and loads it again."""
    place = folder / "twin"
    place.mkdir()
    # Names of 512 tokens: so many that they make up whole blocks.
    names = list(range(max(1, BLOCKS * tokens // 512)))
    lines = [
        f'{{"timestamp": {at}, "input_length": {512 * len(names)}, "output_length": 1, "hash_ids": {names}}}'
        for at in range(2)
    ]
    (folder / "trace.jsonl").write_text("\n".join(lines), encoding="utf-8")
    changes = (
        f"workload.path={folder / 'trace.jsonl'}",
        MODEL,
        "pacing.mode=asap",
        "pacing.most_requests=1",
        "calibration.seconds=0",
        "tiers=[{kind: file, capacity_bytes: 256MiB}]",
        "cache.store_answers=false",
    )
    command = [sys.executable, "-m", "kvbench", "run", "mooncake", "--engine", engine_run or engine, "--no-spill"]
    command += ["--dir", str(place), "--out", str(folder / "run.h5"), *(f"--set={change}" for change in changes)]
    traced(command, folder / "twin.txt", folder)
    calls = [call for call in read_calls(folder / "twin.txt") if _TRIAL not in call.path and _TRIAL not in call.before]
    return by_object(calls, lambda path: _OBJECT.search(path) is not None)


def phases_of_real(calls: Sequence[Call]) -> PhaseCalls:
    """What was asked in each phase."""
    return {phase: [c.what for c in calls if c.phase == phase] for phase in ("look-up", "store", "found", "load")}


def phases_of_twin(calls: Sequence[Call], asks_first: bool) -> PhaseCalls:
    """The same of a twin, whose run says nothing of phases: a store ends with what follows the last write, and what is
    opened, looked at and closed before it is read (untimed, docs/measurement-method.md) is no part of a load."""
    asked = [call.what for call in calls if call.what != "delete"]
    first = next(at for at, what in enumerate(asked) if what.startswith("open"))
    first -= asks_first
    last = max(at for at, what in enumerate(asked) if what.startswith("write"))
    last = next(at for at in range(last, len(asked)) if asked[at] == "close")
    last += asked[last + 1 : last + 2] == ["rename"]
    behind = asked[last + 1 :]
    for look in (["open to read", "advise", "close"], ["open to read", "close"]):
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
    known = REAL[engine].otherwise
    table = {}
    for call, instead in known.items():
        asked = call.replace("BLOCK-4068", str(block_bytes - 4068)).replace("BLOCK", str(block_bytes))
        table[asked] = None if instead is None else instead.replace("BLOCK", str(block_bytes))
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
    real = of_real(engine, python, block_bytes, folder)
    found = of_twin(engine, tokens, folder, engine_run)
    assert len(real) == BLOCKS
    assert len(found) >= BLOCKS
    # The first block is the one that is looked up and missing; what all others are asked for is the same.
    kinds = [phases_of_real(calls) for calls in real.values()]
    expected = [expected_of_twin(engine, kind, block_bytes) for kind in kinds]
    twins = [phases_of_twin(calls, twin.layout.ask_first) for calls in found.values()]
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


@pytest.mark.parametrize("engine", REAL)
def test_a_twin_asks_the_kernel_for_what_the_real_thing_does(
    engine: str, python_with: Callable[[str], list[str]], tmp_path: Path
) -> None:
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
    from kvbench.config.engines import shipped_engines  # noqa: PLC0415 - beside the test that needs it alone

    for engine in shipped_engines():
        twin, _ = read_engine(engine)
        assert twin.checked == (engine in REAL), engine
