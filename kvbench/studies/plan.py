"""The cells of a copy-path study and their order. Pure bookkeeping: nothing here measures or waits.

A cell is one combination in one mode in one repeat. The order is that of a randomised complete block design: each
repeat holds every cell once, so that drift of the machine falls on all alike; within a repeat, the cells that are
compared with each other (all read paths and both modes at one directory, size and number of ranks and threads) stand
together, so that little drift falls between them. Blocks, and cells in a block, are shuffled anew in each repeat.
"""

from dataclasses import dataclass
from itertools import product
from typing import Final, Literal

import numpy as np

from kvbench.records.schema import RECORD_DTYPE, WHOLE_COPIES, Path
from kvbench.run.checks.forecast import HIGHEST_BYTES_PER_S
from kvbench.studies.options import CopyPathChoices
from kvbench.units import MIB, SECTOR_BYTES

Mode = Literal["isolated", "contended"]
MODES: Final[tuple[Mode, ...]] = ("isolated", "contended")
"""`isolated`: the ranks of a node one at a time; `contended`: all at once."""

READS_PER_REQUEST: Final = 8
"""What a request of the reference workload does on average, 375 reads in 47 requests."""

_POOL_BYTES: Final = 256 * MIB
"""A rank keeps about so many bytes of objects of each size, so that they do not stay in the processor's cache."""
_MOST_OBJECTS: Final = 256

_ROOFLINE_S: Final = 1.0
_MOST_LEVELS: Final = 8

_HIGHEST_READS_PER_S: Final = 20_000
"""More than one rank's interpreter can hand out; with the highest bandwidth of a forecast, it bounds the records."""


@dataclass(frozen=True, slots=True)
class StudyCell:
    """One combination in one mode in one repeat."""

    number: int
    """What the cell's rows carry as `user`; does not depend on the order."""
    directory: int
    """Place in the list of directories."""
    ranks: int
    threads: int
    object_bytes: int
    read_path: Path
    mode: Mode
    repeat: int


@dataclass(frozen=True, slots=True)
class CopyLevel:
    """One measurement of the memory-copy roofline: `ranks` of each node copy at once."""

    ranks: int
    repeat: int


StudyStep = StudyCell | CopyLevel


def plan_steps(choices: CopyPathChoices) -> list[StudyStep]:
    """All cells and copy levels in the order in which they are measured; the same for the same seed."""
    rng = np.random.Generator(np.random.PCG64(choices.seed))
    steps: list[StudyStep] = []
    for repeat in range(choices.repeats):
        blocks = _blocks(choices, repeat)
        for block in rng.permutation(len(blocks)):
            steps += [blocks[block][place] for place in rng.permutation(len(blocks[block]))]
    return steps


def _blocks(choices: CopyPathChoices, repeat: int) -> list[list[StudyStep]]:
    levels: list[StudyStep] = [CopyLevel(ranks, repeat) for ranks in copy_levels(choices.ranks)]
    blocks = [levels]
    settings = list(product(range(len(choices.directories)), choices.ranks, choices.threads, choices.sizes))
    size = len(choices.read_paths) * len(MODES)
    for place, (directory, ranks, threads, object_bytes) in enumerate(settings):
        first = (repeat * len(settings) + place) * size
        blocks.append(
            [
                StudyCell(first + index, directory, ranks, threads, object_bytes, path, mode, repeat)
                for index, (path, mode) in enumerate(product(choices.read_paths, MODES))
            ]
        )
    return blocks


def copy_levels(ranks: tuple[int, ...]) -> list[int]:
    """Numbers of ranks at which copies are measured: 1 to the largest of `ranks`; of many, those in `ranks` and the
    powers of two."""
    largest = max(ranks)
    if largest <= _MOST_LEVELS:
        return list(range(1, largest + 1))
    return sorted({*ranks, *(2**power for power in range(largest.bit_length()))})


def turns(step: StudyStep) -> int:
    """Turns that a step takes, one after the other."""
    return step.ranks if isinstance(step, StudyCell) and step.mode == "isolated" else 1


def takes_turn(step: StudyStep, turn: int, local_rank: int) -> bool:
    """Whether the rank at place `local_rank` of its node works in a turn."""
    return local_rank == turn if turns(step) > 1 else local_rank < step.ranks


def turn_seconds(step: StudyStep, choices: CopyPathChoices) -> float:
    """Least duration of a turn."""
    return choices.seconds if isinstance(step, StudyCell) else min(choices.seconds, _ROOFLINE_S)


def least_seconds(steps: list[StudyStep], choices: CopyPathChoices) -> float:
    """Least duration of all steps together; a turn ends with the requests that began in it, so it may take longer."""
    return sum(turns(step) * turn_seconds(step, choices) for step in steps)


def objects_of(object_bytes: int, threads: tuple[int, ...]) -> int:
    """Objects of a size that a rank keeps: at least one for each thread."""
    return max(*threads, min(_MOST_OBJECTS, -(-_POOL_BYTES // object_bytes)))


def layouts(read_paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """A read path of each file layout that `read_paths` need: bare bytes, and `.npy` for the paths that call numpy."""
    bare = [path for path in read_paths if path not in WHOLE_COPIES]
    with_header = [path for path in read_paths if path in WHOLE_COPIES]
    return (*bare[:1], *with_header[:1])


def stored_bytes_per_rank(choices: CopyPathChoices) -> int:
    """What a rank writes in each directory."""
    return sum(
        objects_of(size, choices.threads) * (size + (SECTOR_BYTES if path in WHOLE_COPIES else 0))
        for path in layouts(choices.read_paths)
        for size in choices.sizes
    )


def record_bytes_per_rank(steps: list[StudyStep], choices: CopyPathChoices) -> int:
    """Upper bound of the memory that the records of one rank take until they are gathered."""
    rows = 0.0
    for step in steps:
        if isinstance(step, StudyCell):
            rows += choices.seconds * min(_HIGHEST_READS_PER_S, HIGHEST_BYTES_PER_S / step.object_bytes)
            rows += step.threads * READS_PER_REQUEST
    return int(rows) * RECORD_DTYPE.itemsize
