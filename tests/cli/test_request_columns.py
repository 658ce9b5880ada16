"""What /requests says of a request is what the rows of its operations say, as docs/hdf5-schema.md has it."""

from collections.abc import Callable
from pathlib import Path

import kvbench_analysis as ka
import numpy as np
import pandas as pd
from kvbench_command import Ended, overrides

Call = Callable[..., Ended]

MAKING_ROOM = overrides(
    "cache.promote_on_hit=true",
    "cache.block_tokens=1024",
    "tiers.0.capacity_bytes=1MiB",
    "tiers.1.capacity_bytes=4MiB",
    "model={layers: 1, kv_heads: 1, head_dim: 16}",
    "workload.generation_ms_per_token=0.01",
    "duration_s=0.6",
    "calibration.seconds=0",
    "io.arena_bytes=16MiB",
)
"""Tiers that overflow: requests make room all the time, and what is read moves up."""

KEY = ["rank", "request"]


def test_what_a_request_says_of_its_operations_is_what_their_rows_say(
    kvbench: Call, folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run.h5"
    assert kvbench("run", "smoke", "--dir", folder, "--out", out, *MAKING_ROOM).code == 0
    run = ka.load(out)
    rows = run.records[run.records["errno"] == 0]
    requests = run.requests[run.requests["state"] == "done"].set_index(KEY)
    assert len(requests) > 10

    waited_for = rows[rows["op"].isin(["read", "write", "promote"])]
    making_room = rows[rows["op"].isin(["demote", "delete"])]
    assert len(making_room) > 10
    assert set(making_room["request"]) <= set(run.requests["request"])

    def of_each(found: "pd.Series[int]") -> list[int]:
        return [int(value) for value in found.reindex(requests.index).fillna(0)]

    assert of_each(waited_for.groupby(KEY).size()) == requests["operations"].tolist()
    assert of_each(rows.groupby(KEY).size()) != requests["operations"].tolist()
    storage = run.tiers.loc[run.tiers["storage"], "name"]
    on_storage = waited_for[waited_for["tier"].isin(storage)]
    assert of_each(on_storage.groupby(KEY)["wall_ns"].sum()) == requests["storage_ns"].tolist()

    ends = (waited_for["t_start_ns"] + waited_for["wall_ns"]).groupby([waited_for[name] for name in KEY]).max()
    last = ends.reindex(requests.index)
    assert (requests["end_ns"] >= last).all()
    workload = run.config["workload"]
    generated_ns = np.round(requests["output_tokens"] * workload["generation_ms_per_token"] * 1e6)
    decoded = requests["context_tokens"] < workload["prefill_only_tokens"]
    assert (requests["end_ns"] - requests["start_ns"] >= generated_ns)[decoded].all(), "generation is part of it"


def test_the_span_of_an_operation_is_that_of_the_document(kvbench: Call, folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run.h5"
    assert kvbench("run", "smoke", "--dir", folder, "--out", out, *MAKING_ROOM).code == 0
    rows = ka.load(out).records
    on_files = rows["op"].isin(["write", "demote"]) & (rows["tier"] == "file")
    assert on_files.any()
    assert (rows["span_ns"] == rows["wall_ns"])[~on_files].all()
    assert (rows["span_ns"] < rows["wall_ns"])[on_files].all(), "the fdatasync alone"
