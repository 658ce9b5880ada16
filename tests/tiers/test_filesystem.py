"""The filesystem that a directory is on."""

import os
from pathlib import Path

import psutil
import pytest

from kvbench.tiers.file import filesystem
from kvbench.tiers.file.filesystem import filesystem_of, on_one_filesystem, reach_of
from kvbench.tiers.target import Volume


def test_a_filesystem_is_the_one_that_a_path_is_on(tmp_path: Path) -> None:
    found = filesystem_of(tmp_path)
    assert os.path.ismount(found.mount_point)
    assert tmp_path.resolve().is_relative_to(found.mount_point)
    assert os.stat(found.mount_point).st_dev == tmp_path.stat().st_dev
    assert found.total_bytes == psutil.disk_usage(str(tmp_path)).total
    assert {"rw", "ro"} & set(found.options.split(","))
    file = tmp_path / "file"
    file.touch()
    assert filesystem_of(file).mount_point == found.mount_point


def test_a_filesystem_is_named_as_in_the_mount_table() -> None:
    assert filesystem_of(Path("/proc")).kind == "proc"
    assert not filesystem_of(Path("/proc/self")).in_memory


@pytest.mark.parametrize("kind", ["nfs4", "ceph", "fuse.ceph-fuse", "fuse.glusterfs"])
def test_what_several_machines_mount_is_known_by_its_name(kind: str) -> None:
    assert reach_of(kind) == "network"


def test_a_link_leads_to_the_filesystem_of_its_target(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("/proc")
    assert filesystem_of(link).kind == "proc"


def test_a_path_that_is_not_there_has_no_filesystem(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        filesystem_of(tmp_path / "missing")


@pytest.mark.parametrize(
    ("volume", "one"),
    [
        (Volume("ext4", "/a", "rw", "/dev/vda1", 1, 1), True),
        (Volume("nfs4", "/b", "rw", "server:/export", 1, 1), True),
        (Volume("tmpfs", "/c", "rw", "tmpfs", 1, 1), False),
    ],
)
def test_what_is_mounted_twice_is_one_filesystem_and_two_in_memory_are_not(
    volume: Volume, one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert on_one_filesystem(Path("/proc"), Path("/proc/self"))
    monkeypatch.setattr(filesystem, "filesystem_of", lambda path: volume)
    assert on_one_filesystem(Path("/proc"), Path("/dev")) == one
