"""A block device is written to only with consent, and never while somebody has it or where it holds anything known."""

import os
import shutil
import subprocess
from pathlib import Path as FilePath

import pytest

from kvbench.config.run_config import Io, Layout, RunConfig, TierSection
from kvbench.errors import KvbenchError
from kvbench.tiers.file import signatures
from kvbench.tiers.file.device import DeviceArea, DeviceTarget
from kvbench.tiers.file.signatures import found_on
from kvbench.tiers.kinds import target_of
from kvbench.tiers.target import TierSettings
from kvbench.units import KIB, MIB, SECTOR_BYTES

RUN = "20260101-000000-abc123"
NBYTES = 32 * MIB + 20 * KIB
"""Of the fixture `device`."""


def content(device: str) -> bytes:
    with open(device, "rb", buffering=0) as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return os.pread(file.fileno(), NBYTES, 0)


def area_of(device: str) -> DeviceArea:
    target = DeviceTarget(device)
    target.check()
    target.consent([device])
    return target.area(RUN, 0)


def test_only_slots_are_written_and_one_sector_for_the_time_of_the_run(device: str) -> None:
    before = content(device)
    area = area_of(device)
    area.create()
    assert content(device)[:SECTOR_BYTES].startswith(b'{"program": "kvbench", "run_id": "' + RUN.encode())
    section = TierSection(kind="file", layout=Layout(kind="slab"))
    tier = area.open_tier(TierSettings(section, Io(), 8 * MIB))
    assert tier.most_bytes == 8 * MIB
    tier.close()
    tier = area.open_tier(TierSettings(section, Io(), 2**50))
    assert tier.most_bytes == NBYTES - 2 * MIB
    tier.close()
    area.remove()
    after = content(device)
    assert after[:SECTOR_BYTES] == bytes(SECTOR_BYTES)
    assert after[SECTOR_BYTES:] == before[SECTOR_BYTES:]


def test_without_consent_nothing_is_written(device: str) -> None:
    before = content(device)
    target = DeviceTarget(device)
    for consented in ([], ["/dev/null"], [f"{device}p1"]):
        with pytest.raises(KvbenchError, match=f"will be overwritten: say so with --consent-device {device}$"):
            target.consent(consented)
        with pytest.raises(KvbenchError, match="nobody consented"):
            target.area(RUN, 0).create()
    assert content(device) == before


def test_one_rank_has_it_at_a_time(device: str) -> None:
    first, second = area_of(device), area_of(device)
    first.create()
    with pytest.raises(KvbenchError, match="each rank needs a device of its own"):
        second.create()
    with pytest.raises(KvbenchError, match="each rank needs a device of its own"):
        DeviceTarget(device).check()
    assert second.remove() == ()
    first.remove()
    second.create()
    second.remove()


def test_what_a_killed_run_left_is_no_hindrance_and_the_marker_of_another_stays(device: str) -> None:
    killed = area_of(device)
    killed.create()
    os.close(killed._held.pop())
    again = area_of(device)
    again.create()
    with open(device, "r+b", buffering=0) as file:
        file.write(content(device)[:SECTOR_BYTES].replace(RUN.encode(), b"20260101-000000-def456"))
    again.remove()
    assert b"def456" in content(device)[:SECTOR_BYTES]


def test_a_mounted_device_is_refused(device: str, tmp_path: FilePath) -> None:
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not there")
    subprocess.run(["mkfs.ext4", "-q", "-F", device], check=True)
    place = tmp_path / "mounted"
    place.mkdir()
    if subprocess.run(["mount", device, place], check=False, capture_output=True).returncode:
        pytest.skip("leave to mount (root)")
    try:
        with pytest.raises(KvbenchError, match="is mounted, swapped to, or held"):
            DeviceTarget(device).check()
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.parametrize("words", [("mkfs.ext4", "-q", "-F"), ("mkswap",), ("mkfs.xfs", "-q"), ("mkfs.vfat",)], ids=str)
@pytest.mark.parametrize("by", ["own", "libblkid"])
def test_what_real_programs_put_there_is_seen(
    device: str, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], by: str
) -> None:
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not there")
    made = subprocess.run([*words, device], capture_output=True, check=False)
    if made.returncode:
        pytest.skip(f"{words[0]} does not take so small a device")
    if by == "own":
        monkeypatch.setattr(signatures, "_found_by_libblkid", lambda descriptor: None)
    else:
        monkeypatch.setattr(signatures, "_MARKS", ())
        if not any(
            FilePath(place, "libblkid.so.1").exists() for place in ("/lib/x86_64-linux-gnu", "/usr/lib64", "/lib")
        ):
            pytest.skip("libblkid is not where it is looked for here")
    before = content(device)
    with pytest.raises(KvbenchError, match="kvbench writes to no device that holds anything known"):
        DeviceTarget(device).check()
    assert content(device) == before


@pytest.mark.parametrize(("offset", "mark", "what"), signatures._MARKS, ids=lambda value: str(value)[:20])
def test_every_known_mark_is_seen_where_it_lies(tmp_path: FilePath, offset: int, mark: bytes, what: str) -> None:
    path = tmp_path / "device"
    path.write_bytes(bytes(offset) + mark + bytes(4 * MIB - offset - len(mark)))
    with path.open("rb") as file:
        found = found_on(file.fileno(), 4 * MIB)
    assert found is not None
    assert found == what or any(one == found for at, _, one in signatures._MARKS if at <= offset)


@pytest.mark.parametrize("nbytes", [4 * MIB, 4 * MIB + 68 * KIB, 4 * MIB + 512])
@pytest.mark.parametrize("version", ["0.90", "1.0"])
def test_raid_at_the_end_is_seen(tmp_path: FilePath, nbytes: int, version: str) -> None:
    """Where md(4) says that its superblocks lie."""
    sectors = nbytes // 512
    at = (sectors & ~127) - 128 if version == "0.90" else (sectors - 16) & ~7
    path = tmp_path / "device"
    path.write_bytes(bytes(nbytes))
    with path.open("r+b") as file:
        assert found_on(file.fileno(), nbytes) is None
        os.pwrite(file.fileno(), b"\xfc\x4e\x2b\xa9", at * 512)
        assert found_on(file.fileno(), nbytes) == "Linux RAID"


def test_a_file_or_a_directory_is_no_device(tmp_path: FilePath) -> None:
    for path in (tmp_path, tmp_path / "file", tmp_path / "missing"):
        if path.name == "file":
            path.touch()
        with pytest.raises(KvbenchError, match="is no block device"):
            DeviceTarget(str(path)).check()


def test_it_says_what_it_is(device: str) -> None:
    volume = DeviceTarget(device).describe()
    assert (volume.kind, volume.total_bytes, volume.free_bytes) == ("block device", NBYTES, NBYTES - 2 * MIB)
    assert volume.disk == FilePath(device).name
    assert volume.reach == "local"


def test_a_device_is_a_target_only_of_slabs(device: str) -> None:

    with pytest.raises(KvbenchError, match="is a block device: give a directory, or set layout"):
        target_of(RunConfig(), device).check()
