"""The real things and their twins at the same work, under strace: a few blocks are stored and loaded again."""

import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from calls import TRACED, Call, read_calls

HERE: Final = Path(__file__).parent
BLOCKS: Final = 4
BYTES_PER_TOKEN: Final = 4096
MODEL: Final = "model={layers: 8, kv_heads: 1, head_dim: 128}"
_TRIAL: Final = "7121a10b7ec70000"
"""The object with which a run tries its storage."""
_BLOCK: Final = re.compile(r"BLOCK([+-]\d+)?")


@dataclass(frozen=True)
class Real:
    """A real package: its program, what its objects end in, and what its twin leaves out or does otherwise."""

    package: str
    ending: str
    otherwise: dict[str, str | None] = field(default_factory=dict)
    """A call of the real thing, and the twin's in its place; None: it has none. `BLOCK` stands for a block's bytes."""
    of_twin_alone: tuple[str, ...] = ()
    at_once: bool = False
    """Whether all blocks of a request are handed to the kernel in one call."""

    def instead(self, block_bytes: int) -> dict[str, str | None]:
        """`otherwise`, for blocks of this size."""
        table = {}
        for call, twins in self.otherwise.items():
            table[_sized(call, block_bytes)] = None if twins is None else _sized(twins, block_bytes)
        return table


def _sized(call: str, block_bytes: int) -> str:
    return _BLOCK.sub(lambda found: str(block_bytes + int(found[1] or 0)), call)


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
    "mooncake-file": Real(
        "mooncake",
        ".object",
        # The key and its tenant, 22 bytes, stand before the object, with what tells their sizes and its own.
        {"write BLOCK+29": "write BLOCK", "read BLOCK+29": "read BLOCK"},
        of_twin_alone=("open: not there",),
    ),
    "nixl-posix": Real(
        "nixl",
        "_model_0_1",
        {"open to write, create, direct": "open to write, create, truncate, direct"},
        of_twin_alone=("open: not there",),
        at_once=True,
    ),
}
"""Twins with a file for each object."""

PACKED: Final = {"lmcache-raw-block": "lmcache-raw-block", "mooncake-bucket": "mooncake"}
"""Twins with one file of many objects, and their packages."""


def _traced(command: Sequence[str], trace: Path, cwd: Path) -> None:
    done = subprocess.run(
        ["strace", "-f", "-e", f"trace={TRACED}", "-o", str(trace), *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=cwd,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


def calls_of_real(engine: str, python: Sequence[str], block_bytes: int, folder: Path) -> list[Call]:
    """What the real package asks for while it looks up, stores and loads blocks in `folder`/real."""
    place = folder / "real"
    place.mkdir()
    program = HERE / "real" / f"{engine.replace('-', '_')}.py"
    _traced([*python, str(program), str(place), str(block_bytes), str(BLOCKS)], folder / "real.txt", folder)
    return [call for call in read_calls(folder / "real.txt") if call.phase not in ("", "other", "delete")]


def calls_of_twin(engine: str, tokens: int, folder: Path) -> list[Call]:
    """All that a run in `folder`/twin asks for, which stores a prompt of as many blocks of `tokens`, or more, and loads
    it again; without the object with which it tries its storage."""
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
    command = [sys.executable, "-m", "kvbench", "run", "mooncake", "--engine", engine, "--no-spill"]
    command += ["--dir", str(place), "--out", str(folder / "run.h5"), *(f"--set={change}" for change in changes)]
    _traced(command, folder / "twin.txt", folder)
    return [call for call in read_calls(folder / "twin.txt") if _TRIAL not in call.path and _TRIAL not in call.before]
