"""What a sequence leaves: every key of the reference's result, and every figure computed again from the run files.

Nothing of kvbench's own computing is used here: the run files are read with h5py, and figures are made with plain
loops.
"""

import json
import os
import shutil
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

import h5py
import hdf5plugin  # noqa: F401 - registers the filter that run files are compressed with
import numpy as np
import pytest
from sequence_harness import Done

from kvbench.mlperf.tree.parts import RUN_FILE_NAME
from kvbench.mlperf.trials.trial_results import ranks_of, result_of
from kvbench.records.schema import TimedBy

GIB = 1024**3
READ, WRITE, DEMOTE, DELETE = 0, 1, 2, 4
MEASURE, DONE = 2, 0
OPTIONS, TRIALS = (1, 2, 3), (0, 1)
KEYS = json.loads((Path(__file__).parent / "reference_keys.json").read_text(encoding="utf-8"))


def keys_of(value: Any) -> Any:
    """The structure of a result: mappings by key, lists by their first mapping, values by type."""
    if isinstance(value, dict):
        return {key: keys_of(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [keys_of(value[0])] if value and isinstance(value[0], dict) else []
    return "null" if value is None else type(value).__name__


def missing(wanted: Any, found: Any, place: str = "") -> list[str]:
    """What of `wanted` there is not in `found`, or is of another type (a whole number is as good as a float)."""
    if isinstance(wanted, dict):
        if not isinstance(found, dict):
            return [f"{place} is no mapping"]
        return [
            problem for key, inner in wanted.items() for problem in missing(inner, found.get(key), f"{place}.{key}")
        ]
    if isinstance(wanted, list):
        return missing(wanted[0], found[0], f"{place}[]") if wanted and found else [] if found == wanted else [place]
    numbers = {"int", "float"}
    return [] if found == wanted or {found, wanted} <= numbers else [f"{place}: {found}, not {wanted}"]


def test_the_keys_kept_here_are_those_of_the_reference_result() -> None:
    data = Path(os.environ.get("KVBENCH_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))
    path = data / "mlperf" / "reference_rank_result.json"
    if not path.exists():
        pytest.skip(f"needs {path}")
    assert keys_of(json.loads(path.read_text(encoding="utf-8"))) == KEYS


@pytest.mark.parametrize("option", [1, 3])
def test_a_result_has_every_key_of_the_reference_and_beside_them_only_kvbench(done: Done, option: int) -> None:
    result = done.read(f"option_{option}", "trial_0", "rank_0", "kvcache_results_*.json")
    found = keys_of(result)
    # A class of requests may have had none in so short a trial: its figures are null then.
    problems = [problem for problem in missing(KEYS, found) if ".qos_metrics." not in problem]
    assert problems == []
    for extra, where in ((set(found) - set(KEYS), {"kvbench"}), (set(found["summary"]) - set(KEYS["summary"]), set())):
        assert extra == where
    assert set(found["summary"]["cache_stats"]) == set(KEYS["summary"]["cache_stats"])
    assert set(found["summary"]["qos_metrics"]) == set(KEYS["summary"]["qos_metrics"])


def test_with_memory_above_the_storage_the_figures_of_memory_are_there_as_well(done: Done) -> None:
    stats = done.read("option_2", "trial_0", "rank_0", "kvcache_results_*.json")["summary"]["cache_stats"]
    extra = set(stats) - set(KEYS["summary"]["cache_stats"])
    assert extra == {f"cpu_{op}_{p}_ms" for op in ("read", "write") for p in ("p50", "p95", "p99", "p999", "p9999")}


class Trial:
    """The rows of the one rank of a trial, as lists of dictionaries."""

    def __init__(self, path: Path) -> None:
        with h5py.File(path) as file:
            self.attributes = dict(file.attrs)
            self.records = self._rows(file["records"])
            self.requests = self._rows(file["requests"])
            self.look_ups = {name: int(column[0]) for name, column in file["look_ups"].items()}
            self.end_ns = int(file["ranks"]["end_ns"][0])
        tiers = json.loads(self.attributes["tiers_json"])
        self.records = [row for row in self.records if row["phase"] == MEASURE and row["errno"] == 0]
        self.records.sort(key=lambda row: row["t_start_ns"])
        for row in self.records:
            row["storage"] = tiers[row["tier"]]["kind"] != "memory"
        self.done = [row for row in self.requests if row["phase"] == MEASURE and row["state"] == DONE]
        self.done.sort(key=lambda row: row["end_ns"])
        duration_s = json.loads(self.attributes["config_json"])["duration_s"]
        self.elapsed_s = max(duration_s, (self.end_ns - int(self.attributes["measure_start_ns"])) / 1e9)

    @staticmethod
    def _rows(group: Any) -> list[dict[str, int]]:
        columns = {name: dataset[:].tolist() for name, dataset in group.items()}
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]

    def on_storage(self, op: int) -> list[dict[str, int]]:
        return [row for row in self.records if row["op"] == op and row["storage"]]


@pytest.fixture(scope="session")
def trials(done: Done) -> dict[tuple[int, int], Trial]:
    return {
        (option, trial): Trial(done.directory / f"option_{option}" / f"trial_{trial}" / "kvbench_run.h5")
        for option in OPTIONS
        for trial in TRIALS
    }


Trials = dict[tuple[int, int], Trial]


def close(value: float | list[float]) -> Any:
    return pytest.approx(value, rel=1e-9, abs=1e-12)


def p95(values: list[float]) -> float:
    """Linear interpolation between the two ranks beside 0.95 (n - 1)."""
    if not values:
        return 0.0
    ordered = sorted(values)
    place = 0.95 * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def seconds_in_storage(trial: Trial) -> dict[int, float]:
    """What requests that were carried out spent in reads and writes, by their number."""
    spent: dict[int, float] = {row["request"]: 0.0 for row in trial.done}
    for row in trial.records:
        if row["op"] in (READ, WRITE) and row["request"] in spent:
            spent[row["request"]] += row["wall_ns"] / 1e9
    return spent


def entries_on_storage(trial: Trial) -> int:
    came, left = (WRITE, DEMOTE), (DELETE,)
    rows = [row for row in trial.records if row["storage"]]
    return sum(row["op"] in came for row in rows) - sum(row["op"] in left for row in rows)


@pytest.mark.parametrize("option", OPTIONS)
def test_every_figure_of_the_summary_follows_from_the_run_files(done: Done, trials: Trials, option: int) -> None:
    mine = [trials[option, trial] for trial in TRIALS]
    tokens = [sum(row["output_tokens"] for row in trial.done) for trial in mine]
    storage_s = [sum(seconds_in_storage(trial).values()) for trial in mine]

    def gib_per_s(op: int) -> float:
        return fmean(sum(row["nbytes"] for row in t.on_storage(op)) / GIB / t.elapsed_s for t in mine)

    def span_p95_ms(op: int) -> float:
        return max(p95([row["span_ns"] / 1e6 for row in trial.on_storage(op)]) for trial in mine)

    in_memory = [
        str(path.relative_to(done.directory))
        for number, trial in zip(TRIALS, mine, strict=True)
        if entries_on_storage(trial) == 0
        for path in (done.directory / f"option_{option}" / f"trial_{number}").glob("rank_*/kvcache_results_*.json")
    ]
    summary = done.read("kvcache_run_summary_*.json")["options"][str(option)]
    assert {key: value for key, value in summary.items() if key != "kvbench"} == {
        "option": option,
        "aggregated_read_bandwidth_gbps": close(gib_per_s(READ)),
        "aggregated_write_bandwidth_gbps": close(gib_per_s(WRITE)),
        "aggregated_avg_throughput_tokens_per_sec": close(
            fmean(count / trial.elapsed_s for count, trial in zip(tokens, mine, strict=True))
        ),
        "aggregated_storage_throughput_tokens_per_sec": close(
            fmean(count / seconds if seconds else 0 for count, seconds in zip(tokens, storage_s, strict=True))
        ),
        "aggregated_device_read_p95_ms": close(span_p95_ms(READ)),
        "aggregated_device_write_p95_ms": close(span_p95_ms(WRITE)),
        "aggregated_p95_latency_ms": close(max(p95(list(seconds_in_storage(t).values())) for t in mine) * 1000),
        "rank_count": 1,
        "trial_count": 2,
        "partial_failure": False,
        "missing_files": [],
        "cpu_tier_ranks": in_memory,
    }


@pytest.mark.parametrize("option", OPTIONS)
def test_our_own_figures_of_the_summary_are_of_all_operations_together(done: Done, trials: Trials, option: int) -> None:
    mine = [trials[option, trial] for trial in TRIALS]
    ours = done.read("kvcache_run_summary_*.json")["options"][str(option)]["kvbench"]
    columns = {"wall": "wall_ns", "span": "span_ns"} | {f"kernel_{k}": f"{k}_ns" for k in ("device", "host", "runq")}
    wanted = {}
    for name, op in (("read", READ), ("write", WRITE), ("demote", DEMOTE)):
        for kind, column in columns.items():
            values = [row[column] / 1e6 for trial in mine for row in trial.on_storage(op)]
            if values:
                wanted[f"storage_{name}_{kind}"] = (len(values), close(p95(values)))
    assert {key: (one["operations"], one["p95_ms"]) for key, one in ours["population"].items()} == wanted
    (node,) = ours["per_node"].values()
    for name, op in (("read", READ), ("write", WRITE), ("demote", DEMOTE)):
        values = [sum(row["nbytes"] for row in t.on_storage(op)) / GIB / t.elapsed_s for t in mine]
        assert node[f"storage_{name}_gib_per_s"] == close(fmean(values))


@pytest.mark.parametrize("option", OPTIONS)
def test_a_ranks_figures_follow_from_its_rows(done: Done, trials: Trials, option: int) -> None:
    trial = trials[option, 0]
    result = done.read(f"option_{option}", "trial_0", "rank_0", "kvcache_results_*.json")
    summary, stats = result["summary"], result["summary"]["cache_stats"]
    reads = [row for row in trial.records if row["op"] == READ]
    writes = [row for row in trial.records if row["op"] == WRITE]
    assert result["seed"] == 42
    assert result["requests_completed"] == summary["total_requests"] == len(trial.done)
    assert result["end_to_end_latencies"] == close([(row["end_ns"] - row["intended_ns"]) / 1e9 for row in trial.done])
    assert result["storage_latencies"] == close([seconds_in_storage(trial)[row["request"]] for row in trial.done])
    assert result["prefill_latencies"] == close([row["wall_ns"] / 1e9 for row in writes])
    assert summary["elapsed_time"] == close(trial.elapsed_s)
    assert (stats["read_iops"], stats["write_iops"]) == (len(reads), len(writes))
    assert stats["total_read_bytes"] == sum(row["nbytes"] for row in reads)
    assert stats["total_write_bytes"] == sum(row["nbytes"] for row in writes)
    for key, op, column in (
        ("storage_read_p95_ms", READ, "wall_ns"),
        ("storage_read_device_p95_ms", READ, "span_ns"),
        ("storage_write_p95_ms", WRITE, "wall_ns"),
        ("storage_write_device_p95_ms", WRITE, "span_ns"),
    ):
        values = [row[column] / 1e6 for row in trial.on_storage(op)]
        assert stats.get(key) == (close(p95(values)) if values else None)
    moved = [*trial.on_storage(READ), *trial.on_storage(WRITE), *trial.on_storage(DEMOTE)]
    assert stats["storage_tokens_processed"] == sum(row["tokens"] for row in moved)


@pytest.mark.parametrize("option", OPTIONS)
def test_what_is_in_the_tiers_at_the_end_is_what_came_less_what_left(done: Done, trials: Trials, option: int) -> None:
    trial = trials[option, 0]
    stats = done.read(f"option_{option}", "trial_0", "rank_0", "kvcache_results_*.json")["summary"]["cache_stats"]
    held = {True: 0, False: 0}
    in_memory = 0
    for row in trial.records:
        if row["op"] == WRITE:
            held[bool(row["storage"])] += 1
            in_memory += 0 if row["storage"] else row["nbytes"]
        elif row["op"] == DELETE:
            held[bool(row["storage"])] -= 1
            in_memory -= 0 if row["storage"] else row["nbytes"]
        elif row["op"] == DEMOTE:
            held[True] += 1
            held[False] -= 1
            in_memory -= row["nbytes"]
    assert (stats["storage_entries"], stats["cpu_entries"]) == (held[True], held[False])
    assert stats["cpu_memory_used_gb"] == close(in_memory / GIB)
    if option == 2:
        assert stats["cpu_memory_used_gb"] * GIB <= 0.8 * 8 * 2**20


@pytest.mark.parametrize("option", OPTIONS)
def test_hits_by_kind_agree_with_the_reads_that_were_made(done: Done, trials: Trials, option: int) -> None:
    """A read before the request's write is one of an earlier turn, one after it is a decode read."""
    trial = trials[option, 0]
    result = done.read(f"option_{option}", "trial_0", "rank_0", "kvcache_results_*.json")
    stats = result["summary"]["cache_stats"]
    earlier: dict[int, int] = defaultdict(int)
    decode: dict[int, int] = defaultdict(int)
    written: set[int] = set()
    for row in trial.records:
        if row["op"] == WRITE:
            written.add(row["request"])
        elif row["op"] == READ:
            (decode if row["request"] in written else earlier)[row["request"]] += 1
    cut = [row for row in trial.requests if row["state"] != DONE]
    # The last read of a request that the end cut short was found, and not carried out.
    for name, count in (("multi_turn_hits", sum(earlier.values())), ("decode", sum(decode.values()))):
        counted = stats[name] if name in stats else stats["user_cache_hits"] + stats["system_prompt_hits"]
        assert count <= counted <= count + len(cut)
    hits = sum(row["hit_objects"] for row in trial.requests if row["phase"] == MEASURE)
    misses = sum(row["miss_objects"] for row in trial.requests if row["phase"] == MEASURE)
    assert (stats["cache_hits"], stats["cache_misses"]) == (hits, misses)
    prefix = result["summary"]["prefix_cache_stats"]
    assert prefix["prefix_hits"] + prefix["prefix_misses"] == len(trial.requests)
    assert result["multi_turn_cache_hits"] == stats["multi_turn_hits"]


def test_classes_of_requests_are_counted_and_judged_by_their_targets(done: Done, trials: Trials) -> None:
    trial = trials[1, 0]
    metrics = done.read("option_1", "trial_0", "rank_0", "kvcache_results_*.json")["summary"]["qos_metrics"]
    for code, (name, target) in enumerate({"interactive": 50, "responsive": 100, "batch": 1000}.items()):
        latencies = [(row["end_ns"] - row["intended_ns"]) / 1e6 for row in trial.done if row["qos"] == code]
        found = metrics[name]
        assert found["total_requests"] == len(latencies)
        assert found["sla"]["target_p95_ms"] == target
        if latencies:
            assert found["latency_ms"]["max"] == close(max(latencies))
            assert found["latency_ms"]["p95"] == found["sla"]["actual_p95_ms"] == close(p95(latencies))
            assert found["sla"]["compliance"] == close(fmean([value <= target for value in latencies]))
        else:
            assert found["sla"] == {"target_p95_ms": target, "actual_p95_ms": None, "compliance": None, "met": None}


def test_operations_that_overlap_have_none_of_the_times_that_the_kernel_accounts(done: Done, tmp_path: Path) -> None:
    option = next(o for o in OPTIONS if "storage_write_kernel_host_p95_ms" in own_figures(done, o))
    path = shutil.copy(done.directory / f"option_{option}" / "trial_0" / RUN_FILE_NAME, tmp_path / RUN_FILE_NAME)
    with h5py.File(path, "r+") as file:
        rows = file["records"]
        writes = rows["op"][:] == WRITE
        for name, value in (("timed_by", TimedBy.URING), ("device_ns", 0), ("host_ns", 0), ("runq_ns", 0)):
            rows[name][...] = np.where(writes, value, rows[name][:])
    for rank in ranks_of(Path(path)):
        found = result_of(rank, {})["kvbench"]
        assert found["storage_write_overlaps"] is True
        assert not [key for key in found if key.startswith("storage_write_kernel")]
        assert "storage_read_overlaps" not in found


def own_figures(done: Done, option: int) -> dict[str, Any]:
    result: dict[str, Any] = done.read(f"option_{option}", "trial_0", "rank_0", "kvcache_results_*.json")
    return dict(result["kvbench"])
