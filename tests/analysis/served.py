"""Small runs of a serving engine written out row by row, so that each figure can be worked out by hand."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from computed import MODEL
from numpy.typing import NDArray
from synthetic import END_NS, START_NS, STORAGE, SyntheticRun, run_attributes, run_tables

from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE, Op, Path, Phase, RequestState, TimedBy

MS = 1_000_000


def load_row(
    request: int, begins_ms: float, device_ms: float, host_ms: float = 0, runq_ms: float = 0, **columns: Any
) -> NDArray[Any]:
    """A read of `request` that began so long after the start of the window."""
    row = np.zeros(1, RECORD_DTYPE)
    row["t_start_ns"] = START_NS + begins_ms * MS
    row["device_ns"], row["host_ns"], row["runq_ns"] = device_ms * MS, host_ms * MS, runq_ms * MS
    row["wall_ns"] = row["device_ns"] + row["host_ns"] + row["runq_ns"]
    row["request"], row["op"], row["tier"], row["phase"] = request, Op.READ, STORAGE, Phase.MEASURE
    row["path"], row["timed_by"], row["nbytes"], row["tokens"] = Path.BUFFERED, TimedBy.EXTENSION, 4096, 16
    for name, value in columns.items():
        row[name] = value
    return row


def request_row(
    number: int, came_ms: float, load_ms: float, found: int, context: int, wait_ms: float = 0, **columns: Any
) -> NDArray[Any]:
    """A request that began as it came, and waited `wait_ms` for the GPU behind its load."""
    row = np.zeros(1, REQUEST_DTYPE)
    row["request"], row["phase"], row["state"] = number, Phase.MEASURE, RequestState.DONE
    row["intended_ns"] = row["start_ns"] = START_NS + came_ms * MS
    row["load_ns"], row["hit_tokens"], row["context_tokens"] = load_ms * MS, found, context
    row["miss_tokens"], row["output_tokens"] = context - found, 11
    for name, value in columns.items():
        row[name] = value
    new = max(context - found, 1)
    takes_ns = int(np.rint(float(MODEL.prefill_s(new, context - new)) * 1e9))
    row["modelled_prefill_ns"] = wait_ms * MS + takes_ns
    waited = row["start_ns"] - row["intended_ns"] + row["look_up_ns"] + row["load_ns"]
    row["first_token_ns"] = waited + row["modelled_prefill_ns"]
    row["modelled_decode_ns"] = 80 * MS
    row["end_ns"] = row["intended_ns"] + row["first_token_ns"] + row["modelled_decode_ns"]
    row["storage_ns"] = row["load_ns"]
    return row


def served_run(
    requests: Sequence[NDArray[Any]], records: Sequence[NDArray[Any]] = (), ranks: int = 1, **config: Any
) -> SyntheticRun:
    """An open loop with a window of 10 s."""
    rows = np.concatenate([*records]) if records else np.zeros(0, RECORD_DTYPE)
    asked = np.concatenate([*requests])
    content: dict[str, Any] = {
        "name": "served",
        "seed": 42,
        "io": {"drop_page_cache": True},
        "workload": {"kind": "trace", "serving": "engine"},
        "pacing": {"mode": "open"},
        "compute": {"gpu": MODEL.gpu},
    }
    attributes = run_attributes(ranks, 1, config_json=json.dumps(content | config), measure_end_ns=END_NS)
    attributes["compute_model_json"] = MODEL.to_json()
    return SyntheticRun(rows, asked, attributes, run_tables(rows, asked, ranks, 1))
