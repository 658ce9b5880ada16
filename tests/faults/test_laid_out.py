"""The faults that a layout can make a difference to, done to runs whose objects lie otherwise than as a file each."""

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from breaking import Victim, clean, put_strangers
from judging import beside, check_failed, check_nothing_is_lost, fill
from kvbench_command import attributes, column, remains
from laid_out import EVERY, LAYOUTS, NIXL, skip_without_library
from transfer_library import need_nixl

pytestmark = pytest.mark.slow

Break = Callable[..., Victim]
Tell = Callable[..., None]

_FILES = (".kv", ".slab", ".bucket")


@EVERY
def test_a_killed_rank(victim: Break, folder: Path, tell: Tell, name: str, layout: tuple[str, ...]) -> None:
    strangers = put_strangers(folder)
    run = victim(*layout, bare=True)
    run.break_it(lambda: run.rank(1).kill())
    outcome = run.outcome()
    rows = check_nothing_is_lost(run, outcome, strangers)
    tell(f"{name}: kill -9 of rank 1 (mpirun, 2 ranks)", outcome, sum(rows))


@pytest.mark.parametrize("which", ["folders", "bucket", "rings", "bucket-rings"])
def test_storage_full(victim: Break, mount: Callable[[str], Path], tmp_path: Path, tell: Tell, which: str) -> None:
    name, layout = LAYOUTS[which]
    place = mount("256m")
    strangers = put_strangers(place)
    run = victim(*layout, directory=place)
    run.break_it(lambda: fill(place))
    outcome = run.outcome()
    rows = check_failed(outcome, tmp_path / "run.h5", "No space left on device; free space there")
    assert remains(place) == sorted([*strangers, "mine"])
    tell(f"{name}: the filesystem under test filled by somebody else", outcome, rows)


def test_storage_full_under_nixl(victim: Break, mount: Callable[[str], Path], tmp_path: Path, tell: Tell) -> None:
    need_nixl()
    place = mount("256m")
    strangers = put_strangers(place)
    run = victim(*NIXL, directory=place)
    run.break_it(lambda: fill(place))
    outcome = run.outcome()
    # NIXL does not say why. Where another rank has made room before this one looks, that is all that is known.
    known = "No space left on device" in outcome.message
    rows = check_failed(outcome, tmp_path / "run.h5", "free space there" if known else "said NIXL_ERR_BACKEND")
    assert remains(place) == sorted([*strangers, "mine"])
    tell("files by NIXL: the filesystem under test filled by somebody else", outcome, rows)


@pytest.mark.parametrize("which", ["slab", "slab-rings", "slab-nixl"])
def test_storage_full_beside_a_slab(
    victim: Break, mount: Callable[[str], Path], tmp_path: Path, tell: Tell, which: str
) -> None:
    """It has its room from the beginning."""
    name, layout = LAYOUTS[which]
    skip_without_library(name)
    place = mount("256m")
    strangers = put_strangers(place)
    run = victim(*layout, directory=place)
    run.break_it(lambda: fill(place))
    run.go_on()
    run.command.send(signal.SIGINT)
    outcome = run.outcome()
    assert outcome.ended.messages[-1] == "kvbench: interrupted"
    assert attributes(tmp_path / "run.h5")["status"] == "interrupted"
    rows = int(column(tmp_path / "run.h5", "ranks/rows").sum())
    assert rows > outcome.before > 0
    assert remains(place) == sorted([*strangers, "mine"])
    said = "none, the run goes on until it is asked to stop"
    tell(f"{name}: the filesystem under test filled by somebody else", outcome, rows, said)


@EVERY
@pytest.mark.parametrize("order", ["read-EIO", "write-EIO", "fsync-EIO"])
def test_errors_of_the_storage(
    victim: Break, failing: Any, tmp_path: Path, tell: Tell, order: str, name: str, layout: tuple[str, ...]
) -> None:
    strangers = put_strangers(failing.directory)
    run = victim(*layout, directory=failing.directory)
    run.break_it(lambda: failing.fail(order))
    outcome = run.outcome()
    rows = check_failed(outcome, tmp_path / "run.h5", "Input/output error")
    failing.work_again()
    clean(failing.directory)
    assert remains(failing.directory) == strangers
    tell(f"{name}: {order}: every such call fails from now on (FUSE)", outcome, rows)


@EVERY
def test_a_corrupted_block(
    victim: Break, folder: Path, tmp_path: Path, tell: Tell, name: str, layout: tuple[str, ...]
) -> None:
    strangers = put_strangers(folder)
    run = victim(*layout, "payload.verify=full")
    block = 1536 * 1024

    def corrupt() -> None:
        def damage() -> None:
            files: list[Path] = []
            # The run that finds it out removes its folders meanwhile.
            with contextlib.suppress(FileNotFoundError):
                files = [path for path in folder.glob("kvbench-*/rank-1/**/*") if path.suffix in _FILES]
            for path in files:
                with contextlib.suppress(FileNotFoundError), path.open("r+b") as file:
                    for end in range(block, os.fstat(file.fileno()).st_size + 1, block):
                        file.seek(end - 4096)
                        file.write(b"\xff" * 16)

        run.command.keep_doing(damage)

    run.break_it(corrupt)
    outcome = run.outcome()
    rows = check_failed(outcome, tmp_path / "run.h5", "the data is not what was written: at offset ")
    assert "rank 1 on " in outcome.message
    assert remains(folder) == strangers
    tell(f"{name}: 16 bytes overwritten in the objects of rank 1", outcome, rows)


@EVERY
def test_two_runs_at_once_in_one_directory(
    victim: Break, folder: Path, tmp_path: Path, tell: Tell, name: str, layout: tuple[str, ...]
) -> None:
    strangers = put_strangers(folder)
    first = victim(*layout)
    second: list[Victim] = []

    def start() -> None:
        second.append(victim(*layout, out=tmp_path / "second.h5", spill=beside(first.spill)))
        second[0].break_it(lambda: None)

    first.break_it(start)
    assert "in use" in clean(folder), "a live run is not cleaned"
    for run in (first, *second):
        run.command.send(signal.SIGINT)
    outcome, other = first.outcome(), second[0].outcome()
    for ended in (outcome, other):
        assert ended.ended.messages[-1] == "kvbench: interrupted"
    assert remains(folder) == strangers
    rows = int(column(tmp_path / "run.h5", "ranks/rows").sum())
    assert rows >= outcome.before > 0
    said = "interrupted; both runs end well, neither lost a file to the other or to clean"
    tell(f"{name}: a second run, `kvbench clean --yes`, and then Ctrl-C at both", outcome, rows, said)
