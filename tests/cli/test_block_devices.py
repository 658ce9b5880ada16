"""Runs on block devices: only with consent, each rank on its own, verified, and with no trace of kvbench afterwards."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kvbench_command import Command, Ended, attributes, column, overrides
from samples import sample_trace

from kvbench.records.schema import Op
from kvbench.units import MIB

Call = Callable[..., Ended]
Start = Callable[..., Command]
NBYTES = 64 * MIB


@pytest.fixture
def devices(tmp_path: Path) -> Iterator[list[Path]]:
    """Two loop devices, as links called dev0 and dev1."""
    if shutil.which("losetup") is None or os.geteuid() != 0:
        pytest.skip("a loop device needs losetup and root")
    made: list[str] = []
    links = [tmp_path / f"dev{number}" for number in range(2)]
    for link in links:
        backing = tmp_path / f"{link.name}.backing"
        backing.write_bytes(bytes(NBYTES))
        words = ["losetup", "--find", "--show", str(backing)]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no loop device: {done.stderr.strip()}")
        made.append(done.stdout.strip())
        link.symlink_to(made[-1])
    yield links
    for name in made:
        subprocess.run(["losetup", "--detach", name], check=True)


def settings(tmp_path: Path, *more: str) -> list[str]:
    trace = sample_trace(tmp_path, "deltas", requests=150)
    return overrides(
        f"workload.path={trace}",
        "workload.format=deltas",
        "workload.deal=session",
        "model={layers: 4, kv_heads: 4, head_dim: 16}",
        "tiers=[{kind: memory, capacity_bytes: 4MiB}, {kind: file, layout: {kind: slab}}]",
        "pacing.mode=asap",
        "duration_s=null",
        "io.threads=2",
        "io.arena_bytes=8MiB",
        "calibration.bytes=8MiB",
        "calibration.seconds=0.02",
        "payload.verify=full",
        *more,
    )


def beginning(device: Path) -> bytes:
    with device.open("rb", buffering=0) as file:
        return file.read(4096)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["buffered", "direct"])
def test_a_run_on_a_device_is_verified_and_gives_it_back(
    kvbench: Call, devices: list[Path], tmp_path: Path, path: str
) -> None:
    out, device = tmp_path / "run.h5", devices[0]
    words = settings(tmp_path, f"io.read_path={path}", f"io.write_path={path}")
    ended = kvbench("run", "mooncake", "--dir", device, "--consent-device", device, "--out", out, "--no-spill", *words)
    assert ended.code == 0, ended.err
    assert beginning(device) == bytes(4096)
    assert attributes(out)["layout"] == "slab"
    assert not column(out, "records/errno").any()
    op, tier = column(out, "records/op"), column(out, "records/tier")
    assert {Op.READ, Op.DEMOTE} <= set(op[tier == 1].tolist())
    assert column(out, "ranks/verified_sectors").sum() > 0
    assert column(out, "nodes/filesystem").tolist() == [b"block device"]
    assert column(out, "ranks/storage_capacity_bytes").tolist() == [int((NBYTES - 2 * MIB) * 0.95) // 4096 * 4096]


def test_without_consent_nothing_is_begun(kvbench: Call, devices: list[Path], tmp_path: Path) -> None:
    device, words = devices[0], settings(tmp_path)
    before = device.read_bytes()
    out = ("--out", tmp_path / "run.h5", "--no-spill")
    for consent, told in (
        ((), f"say so with --consent-device {device}"),
        (("--consent-device", devices[1]), f"say so with --consent-device {device}"),
    ):
        ended = kvbench("run", "mooncake", "--dir", device, *consent, *out, *words)
        assert ended.code == 1
        assert told in " ".join(ended.err.split())
    ended = kvbench("run", "smoke", "--dir", tmp_path, "--consent-device", device, *out)
    assert "nothing is written to a block device here" in " ".join(ended.err.split())
    assert device.read_bytes() == before


def test_a_device_that_holds_a_filesystem_is_left_alone(kvbench: Call, devices: list[Path], tmp_path: Path) -> None:
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not there")
    device, words = devices[0], settings(tmp_path)
    subprocess.run(["mkfs.ext4", "-q", "-F", device], check=True)
    before = device.read_bytes()
    ended = kvbench(
        *("run", "mooncake", "--dir", device, "--consent-device", device),
        *("--out", tmp_path / "run.h5", "--no-spill", *words),
    )
    assert ended.code == 1
    assert f"{device} holds ext2, ext3, ext4 or Lustre: kvbench writes to no device" in " ".join(ended.err.split())
    assert device.read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("own", [pytest.param(True, marks=pytest.mark.slow), False])
def test_each_rank_needs_a_device_of_its_own(start: Start, devices: list[Path], tmp_path: Path, own: bool) -> None:
    given = tmp_path / ("dev{local_rank}" if own else "dev0")
    consent = [word for device in devices for word in ("--consent-device", device)]
    command = start(
        *("kvbench", "run", "mooncake", "--ranks", 2, "--dir", given, *consent),
        *("--out", tmp_path / "run.h5", "--no-spill", *settings(tmp_path)),
    )
    ended = command.ended()
    assert ended.code == (0 if own else 1), ended.err
    if own:
        assert (column(tmp_path / "run.h5", "ranks/verified_sectors") > 0).all()
    else:
        assert "each rank needs a device of its own" in " ".join(ended.err.split())
    assert [beginning(device) for device in devices] == [bytes(4096)] * 2
