"""`--dir '/mnt/nv{local_rank}'`: a directory for each rank, on filesystems that some of them share."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from kvbench_command import KVBENCH, QUICK, Command, Ended, attributes, column, overrides, remains

pytestmark = pytest.mark.slow

Call = Callable[..., Ended]
Start = Callable[..., Command]


@pytest.fixture
def drives(folder: Path, spills: Path) -> str:
    """Directories of three ranks, as they are given: the second is on another filesystem than the others."""
    for rank in (0, 2):
        (folder / f"nv{rank}").mkdir()
    (spills / "nv1").mkdir()
    (folder / "nv1").symlink_to(spills / "nv1")
    return f"{folder}/nv{{local_rank}}"


def test_each_rank_has_its_directory_and_its_part_of_what_is_free_there(
    start: Start, drives: str, folder: Path, spills: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run.h5"
    settings = overrides(*QUICK, "tiers.1.capacity_bytes=auto")
    words = (*KVBENCH, "run", "smoke", "--dir", drives, "--out", out, *settings, "--ranks", 3)
    refused = start(*words, "--spill", spills).ended()
    assert refused.code == 1
    assert f"the directory {spills} for spill files is on the filesystem under test" in refused.err, "of rank 1"

    ended = start(*words, "--no-spill").ended()
    assert ended.code == 0, ended.err
    assert f"directories {drives}" in ended.out.replace("\n", "")
    assert attributes(out)["directories"] == drives
    assert [name.decode() for name in column(out, "directories/directory")] == [
        str(folder / f"nv{rank}") for rank in range(3)
    ]
    assert column(out, "directories/filesystem_group").tolist() == [0, 1, 0]
    assert column(out, "directories/sharing_ranks").tolist() == [2, 1, 2]
    capacities = column(out, "ranks/storage_capacity_bytes").tolist()
    free = column(out, "directories/free_bytes").tolist()
    assert capacities[1] == int(free[1] * 0.95) // 4096 * 4096, "the second rank has its filesystem alone"
    assert free[0] == free[2], "looked at by each at its own time, and one figure for both"
    assert capacities[0] == capacities[2] <= free[0] * 0.95 / 2
    assert remains(folder) == ["nv0", "nv1", "nv2"]
    assert os.listdir(spills / "nv1") == []


def test_a_directory_that_one_rank_lacks_is_named_with_the_rank(
    start: Start, drives: str, folder: Path, tmp_path: Path, host: str
) -> None:
    (folder / "nv1").unlink()
    words = ("run", "smoke", "--dir", drives, "--out", tmp_path / "run.h5", *overrides(*QUICK), "--ranks", 2)
    ended = start(*KVBENCH, *words).ended()
    assert ended.code == 1
    (message,) = ended.messages
    assert f"rank 1 on {host}: the directory {folder}/nv1 does not exist" in message
    assert remains(folder) == ["nv0", "nv2"]


@pytest.mark.parametrize(
    ("name", "setting", "said"),
    [
        ("nv{lokal_rank}", "seed=1", "no placeholder {lokal_rank}, did you mean {local_rank}?"),
        ("nv{local_rank}", "namespace=shared", "namespace is shared, so that all ranks need one directory"),
    ],
)
def test_placeholders_that_cannot_be_are_refused_before_anything_is_made(
    kvbench: Call, folder: Path, tmp_path: Path, name: str, setting: str, said: str
) -> None:
    ended = kvbench("run", "smoke", "--dir", folder / name, "--out", tmp_path / "x" / "run.h5", "--set", setting)
    assert ended.code == 1
    (message,) = ended.messages
    assert said in message
    assert not (tmp_path / "x").exists()


def test_datasize_and_doctor_say_which_directories_they_looked_at(kvbench: Call, drives: str, folder: Path) -> None:
    size = kvbench("datasize", "smoke", "--ranks", 3, "--dir", drives).out
    assert f"{folder}/nv0 (" in size
    assert f"{folder}/nv1 (" in size
    assert "the first stands for all" in size
    found = "".join(line.strip() for line in kvbench("doctor", "--dir", drives).out.splitlines())
    assert "looked at as those of the first node's ranks" in " ".join(found.split())
    missing = kvbench("datasize", "smoke", "--ranks", 5, "--dir", drives)
    assert missing.code == 1
    assert f"cannot look at {folder}/nv3: No such file or directory" in missing.err
