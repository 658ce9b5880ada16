"""What a serving engine's requests may be told besides the cache: each is planned and carried out alike."""

import errno
import json
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kvbench_command import QUICK, Command, Ended, attributes, column, overrides
from samples import sample_trace

from kvbench import timed_io
from kvbench.records.schema import Op, TimedBy, label
from kvbench.tiers.file.tier import FileTier
from kvbench.units import KIB
from kvbench.workload.traces.read import read_trace

Call = Callable[..., Ended]
Start = Callable[..., Command]

MODEL = "model={layers: 4, kv_heads: 4, head_dim: 16}"
"""1 KiB a token, 256 bytes a layer."""
BLOCK = 512 * KIB
AT_CWD = -100
"""For a directory's descriptor: the working directory."""
TIERS = ("tiers.0={kind: memory, capacity_bytes: 16MiB}", "tiers.1={kind: file, capacity_bytes: 40MiB}")


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """Sessions, whose later turns hold the earlier ones."""
    return sample_trace(tmp_path, "deltas", requests=150)


def settings(trace: Path, *more: str) -> tuple[str, ...]:
    return (f"workload.path={trace}", "workload.format=deltas", "workload.deal=session", MODEL, *TIERS, *more)


def planned(kvbench: Call, words: tuple[str, ...], ranks: int = 1) -> dict[str, Any]:
    ended = kvbench("plan", "mooncake", *overrides(*words), "--ranks", ranks, "--json")
    assert ended.code == 0, ended.err
    figures: dict[str, Any] = json.loads(ended.out)
    return figures


def carried_out(start_run: Start, words: tuple[str, ...], *more: str, ranks: int = 1) -> None:
    run = start_run(
        *words,
        *QUICK,
        *("duration_s=null", "io.threads=2", "payload.verify=full", *more),
        config="mooncake",
        options=("--ranks", ranks) if ranks > 1 else (),
    )
    ended = run.ended()
    assert ended.code == 0, ended.err


def check_alike(file: Path, figures: dict[str, Any]) -> None:
    """The operations of a run are those that were planned, by tier."""
    ops, tiers, nbytes = (column(file, f"records/{name}") for name in ("op", "tier", "nbytes"))
    assert column(file, "requests/hit_objects").sum() == figures["prefix"]["hit_blocks"] > 0
    assert len(column(file, "requests/rank")) == figures["requests"]
    for number, tier in enumerate(figures["tiers"]):
        mine = tiers == number
        # A promotion is a row of the tier that it reads from, and goes to memory here.
        brought = (ops == Op.PROMOTE) & (number == 0)
        written = nbytes[(mine & np.isin(ops, [Op.WRITE, Op.DEMOTE])) | brought].sum()
        assert written == tier["written_bytes"]


@pytest.mark.slow
@pytest.mark.parametrize("pacing", ["asap", pytest.param("open", marks=pytest.mark.slow)])
def test_blocks_are_cut_into_layers_keys_and_values(
    start_run: Start, kvbench: Call, trace: Path, tmp_path: Path, pacing: str
) -> None:
    cut = ("cache.split.layers=2", "cache.split.keys_values=apart", f"pacing.mode={pacing}", "pacing.speedup=500")
    whole = planned(kvbench, settings(trace, f"pacing.mode={pacing}", "pacing.speedup=500"))
    figures = planned(kvbench, settings(trace, *cut))
    assert figures["prefix"] == whole["prefix"]
    assert [tier["written_bytes"] for tier in figures["tiers"]] == [tier["written_bytes"] for tier in whole["tiers"]]
    carried_out(start_run, settings(trace, *cut))
    check_alike(tmp_path / "run.h5", figures)
    ops, nbytes = (column(tmp_path / "run.h5", f"records/{name}") for name in ("op", "nbytes"))
    assert set(nbytes.tolist()) == {BLOCK // 4, 0}
    assert np.count_nonzero(ops == Op.READ) + np.count_nonzero(ops == Op.PROMOTE) == 4 * figures["prefix"]["hit_blocks"]


@pytest.mark.parametrize("ranks", [2, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize("pacing", ["asap", pytest.param("open", marks=pytest.mark.slow)])
def test_ranks_that_serve_together_have_a_part_of_every_block(
    start_run: Start, kvbench: Call, trace: Path, tmp_path: Path, ranks: int, pacing: str
) -> None:
    words = settings(trace, "tensor_parallel=2", f"pacing.mode={pacing}", "pacing.speedup=500")
    figures = planned(kvbench, words, ranks)
    carried_out(start_run, words, ranks=ranks)
    file = tmp_path / "run.h5"
    check_alike(file, figures)
    rank, op, tier, of, nbytes = (
        column(file, f"records/{name}") for name in ("rank", "op", "tier", "request", "nbytes")
    )
    assert set(nbytes.tolist()) == {BLOCK // 2, 0}
    done = [Counter(zip(*(which[rank == n].tolist() for which in (op, tier, of)), strict=True)) for n in range(ranks)]
    assert done[::2] == done[1::2]
    assert set(column(file, "requests/rank").tolist()) == set(range(0, ranks, 2))
    looked_up = column(file, "prefix/what") == b"looked-up"
    assert column(file, "prefix/blocks")[looked_up].sum() == figures["blocks"]


@pytest.mark.slow
def test_a_request_waits_for_the_slowest_of_the_ranks_that_serve_it(
    start_run: Start, trace: Path, tmp_path: Path
) -> None:
    carried_out(start_run, settings(trace, "tensor_parallel=2", "pacing.mode=asap"), ranks=2)
    file = tmp_path / "run.h5"
    requests = dict(
        zip(column(file, "requests/request").tolist(), column(file, "requests/end_ns").tolist(), strict=True)
    )
    of, op, start, wall = (column(file, f"records/{name}") for name in ("request", "op", "t_start_ns", "wall_ns"))
    loads = op == Op.READ
    # Both ranks' reads, on one clock whose offset between ranks of a node is none.
    for number, end_ns in zip(of[loads].tolist(), (start + wall)[loads].tolist(), strict=True):
        assert end_ns <= requests[number]


@pytest.fixture
def regular(tmp_path: Path) -> Path:
    """Six sessions that ask in turn, each once a minute: a memory for two of them never has what is asked for next."""
    lines = [
        {"session_id": f"{session}", "input_length": 2048, "output_length": 1}
        | ({"timestamp": 10_000 * session} if turn == 0 else {"delay": 60_000})
        for turn in range(6)
        for session in range(6)
    ]
    path = tmp_path / "regular.jsonl"
    path.write_text("\n".join(map(json.dumps, lines)) + "\n")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("pacing", ["asap", pytest.param("open", marks=pytest.mark.slow)])
def test_blocks_come_up_before_the_next_turn_as_was_planned(
    start_run: Start, kvbench: Call, regular: Path, tmp_path: Path, pacing: str
) -> None:
    more: tuple[str, ...] = (f"pacing.mode={pacing}", "pacing.speedup=500", "cache.prefetch_lead_s=1")
    more += ("tiers.0={kind: memory, capacity_bytes: 12MiB}", "tiers.1={kind: file, capacity_bytes: 200MiB}")
    words = settings(regular, *more, "cache.prefetch=expected")
    figures, without = planned(kvbench, words), planned(kvbench, settings(regular, *more))
    assert figures["requests"] == without["requests"] == 36
    # The first two turns of a session say how far apart they are; from then on its blocks wait in memory.
    assert figures["tiers"][0]["hit_blocks"] > 4 * without["tiers"][0]["hit_blocks"]
    assert figures["prefix"]["hit_blocks"] == without["prefix"]["hit_blocks"]
    carried_out(start_run, words)
    file = tmp_path / "run.h5"
    check_alike(file, figures)
    assert np.count_nonzero(column(file, "records/op") == Op.PROMOTE) > 0
    assert column(file, "requests/operations").sum() < len(column(file, "records/op"))


@pytest.mark.slow
@pytest.mark.parametrize("last", [pytest.param('"null"', marks=pytest.mark.slow), "file"])
def test_chains_longer_than_a_modelled_tier_come_up_through_it(
    start_run: Start, kvbench: Call, tmp_path: Path, last: str
) -> None:
    """What one block of a chain pushes out of it, another block of the chain, must not wait for all blocks to come."""
    trace = sample_trace(tmp_path, "bailian", requests=25, seed=119)
    tiers = "{kind: gpu, capacity_bytes: 64KiB}, {kind: memory, capacity_bytes: 64KiB}"
    words: tuple[str, ...] = (f"workload.path={trace}", "workload.format=bailian", MODEL, "pacing.mode=asap")
    words += (
        "cache.block_tokens=16",
        f"tiers=[{tiers}, {{kind: {last}, capacity_bytes: 3MiB}}]",
        "cache.promote_on_hit=true",
    )
    carried_out(start_run, words)
    figures = planned(kvbench, words)
    assert column(tmp_path / "run.h5", "requests/hit_objects").sum() == figures["prefix"]["hit_blocks"] > 0
    if last == "file":
        ops, tier, nbytes = (column(tmp_path / "run.h5", f"records/{name}") for name in ("op", "tier", "nbytes"))
        written = nbytes[(tier == 2) & np.isin(ops, [Op.WRITE, Op.DEMOTE])].sum()
        assert written == figures["tiers"][2]["written_bytes"] > 0


@pytest.mark.slow
def test_an_export_has_each_object_of_each_rank(start_run: Start, kvbench: Call, trace: Path, tmp_path: Path) -> None:
    """Where a block is several objects and several ranks have a part of it, an operation is still a row of a run."""
    words = settings(trace, "tensor_parallel=2", "cache.split.layers=2", "pacing.mode=asap")
    carried_out(start_run, words, ranks=4)
    figures = planned(kvbench, words, ranks=4)
    out = tmp_path / "operations.parquet"
    assert kvbench("plan", "mooncake", *overrides(*words), "--ranks", 4, "--export", out).code == 0
    table = pd.read_parquet(out)
    tier = table[["source_tier", "target_tier"]].max(axis=1)
    names = [label(op) for op in Op]
    ours = Counter(zip(table["rank"], table["request"], table["operation"].map(names.index), tier, strict=True))
    rows = (column(tmp_path / "run.h5", f"records/{name}").tolist() for name in ("rank", "request", "op", "tier"))
    assert ours == Counter(zip(*rows, strict=True))
    assert set(table["bytes"]) == {BLOCK // 4}
    assert table.loc[table["target_tier"] == 1, "bytes"].sum() == figures["tiers"][1]["written_bytes"]
    assert kvbench("plan", "mooncake", *overrides(*words), "--ranks", 4, "--export", tmp_path / "job.fio").code == 0
    assert len(list(tmp_path.glob("job-rank-*.iolog"))) == 4
    log = (tmp_path / "job-rank-3.iolog").read_text()
    assert {line.split()[-1] for line in log.splitlines() if " write " in line} == {str(BLOCK // 4)}


def test_an_export_has_prefetches_too(kvbench: Call, regular: Path, tmp_path: Path) -> None:
    words = settings(regular, "pacing.mode=open", "cache.prefetch=expected")
    figures = planned(kvbench, words)
    out = tmp_path / "operations.parquet"
    assert kvbench("plan", "mooncake", *overrides(*words), "--export", out).code == 0
    table = pd.read_parquet(out)
    assert table.loc[table["target_tier"] == 0, "bytes"].sum() == figures["tiers"][0]["written_bytes"]


@pytest.mark.slow
def test_a_next_turn_waits_for_the_answer_and_its_gap(start_run: Start, trace: Path, tmp_path: Path) -> None:
    words = settings(trace, "pacing.mode=closed", "pacing.speedup=500")
    carried_out(start_run, words, "workload.generation_ms_per_token=0.01")
    lines = [json.loads(line) for line in trace.read_text().splitlines()]
    delays = {}
    order: dict[str, list[int]] = {}
    file = tmp_path / "run.h5"
    number, intended, end = (column(file, f"requests/{name}") for name in ("request", "intended_ns", "end_ns"))
    assert sorted(number.tolist()) == list(range(len(lines)))
    by_tokens = dict(zip(number.tolist(), zip(intended.tolist(), end.tolist(), strict=True), strict=True))
    read = read_trace(trace)
    for place, session in enumerate(read.session.tolist()):
        order.setdefault(session, []).append(place)
        delays[place] = int(read.gap_ns[place])
    turns = 0
    for places in order.values():
        for before, after in pairwise(places):
            turns += 1
            assert by_tokens[after][0] == by_tokens[before][1] + round(delays[after] / 500)
    assert turns > 20


def test_a_trace_is_replayed_in_cycles_by_other_sessions(kvbench: Call, trace: Path) -> None:
    once, thrice = (
        planned(kvbench, settings(trace, "pacing.mode=open", f"workload.replay_cycles={cycles}")) for cycles in (1, 3)
    )
    assert (thrice["requests"], thrice["blocks"]) == (3 * once["requests"], 3 * once["blocks"])
    assert thrice["prefix"]["never_seen_blocks"] == once["prefix"]["never_seen_blocks"]
    assert thrice["span_s"] > 3 * once["span_s"]


def test_compute_is_modelled_between_what_is_read_and_what_is_written(
    start_run: Start, kvbench: Call, trace: Path, tmp_path: Path
) -> None:
    compute = (
        "compute={gpu: h100-sxm, max_batch: 8, parameters_billion: 0.01, attention_heads: 4, "
        "flops_share: 0.5, bandwidth_share: 0.5}"
    )
    words = settings(trace, "pacing.mode=asap", compute)
    figures = planned(kvbench, words)
    carried_out(start_run, words)
    file = tmp_path / "run.h5"
    check_alike(file, figures)
    prefill, decode, start, end = (
        column(file, f"requests/{name}") for name in ("modelled_prefill_ns", "modelled_decode_ns", "start_ns", "end_ns")
    )
    assert (prefill > 0).all()
    assert (decode[column(file, "requests/output_tokens") > 1] > 0).all()
    assert (end - start >= prefill + decode).all()
    look_up, load, first, intended = (
        column(file, f"requests/{name}") for name in ("look_up_ns", "load_ns", "first_token_ns", "intended_ns")
    )
    assert (look_up >= 0).all()
    assert (load[column(file, "requests/hit_objects") > 0] > 0).all()
    assert first.tolist() == (start - intended + look_up + load + prefill).tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "pacing.mode=closed",
            "pacing.mode: it follows sessions, which a rank has whole only with workload.deal=session",
        ),
        ("arrivals.process=poisson", "arrivals.process: it follows sessions"),
        ("cache.prefetch=expected", "cache.prefetch: it follows sessions"),
        ("arrivals.rate=3", "arrivals.rate: arrivals of process trace do not heed it"),
        ("cache.split.layers=3", "cache.split.layers: 3 does not divide the 4 layers of the model"),
        ("tensor_parallel=3", "tensor_parallel: 3 ranks cannot share 4 heads of keys and values"),
        ("tensor_parallel=2", "tensor_parallel: 2 ranks serve requests together, and there are 1"),
        ("compute={gpu: h100}", "unknown GPU 'h100': did you mean h100-sxm?"),
        ("compute={gpu: h100-sxm}", "compute.parameters_billion: the table of models does not say it"),
        ("workload.replay_cycles=0", "workload.replay_cycles: expected 1 or more"),
    ],
)
def test_what_does_not_fit_is_one_message(kvbench: Call, trace: Path, change: str, message: str) -> None:
    words = (f"workload.path={trace}", MODEL, change)
    ended = kvbench("plan", "mooncake", *overrides(*words))
    assert ended.code != 0
    assert message in ended.err
    assert "Traceback" not in ended.err


def test_sessions_that_are_not_there_cannot_be_waited_for(kvbench: Call, tmp_path: Path) -> None:
    trace = sample_trace(tmp_path, "mooncake", requests=20)
    words = (f"workload.path={trace}", "pacing.mode=closed", "workload.deal=session")
    ended = kvbench("plan", "mooncake", *overrides(*words))
    assert ended.code != 0
    assert "has no sessions" in ended.err


def look_ups_expected(kvbench: Call, words: tuple[str, ...], ranks: int = 1) -> tuple[int, int]:
    """How many blocks are found on the file tier, and how many requests come to one that no tier has."""
    figures = planned(kvbench, words, ranks)
    return figures["tiers"][1]["hit_blocks"], figures["requests"]


@pytest.mark.slow
@pytest.mark.parametrize("pacing", ["asap", pytest.param("open", marks=pytest.mark.slow)])
def test_the_filesystem_is_asked_for_what_is_found_there_and_for_the_first_that_is_missing(
    start_run: Start, kvbench: Call, trace: Path, tmp_path: Path, pacing: str
) -> None:
    paced = settings(trace, f"pacing.mode={pacing}", "pacing.speedup=500")
    words = (*paced, "cache.lookup=stat")
    figures, usual = planned(kvbench, words), planned(kvbench, paced)
    assert figures["prefix"] == usual["prefix"]
    assert figures["fingerprint"] != usual["fingerprint"]
    carried_out(start_run, words)
    file = tmp_path / "run.h5"
    check_alike(file, figures)
    look_up = column(file, "records/op") == Op.LOOKUP
    rows = {
        name: column(file, f"records/{name}")[look_up] for name in ("tier", "tokens", "errno", "wall_ns", "request")
    }
    found = rows["tokens"] > 0
    assert np.count_nonzero(found) == figures["tiers"][1]["hit_blocks"] > 0
    missing = rows["request"][~found]
    assert len(set(missing.tolist())) == len(missing)
    lacking = column(file, "requests/request")[column(file, "requests/miss_objects") > 0]
    assert sorted(missing.tolist()) == sorted(lacking.tolist()) != []
    assert set(rows["tier"].tolist()) == {1}
    assert not rows["errno"].any()
    assert (rows["wall_ns"] > 0).all()
    shown = json.loads(kvbench("summary", file, "--json").out)
    (row,) = [row for row in shown["operations"] if row["op"] == "lookup"]
    assert (row["tier"], row["operations"], row["bytes"]) == ("file", len(found), 0)
    assert next(row["part"] for row in shown["latency"] if row["op"] == "lookup") == "wall"


@pytest.mark.slow
def test_a_request_reads_when_its_look_ups_have_ended(start_run: Start, trace: Path, tmp_path: Path) -> None:
    carried_out(start_run, settings(trace, "pacing.mode=asap", "cache.lookup=stat"), "tiers.0.capacity_bytes=1MiB")
    file = tmp_path / "run.h5"
    frame = pd.DataFrame(
        {name: column(file, f"records/{name}") for name in ("op", "request", "t_start_ns", "wall_ns", "tier")}
    )
    looked = frame[frame["op"] == Op.LOOKUP]
    ended = (looked["t_start_ns"] + looked["wall_ns"]).groupby(looked["request"]).max()
    began = frame[(frame["op"] == Op.READ) & (frame["tier"] == 1)].groupby("request")["t_start_ns"].min()
    both = ended.index.intersection(began.index)
    assert len(both) > 10
    assert (ended[both] <= began[both]).all()


def test_datasize_counts_look_ups(kvbench: Call, trace: Path) -> None:
    def operations(*more: str) -> int:
        words = overrides(*settings(trace, "pacing.mode=asap", "duration_s=null", *more))
        ended = kvbench("datasize", "mooncake", *words, "--json")
        assert ended.code == 0, ended.err
        found: int = json.loads(ended.out)["demand"]["operations"]
        return found

    hits, requests = look_ups_expected(kvbench, settings(trace, "pacing.mode=asap"))
    more = operations("cache.lookup=stat") - operations()
    assert hits < more <= hits + requests


def test_only_files_can_be_asked_for(kvbench: Call, trace: Path) -> None:
    words = (*settings(trace, "cache.lookup=stat")[:-1], "tiers.1={kind: 'null', capacity_bytes: 40MiB}")
    ended = kvbench("datasize", "mooncake", *overrides(*words, "cache.lookup=stat"))
    assert ended.code == 1
    assert "cache.lookup: stat asks for files, and the last tier is a null tier" in " ".join(ended.err.split())
    ended = kvbench("datasize", "smoke", *overrides("cache.lookup=stat"))
    assert "cache.lookup: only requests that are served as an engine does" in " ".join(ended.err.split())


def test_a_block_that_the_filesystem_does_not_know_ends_the_run(
    kvbench: Call, trace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        FileTier, "look_up", lambda tier, cell, key: timed_io.look_up(cell.rows, cell.row, AT_CWD, "not there")
    )
    words = (*settings(trace, "cache.lookup=stat", "pacing.mode=asap", "duration_s=null"), *QUICK, "io.threads=2")
    out = ("--dir", tmp_path, "--out", tmp_path / "run.h5", "--no-spill")
    ended = kvbench("run", "mooncake", *overrides(*words), *out)
    assert ended.code == 1
    told = " ".join(ended.err.split())
    assert f"lookup of {tmp_path}/kvbench-" in told
    assert ".kv failed: No such file or directory" in told
    rows = column(tmp_path / "run.h5", "records/op") == Op.LOOKUP
    assert set(column(tmp_path / "run.h5", "records/errno")[rows].tolist()) == {0, errno.ENOENT}, (
        "the first were missing"
    )


@pytest.mark.parametrize(
    "more",
    [
        (),
        pytest.param(("io.sync=none", "io.read_path=mmap-touch"), marks=pytest.mark.slow),
        pytest.param(("io.sync=end", "io.read_path=direct", "io.write_path=direct"), marks=pytest.mark.slow),
        pytest.param(("cache.split.layers=2", "cache.promote_on_hit=true"), marks=pytest.mark.slow),
    ],
    ids=["synced", "touched", "direct", "promoted"],
)
def test_blocks_lie_in_slots_of_one_file(
    start_run: Start, kvbench: Call, trace: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    words = settings(trace, "pacing.mode=asap", "tiers.1.layout.kind=slab", *more)
    figures = planned(kvbench, words)
    carried_out(start_run, words)
    file = tmp_path / "run.h5"
    check_alike(file, figures)
    described = attributes(file)
    assert described["layout"] == "slab"
    assert not column(file, "records/errno").any()
    assert column(file, "ranks/verified_sectors").sum() > 0
    sync = column(file, "records/op") == Op.SYNC
    assert np.count_nonzero(sync) == ("io.sync=end" in more)
    moved = np.isin(column(file, "records/op"), [Op.WRITE, Op.DEMOTE]) & (column(file, "records/tier") == 1)
    assert (column(file, "records/span_ns")[moved] > 0).any() == (described["sync"] == "object")
    assert not list(tmp_path.rglob("*.slab"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        (),
        pytest.param(("io.sync=batch", "io.read_path=mmap-touch"), marks=pytest.mark.slow),
        pytest.param(("io.sync=batch", "io.read_path=direct", "io.write_path=direct"), marks=pytest.mark.slow),
        pytest.param(("cache.split.layers=2", "cache.promote_on_hit=true", "io.sync=none"), marks=pytest.mark.slow),
    ],
    ids=["synced", "touched", "direct", "promoted"],
)
def test_blocks_are_appended_to_buckets(
    start_run: Start, kvbench: Call, trace: Path, tmp_path: Path, more: tuple[str, ...]
) -> None:
    """What is decided, and so what is planned, does not depend on it."""
    layout = "tiers.1.layout={kind: bucket, bucket_bytes: 8MiB, garbage: 0.3}"
    words = settings(trace, "pacing.mode=asap", layout, *more)
    figures = planned(kvbench, words)
    carried_out(start_run, words)
    file = tmp_path / "run.h5"
    check_alike(file, figures)
    assert attributes(file)["layout"] == "buckets of 8 MiB, compacted from 30 % garbage on"
    assert not column(file, "records/errno").any()
    assert column(file, "ranks/verified_sectors").sum() > 0
    op = column(file, "records/op")
    assert (op == Op.COMPACT).any()
    assert (op == Op.SYNC).any() == ("io.sync=batch" in more)
    assert not list(tmp_path.rglob("*.bucket"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "layout",
    ["{}", *(pytest.param(each, marks=pytest.mark.slow) for each in ("{levels: 1, rename: true}", "{kind: slab}"))],
)
def test_each_batch_of_blocks_is_synced(
    start_run: Start, kvbench: Call, trace: Path, tmp_path: Path, layout: str
) -> None:
    words = settings(trace, "pacing.mode=asap", f"tiers.1.layout={layout}", "io.sync=batch", "io.threads=2")
    figures = planned(kvbench, words)
    carried_out(start_run, words)
    file = tmp_path / "run.h5"
    check_alike(file, figures)
    op, batch, tier = (column(file, f"records/{name}") for name in ("op", "batch", "tier"))
    written, syncs = np.isin(op, [Op.WRITE, Op.DEMOTE]) & (tier == 1), op == Op.SYNC
    assert sorted(set(batch[written])) == sorted(batch[syncs])
    assert syncs.sum() < written.sum(), "some of them wrote several"
    assert (column(file, "records/span_ns")[written] == 0).all()
    assert (column(file, "records/span_ns")[syncs] > 0).all()


def test_a_slab_is_refused_where_it_cannot_be(kvbench: Call, trace: Path) -> None:
    words = settings(trace, "tiers.1.layout.kind=slab")
    for more, told in (
        (("workload.serving=reference", "workload.deal=round-robin", "pacing.mode=asap"), "holds objects of one size"),
        (("io.read_path=numpy",), "io.read_path: numpy reads .npy files; a slab has none"),
        (("cache.lookup=stat",), "objects of a slab have none; use memory"),
        (("tiers.1.layout.levels=1",), "levels, rename and ask_first are for files of single objects"),
    ):
        ended = kvbench("datasize", "mooncake", *overrides(*words, *more))
        assert ended.code == 1
        assert told in " ".join(ended.err.split())


@pytest.mark.slow
def test_what_a_modelled_gpu_holds_takes_the_time_of_its_bandwidth(
    start_run: Start, kvbench: Call, regular: Path, tmp_path: Path
) -> None:
    """One session after the other, all of which fits the GPU's memory: nothing else is read."""
    tiers = "tiers=[{{kind: gpu, capacity_bytes: 1GiB{}}}, {{kind: file, capacity_bytes: 200MiB}}]"
    words = settings(regular, "pacing.mode=asap", "cache.write=write-through")
    with_bandwidth = (*words, tiers.format(", bandwidth_bytes_per_s: 100MiB"))
    assert planned(kvbench, with_bandwidth)["prefix"] == planned(kvbench, (*words, tiers.format("")))["prefix"]
    carried_out(start_run, with_bandwidth, "io.threads=1")
    file = tmp_path / "run.h5"
    start, end, hits = (column(file, f"requests/{name}") for name in ("start_ns", "end_ns", "hit_objects"))
    modelled_ns = hits * BLOCK / (100 * 1024 * KIB) * 1e9
    assert hits.sum() > 0
    assert (end - start >= modelled_ns.astype(np.int64)).all()
    assert "contains modelled reads of the gpu tier" in kvbench("summary", file).out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("tiers.0.bandwidth_bytes_per_s=1GiB", "bandwidth_bytes_per_s is for gpu tiers"),
        ("cache.prefetch_lead_s=3", "cache.prefetch_lead_s: nothing is prefetched"),
        ("workload.decode_interval_tokens=8", "workload.decode_interval_tokens: an engine reads nothing to decode"),
    ],
)
def test_what_is_not_heeded_is_refused(kvbench: Call, trace: Path, change: str, message: str) -> None:
    ended = kvbench("plan", "mooncake", *overrides(*settings(trace, "pacing.mode=asap", change)))
    assert (ended.code != 0, message in ended.err) == (True, True), ended.err


@pytest.mark.parametrize("ranks", [1, pytest.param(4, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "layout", ["file", *(pytest.param(each, marks=pytest.mark.slow) for each in ("slab", "bucket"))]
)
def test_what_is_in_flight_together_is_what_was_planned(
    start_run: Start, kvbench: Call, trace: Path, tmp_path: Path, ranks: int, layout: str
) -> None:
    words = settings(trace, "pacing.mode=asap", f"tiers.1.layout.kind={layout}", "io.engine=uring", "io.depth=4")
    # Stamps are compared: what is checked from end to end is moved by one call for each object.
    words = (*words, "io.arena_bytes=64MiB")
    if layout == "bucket":
        words = (*words, "tiers.1.layout.bucket_bytes=16MiB")
    figures = planned(kvbench, words, ranks)
    ended = start_run(
        *(*words, "duration_s=null", "io.threads=2", "calibration.seconds=0"),
        config="mooncake",
        options=("--ranks", ranks) if ranks > 1 else (),
    ).ended()
    assert ended.code == 0, ended.err
    file = tmp_path / "run.h5"
    check_alike(file, figures)
    assert attributes(file)["uring_memory_registered"] == 1
    op, by, wall, host = (column(file, f"records/{name}") for name in ("op", "timed_by", "wall_ns", "host_ns"))
    storage = column(file, "records/tier") == 1
    together = storage & np.isin(op, (Op.READ, Op.WRITE, Op.DEMOTE))
    assert (by[together] == TimedBy.URING).all()
    assert not (by[~together] == TimedBy.URING).any()
    assert (wall[together] > 0).all()
    assert not host[together].any(), "no operation has a split of its own"
    splits = {
        name: column(file, f"splits/{name}") for name in ("operations", "wall_ns", "device_ns", "host_ns", "runq_ns")
    }
    assert splits["operations"].sum() == np.count_nonzero(together)
    assert (splits["wall_ns"] == splits["device_ns"] + splits["host_ns"] + splits["runq_ns"]).all()
    assert column(file, "batches/depth").max() > 1


def test_rings_without_the_extension_are_refused_before_the_run(start_run: Start, trace: Path) -> None:
    ended = start_run(
        *settings(trace, "io.engine=uring"), config="mooncake", environment={"KVBENCH_TIMER": "python"}
    ).ended()
    assert ended.code == 1
    assert "io.engine=uring: rings (io_uring) need the C extension" in ended.messages[-1]
