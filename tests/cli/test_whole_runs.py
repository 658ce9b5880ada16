"""Runs that work: the file, the figures, the memory, the time, and the same work every time."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from kvbench_command import KVBENCH, QUICK, Command, Ended, attributes, column, decisions, overrides, remains
from samples import sample_trace

from kvbench.units import MIB
from kvbench.workload.trace_samples import write_samples

Call = Callable[..., Ended]
Start = Callable[..., Command]

SMALL_MODEL = "model={layers: 1, kv_heads: 1, head_dim: 16}"
"""Blocks of 512 tokens are 32 KiB."""

DATA = Path(os.environ.get("KVBENCH_DATA", Path(__file__).resolve().parents[2] / ".." / "shared" / "data")) / "traces"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """The real trace where its folder is there, else the sample that kvbench makes itself."""
    real = DATA / "mooncake_synthetic.jsonl"
    return real if real.exists() else sample_trace(tmp_path, "mooncake")


def replay(trace: Path, *settings: str) -> tuple[str, ...]:
    """Settings for the first requests of a trace, as fast as possible, through tiers that they overflow."""
    return (
        *QUICK,
        f"workload={{kind: trace, path: {trace}, max_requests: 40}}",
        "pacing.mode=asap",
        "duration_s=null",
        SMALL_MODEL,
        "cache.block_tokens=512",
        "tiers.0.capacity_bytes=1MiB",
        "tiers.1.capacity_bytes=2MiB",
        *settings,
    )


def predicted(start: Start, *settings: str, ranks: int = 1) -> dict[str, int]:
    """What `kvbench datasize` says."""
    words = (*KVBENCH, "datasize", "smoke", *overrides(*settings), "--ranks", ranks, "--json")
    sizes: dict[str, int] = json.loads(start(*words).ended().out)
    return sizes


@pytest.mark.slow
def test_two_ranks_make_one_file_in_their_time_and_memory(
    start: Start, start_run: Start, kvbench: Call, folder: Path, tmp_path: Path
) -> None:
    (folder / "mine").write_text("precious")
    ended = start_run(*QUICK, options=("--ranks", 2)).ended()
    assert ended.code == 0, ended.err
    assert ended.err == ""
    assert "\x1b" not in ended.out, "plain where there is no terminal"
    assert remains(folder) == ["mine"]

    run_file = tmp_path / "run.h5"
    described = attributes(run_file)
    assert (described["status"], described["ranks"], described["nodes"]) == ("complete", 2, 1)
    assert described["mpi"].startswith(("Open MPI", "MPICH", "Intel"))
    measured_s = (described["measure_end_ns"] - described["measure_start_ns"]) / 1e9
    assert 0.2 < measured_s < 0.4 + 3
    assert column(run_file, "ranks/rows").sum() == len(column(run_file, "records/op"))
    parts = [column(run_file, f"records/{part}_ns") for part in ("device", "host", "runq")]
    assert np.array_equal(np.sum(parts, axis=0), column(run_file, "records/wall_ns"))
    assert column(run_file, "ranks/verified_sectors").min() > 0

    sizes = predicted(start, *QUICK, ranks=2)
    peak = column(run_file, "ranks/peak_rss_bytes")
    assert sizes["memory_per_rank_bytes"] == pytest.approx(peak[0], rel=0.1)
    assert column(run_file, "ranks/predicted_peak_bytes") == pytest.approx(peak, rel=0.1)
    check_summaries(kvbench, run_file, ended)


def check_summaries(kvbench: Call, run_file: Path, run: Ended) -> None:
    """What the run printed at its end is a screenful that names `summary`, which has the rest, and the JSON too."""
    text = kvbench("summary", run_file)
    assert text.code == 0
    printed = run.out.splitlines()
    last = printed[next(place for place, line in enumerate(printed) if line.startswith(f"{run_file}: ")) :]
    assert len(last) < 24
    assert last[0] == text.out.splitlines()[0]
    assert last[1].startswith("storage reads: ")
    assert last[-1] == f"all figures: kvbench summary {run_file}"
    assert "Operations of the measured phase, all ranks" in run.out
    assert "Operations of the measured phase, all ranks" in text.out
    assert "Per rank: " in text.out
    assert "Per rank: " not in run.out
    figures = json.loads(kvbench("summary", run_file, "--json").out)
    assert figures["run"]["fingerprint"] == attributes(run_file)["fingerprint"]

    whole = run_file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"not HDF5 at all", b""):
        run_file.write_bytes(damaged)
        ended = kvbench("summary", run_file)
        assert ended.code == 1
        assert len(ended.messages) == 1
        assert str(run_file) in ended.messages[0]
    ended = kvbench("summary", run_file.with_name("nowhere.h5"))
    assert ended.messages == [f"kvbench: cannot read {run_file.with_name('nowhere.h5')}: No such file or directory"]


@pytest.mark.slow
def test_memory_does_not_depend_on_the_size_of_an_entry(start: Start, start_run: Start, tmp_path: Path) -> None:
    """16 threads write entries of at most 2 MiB, and then of many times what a thread has of the arena (4 MiB)."""
    settings = (
        *QUICK,
        "io.threads=16",
        "io.arena_bytes=64MiB",
        "tiers=[{kind: file, capacity_bytes: 768MiB}]",
        "cache.layout=entry",
        "workload.mode=prefill",
        "workload.users=16",
        "workload.think_time_scale=0",
    )
    peaks = []
    for layers, smallest_bytes, largest_bytes in ((1, 0, 2 * MIB), (16, 8 * MIB, 32 * MIB)):
        out = tmp_path / f"{layers}.h5"
        sized = (*settings, f"model={{layers: {layers}, kv_heads: 2, head_dim: 64}}")
        ended = start_run(*sized, out=out).ended()
        assert ended.code == 0, ended.err
        assert smallest_bytes < column(out, "records/nbytes").max() <= largest_bytes
        assert column(out, "records/inflight").max() == 16
        peaks.append(int(column(out, "ranks/peak_rss_bytes")[0]))
    assert peaks[1] == pytest.approx(peaks[0], rel=0.05)
    assert predicted(start, *sized)["memory_per_rank_bytes"] == pytest.approx(peaks[1], rel=0.1)


@pytest.mark.slow
def test_a_replay_decides_the_same_every_time_and_as_datasize_said(
    start: Start, kvbench: Call, trace: Path, folder: Path, tmp_path: Path
) -> None:
    """Once without an MPI library, as one rank, and once in this process, with another number of threads at work."""
    settings = replay(trace)
    first, second = tmp_path / "first.h5", tmp_path / "second.h5"
    words = ("run", "smoke", "--dir", folder, *overrides(*settings), "--out")
    alone = start(*KVBENCH, *words, first, environment={"MPI4PY_LIBMPI": "/nonexistent/libmpi.so"}).ended()
    assert alone.code == 0, alone.err
    assert kvbench(*words, second).code == 0

    assert attributes(first)["mpi"].startswith("none")
    assert attributes(first)["fingerprint"] == attributes(second)["fingerprint"]
    assert attributes(first)["decision_order"] == "schedule"
    assert np.array_equal(decisions(first), decisions(second))
    assert (column(first, "records/errno") == 0).all()

    sizes = json.loads(kvbench("datasize", "smoke", *overrides(*settings), "--json").out)
    assert sizes["demand"]["operations"] == len(decisions(first))
    assert sizes["demand"]["requests"] == len(column(first, "requests/request"))
    to_storage = (column(first, "records/tier") == 1) & np.isin(column(first, "records/op"), (1, 2))
    assert sizes["demand"]["written_bytes"] == column(first, "records/nbytes")[to_storage].sum()
    assert sizes["storage_per_rank_bytes"] <= 2 * 1024**2
    assert sizes["storage_per_rank_bytes"] == pytest.approx(2 * 1024**2, rel=0.02)


@pytest.mark.slow
def test_a_replay_at_any_speed_decides_the_same(kvbench: Call, trace: Path, folder: Path, tmp_path: Path) -> None:
    files = []
    for speedup in (5_000, 100_000):
        files.append(tmp_path / f"{speedup}.h5")
        settings = overrides(*replay(trace, "pacing.mode=open", f"pacing.speedup={speedup}"))
        assert kvbench("run", "smoke", "--dir", folder, "--out", files[-1], *settings).code == 0
    assert np.array_equal(decisions(files[0]), decisions(files[1]))


@pytest.mark.slow
def test_two_ranks_replay_each_request_of_a_trace_once(start_run: Start, trace: Path, tmp_path: Path) -> None:
    ended = start_run(*replay(trace), options=("--ranks", 2)).ended()
    assert ended.code == 0, ended.err
    ranks, tokens = (column(tmp_path / "run.h5", f"requests/{name}") for name in ("rank", "context_tokens"))
    assert np.bincount(ranks).tolist() == [20, 20]
    asked = [json.loads(line)["input_length"] for line in trace.read_text().splitlines()[:40]]
    assert sorted(tokens) == sorted(asked)


@pytest.mark.slow
def test_an_override_changes_the_run_and_its_fingerprint(kvbench: Call, folder: Path, tmp_path: Path) -> None:
    fingerprints = set()
    for number, setting in enumerate(("seed=43", "workload.users=3")):
        out = tmp_path / f"{number}.h5"
        assert kvbench("run", "smoke", "--dir", folder, "--out", out, *overrides(*QUICK, setting)).code == 0
        described = attributes(out)
        fingerprints.add(described["fingerprint"])
        config = json.loads(described["config_json"])
        assert (config["seed"], config["workload"]["users"]) == ((43, 2), (42, 3))[number]
    assert len(fingerprints) == 2


@pytest.mark.slow
def test_the_run_file_is_replaced_when_asked_to(kvbench: Call, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder" / "run.h5"
    words = ("run", "smoke", "--dir", folder, "--out", out, *overrides(*QUICK))
    assert kvbench(*words).code == 0
    first = attributes(out)["run_id"]
    assert kvbench(*words, "--overwrite").code == 0
    assert attributes(out)["run_id"] != first
    assert remains(out.parent) == ["run.h5"]


@pytest.mark.slow
def test_doctor_finds_a_directory_fit_and_a_missing_one_not(start: Start, folder: Path, tmp_path: Path) -> None:
    fit = start(*KVBENCH, "doctor", "--dir", folder, environment={"COLUMNS": "200"}).ended()
    assert fit.code == 0, fit.out
    for subject in ("MPI", "timer", "schedstat", "filesystem", "read direct", "free space", "clock"):
        assert subject in fit.out, subject
    assert remains(folder) == []
    unfit = start(*KVBENCH, "doctor", "--dir", tmp_path / "nowhere", environment={"COLUMNS": "200"}).ended()
    assert unfit.code == 1
    assert f"{tmp_path}/nowhere does not exist" in unfit.out


def test_trace_info_describes_every_format(kvbench: Call, tmp_path: Path) -> None:
    for name, path in write_samples(tmp_path, np.random.default_rng(7)).items():
        ended = kvbench("trace", "info", path)
        assert ended.code == 0
        assert name in ended.out
        assert "requests" in ended.out


def test_trace_info_of_the_real_traces(kvbench: Call) -> None:
    if not DATA.is_dir():
        pytest.skip(f"needs the traces of {DATA}; KVBENCH_DATA names another folder")
    for name, requests in (("mooncake_synthetic.jsonl", "3993"), ("azure_llm_code_2023.csv", "8819")):
        ended = kvbench("trace", "info", DATA / name)
        assert ended.code == 0
        assert requests in ended.out.replace(",", "").replace(" ", "")


def test_the_shipped_configurations_are_listed_and_can_be_sized(kvbench: Call, folder: Path) -> None:
    names = kvbench("configs").out.split()
    assert {"smoke", "quickstart", "personas"} <= set(names)
    sized = kvbench("datasize", "smoke", "--dir", folder, "--ranks", 4, "--nodes", 2)
    assert sized.code == 0
    assert "memory at its peak" in sized.out
    refused = kvbench("datasize", "smoke", "--ranks", 1, "--nodes", 2)
    assert refused.messages == ["kvbench: 1 ranks cannot run on 2 nodes: give at least one rank for each"]
