"""`kvbench plan`: its figures are those of an independent simulation, and of a run that carries the decisions out."""

import json
import shutil
import subprocess
from collections import Counter, OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kvbench_command import KVBENCH, QUICK, Command, Ended, column, decisions, overrides

from kvbench.cluster.launch.mpirun import Mpirun, mpirun_command, mpirun_environment
from kvbench.records.schema import Op, label
from kvbench.units import KIB, MIB
from kvbench.workload.trace_samples import write_samples

Call = Callable[..., Ended]
Start = Callable[..., Command]

BLOCK = 32 * KIB
"""Of 512 tokens of the smallest model."""
SMALL_MODEL = "model={layers: 1, kv_heads: 1, head_dim: 16}"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return write_samples(tmp_path, np.random.default_rng(7), requests=400)["mooncake"]


def settings(trace: Path, *more: str) -> tuple[str, ...]:
    return (f"workload.path={trace}", SMALL_MODEL, *more)


def planned(kvbench: Call, trace: Path, *more: object) -> dict[str, Any]:
    """What `kvbench plan --json` says of a replay."""
    ended = kvbench("plan", "mooncake", *overrides(*settings(trace)), "--json", *more)
    assert ended.code == 0, ended.err
    figures: dict[str, Any] = json.loads(ended.out)
    return figures


def simulated(trace: Path, blocks: int) -> int:
    """Blocks found before the first gap in an LRU of so many blocks, each request's chain aged tail first."""
    held: OrderedDict[int, None] = OrderedDict()
    found = 0
    for line in trace.read_text().splitlines():
        ids = json.loads(line)["hash_ids"]
        found += next((place for place, block in enumerate(ids) if block not in held), len(ids))
        for block in reversed(ids):
            held.pop(block, None)
            if len(held) == blocks:
                held.popitem(last=False)
            held[block] = None
    return found


@pytest.mark.parametrize("blocks", [20, 60, 150, 400])
def test_hits_are_those_of_an_independent_simulation(kvbench: Call, trace: Path, blocks: int) -> None:
    figures = planned(kvbench, trace, "--capacity", f"{blocks}blocks")
    assert figures["prefix"]["hit_blocks"] == simulated(trace, blocks)
    assert figures == planned(kvbench, trace, "--capacity", blocks * BLOCK)


def test_what_was_not_found_is_told_apart(kvbench: Call, trace: Path) -> None:
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    figures = planned(kvbench, trace, "--capacity", "60blocks")
    prefix = figures["prefix"]
    assert figures["requests"] == 400
    assert figures["input_tokens"] == sum(line["input_length"] for line in lines)
    assert figures["full_blocks"] == sum(line["input_length"] // 512 for line in lines)
    assert figures["blocks"] == sum(len(line["hash_ids"]) for line in lines)
    assert prefix["never_seen_blocks"] == len({block for line in lines for block in line["hash_ids"]})
    missing = ("never_seen_blocks", "evicted_blocks", "behind_gap_blocks")
    assert prefix["hit_blocks"] + sum(prefix[name] for name in missing) == figures["blocks"]
    assert prefix["unlimited_hit_blocks"] == simulated(trace, 10**9)
    assert prefix["unlimited_hit_blocks"] == planned(kvbench, trace)["prefix"]["hit_blocks"]


def test_a_person_reads_the_same(kvbench: Call, trace: Path) -> None:
    figures = planned(kvbench, trace, "--capacity", "60blocks")
    told = kvbench("plan", "mooncake", *overrides(*settings(trace)), "--capacity", "60blocks").out
    assert f"prefix hits: {figures['prefix']['hit_share']:.2%} of prompt tokens (lru)" in told
    assert "decided, nothing was read or written" in told


@pytest.mark.parametrize(
    ("ranks", "pacing"),
    [(1, "asap"), (1, "open"), *(pytest.param(4, pacing, marks=pytest.mark.slow) for pacing in ("asap", "open"))],
)
def test_a_run_does_what_was_planned(
    start_run: Start, kvbench: Call, trace: Path, tmp_path: Path, ranks: int, pacing: str
) -> None:
    more = (
        *settings(trace, f"pacing.mode={pacing}", "workload.deal=round-robin", "cache.write=write-through"),
        *("tiers.0={kind: memory, capacity_bytes: 1MiB}", "tiers.1={kind: file, capacity_bytes: 3MiB}"),
    )
    run = start_run(
        *more,
        *QUICK,
        "duration_s=null",
        "pacing.speedup=50",
        "io.threads=2",
        "payload.verify=full",
        config="mooncake",
        options=("--ranks", ranks) if ranks > 1 else (),
    )
    assert run.ended().code == 0
    ended = kvbench("plan", "mooncake", *overrides(*more), "--ranks", ranks, "--json")
    assert ended.code == 0, ended.err
    figures = json.loads(ended.out)
    file = tmp_path / "run.h5"
    ops, tiers, nbytes = (column(file, f"records/{name}") for name in ("op", "tier", "nbytes"))
    assert column(file, "requests/hit_objects").sum() == figures["prefix"]["hit_blocks"] > 0
    assert column(file, "requests/hit_tokens").sum() == figures["prefix"]["hit_tokens"]
    for number, tier in enumerate(figures["tiers"]):
        mine = tiers == number
        assert nbytes[mine & (ops == Op.READ)].sum() == tier["hit_blocks"] * BLOCK
        assert nbytes[mine & np.isin(ops, [Op.WRITE, Op.DEMOTE])].sum() == tier["written_bytes"]
        assert np.count_nonzero(mine & (ops == Op.DELETE)) == tier["deleted_blocks"]


GPU = (
    "tiers.0={kind: gpu, capacity_bytes: 512KiB}",
    "tiers.1={kind: memory, capacity_bytes: 1MiB}",
    "tiers.2={kind: file, capacity_bytes: 2MiB}",
)


def test_a_run_keeps_answers_as_was_planned(start_run: Start, kvbench: Call, tmp_path: Path) -> None:
    """Where a trace knows what answers said, their blocks are written, and found by the turn behind."""
    trace = write_samples(tmp_path, np.random.default_rng(7), requests=400)["deltas"]
    more = (
        *settings(trace, "workload.format=deltas", "pacing.mode=asap"),
        "tiers=[{kind: file, capacity_bytes: 8MiB}]",
    )
    quick = (*QUICK, "duration_s=null", "io.threads=2", "payload.verify=full")
    assert start_run(*more, *quick, config="mooncake").ended().code == 0
    kept, left_out = (
        json.loads(kvbench("plan", "mooncake", *overrides(*more, f"cache.store_answers={kept}"), "--json").out)
        for kept in ("true", "false")
    )
    file = tmp_path / "run.h5"
    ops, nbytes = (column(file, f"records/{name}") for name in ("op", "nbytes"))
    assert nbytes[ops == Op.WRITE].sum() == kept["tiers"][0]["written_bytes"] > left_out["tiers"][0]["written_bytes"]
    hits, misses = (column(file, f"requests/{name}_objects").sum() for name in ("hit", "miss"))
    assert hits == kept["prefix"]["hit_blocks"] > left_out["prefix"]["hit_blocks"]
    assert hits + misses == kept["blocks"] == left_out["blocks"]
    by_tier = dict(zip(column(file, "prefix/tier").tolist(), column(file, "prefix/blocks").tolist(), strict=True))
    assert by_tier == {0: hits, -1: misses}
    missing = ("never_seen_blocks", "evicted_blocks", "behind_gap_blocks")
    assert sum(kept["prefix"][name] for name in missing) == misses
    assert kept["prefix"]["unlimited_hit_blocks"] == kept["blocks"] - kept["prefix"]["never_seen_blocks"]


def test_a_modelled_tier_decides_what_is_asked_of_those_below_and_is_called_so(
    start_run: Start, kvbench: Call, trace: Path, tmp_path: Path
) -> None:
    more = (*settings(trace, "pacing.mode=asap", *GPU),)
    quick = (*QUICK, "io.threads=2", "duration_s=null", "payload.verify=full")
    assert start_run(*more, *quick, config="mooncake").ended().code == 0
    figures = json.loads(kvbench("plan", "mooncake", *overrides(*more), "--json").out)
    file = tmp_path / "run.h5"
    ops, tiers, nbytes = (column(file, f"records/{name}") for name in ("op", "tier", "nbytes"))
    assert [tier["name"] for tier in figures["tiers"]] == ["gpu (modelled)", "memory", "file"]
    assert figures["tiers"][0]["hit_blocks"] > 0
    assert not (tiers == 0).any()
    assert nbytes[ops == Op.READ].sum() == sum(tier["hit_blocks"] for tier in figures["tiers"][1:]) * BLOCK
    for number, tier in enumerate(figures["tiers"][1:], start=1):
        written = (tiers == number) & np.isin(ops, [Op.WRITE, Op.DEMOTE])
        assert nbytes[written].sum() == tier["written_bytes"]
    by_tier = dict(zip(column(file, "prefix/tier").tolist(), column(file, "prefix/blocks").tolist(), strict=True))
    assert [by_tier[number] for number in range(3)] == [tier["hit_blocks"] for tier in figures["tiers"]]
    told = kvbench("summary", file).out
    assert "gpu (modelled)" in told
    shown = json.loads(kvbench("summary", file, "--json").out)
    assert shown["prefix"][-1]["tier"] == "not found"
    assert sum(row["tokens"] for row in shown["prefix"]) == figures["input_tokens"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("workload.serving=reference",), "a gpu tier is for requests that are served as an engine does"),
        (("tiers=[{kind: gpu, capacity_bytes: 1MiB}]",), "it is the first, above one that is really there"),
        (
            ("tiers=[{kind: memory, capacity_bytes: 1MiB}, {kind: gpu, capacity_bytes: 1MiB}, {kind: file}]",),
            "it is the first, above one that is really there",
        ),
        (("tiers=[{kind: gpu}, {kind: file}]",), "a gpu tier needs capacity_bytes"),
        (("tiers.0.fill=0.5",), "fill is for memory tiers"),
    ],
)
def test_a_modelled_tier_stands_where_it_can(kvbench: Call, trace: Path, change: tuple[str], message: str) -> None:
    ended = kvbench("plan", "mooncake", *overrides(*settings(trace, *GPU, *change)))
    assert ended.code == 1
    assert message in ended.err


def test_more_room_finds_more_and_the_optimum_most(kvbench: Call, trace: Path, tmp_path: Path) -> None:
    picture = tmp_path / "curve.png"
    figures = planned(kvbench, trace, "--capacities", "512KiB:8MiB:5", "--plot", picture)
    curve = figures["curve"]
    sizes = curve["capacity_bytes_per_rank"]
    assert sizes == [512 * KIB * 2**n for n in range(5)]
    assert set(curve["policies"]) == {"lru", "fifo", "lfu", "s3-fifo", "2q"}
    for name, policy in curve["policies"].items():
        assert all(hits <= most for hits, most in zip(policy["hit_blocks"], curve["optimum_hit_blocks"], strict=True))
        assert policy["knee_bytes_per_rank"] in sizes
        one = planned(kvbench, trace, "--capacity", sizes[2], "--set", f"cache.policy={name}")["prefix"]
        assert (policy["hit_blocks"][2], policy["block_hit_share"][2]) == (one["hit_blocks"], one["block_hit_share"])
    lru = curve["policies"]["lru"]["hit_blocks"]
    assert lru == sorted(lru) == [simulated(trace, size // BLOCK) for size in sizes]
    assert curve["unlimited_hit_blocks"] == figures["prefix"]["unlimited_hit_blocks"]
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_ranks_of_a_launcher_add_their_curves_up(start: Start, mpirun: Mpirun, kvbench: Call, trace: Path) -> None:
    words = ("plan", "mooncake", *overrides(*settings(trace, "workload.deal=round-robin")), "--json")
    words += ("--capacities", "512KiB:2MiB:3", "--policy", "lru")
    together = start(*mpirun_command(mpirun, 2), *KVBENCH, *words, environment=mpirun_environment(mpirun, {})).ended()
    assert json.loads(together.out)["curve"] == json.loads(kvbench(*words, "--ranks", 2).out)["curve"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--capacities", "1GiB"), "expected LOW:HIGH"),
        (("--capacities", "2GiB:1GiB"), "expected LOW:HIGH"),
        (("--capacities", "1GiB:2GiB:1"), "2 to 200 points"),
        (("--capacities", "1GiB:2GiB:many"), "expected a number of points in place of"),
        (("--capacities", "1KiB:2GiB"), "the smallest capacity, 1 KiB, holds no block, which takes 32 KiB"),
        (("--plot", "x.png"), "--plot and --policy are for --capacities"),
        (("--export", "ops.csv"), "expected a name that ends in .parquet or .fio"),
        (("--policy", "lru"), "--plot and --policy are for --capacities"),
    ],
)
def test_a_range_that_is_none_is_one_message(kvbench: Call, trace: Path, words: tuple[str, ...], message: str) -> None:
    ended = kvbench("plan", "mooncake", *overrides(*settings(trace)), *words)
    assert ended.code in {1, 2}
    assert message in ended.err


@pytest.mark.parametrize("tiers", [("tiers.0={kind: file, capacity_bytes: 2MiB}",), GPU])
def test_an_export_has_the_operations_of_a_run_one_by_one(
    start_run: Start, kvbench: Call, trace: Path, tmp_path: Path, tiers: tuple[str, ...]
) -> None:
    more = settings(trace, "pacing.mode=asap", "cache.policy=s3-fifo", *tiers)
    assert start_run(*more, *QUICK, "io.threads=2", "duration_s=null", config="mooncake").ended().code == 0
    planned(kvbench, trace, *overrides(*more), "--export", tmp_path / "ops.parquet")
    table = pd.read_parquet(tmp_path / "ops.parquet")
    names = [label(op) for op in Op]
    ours = Counter(zip(table["request"], table["operation"].map(names.index), strict=True))
    requests, ops = (column(tmp_path / "run.h5", f"records/{name}").tolist() for name in ("request", "op"))
    assert ours == Counter(zip(requests, ops, strict=True))
    assert set(table["bytes"]) == {BLOCK}


def test_fio_replays_what_the_storage_is_asked_for(kvbench: Call, trace: Path, tmp_path: Path) -> None:
    figures = planned(kvbench, trace, "--capacity", "60blocks", "--ranks", 2, "--export", tmp_path / "job.fio")
    assert sorted(path.name for path in tmp_path.glob("job*")) == [
        "job-rank-0.iolog", "job-rank-1.iolog", "job.fio",
    ]  # fmt: skip
    moved = Counter[str]()
    for path in tmp_path.glob("*.iolog"):
        head, *lines = path.read_text().splitlines()
        assert head == "fio version 2 iolog"
        written: set[str] = set()
        for line in lines:
            _, action, *place = line.split()
            if action in {"read", "write"}:
                offset, nbytes = place
                assert (action == "write") or offset in written, "nothing is read that was not written"
                written.add(offset)
                assert int(offset) < 60 * BLOCK
                moved[action] += int(nbytes)
    (tier,) = figures["tiers"]
    assert moved == {"read": tier["read_bytes"], "write": tier["written_bytes"]}
    if shutil.which("fio") is None:
        return
    done = subprocess.run(
        ["fio", "job.fio", "--output-format=json"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    jobs = json.loads(done.stdout)["jobs"]
    assert sum(job["read"]["io_bytes"] for job in jobs) == tier["read_bytes"]
    assert sum(job["write"]["io_bytes"] for job in jobs) == tier["written_bytes"]


def test_the_order_of_a_run_changes_no_decision(start_run: Start, trace: Path, tmp_path: Path) -> None:
    common = (*settings(trace), *QUICK, "io.threads=2", "duration_s=null", "tiers.0={kind: file, capacity_bytes: 3MiB}")
    for name, more in (("one", ("io.threads=1",)), ("two", ("io.threads=2", "pacing.mode=asap"))):
        out = tmp_path / f"{name}.h5"
        assert start_run(*common, "pacing.speedup=200", *more, config="mooncake", out=out).ended().code == 0
    np.testing.assert_array_equal(decisions(tmp_path / "one.h5"), decisions(tmp_path / "two.h5"))


def test_ranks_of_a_launcher_plan_their_own_parts(start: Start, mpirun: Mpirun, kvbench: Call, trace: Path) -> None:
    words = (
        "plan",
        "mooncake",
        *overrides(*settings(trace, "workload.deal=round-robin")),
        "--capacity",
        "1MiB",
        "--json",
    )
    together = start(*mpirun_command(mpirun, 3), *KVBENCH, *words, environment=mpirun_environment(mpirun, {})).ended()
    assert together.code == 0, together.err
    assert json.loads(together.out) == json.loads(kvbench(*words, "--ranks", 3).out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("mooncake", "--capacity", "10parsecs"), "a number of blocks such as 2000blocks, or unlimited"),
        (("mooncake", "--capacity", "-1"), "expected a size of 0 or more"),
        (("mooncake", "--capacity", "1KiB"), "a capacity of 1 KiB holds no block, which takes 32 KiB (512 tokens)"),
        (("smoke",), "only requests that are served as an engine does can be planned"),
        (("mooncake", "--set", "workload.serving=reference"), "only requests that are served as an engine does"),
        (("mooncake", "--set", "cache.policy=mru"), "cache.policy: expected one of lru, fifo"),
        (("mooncake", "--set", "cache.layout=entry"), "cache.layout: an engine keeps blocks"),
        (("mooncake", "--set", "workload.path=/nowhere"), "cannot read trace /nowhere"),
    ],
)
def test_what_cannot_be_planned_is_one_message(
    kvbench: Call, trace: Path, words: tuple[str, ...], message: str
) -> None:
    config, *rest = words
    replay = settings(trace) if config == "mooncake" else ()
    ended = kvbench("plan", config, *overrides(*replay), *rest)
    assert ended.code in {1, 2}
    assert ended.out == ""
    assert message in ended.err


@pytest.mark.parametrize("policy", ["lru", "fifo", "lfu", "s3-fifo", "2q"])
def test_no_policy_finds_more_than_a_cache_that_is_never_full(kvbench: Call, trace: Path, policy: str) -> None:
    prefix = planned(kvbench, trace, "--capacity", 2 * MIB, "--set", f"cache.policy={policy}")["prefix"]
    assert 0 < prefix["hit_blocks"] < prefix["unlimited_hit_blocks"]
