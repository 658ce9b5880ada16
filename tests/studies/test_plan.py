"""The cells of a copy-path study and their order."""

from collections import Counter
from itertools import product
from pathlib import Path as FilePath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.records.schema import READ_PATHS, Path
from kvbench.studies.options import CopyPathChoices
from kvbench.studies.plan import (
    MODES,
    CopyLevel,
    StudyCell,
    copy_levels,
    least_seconds,
    objects_of,
    plan_steps,
    stored_bytes_per_rank,
    takes_turn,
    turns,
)


def choices(**changes: object) -> CopyPathChoices:
    values: dict[str, object] = {
        "directories": (FilePath("/a"), FilePath("/b")),
        "ranks": (1, 2),
        "threads": (1, 4),
        "read_paths": (Path.DOUBLE_COPY, Path.NUMPY, Path.BUFFERED),
        "sizes": (65536,),
        "seconds": 1.0,
        "repeats": 5,
        "seed": 1,
        "model": "llama3.1-8b",
    }
    return CopyPathChoices(**(values | changes))  # type: ignore[arg-type]


def cells(plan: CopyPathChoices) -> list[StudyCell]:
    return [step for step in plan_steps(plan) if isinstance(step, StudyCell)]


def combination(cell: StudyCell) -> tuple[object, ...]:
    return cell.directory, cell.ranks, cell.threads, cell.object_bytes, cell.read_path, cell.mode


subsets = st.sets(st.integers(1, 9), min_size=1, max_size=3).map(lambda found: tuple(sorted(found)))


@given(ranks=subsets, threads=subsets, seed=st.integers(0, 100))
def test_every_repeat_holds_every_combination_once(ranks: tuple[int, ...], threads: tuple[int, ...], seed: int) -> None:
    plan = choices(ranks=ranks, threads=threads, seed=seed)
    wanted = set(product(range(2), ranks, threads, plan.sizes, plan.read_paths, MODES))
    found = cells(plan)
    for repeat in range(plan.repeats):
        of_repeat = [combination(cell) for cell in found if cell.repeat == repeat]
        assert set(of_repeat) == wanted
        assert len(of_repeat) == len(wanted)
    assert sorted(cell.number for cell in found) == list(range(len(found)))


def test_repeats_follow_each_other_and_each_is_shuffled_anew() -> None:
    found = cells(choices())
    assert [cell.repeat for cell in found] == sorted(cell.repeat for cell in found)
    orders = {tuple(combination(cell) for cell in found if cell.repeat == repeat) for repeat in range(5)}
    assert len(orders) == 5


def test_cells_that_are_compared_stand_together() -> None:
    found = cells(choices())
    compared = len(READ_PATHS[:3]) * len(MODES)
    for start in range(0, len(found), compared):
        block = found[start : start + compared]
        assert len({(cell.repeat, cell.directory, cell.ranks, cell.threads, cell.object_bytes) for cell in block}) == 1
        assert len({(cell.read_path, cell.mode) for cell in block}) == compared


def test_the_seed_decides_the_order() -> None:
    assert plan_steps(choices(seed=3)) == plan_steps(choices(seed=3))
    assert plan_steps(choices(seed=3)) != plan_steps(choices(seed=4))


def test_the_number_of_a_cell_does_not_depend_on_the_order() -> None:
    first, second = (sorted(cells(choices(seed=seed)), key=lambda cell: cell.number) for seed in (1, 2))
    assert first == second


def test_memory_copies_are_measured_at_every_number_of_ranks_in_every_repeat() -> None:
    levels = [step for step in plan_steps(choices(ranks=(2, 4))) if isinstance(step, CopyLevel)]
    assert Counter(levels) == Counter(CopyLevel(ranks, repeat) for ranks in (1, 2, 3, 4) for repeat in range(5))


def test_of_many_ranks_memory_copies_are_measured_at_some() -> None:
    assert copy_levels((1, 24)) == [1, 2, 4, 8, 16, 24]


def test_isolated_ranks_take_turns_and_contended_ranks_work_at_once() -> None:
    for cell in cells(choices(ranks=(3,))):
        working = [[rank for rank in range(5) if takes_turn(cell, turn, rank)] for turn in range(turns(cell))]
        assert working == ([[0], [1], [2]] if cell.mode == "isolated" else [[0, 1, 2]])


def test_the_duration_counts_every_turn() -> None:
    plan = choices(directories=(FilePath("/a"),), ranks=(2,), threads=(1,), read_paths=(Path.NUMPY,), seconds=0.5)
    # In each of 5 repeats two turns alone and one together, and two levels of memory copies.
    assert least_seconds(plan_steps(plan), plan) == pytest.approx(5 * (3 + 2) * 0.5)


def test_every_thread_has_an_object_of_its_own_and_space_is_bounded() -> None:
    assert objects_of(2**30, (1, 16)) == 16
    assert objects_of(2**20, (1, 16)) == 256
    assert objects_of(4096, (1,)) == 256
    with_header, bare = choices(read_paths=(Path.NUMPY,)), choices(read_paths=(Path.BUFFERED, Path.DIRECT))
    assert stored_bytes_per_rank(bare) == 256 * 65536
    assert stored_bytes_per_rank(with_header) == 256 * (65536 + 4096)
    assert stored_bytes_per_rank(choices()) == stored_bytes_per_rank(bare) + stored_bytes_per_rank(with_header)
