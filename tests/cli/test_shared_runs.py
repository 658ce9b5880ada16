"""Whole runs of ranks that share one key space, and what is refused before anything is measured."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from kvbench_command import QUICK, Command, Ended, attributes, column, remains
from samples import sample_trace

from kvbench.records.schema import Locality, Op

pytestmark = pytest.mark.slow

Call = Callable[..., Ended]
Start = Callable[..., Command]

SHARED = (*QUICK, "namespace=shared", "tiers=[{kind: file, capacity_bytes: 64MiB}]", "payload.verify=full")


@pytest.fixture
def replay(tmp_path: Path) -> tuple[str, ...]:
    """Settings for a trace whose requests share blocks, dealt round-robin."""
    trace = sample_trace(tmp_path, "mooncake")
    return (
        f"workload={{kind: trace, path: {trace}, max_requests: 40, serving: reference}}",
        "pacing.mode=asap",
        "duration_s=null",
        "cache.layout=block",
        "cache.block_tokens=512",
        "model={layers: 1, kv_heads: 1, head_dim: 8}",
    )


def count(run_file: Path, op: Op) -> int:
    return int((column(run_file, "records/op") == op).sum())


def test_objects_in_folders_that_were_renamed_are_found_by_other_ranks(
    start_run: Start, folder: Path, tmp_path: Path, replay: tuple[str, ...]
) -> None:
    layout = ("tiers=[{kind: file, capacity_bytes: 64MiB, layout: {levels: 2, width: 1, rename: true}}]",)
    ended = start_run(*SHARED, *replay, *layout, options=("--ranks", 3)).ended()
    assert ended.code == 0, ended.err
    out = tmp_path / "run.h5"
    assert attributes(out)["layout"] == "file, in 2 levels of 16 folders, renamed"
    assert (column(out, "records/errno") == 0).all()
    localities = column(out, "records/locality")[column(out, "records/op") == Op.READ]
    assert (localities == Locality.SAME_NODE).sum() > 0
    assert remains(folder) == []


def test_ranks_that_share_write_a_common_block_once_or_hardly_more(
    start_run: Start, kvbench: Call, folder: Path, tmp_path: Path, replay: tuple[str, ...]
) -> None:
    (folder / "mine").write_text("precious")
    private, shared = tmp_path / "private.h5", tmp_path / "shared.h5"
    for out, namespace in ((private, "private"), (shared, "shared")):
        settings = (*SHARED, *replay, f"namespace={namespace}")
        ended = start_run(*settings, out=out, options=("--ranks", 3)).ended()
        assert ended.code == 0, ended.err
    assert remains(folder) == ["mine"]
    assert (column(shared, "records/errno") == 0).all()
    assert count(shared, Op.WRITE) <= count(private, Op.WRITE)
    localities = column(shared, "records/locality")[column(shared, "records/op") == Op.READ]
    assert (localities == Locality.SAME_NODE).sum() > 0
    assert (column(private, "records/locality") == Locality.OWN).all()
    described = attributes(shared)
    assert (described["namespace"], described["decision_order"]) == ("shared", "exchange")
    hits = [column(path, "requests/hit_objects").sum() for path in (private, shared)]
    misses = [column(path, "requests/miss_objects").sum() for path in (private, shared)]
    assert hits[1] >= hits[0]
    assert sum(hits) + sum(misses) == 2 * (hits[0] + misses[0]), "the same look-ups"

    summary = json.loads(kvbench("summary", shared, "--json").out)["sharing"]
    assert summary["counts"]["missing_violations"] == summary["counts"]["torn_violations"] == 0
    by_writer = {row["writer"]: row["operations"] for row in summary["reads"]}
    assert by_writer == {
        "own": (localities == Locality.OWN).sum(),
        "same-node": (localities == Locality.SAME_NODE).sum(),
        "other-node": 0,
    }
    assert "Storage reads, by who wrote the object" in kvbench("summary", shared).out
    assert "sharing" not in kvbench("summary", private).out


def test_prefill_ranks_write_and_decode_ranks_read(
    under_mpirun: Start, kvbench: Call, folder: Path, tmp_path: Path
) -> None:
    settings = (
        *SHARED,
        "roles=prefill=0-1,decode=2-3",
        "model={layers: 1, kv_heads: 1, head_dim: 64}",
        "duration_s=4",
    )
    ended = under_mpirun(*settings, "workload={users: 2, mix: {chatbot: 1}, think_time_scale: 0.5}", ranks=4).ended()
    assert ended.code == 0, ended.err
    assert remains(folder) == []
    run_file = tmp_path / "run.h5"
    ranks, ops = column(run_file, "records/rank"), column(run_file, "records/op")
    assert set(ops[ranks >= 2].tolist()) == {Op.READ}
    assert Op.WRITE in ops[ranks < 2]
    assert (column(run_file, "records/locality")[ranks >= 2] == Locality.SAME_NODE).all()
    assert (column(run_file, "records/errno") == 0).all() or set(column(run_file, "records/errno").tolist()) <= {0, 125}
    table = {name: column(run_file, f"sharing/{name}") for name in ("role", "handed_over_requests", "written_objects")}
    assert table["role"].tolist() == [b"prefill", b"prefill", b"decode", b"decode"]
    assert table["handed_over_requests"][:2].min() > 0
    assert table["written_objects"][2:].tolist() == [0, 0]
    done = column(run_file, "requests/rank")[column(run_file, "requests/state") == 0]
    assert {2, 3} <= set(done.tolist())
    seen = column(run_file, "visibility/readable_ns") - column(run_file, "visibility/written_ns")
    assert len(seen)
    assert (seen > 0).all(), "nothing is readable before it is written"
    summary = kvbench("summary", run_file)
    assert "requests handed from prefill to decode" in summary.out
    assert "From the end of a write to another rank" in summary.out


def test_a_trace_is_prefilled_and_decoded_whole(
    start_run: Start, folder: Path, tmp_path: Path, replay: tuple[str, ...]
) -> None:
    ended = start_run(*SHARED, *replay, "roles=prefill=0,decode=1-2", options=("--ranks", 3)).ended()
    assert ended.code == 0, ended.err
    assert remains(folder) == []
    run_file = tmp_path / "run.h5"
    rank, request = column(run_file, "requests/rank"), column(run_file, "requests/request")
    prefilled, decoded = request[rank == 0], request[rank > 0]
    assert len(set(decoded.tolist())) == len(decoded)
    assert len(decoded) == column(run_file, "sharing/handed_over_requests").sum()
    assert set(decoded.tolist()) <= set(prefilled.tolist())
    assert len(prefilled) == min(40, attributes(run_file)["trace_requests"])
    assert set(rank[rank > 0].tolist()) == {1, 2}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("roles=prefill=0-1,decode=2-3",), "roles: rank 2 has a role, and the job has 2 ranks (0-1)"),
        (("namespace=private", "roles=prefill=0,decode=1"), "set namespace to shared"),
        (("roles=prefill=0",), "both prefill and decode need ranks"),
    ],
)
def test_roles_that_do_not_fit_are_refused_by_one_message(
    start_run: Start, folder: Path, settings: tuple[str, ...], said: str
) -> None:
    ended = start_run(*SHARED, *settings, options=("--ranks", 2)).ended()
    assert ended.code == 1
    assert len(ended.messages) == 1
    assert said in ended.messages[0]
    assert remains(folder) == []
