"""`kvbench plan --storage`: times on storages that are said here, what is refused, and what every output says."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from kvbench_command import KVBENCH, Command, Ended, overrides
from made_storage import BLOCKS, made_storage, one_after_the_other, service
from samples import sample_trace

from kvbench.cluster.launch.mpirun import Mpirun, mpirun_command, mpirun_environment
from kvbench.units import KIB

Call = Callable[..., Ended]
Start = Callable[..., Command]
BLOCK = 32 * KIB
SMALL_MODEL = "model={layers: 1, kv_heads: 1, head_dim: 16}"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return one_after_the_other(tmp_path / "trace.jsonl")


def latency(in_flight: int) -> float:
    return 0.002


def bandwidth(in_flight: int) -> float:
    return 0.001 * in_flight


def storage(folder: Path, seconds_at: Callable[[int], float], *more: Any, **source: object) -> Path:
    kinds = (service(kind, seconds_at, BLOCK) for kind in ("read", "write", "demote", "promote"))
    return made_storage(folder / "made.storage", *kinds, service("delete", latency, 0), *more, **source)


def words(trace: Path, file: Path, *settings: str) -> list[str]:
    return ["plan", "mooncake", *overrides(f"workload.path={trace}", SMALL_MODEL, *settings), "--storage", str(file)]


def predicted(kvbench: Call, trace: Path, file: Path, *settings: str, more: tuple[object, ...] = ()) -> dict[str, Any]:
    ended = kvbench(*words(trace, file, *settings), "--draws", "3", "--json", *more)
    assert ended.code == 0, ended.err
    found: dict[str, Any] = json.loads(ended.out)["predicted"]
    return found


@pytest.mark.parametrize("threads", [1, 2, 4, 16])
def test_a_storage_of_fixed_latency_is_as_fast_as_there_are_threads(
    kvbench: Call, trace: Path, tmp_path: Path, threads: int
) -> None:
    found = predicted(kvbench, trace, storage(tmp_path, latency), f"io.threads={threads}")
    assert found["load"]["p50_s"]["predicted"] == pytest.approx(math.ceil(BLOCKS / threads) * 0.002, rel=1e-4)
    assert found["load"]["p50_s"]["low"] == pytest.approx(found["load"]["p50_s"]["high"])
    assert found["most_in_flight"] == min(threads, BLOCKS)


@pytest.mark.parametrize("threads", [1, 2, 16])
def test_a_storage_that_divides_its_time_is_no_faster_with_more_threads(
    kvbench: Call, trace: Path, tmp_path: Path, threads: int
) -> None:
    found = predicted(kvbench, trace, storage(tmp_path, bandwidth), f"io.threads={threads}")
    assert found["load"]["p50_s"]["predicted"] == pytest.approx(BLOCKS * 0.001, rel=1e-4)


def test_operations_that_overlap_are_in_flight_together(kvbench: Call, trace: Path, tmp_path: Path) -> None:
    file = storage(tmp_path, latency, engine="uring")
    found = predicted(kvbench, trace, file, "io.engine=uring", "io.depth=4", "io.threads=1")
    assert found["load"]["p50_s"]["predicted"] == pytest.approx(BLOCKS / 4 * 0.002, rel=1e-4)


def test_what_workers_do_between_operations_takes_its_time(kvbench: Call, trace: Path, tmp_path: Path) -> None:
    between = service("storage read between", lambda in_flight: 0.003, BLOCK, station="client")
    handed_in = service("storage read hand-in", lambda in_flight: 0.005, BLOCK, station="client")
    found = predicted(kvbench, trace, storage(tmp_path, latency, between, handed_in), "io.threads=1")
    wanted = BLOCKS * 0.002 + (BLOCKS - 1) * 0.003 + 0.005
    assert found["load"]["p50_s"]["predicted"] == pytest.approx(wanted, rel=1e-4)


def test_the_first_token_is_the_load_and_the_modelled_prefill(kvbench: Call, trace: Path, tmp_path: Path) -> None:
    compute = "compute={gpu: h100-sxm, parameters_billion: 8, attention_heads: 32, qk_head_dim: 128, v_head_dim: 128}"
    found = predicted(kvbench, trace, storage(tmp_path, latency), "io.threads=1", compute)
    load, first = (found[part]["p50_s"]["predicted"] for part in ("load", "first_token"))
    assert load == pytest.approx(BLOCKS * 0.002, rel=1e-4)
    # One token is computed: the weights of 8 billion parameters are read once, as the roofline has it.
    assert first - load == pytest.approx(16e9 / (3.35e12 * 0.6), rel=0.3)
    assert "first_token" not in predicted(kvbench, trace, storage(tmp_path, latency), "io.threads=1")


def test_requests_that_come_too_fast_wait_for_each_other(kvbench: Call, tmp_path: Path) -> None:
    slow, fast = (
        predicted(
            kvbench,
            one_after_the_other(tmp_path / f"{gap}.jsonl", requests=40, gap_s=gap),
            storage(tmp_path, bandwidth),
            "io.threads=2",
        )
        for gap in (10.0, 0.004)
    )
    assert slow["queue"]["p95_s"]["predicted"] == 0
    assert fast["queue"]["p95_s"]["predicted"] > 0.02
    assert fast["utilisation"]["predicted"] > 0.9 > slow["utilisation"]["predicted"]


def test_what_is_decided_is_what_is_planned(kvbench: Call, tmp_path: Path) -> None:
    trace = sample_trace(tmp_path, "mooncake", requests=100)
    command = [*words(trace, storage(tmp_path, bandwidth)), "--capacity", "60blocks", "--json", "--draws", "2"]
    figures = json.loads(kvbench(*command).out)
    found, (tier,) = figures["predicted"], figures["tiers"]
    assert found["requests"]["predicted"] == figures["requests"]
    assert found["read_bytes_per_s"]["predicted"] / found["written_bytes_per_s"]["predicted"] == pytest.approx(
        tier["read_bytes"] / tier["written_bytes"], rel=1e-3
    )


def test_tiers_of_memory_and_of_storage_have_times_of_their_own(kvbench: Call, tmp_path: Path) -> None:
    trace = sample_trace(tmp_path, "mooncake", requests=60)
    memory = [service(kind, lambda in_flight: 1e-6, BLOCK, station="memory") for kind in ("read", "write")]
    tiers = "tiers=[{kind: memory, capacity_bytes: 1MiB}, {kind: file}]"
    found = predicted(kvbench, trace, storage(tmp_path, bandwidth, *memory), tiers)
    assert found["requests"]["predicted"] == 60
    ended = kvbench(*words(trace, storage(tmp_path, bandwidth), tiers))
    assert ended.code == 1
    assert "in memory, where none was measured" in ended.err


@pytest.mark.parametrize(
    ("settings", "made", "message"),
    [
        (("cache.block_tokens=2048",), {}, "read of 128 KiB, where 32 KiB was measured"),
        (("io.read_path=direct",), {}, "read path direct, where buffered was measured"),
        (("io.sync=none",), {}, "sync none, where object was measured"),
        ((), {"layout": "slab"}, "layout file, where slab was measured"),
        (("io.threads=100",), {}, "read with"),
    ],
)
def test_what_was_not_measured_is_refused_and_said_where_it_is_wanted(
    kvbench: Call, tmp_path: Path, settings: tuple[str, ...], made: dict[str, str], message: str
) -> None:
    trace = one_after_the_other(tmp_path / "trace.jsonl", requests=300, gap_s=0.001)
    file = storage(tmp_path, bandwidth, **made)
    ended = kvbench(*words(trace, file, *settings), "--draws", "1")
    assert ended.code == 1
    (text,) = ended.messages
    assert message in text
    assert "or give --extrapolate" in text
    found = predicted(kvbench, trace, file, *settings, more=("--extrapolate",))
    assert any(message in one for one in found["extrapolated"])
    told = kvbench(*words(trace, file, *settings), "--draws", "1", "--extrapolate").out
    assert "EXTRAPOLATED: " in told
    assert "predicted (extrapolated)" in told


def test_a_person_reads_that_it_is_predicted(kvbench: Call, trace: Path, tmp_path: Path) -> None:
    ended = kvbench(*words(trace, storage(tmp_path, latency), "io.threads=1"), "--draws", "2")
    assert "PREDICTED on made.storage: ext4 of box, 1 run file; 2 simulations" in ended.out
    assert "nothing of this load was measured" in ended.out
    assert "16 ms (16 to 16)" in ended.out
    assert "EXTRAPOLATED" not in ended.out


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (("--draws", "3"), 2, "are for --storage"),
        (("--extrapolate",), 2, "are for --storage"),
        (("--storage", "{none}"), 1, "cannot read"),
        (("--storage", "{trace}"), 1, "is no storage model but another file"),
        (("--storage", "{file}", "--draws", "0"), 2, "0 is not in the range"),
        (("--storage", "{file}", "--requests", "x.csv"), 2, "ends in .parquet"),
    ],
)
def test_wrong_input_is_one_message(
    kvbench: Call, trace: Path, tmp_path: Path, more: tuple[str, ...], code: int, message: str
) -> None:
    places = {"none": tmp_path / "none", "trace": trace, "file": storage(tmp_path, latency)}
    said = [word.format(**places) for word in more]
    ended = kvbench("plan", "mooncake", *overrides(f"workload.path={trace}", SMALL_MODEL), *said)
    assert ended.code == code
    assert message in ended.err


def test_every_request_can_be_written_out(kvbench: Call, trace: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs pyarrow")
    out = tmp_path / "requests.parquet"
    predicted(kvbench, trace, storage(tmp_path, latency), "io.threads=1", more=("--requests", out))
    table = parquet.read_table(out).to_pandas()
    assert len(table) == 10
    assert table["predicted_load_ns"].tolist()[1:] == pytest.approx([BLOCKS * 2e6] * 9, rel=1e-4)


@pytest.mark.slow
def test_ranks_of_a_launcher_predict_what_one_process_does(
    kvbench: Call, start: Start, mpirun: Mpirun, tmp_path: Path
) -> None:
    trace = sample_trace(tmp_path, "mooncake", requests=60)
    command = [*words(trace, storage(tmp_path, bandwidth)), "--draws", "3", "--json"]
    alone = json.loads(kvbench(*command, "--ranks", "2").out)
    ended = start(*mpirun_command(mpirun, 2), *KVBENCH, *command, environment=mpirun_environment(mpirun, {})).ended()
    assert ended.code == 0, ended.err
    assert json.loads(ended.out) == alone


@pytest.mark.parametrize("group", [1, 2])
def test_ranks_that_share_a_storage_wait_for_it_and_those_with_their_own_do_not(
    kvbench: Call, trace: Path, tmp_path: Path, group: int
) -> None:
    """Ranks that serve together have the same requests, and a part of each block each."""
    nbytes = BLOCK // group
    kinds = (service(kind, bandwidth, nbytes) for kind in ("read", "write"))
    file = made_storage(tmp_path / "made.storage", *kinds)
    model = "model={layers: 1, kv_heads: 2, head_dim: 8}"
    settings = ("io.threads=1", f"tensor_parallel={group}", "workload.deal=prefix", model)
    shared = predicted(kvbench, trace, file, *settings, more=("--ranks", 2))
    own = predicted(kvbench, trace, file, *settings, more=("--ranks", 2, "--ranks-per-storage", 1))
    assert shared["ranks_per_storage"] == 2
    assert own["ranks_per_storage"] == 1
    # Alone a load takes as long as its blocks; two ranks that load at once divide the time of what they share.
    assert own["load"]["p50_s"]["predicted"] == pytest.approx(BLOCKS * 0.001, rel=1e-3)
    assert shared["load"]["p50_s"]["predicted"] == pytest.approx(group * BLOCKS * 0.001, rel=1e-3)


def test_a_load_that_is_too_much_is_said_to_be(kvbench: Call, trace: Path, tmp_path: Path) -> None:
    file = storage(tmp_path, lambda in_flight: 100.0)
    settings = ("io.threads=1", "duration_s=20")
    found = predicted(kvbench, trace, file, *settings)
    assert "load" not in found, found["requests"]
    ended = kvbench(*words(trace, file, *settings), "--draws", "1")
    assert ended.code == 0
    assert "no request is done before the run ends; this load is too much" in ended.out
