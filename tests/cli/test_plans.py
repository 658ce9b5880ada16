"""`kvbench plan`: its figures are those of an independent simulation, and of a run that carries the decisions out."""

import json
import re
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
from samples import sample_trace
from transfer_library import need_nixl

from kvbench.cluster.launch.mpirun import Mpirun, mpirun_command, mpirun_environment
from kvbench.records.schema import Op, label
from kvbench.units import KIB, MIB

Call = Callable[..., Ended]
Start = Callable[..., Command]

BLOCK = 32 * KIB
"""Of 512 tokens of the smallest model."""
SMALL_MODEL = "model={layers: 1, kv_heads: 1, head_dim: 16}"
TIERS_OF_MEMORY = "tiers=[{kind: memory, capacity_bytes: 1MiB}, {kind: file}]"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return sample_trace(tmp_path, "mooncake", requests=400)


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


def test_what_was_left_out_of_a_trace_is_said(kvbench: Call, trace: Path) -> None:
    assert planned(kvbench, trace, "--capacity", "60blocks")["bad_lines"] == 0
    with trace.open("a", encoding="utf-8") as file:
        file.write("{}\n{}\n")
    assert planned(kvbench, trace, "--capacity", "60blocks", "--skip-bad-lines")["bad_lines"] == 2
    changes = overrides(*settings(trace, "workload.skip_bad_lines=true"))
    for words in (("plan", "mooncake", "--capacity", "60blocks"), ("datasize", "mooncake")):
        told = kvbench(*words, *changes).out
        assert f"2 bad lines of the trace left out; the first: {trace}, line 401: timestamp is missing" in told


UNITS = ("requests", "blocks", "tokens")


def found_by(file: Path) -> dict[tuple[str, int], tuple[int, ...]]:
    """What a run found, and why it did not find the rest: requests, blocks and tokens of all ranks."""
    table = pd.DataFrame({name: column(file, f"prefix/{name}") for name in ("what", "tier", *UNITS)})
    table["what"] = [what.decode() if isinstance(what, bytes) else what for what in table["what"]]
    sums = table.groupby(["what", "tier"]).sum()
    return {kind: tuple(row) for kind, row in zip(sums.index, sums.to_numpy().tolist(), strict=True)}


def planned_by(figures: dict[str, Any]) -> dict[tuple[str, int], tuple[int, ...]]:
    """The same, of `kvbench plan --json`."""
    prefix = figures["prefix"]
    found: dict[tuple[str, int], tuple[int, ...]] = {}
    found["looked-up", -1] = (figures["requests"], figures["blocks"], figures["input_tokens"])
    found["hit", -1] = (prefix["requests_with_hit"], prefix["hit_blocks"], prefix["hit_tokens"])
    for number, tier in enumerate(figures["tiers"]):
        found["hit", number] = tuple(tier[f"hit_{unit}"] for unit in UNITS)
    for what in ("never-seen", "evicted", "behind-gap", "in-no-block"):
        found[what, -1] = tuple(prefix[f"{what.replace('-', '_')}_{unit}"] for unit in UNITS)
    return found


@pytest.mark.parametrize(
    ("ranks", "pacing", "engine"),
    [
        (1, "asap", "sync"),
        *(
            pytest.param(ranks, pacing, engine, marks=pytest.mark.slow)
            for ranks, pacing, engine in [
                (1, "open", "sync"),
                (1, "asap", "nixl"),
                (4, "asap", "sync"),
                (4, "open", "sync"),
            ]
        ),
    ],
)
def test_a_run_does_what_was_planned(
    start_run: Start, kvbench: Call, trace: Path, tmp_path: Path, ranks: int, pacing: str, engine: str
) -> None:
    if engine == "nixl":
        need_nixl()
    more = (
        f"io.engine={engine}",
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
    assert found_by(file) == planned_by(figures)
    assert figures["prefix"]["evicted_blocks"] > 0 or ranks > 1
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


@pytest.mark.slow
def test_a_run_keeps_answers_as_was_planned(start_run: Start, kvbench: Call, tmp_path: Path) -> None:
    """Where a trace knows what answers said, their blocks are written, and found by the turn behind."""
    trace = sample_trace(tmp_path, "deltas", requests=400)
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
    rows = zip(*(column(file, f"prefix/{name}").tolist() for name in ("what", "tier", "blocks")), strict=True)
    by_kind = {(what.decode() if isinstance(what, bytes) else what, tier): blocks for what, tier, blocks in rows}
    assert (by_kind["hit", 0], by_kind["looked-up", -1]) == (hits, hits + misses)
    missing = ("never_seen_blocks", "evicted_blocks", "behind_gap_blocks")
    assert sum(kept["prefix"][name] for name in missing) == misses
    assert kept["prefix"]["unlimited_hit_blocks"] == kept["blocks"] - kept["prefix"]["never_seen_blocks"]


@pytest.mark.slow
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
    assert found_by(file) == planned_by(figures)
    told = kvbench("summary", file).out
    assert "gpu (modelled)" in told
    shown = json.loads(kvbench("summary", file, "--json").out)
    assert {row["what"] for row in shown["prefix"]} >= {"looked-up", "hit", "never-seen", "evicted", "behind-gap"}
    of_tiers = [row["token_share"] for row in shown["prefix"] if row["tier"]]
    assert sum(of_tiers) == pytest.approx(figures["prefix"]["hit_share"])
    assert "never seen before" in told
    assert shown["look_ups"] == []


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


@pytest.mark.parametrize("ranks", [1, 3])
def test_a_curve_of_samples_says_that_it_is_estimated_and_how_well(kvbench: Call, trace: Path, ranks: int) -> None:
    words = ("--capacities", "2MiB:16MiB:4", "--ranks", ranks)
    exact = planned(kvbench, trace, *words, "--policy", "lru")["curve"]
    curve = planned(kvbench, trace, *words, "--sample", "0.1")["curve"]
    assert (list(curve["policies"]), curve["optimum_hit_blocks"], exact["estimated"]) == (["lru"], None, None)
    assert (curve["estimated"]["sample"], curve["estimated"]["samples"]) == (0.1, 8)
    ours, truth = (one["policies"]["lru"]["block_hit_share"] for one in (curve, exact))
    errors = curve["estimated"]["lru_error_share"]
    assert all(error > 0 for error in errors)
    assert all(abs(a - b) <= 2 * error + 0.05 for a, b, error in zip(ours, truth, errors, strict=True))
    told = kvbench("plan", "mooncake", *overrides(*settings(trace)), *words, "--sample", "0.1").out
    assert "Estimated: the mean of 8 samples of 0.1 of the blocks each" in told
    assert "±" in told


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
        (("--sample", "0.1"), "--plot, --policy and --sample are for --capacities"),
        (("--capacities", "1MiB:2MiB", "--sample", "0.7"), "0.7 is not in the range"),
        (("--capacities", "1MiB:2MiB", "--sample", "0.1", "--policy", "fifo"), "only the curve of LRU is estimated"),
        (("--capacities", "1MiB:2MiB", "--sample", "0.1", "--set", "cache.ttl_s=5"), "neither cache.ttl_s"),
        (("--rate", "0"), "0.0 is not in the range"),
        (("--rate", "nan"), "'nan' is not a finite number"),
        (("--capacities", "1MiB:2MiB", "--sample", "nan"), "'nan' is not a finite number"),
        (("--capacities", "1MiB:2MiB", "--plot", "x.xyz"), "expected a name that ends in .png, .svg, .pdf"),
        (("--plot", "x.png"), "--plot, --policy and --sample are for --capacities"),
        (("--export", "ops.csv"), "expected a name that ends in .parquet or .fio"),
        (("--policy", "lru"), "--plot, --policy and --sample are for --capacities"),
    ],
)
def test_a_range_that_is_none_is_one_message(kvbench: Call, trace: Path, words: tuple[str, ...], message: str) -> None:
    ended = kvbench("plan", "mooncake", *overrides(*settings(trace)), *words)
    assert ended.code in {1, 2}
    assert message in ended.err


@pytest.mark.slow
@pytest.mark.parametrize(
    "tiers", [("tiers.0={kind: file, capacity_bytes: 2MiB}",), pytest.param(GPU, marks=pytest.mark.slow)]
)
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
    exports = ("--export", tmp_path / "job.fio", "--export", tmp_path / "ops.parquet")
    figures = planned(kvbench, trace, "--capacity", "60blocks", "--ranks", 2, *exports)
    assert (tmp_path / "ops.parquet").exists(), "both are made"
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


@pytest.mark.slow
def test_the_order_of_a_run_changes_no_decision(start_run: Start, trace: Path, tmp_path: Path) -> None:
    common = (*settings(trace), *QUICK, "io.threads=2", "duration_s=null", "tiers.0={kind: file, capacity_bytes: 3MiB}")
    for name, more in (("one", ("io.threads=1",)), ("two", ("io.threads=2", "pacing.mode=asap"))):
        out = tmp_path / f"{name}.h5"
        assert start_run(*common, "pacing.speedup=200", *more, config="mooncake", out=out).ended().code == 0
    np.testing.assert_array_equal(decisions(tmp_path / "one.h5"), decisions(tmp_path / "two.h5"))


@pytest.mark.slow
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


@pytest.mark.parametrize("ranks", [1, 3])
def test_datasize_says_what_the_plan_says(kvbench: Call, trace: Path, ranks: int) -> None:
    tiers = ("tiers.0={kind: memory, capacity_bytes: 1MiB}", "tiers.1={kind: file, capacity_bytes: 2MiB}")
    words = (*overrides(*settings(trace, "duration_s=null", *tiers)), "--ranks", ranks)
    sized = json.loads(kvbench("datasize", "mooncake", *words, "--json").out)
    figures = json.loads(kvbench("plan", "mooncake", *words, "--json").out)
    assert sized["plan"] == figures
    if ranks == 1:
        assert sized["demand"]["requests"] == figures["requests"]
        assert sized["demand"]["written_bytes"] == figures["tiers"][1]["written_bytes"] > 0
        assert sized["demand"]["read_bytes"] == figures["tiers"][1]["read_bytes"] > 0
    told = kvbench("datasize", "mooncake", *words).out
    shown = kvbench("plan", "mooncake", *words).out
    moved = [line for line in shown.splitlines() if re.search(r" (read|written) +[\d.]+ [KMG]iB", line)]
    assert moved
    assert all(line in told for line in moved)


def test_datasize_of_what_is_not_served_as_an_engine_does_has_no_plan(kvbench: Call) -> None:
    assert "plan" not in json.loads(kvbench("datasize", "smoke", "--json").out)
    assert "kvbench datasize smoke" in kvbench("plan", "smoke").err


@pytest.mark.parametrize("extra", [(), ("pacing.mode=asap",)])
def test_a_rate_asks_for_the_bandwidth_that_keeps_up_with_it(
    kvbench: Call, trace: Path, extra: tuple[str, ...]
) -> None:
    words = (*overrides(*settings(trace, *extra)), "--capacity", "2MiB", "--ranks", 2, "--rate", 8)
    ended = kvbench("plan", "mooncake", *words, "--json")
    figures = json.loads(ended.out)
    (tier,) = figures["tiers"]
    at_rate = tier["at_rate"]
    assert at_rate["requests_per_s"] == 8
    for what in ("read", "written"):
        assert at_rate[f"{what}_bytes_per_s"] == pytest.approx(8 * tier[f"{what}_bytes"] / 400)
        assert tier[f"{what}_bytes_per_request"] * 8 == pytest.approx(at_rate[f"{what}_bytes_per_s"])
    day = at_rate["written_bytes_per_s"] * 86_400
    assert at_rate["written_bytes_per_day"] == pytest.approx(day)
    assert at_rate["drive_writes_per_day"] == pytest.approx(day / (2 * 2 * MIB))
    if extra:
        assert (figures["requests_per_s"], tier["read_bytes_per_s"]) == (None, None)
    else:
        assert figures["requests_per_s"] == pytest.approx(400 / figures["span_s"])
        assert tier["read_bytes_per_s"] == pytest.approx(tier["read_bytes"] / figures["span_s"])
    above = json.loads(kvbench("plan", "mooncake", *words, "--set", TIERS_OF_MEMORY, "--json").out)["tiers"]
    assert [tier["at_rate"]["drive_writes_per_day"] is None for tier in above] == [True, False], "memory is no drive"
    told = kvbench("plan", "mooncake", *words).out
    assert "8 requests/s" in told
    assert "drive writes per day" in told
    assert ("the trace's pace" in told) == (not extra)


@pytest.mark.slow
def test_the_reference_tells_its_look_ups_apart_and_none_is_a_prefix_hit(
    start_run: Start, kvbench: Call, trace: Path, tmp_path: Path
) -> None:
    more = settings(trace, "workload.serving=reference", "pacing.mode=asap", "cache.layout=block")
    quick = (*QUICK, "io.threads=2", "duration_s=null", "tiers.0={kind: file, capacity_bytes: 3MiB}")
    assert start_run(*more, *quick, config="mooncake").ended().code == 0
    file = tmp_path / "run.h5"
    shown = json.loads(kvbench("summary", file, "--json").out)
    kinds = {row["what"]: row for row in shown["look_ups"]}
    assert set(kinds) == {"context", "decode"}, "requests of this trace have no history"
    assert kinds["context"]["missing"] > 0
    for ours, unit in (("", "objects"), ("_tokens", "tokens")):
        assert sum(row[f"found{ours}"] for row in kinds.values()) == column(file, f"requests/hit_{unit}").sum()
        assert sum(row[f"missing{ours}"] for row in kinds.values()) == column(file, f"requests/miss_{unit}").sum()
    assert shown["prefix"] == []
    told = kvbench("summary", file).out
    assert "first look-ups of contexts" in told
    assert "decode re-reads" in told
    assert "prefix hits:" not in told
    assert "none is offered" in told


@pytest.mark.slow
def test_offered_load_is_over_the_time_in_which_requests_came(
    start_run: Start, kvbench: Call, trace: Path, tmp_path: Path
) -> None:
    quick = (*QUICK, "io.threads=2", "duration_s=null", "tiers.0={kind: file, capacity_bytes: 3MiB}")
    assert start_run(*settings(trace, "pacing.speedup=1000"), *quick, config="mooncake").ended().code == 0
    shown = json.loads(kvbench("summary", tmp_path / "run.h5", "--json").out)
    span_s = planned(kvbench, trace)["span_s"] / 1000
    requests = shown["load"][0]
    assert (requests["offered"], requests["served"], requests["waiting"]) == (400, 400, 0)
    assert requests["offered_per_s"] == pytest.approx(400 / span_s, rel=1e-3)


@pytest.mark.slow
def test_an_open_loop_that_is_cut_short_says_what_was_offered(
    start_run: Start, kvbench: Call, trace: Path, tmp_path: Path
) -> None:
    # All requests come within moments, and a rank that has one place for them does not get through.
    more = settings(trace, "pacing.mode=open", "pacing.speedup=1e6", "workload.generation_ms_per_token=10")
    quick = (*QUICK, "duration_s=1", "io.threads=1", "tiers.0={kind: file, capacity_bytes: 3MiB}")
    assert start_run(*more, *quick, config="mooncake").ended().code == 0
    shown = json.loads(kvbench("summary", tmp_path / "run.h5", "--json").out)
    requests, tokens = shown["load"]
    assert requests["offered"] == 400
    assert tokens["offered"] == sum(json.loads(line)["input_length"] for line in trace.read_text().splitlines())
    assert 0 < requests["waiting"] == 400 - requests["served"] - requests["unfinished"]
    assert requests["served_per_s"] < requests["offered_per_s"]
    assert "(offered)" in kvbench("summary", tmp_path / "run.h5").out


@pytest.mark.parametrize("policy", ["lru", "fifo", "lfu", "s3-fifo", "2q"])
def test_no_policy_finds_more_than_a_cache_that_is_never_full(kvbench: Call, trace: Path, policy: str) -> None:
    prefix = planned(kvbench, trace, "--capacity", 2 * MIB, "--set", f"cache.policy={policy}")["prefix"]
    assert 0 < prefix["hit_blocks"] < prefix["unlimited_hit_blocks"]


@pytest.mark.parametrize("above", ["memory", "gpu"])
def test_no_policy_finds_more_than_the_optimum_in_the_room_of_all_tiers(kvbench: Call, trace: Path, above: str) -> None:
    tiers = f"tiers=[{{kind: {above}, capacity_bytes: {40 * BLOCK}}}, {{kind: file}}]"
    curve = planned(kvbench, trace, *overrides(tiers), "--capacities", f"{20 * BLOCK}:{400 * BLOCK}:4")["curve"]
    alone = planned(kvbench, trace, "--capacities", f"{60 * BLOCK}:{440 * BLOCK}:2")["curve"]
    assert curve["optimum_hit_blocks"][0] == alone["optimum_hit_blocks"][0]
    for policy in curve["policies"].values():
        assert all(hits <= most for hits, most in zip(policy["hit_blocks"], curve["optimum_hit_blocks"], strict=True))
