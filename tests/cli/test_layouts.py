"""Runs whose objects lie in other ways than as a synced file each: the same work, verified, and nothing left."""

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kvbench_command import Ended, attributes, column, overrides, remains

from kvbench.records.schema import Op, Phase
from kvbench.tiers.file.tier import FileTier
from kvbench.tiers.transfer import Cell

Call = Callable[..., Ended]
SHORT = overrides(
    "duration_s=0.8",
    "payload.verify=full",
    "workload.think_time_scale=0",
    "tiers.0.capacity_bytes=12MiB",
    "tiers.1.capacity_bytes=24MiB",
)


def run(kvbench: Call, folder: Path, out: Path, *settings: str) -> Ended:
    return kvbench("run", "smoke", "--dir", folder, "--out", out, *SHORT, *overrides(*settings))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "under test"
    made.mkdir()
    return made


LAYOUTS = {
    "folders": ("{levels: 2, width: 1}", "file, in 2 levels of 16 folders"),
    "renamed": ("{rename: true}", "file, renamed"),
    "bucket": ("{kind: bucket, bucket_bytes: 8MiB}", "buckets of 8 MiB, compacted from 50 % garbage on"),
    "both": ("{levels: 1, rename: true}", "file, in 1 level of 256 folders, renamed"),
}


@pytest.mark.parametrize(
    ("layout", "words"),
    [pytest.param(*LAYOUTS[name], id=name, marks=[pytest.mark.slow] * (name != "bucket")) for name in LAYOUTS],
)
def test_a_run_is_verified_leaves_nothing_and_says_how_objects_lay(
    kvbench: Call, folder: Path, tmp_path: Path, layout: str, words: str
) -> None:
    out = tmp_path / "run.h5"
    ended = run(kvbench, folder, out, f"tiers.1.layout={layout}")
    assert ended.code == 0, ended.err
    assert remains(folder) == []
    assert attributes(out)["layout"] == words
    assert not column(out, "records/errno").any()
    storage = column(out, "records/tier") == 1
    assert {Op.READ, Op.DEMOTE, Op.DELETE} <= set(column(out, "records/op")[storage])
    assert column(out, "ranks/verified_sectors").sum() > 0
    shown = kvbench("summary", out)
    assert f"layout: {words}" in " ".join(shown.out.split())
    assert json.loads(kvbench("summary", out, "--json").out)["run"]["layout"] == words


@pytest.mark.slow
def test_what_buckets_make_necessary_is_shown_beside_what_the_workload_wrote(
    kvbench: Call, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run.h5"
    ended = run(kvbench, folder, out, "tiers.1.layout={kind: bucket, bucket_bytes: 8MiB, garbage: 0.2}", "io.threads=4")
    assert ended.code == 0, ended.err
    assert remains(folder) == []
    op, nbytes, measured = (column(out, f"records/{name}") for name in ("op", "nbytes", "phase"))
    assert not column(out, "records/errno").any()
    moved = nbytes[(op == Op.COMPACT) & (measured == Phase.MEASURE)].sum()
    assert moved > 0
    written = nbytes[np.isin(op, (Op.WRITE, Op.DEMOTE)) & (column(out, "records/tier") == 1)].sum()
    shown = json.loads(kvbench("summary", out, "--json").out)
    (row,) = [row for row in shown["operations"] if row["op"] == "compact"]
    assert (row["tier"], row["bytes"]) == ("file", moved)
    assert (
        sum(row["bytes"] for row in shown["operations"] if row["op"] in ("write", "demote") and row["tier"] == "file")
        == written
    )
    times = f"({(written + moved) / written:.3g} bytes for each that the workload wrote)"
    assert shown["headlines"][-1].startswith("written to storage: ")
    assert shown["headlines"][-1].endswith(times)
    assert times in " ".join(ended.out.split())


@pytest.mark.parametrize(
    "sync", ["end", *(pytest.param(each, marks=pytest.mark.slow) for each in ("none", "object", "batch"))]
)
def test_a_run_says_when_what_was_written_was_synced(kvbench: Call, folder: Path, tmp_path: Path, sync: str) -> None:
    out = tmp_path / "run.h5"
    ended = run(kvbench, folder, out, f"io.sync={sync}")
    assert ended.code == 0, ended.err
    assert attributes(out)["sync"] == sync
    op, span = column(out, "records/op"), column(out, "records/span_ns")
    demoted = op == Op.DEMOTE
    assert demoted.any()
    assert (span[demoted] > 0).all() == (sync == "object")
    assert (span[demoted] == 0).all() == (sync != "object")
    syncs = op == Op.SYNC
    assert (syncs.sum() == 1) == (sync == "end")
    assert (syncs.sum() > 1) == (sync == "batch")
    words = {
        "none": "writes not synced",
        "object": "",
        "batch": "writes synced at the end of each batch",
        "end": "writes synced all at once at the end",
    }[sync]
    first = kvbench("summary", out).out.partition("percentiles:")[0]
    assert words in " ".join(first.split())
    assert ("synced" in first) == (sync != "object")
    if sync == "batch":
        batch, tier = column(out, "records/batch"), column(out, "records/tier")
        written = np.isin(op, (Op.WRITE, Op.DEMOTE)) & (tier == 1)
        assert sorted(set(batch[written])) == sorted(batch[syncs]), "each batch that wrote to storage has one"
        assert (tier[syncs] == 1).all()
    if sync == "end":
        start, wall = column(out, "records/t_start_ns"), column(out, "records/wall_ns")
        assert (start[~syncs] + wall[~syncs]).max() <= start[syncs][0]
        assert attributes(out)["measure_end_ns"] == start[syncs][0] + wall[syncs][0]
        assert column(out, "records/phase")[syncs] == Phase.MEASURE
        shown = json.loads(kvbench("summary", out, "--json").out)
        (row,) = [row for row in shown["operations"] if row["op"] == "sync"]
        assert (row["tier"], row["operations"], row["bytes"]) == ("file", 1, 0)


def test_what_cannot_be_laid_out_or_synced_is_refused(kvbench: Call) -> None:
    for settings, words in (
        (("tiers.0.layout.levels=1",), "tiers.0: layout is for file tiers; leave it out for the memory tier"),
        (
            ("tiers.1.kind=null", "tiers.1.capacity_bytes=1GiB", "io.sync=none"),
            "io.sync: only what is written to a file",
        ),
        (
            ("tiers=[{kind: file}]", "namespace=shared", "io.sync=end"),
            "io.sync: other ranks are told of an object once",
        ),
        (
            ("tiers=[{kind: file}]", "namespace=shared", "io.sync=batch"),
            "io.sync: other ranks are told of an object once",
        ),
        (
            ("tiers=[{kind: file, layout: {kind: bucket}}]", "namespace=shared"),
            "namespace: ranks share objects in files of their own; a bucket is its own rank's",
        ),
        (("tiers.1.layout.garbage=0.2",), "bucket_bytes and garbage are for buckets; leave them out for a file"),
        (("tiers.1.layout={kind: bucket, garbage: 1}",), "tiers.1.layout.garbage: expected 0.9 or less"),
        (("tiers.1.layout={kind: bucket, bucket_bytes: 5000}",), "tiers.1.layout.bucket_bytes: expected a multiple"),
        (("tiers.1.layout={kind: bucket, levels: 1}",), "levels, rename and ask_first are for files of single objects"),
        (
            ("tiers.1.layout={kind: bucket}", "io.read_path=numpy"),
            "io.read_path: numpy reads .npy files; a bucket has none",
        ),
        (("tiers.1.layout.levels=5",), "tiers.1.layout.levels: expected 4 or less"),
    ):
        ended = kvbench("datasize", "smoke", *overrides(*settings))
        assert ended.code == 1
        assert words in " ".join(ended.err.split())


def test_a_sync_at_the_end_that_fails_is_a_failure_of_the_run(
    kvbench: Call, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(tier: FileTier, cell: Cell) -> None:
        with cell.around_python():
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(FileTier, "sync", fail)
    out = tmp_path / "run.h5"
    ended = run(kvbench, folder, out, "io.sync=end")
    assert ended.code == 1
    assert "sync of the file tier at the end failed: Input/output error" in " ".join(ended.err.split())
    assert attributes(out)["status"] == "failed"
    assert column(out, "records/errno")[column(out, "records/op") == Op.SYNC].tolist() == [errno.EIO]
    assert remains(folder) == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (
            ("tiers.1.layout={kind: bucket, bucket_bytes: 4KiB}",),
            "layout.bucket_bytes: the largest object is",
        ),
        (
            ("tiers.1.capacity_bytes=1000PiB", "tiers.1.layout={kind: bucket}"),
            "needs 2000 PiB (with 50 % garbage and two buckets of 256 MiB)",
        ),
    ],
)
def test_buckets_that_cannot_hold_what_they_must_are_refused(
    kvbench: Call, folder: Path, tmp_path: Path, settings: tuple[str, ...], words: str
) -> None:
    ended = run(kvbench, folder, tmp_path / "run.h5", *settings)
    assert ended.code == 1
    assert words in " ".join(ended.err.split())
    assert remains(folder) == []
