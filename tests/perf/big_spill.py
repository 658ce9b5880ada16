"""Makes the spill file of a rank with many rows and recovers it: `big_spill.py DIRECTORY ROWS`; prints JSON.

`bytes` is the peak of memory that recovering alone took, over what the process held before.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from kvbench.cluster.node import peak_resident_bytes
from kvbench.records.schema import RECORD_DTYPE, Phase
from kvbench.records.spill.header import spill_path
from kvbench.records.spill.recover import recover
from kvbench.records.spill.writer import SpillWriter
from kvbench.records.tables import SAMPLE_DTYPE

RUN = "20260101-000000-abcdef"
ATTRIBUTES = {"fingerprint": "0", "timer": "extension", "ranks": 1, "config_json": "{}"}
HEADER: dict[str, Any] = {
    "run_id": RUN,
    "rank": 0,
    "ranks": 1,
    "node": 0,
    "host": "here",
    "started_at": "",
    "attributes": ATTRIBUTES | {"tiers_json": json.dumps([{"name": "file", "kind": "file"}])},
    "node_row": {},
    "rank_row": {},
}

directory, rows = Path(sys.argv[1]), int(sys.argv[2])
directory.mkdir()
chunk = np.zeros(4096, RECORD_DTYPE)
chunk["t_start_ns"] = np.arange(len(chunk)) * 1000
chunk["phase"] = Phase.MEASURE
writer = SpillWriter(spill_path(directory, RUN, 0), HEADER, SAMPLE_DTYPE)
writer.add_facts({"clock_before": [0, 0, 0, 0], "measure_start_ns": 0})
for _ in range(rows // len(chunk)):
    writer.take_records(chunk)
writer.flush()
writer.close()
before = peak_resident_bytes()
began_s = time.monotonic()
made = recover([directory], directory / "run.h5")
took_s = time.monotonic() - began_s
print(json.dumps({"rows": made.records, "rows_per_s": made.records / took_s, "bytes": peak_resident_bytes() - before}))
