"""The tables of a run file whose rows are a sample: what is known of all rows (docs/hdf5-schema.md). Layouts only."""

from typing import Final

import numpy as np

from kvbench.records.schema import Locality, Op, Path, Quantity

MODES: Final = ("full", "sampled", "histogram")
"""What a run file holds: every row; a sample of them and exact sums; the same with histograms of all rows."""

QUANTITY_COLUMNS: Final = {
    Quantity.WALL: "wall_ns",
    Quantity.DEVICE: "device_ns",
    Quantity.HOST: "host_ns",
    Quantity.RUNQ: "runq_ns",
    Quantity.COPY: "copy_ns",
    Quantity.QUEUE: "queue_ns",
    Quantity.SPAN: "span_ns",
    Quantity.NBYTES: "nbytes",
}
"""The column of /records that each quantity of operations is."""

REQUEST_QUANTITIES: Final = {
    Quantity.REQUEST_LATENCY: "latency_ns",
    Quantity.REQUEST_QUEUE: "queue_ns",
    Quantity.REQUEST_STORAGE: "storage_ns",
    Quantity.REQUEST_PREFILL: "modelled_prefill_ns",
    Quantity.REQUEST_DECODE: "modelled_decode_ns",
    Quantity.REQUEST_LOOK_UP: "look_up_ns",
    Quantity.REQUEST_LOAD: "load_ns",
    Quantity.REQUEST_FIRST_TOKEN: "first_token_ns",
}
"""The column of REQUEST_POPULATION_DTYPE that holds the sum of each quantity of requests."""

MODELLED: Final = (Quantity.REQUEST_PREFILL, Quantity.REQUEST_DECODE, Quantity.REQUEST_FIRST_TOKEN)
"""Those that are only where compute is modelled, and then of every request that was done."""

OF_SERVING: Final = (Quantity.REQUEST_LOOK_UP, Quantity.REQUEST_LOAD)
"""Those that are only where requests are served as an engine does it, and then of every request that was done."""

OPERATION_SUMS: Final = (
    "operations", "nbytes", "tokens", *(name for name in QUANTITY_COLUMNS.values() if name != "nbytes"),
    "failed", "canceled", "residency_known", "resident", "timed_by_python",
)  # fmt: skip
"""Sums over the measured operations of a kind; only the first counts and sums are of those that ended without error."""

REQUEST_SUMS: Final = (
    "requests", "done", "cut_short", "failed", "hit_objects", "miss_objects", "hit_tokens", "miss_tokens",
    *REQUEST_QUANTITIES.values(),
)  # fmt: skip
"""Sums over the measured requests of a class; times are of those that were done."""

KINDS_PER_TIER: Final = len(Op) * len(Path) * len(Locality)
"""Operations of one kind are those of one tier, operation, path and locality."""

POPULATION_DTYPE: Final = np.dtype(
    [
        ("tier", "u1"),
        ("op", "u1"),
        ("path", "u1"),
        ("locality", "u1"),
        *((name, "<i8") for name in OPERATION_SUMS),
        ("least_nbytes", "<i8"),
        ("most_nbytes", "<i8"),
    ]
)
"""One row per kind: exact sums over all ranks' measured operations."""

REQUEST_POPULATION_DTYPE: Final = np.dtype(
    [("qos", "u1"), *((name, "<i8") for name in REQUEST_SUMS), ("done_inside", "<f8")]
)
"""One row per QoS class. `done_inside` counts what was done by the share of its time in the measured window."""

ERROR_DTYPE: Final = np.dtype(
    [("tier", "u1"), ("op", "u1"), ("path", "u1"), ("locality", "u1"), ("errno", "<i4"), ("operations", "<i8")]
)
"""One row per kind and errno that measured operations ended with."""

_FIGURES: Final = (
    ("count", "<i8"),
    ("sum", "<i8"),
    ("least", "<i8"),
    ("most", "<i8"),
    ("first_bucket", "<i8"),
    ("buckets", "<i8"),
)

HISTOGRAM_DTYPE: Final = np.dtype(
    [("quantity", "u1"), ("tier", "u1"), ("op", "u1"), ("path", "u1"), ("locality", "u1"), *_FIGURES]
)
"""One row per kind and quantity; its buckets, those that hold something, begin at `first_bucket` of BUCKET_DTYPE's."""

REQUEST_HISTOGRAM_DTYPE: Final = np.dtype([("quantity", "u1"), ("qos", "u1"), *_FIGURES])
"""The same, per QoS class and quantity."""

BUCKET_DTYPE: Final = np.dtype([("bucket", "<u2"), ("count", "<i8")])

PLACE_DTYPE: Final = np.dtype(
    [
        ("rank", "<i8"),
        ("node", "<i8"),
        ("tier", "u1"),
        ("op", "u1"),
        ("operations", "<i8"),
        ("nbytes", "<i8"),
        ("tokens", "<i8"),
        ("wall_ns", "<i8"),
        ("device_ns", "<i8"),
        ("host_ns", "<i8"),
        ("runq_ns", "<i8"),
        ("wall_p95_ns", "<f8"),
    ]
)
"""One row per rank, tier and operation (reads and writes), and one per node with rank -1. NaN: not known."""

LATE_DTYPE: Final = np.dtype([("qos", "u1"), ("start_ns", "<i8"), ("end_ns", "<i8")])
"""Requests that were done after the last measured operation that was seen: part of them may lie beyond the window."""

SEEN_DTYPE: Final = np.dtype([("records", "<i8"), ("requests", "<i8"), ("last_end_ns", "<i8")])
"""How many rows of all phases there were, and the end of the last measured operation (node's own clock; 0: none)."""

FILE_TABLES: Final = {
    "population": POPULATION_DTYPE,
    "request_population": REQUEST_POPULATION_DTYPE,
    "errors": ERROR_DTYPE,
    "places": PLACE_DTYPE,
    "histograms": HISTOGRAM_DTYPE,
    "request_histograms": REQUEST_HISTOGRAM_DTYPE,
    "buckets": BUCKET_DTYPE,
}
"""The groups of a run file that does not hold all rows; the last three in mode `histogram` only."""
HISTOGRAM_TABLES: Final = ("histograms", "request_histograms", "buckets")
