"""The study of engines: which runs it starts and keeps, in which order, and what it refuses."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from obstore.store import LocalStore
from rich.console import Console

from kvbench.errors import KvbenchError
from kvbench.studies import engines, jobs
from kvbench.studies.bucket_limit import measure_bucket_limit
from kvbench.studies.engines import EngineChoices, EngineRun, engines_for, plan_runs, run_engines
from kvbench.studies.limit import Limit, measure_limit
from kvbench.tiers.object.failures import RequestError
from kvbench.tiers.object.requests import Requests
from kvbench.tiers.object.target import BucketTarget
from kvbench.units import MIB

TWINS = ("lmcache-disk", "hicache-file", "vllm-fs")


def choices(tmp_path: Path, **changes: Any) -> EngineChoices:
    values: dict[str, Any] = {
        "source": "conversations",
        "overrides": (),
        "place": str(tmp_path),
        "engines": TWINS,
        "ranks": 2,
        "repeats": 5,
        "seed": 1,
        "out": tmp_path / "table.csv",
        "overwrite": False,
    }
    return EngineChoices(**(values | changes))


def test_each_repeat_has_every_twin_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    runs = plan_runs(choices(tmp_path))
    blocks = [[run.twin.name for run in runs[first : first + 3]] for first in range(0, 15, 3)]
    assert [sorted(block) for block in blocks] == [sorted(TWINS)] * 5
    assert len({tuple(block) for block in blocks}) > 1
    assert [run.repeat for run in runs] == [repeat for repeat in range(5) for _ in TWINS]
    assert runs == plan_runs(choices(tmp_path))
    assert runs != plan_runs(choices(tmp_path, seed=2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engines": ("lmcache-disk", "wrong")}, "there is no such twin"),
        ({"engines": ("vllm-fs", "vllm-fs")}, "stands there twice"),
        ({"overrides": ("duration_s=5",)}, "duration_s=null"),
        ({"overrides": ("pacing.most_requests=null",)}, "pacing.most_requests"),
        ({"overrides": ("records=histogram",)}, "records=full"),
        ({"source": "smoke"}, "have blocks that it could keep"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(KvbenchError, match=message):
        plan_runs(choices(tmp_path, **changes))


def test_the_limit_is_measured_once_in_each_repeat_and_a_run_that_fails_keeps_those_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = iter(Limit(float(number), direct=True) for number in range(1, 6))
    monkeypatch.setattr(engines, "measure_limit", lambda directory: next(limits))
    started: list[Sequence[str]] = []

    def start(ranks: int, arguments: Sequence[str], hosts: None, program: Sequence[str]) -> int:
        started.append(arguments)
        assert ranks == 2
        return 1 if len(started) == 5 else 0

    monkeypatch.setattr(jobs, "start_ranks", start)
    told: list[tuple[EngineRun, Path, Limit]] = []

    def record(run: EngineRun, path: Path, limit: Limit) -> str:
        told.append((run, path, limit))
        return "figures"

    wanted = choices(tmp_path)
    with pytest.raises(KvbenchError, match=r"failed with exit code 1.*the 4 runs before it are in"):
        run_engines(wanted, record, Console(quiet=True))
    assert [limit.gib_per_s for _, _, limit in told] == [1, 1, 1, 2]
    assert [run for run, _, _ in told] == plan_runs(wanted)[:4]
    assert [f'"engine": "{run.engine}"' in text for (run, _, _), (text,) in zip(told, started, strict=False)] == [
        True
    ] * 4
    assert told[0][1].parent == tmp_path / "table-runs"


@pytest.mark.parametrize("named", [False, True])
def test_the_limit_of_a_storage_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: bool
) -> None:
    if named:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_RDWR)
    limit = measure_limit(tmp_path, 8 * MIB)
    assert limit.gib_per_s > 0
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "twins", "message"),
    [
        (
            "s3://bucket/x",
            ("lmcache-s3", "vllm-fs"),
            "vllm-fs keeps its blocks in files, and s3://bucket/x is a bucket",
        ),
        (
            "here",
            ("lmcache-s3", "lmcache-s3-l2"),
            "lmcache-s3, lmcache-s3-l2 keep their blocks in objects, and here is",
        ),
        ("nowhere", TWINS, "nowhere does not exist"),
        ("ftp://bucket/x", TWINS, "does not exist: files lie in a directory"),
    ],
)
def test_a_twin_that_does_not_go_there_is_named_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, twins: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(KvbenchError, match=message):
        run_engines(choices(tmp_path, place=place, engines=twins), lambda *_: "", Console(quiet=True))
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_every_twin_goes_to_a_directory_or_to_a_bucket() -> None:
    files, objects = engines_for("/mnt")
    assert (objects, files) == engines_for("s3://bucket")
    assert "lmcache-s3" in objects
    assert set(TWINS) < set(files)


@pytest.fixture
def bucket(tmp_path: Path) -> BucketTarget:
    """A folder stands for it."""
    return BucketTarget("s3://bucket/some/prefix", Requests(LocalStore(tmp_path), "s3", 0))


def test_the_limit_of_a_bucket_leaves_nothing_behind(tmp_path: Path, bucket: BucketTarget) -> None:
    limit = measure_bucket_limit(bucket, 16 * MIB)
    assert limit.gib_per_s > 0
    assert limit.requests
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_store_that_fails_while_its_limit_is_measured_is_named_and_nothing_is_left(
    tmp_path: Path, bucket: BucketTarget, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise RequestError(5, "the store answered 503")

    monkeypatch.setattr(Requests, "get", fail)
    monkeypatch.setattr("kvbench.tiers.object.place.is_marked", said_to_be_marked)
    with pytest.raises(KvbenchError, match=r"s3://bucket/some/prefix: what the store gives.*503.*kvbench clean"):
        measure_bucket_limit(bucket, 16 * MIB)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


async def said_to_be_marked(*_: object) -> bool:
    """Of a marker that cannot be read as nothing is got any more."""
    return True


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(KvbenchError, match=r"cannot make a file in .*nowhere"):
        measure_limit(tmp_path / "nowhere")


@pytest.mark.slow
def test_a_study_of_two_twins_is_carried_out_and_printed(tmp_path: Path) -> None:
    from kvbench.studies.engines_table import EnginesTable  # noqa: PLC0415 - pandas, for this test alone

    out = tmp_path / "table.csv"
    small = ("workload.users=1", "workload.turns.number={0: 2, 100: 2}", "calibration.seconds=0")
    wanted = choices(tmp_path, engines=TWINS[:2], ranks=1, repeats=1, overrides=small, out=out)
    run_engines(wanted, EnginesTable(out).add, Console(quiet=True))
    table = pd.read_csv(out)
    assert sorted(table["engine"]) == sorted(TWINS[:2])
    assert len(set(table["requests_digest"])) == 1
    assert (table["load_gib"] > 0).all()
