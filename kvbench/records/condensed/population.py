"""Exact counts and sums of all rows, and histograms of their times: what is kept of rows that are not.

Measured are the rows of the phase `measure`; figures are of those without error, others are counted. It is filled a
piece at a time, turned into tables and back, and merged by adding; so a rank's pieces make its whole, and the ranks'
the run's. A measured operation begins after the window's start and ends before its end, which is the end of the last
of them; a request may end later (its answer is still being generated), so those that end last are kept apart until
the end is known.
"""

import errno
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from kvbench.records.condensed.histogram import BUCKETS, NOTHING_LEAST, NOTHING_MOST, Histogram
from kvbench.records.condensed.population_schema import (
    BUCKET_DTYPE,
    ERROR_DTYPE,
    HISTOGRAM_DTYPE,
    KINDS_PER_TIER,
    LATE_DTYPE,
    MODELLED,
    OF_SERVING,
    OPERATION_SUMS,
    POPULATION_DTYPE,
    QUANTITY_COLUMNS,
    REQUEST_HISTOGRAM_DTYPE,
    REQUEST_POPULATION_DTYPE,
    REQUEST_QUANTITIES,
    REQUEST_SUMS,
    SEEN_DTYPE,
)
from kvbench.records.schema import RESIDENT_UNKNOWN, Locality, Op, Path, Phase, Quantity, RequestState, TimedBy

Tables = Mapping[str, NDArray[np.void]]

_KIND: Final = ("tier", "op", "path", "locality")
_CODES: Final = (len(Op), len(Path), len(Locality))
_HISTOGRAMS: Final = (
    ("histograms", HISTOGRAM_DTYPE, tuple(QUANTITY_COLUMNS)),
    ("request_histograms", REQUEST_HISTOGRAM_DTYPE, tuple(REQUEST_QUANTITIES)),
)
_MOST_LATE: Final = 2**16
"""Requests that are kept apart; beyond, all of them count as done in the window."""
_STATES: Final = {
    RequestState.DONE: "done",
    RequestState.CUT_SHORT: "cut_short",
    RequestState.FAILED: "failed",
}


class Population:
    """What is known of all rows of a rank, or of several. One thread at a time may use it.

    Takes some 20 KB per tier, and with histograms 258 KB for each kind of operation and 97 KB for each class of
    requests that occur, 161 KB where compute is modelled.
    """

    def __init__(self, tiers: int, classes: int, *, histograms: bool) -> None:
        """For `tiers` tiers and `classes` QoS classes; codes from there on are a ValueError."""
        self.tiers, self.classes = tiers, classes
        self.has_histograms = histograms
        kinds = tiers * KINDS_PER_TIER
        self.sums: NDArray[np.int64] = np.zeros((kinds, len(OPERATION_SUMS)), np.int64)
        """OPERATION_SUMS of each kind (`kind_numbers`)."""
        self.least: NDArray[np.int64] = np.full(kinds, NOTHING_LEAST, np.int64)
        self.most: NDArray[np.int64] = np.full(kinds, NOTHING_MOST, np.int64)
        """Sizes of the smallest and the largest operation of each kind."""
        self.request_sums: NDArray[np.int64] = np.zeros((classes, len(REQUEST_SUMS)), np.int64)
        self.errors: dict[tuple[int, int], int] = {}
        """Operations by kind and errno."""
        self.histograms: dict[tuple[Quantity, int], Histogram] = {}
        """By quantity, and kind or QoS class."""
        self.late: NDArray[np.void] = np.zeros(0, LATE_DTYPE)
        self.records = 0
        """Rows of all phases."""
        self.requests = 0
        self.last_end_ns = 0
        """End of the last measured operation; 0: none."""

    # Filling

    def take_records(self, rows: NDArray[np.void]) -> None:
        """Count rows of RECORD_DTYPE."""
        self.records += len(rows)
        rows = rows[rows["phase"] == Phase.MEASURE]
        if not len(rows):
            return
        kinds = kind_numbers(rows, self.tiers)
        for kind in _occurring(kinds):
            self._take_kind(int(kind), rows[kinds == kind])

    def _take_kind(self, kind: int, rows: NDArray[np.void]) -> None:
        lost = rows["errno"][rows["errno"] != 0]
        for number, count in zip(*np.unique(lost, return_counts=True), strict=True):
            self.errors[kind, int(number)] = self.errors.get((kind, int(number)), 0) + int(count)
        canceled = int(np.count_nonzero(lost == errno.ECANCELED))
        rows = rows[rows["errno"] == 0] if len(lost) else rows
        known = rows["resident_pct"][rows["resident_pct"] != RESIDENT_UNKNOWN]
        found = {
            "operations": len(rows),
            "failed": len(lost) - canceled,
            "canceled": canceled,
            "residency_known": len(known),
            "resident": int(np.count_nonzero(known)),
            "timed_by_python": int(np.count_nonzero(rows["timed_by"] == TimedBy.PYTHON)),
        }
        for name in ("tokens", *QUANTITY_COLUMNS.values()):
            found[name] = int(rows[name].sum(dtype=np.int64))
        self.sums[kind] += [found[name] for name in OPERATION_SUMS]
        if not len(rows):
            return
        self.least[kind] = min(int(self.least[kind]), int(rows["nbytes"].min()))
        self.most[kind] = max(int(self.most[kind]), int(rows["nbytes"].max()))
        self.last_end_ns = max(self.last_end_ns, int((rows["t_start_ns"] + rows["wall_ns"]).max()))
        if self.has_histograms:
            for quantity, column in QUANTITY_COLUMNS.items():
                self.histogram(quantity, kind).add(rows[column])

    def take_requests(self, rows: NDArray[np.void]) -> None:
        """Count rows of REQUEST_DTYPE."""
        self.requests += len(rows)
        rows = rows[rows["phase"] == Phase.MEASURE]
        if len(rows) and int(rows["qos"].max()) >= self.classes:
            raise ValueError(f"a request of class {rows['qos'].max()} where there are {self.classes}")
        for qos in _occurring(rows["qos"]):
            self._take_class(int(qos), rows[rows["qos"] == qos])

    def _take_class(self, qos: int, rows: NDArray[np.void]) -> None:
        done = rows[rows["state"] == RequestState.DONE]
        times = {
            Quantity.REQUEST_LATENCY: done["end_ns"] - done["intended_ns"],
            Quantity.REQUEST_QUEUE: done["start_ns"] - done["intended_ns"],
            Quantity.REQUEST_STORAGE: done["storage_ns"],
            Quantity.REQUEST_PREFILL: done["modelled_prefill_ns"],
            Quantity.REQUEST_DECODE: done["modelled_decode_ns"],
            Quantity.REQUEST_LOOK_UP: np.maximum(done["look_up_ns"], 0),
            Quantity.REQUEST_LOAD: np.maximum(done["load_ns"], 0),
            Quantity.REQUEST_FIRST_TOKEN: done["first_token_ns"],
        }
        found = {"requests": len(rows)}
        found |= {name: int(np.count_nonzero(rows["state"] == state)) for state, name in _STATES.items()}
        for name in ("hit_objects", "miss_objects", "hit_tokens", "miss_tokens"):
            found[name] = int(rows[name].sum(dtype=np.int64))
        # Every prefill computes something, so that one alone says whether compute is modelled.
        left_out: tuple[Quantity, ...] = () if done["modelled_prefill_ns"].any() else MODELLED
        left_out += OF_SERVING if (done["load_ns"] < 0).any() else ()
        for quantity, name in REQUEST_QUANTITIES.items():
            found[name] = int(times[quantity].sum(dtype=np.int64))
            if self.has_histograms and len(done) and quantity not in left_out:
                self.histogram(quantity, qos).add(times[quantity])
        self.request_sums[qos] += [found[name] for name in REQUEST_SUMS]
        late = np.zeros(len(done), LATE_DTYPE)
        for name in ("qos", "start_ns", "end_ns"):
            late[name] = done[name]
        self._keep_late(late)

    def _keep_late(self, late: NDArray[np.void]) -> None:
        """Those that end before the last operation that was seen are in the window, whose end is not before that."""
        late = np.concatenate((self.late, late))
        late = late[late["end_ns"] > self.last_end_ns]
        self.late = late if len(late) <= _MOST_LATE else late[:0]

    def histogram(self, quantity: Quantity, index: int) -> Histogram:
        """That of `quantity` for a kind (or a QoS class); made if it is not there."""
        return self.histograms.setdefault((quantity, index), Histogram())

    # Merging

    def merge(self, other: "Population") -> None:
        """Count what `other` has counted too: of the same node, as what is late is told by one clock."""
        self.sums += other.sums
        self.request_sums += other.request_sums
        np.minimum(self.least, other.least, out=self.least)
        np.maximum(self.most, other.most, out=self.most)
        for key, count in other.errors.items():
            self.errors[key] = self.errors.get(key, 0) + count
        for (quantity, index), histogram in other.histograms.items():
            self.histogram(quantity, index).merge(histogram)
        self.records += other.records
        self.requests += other.requests
        self.last_end_ns = max(self.last_end_ns, other.last_end_ns)
        self._keep_late(other.late)

    def done_inside(self, end_ns: int | None) -> NDArray[np.float64]:
        """Of each class, the requests that were done, by the share of their time before `end_ns` (own clock)."""
        inside = self.request_sums[:, REQUEST_SUMS.index("done")].astype(np.float64)
        if end_ns is not None and len(self.late):
            start, end = self.late["start_ns"], self.late["end_ns"]
            share = np.clip((end_ns - start) / np.maximum(end - start, 1), 0, 1)
            inside -= np.bincount(self.late["qos"], 1 - share, minlength=self.classes)
        return inside

    # Tables

    def kinds(self) -> NDArray[np.intp]:
        """Numbers of the kinds that occur."""
        return np.flatnonzero(self.sums.any(axis=1))

    def tables(self, end_ns: int | None = None) -> dict[str, NDArray[np.void]]:
        """All that is known, as rows of the layouts of `population_schema` by the names of `_LAYOUTS`.

        `end_ns` is the end of the window (own clock), where it is known.
        """
        kinds, classes = self.kinds(), np.flatnonzero(self.request_sums.any(axis=1))
        population = _coded(kinds, POPULATION_DTYPE)
        for place, name in enumerate(OPERATION_SUMS):
            population[name] = self.sums[kinds, place]
        counted = population["operations"] > 0
        population["least_nbytes"] = np.where(counted, self.least[kinds], 0)
        population["most_nbytes"] = np.where(counted, self.most[kinds], 0)
        requests = np.zeros(len(classes), REQUEST_POPULATION_DTYPE)
        requests["qos"] = classes
        for place, name in enumerate(REQUEST_SUMS):
            requests[name] = self.request_sums[classes, place]
        requests["done_inside"] = self.done_inside(end_ns)[classes]
        errors = _coded(np.array([kind for kind, _ in sorted(self.errors)], np.int64), ERROR_DTYPE)
        errors["errno"] = [number for _, number in sorted(self.errors)]
        errors["operations"] = [self.errors[key] for key in sorted(self.errors)]
        seen = np.array([(self.records, self.requests, self.last_end_ns)], SEEN_DTYPE)
        return {
            "population": population,
            "request_population": requests,
            "errors": errors,
            "late": self.late,
            "seen": seen,
        } | self._histogram_tables()

    def _histogram_tables(self) -> dict[str, NDArray[np.void]]:
        parts, first = [np.zeros(0, BUCKET_DTYPE)], 0
        tables = {}
        for name, dtype, quantities in _HISTOGRAMS:
            keys = sorted(key for key in self.histograms if key[0] in quantities)
            index = np.array([index for _, index in keys], np.int64)
            rows = np.zeros(len(keys), dtype) if name == "request_histograms" else _coded(index, dtype)
            if name == "request_histograms":
                rows["qos"] = index
            for row, key in zip(rows, keys, strict=True):
                histogram = self.histograms[key]
                used = np.flatnonzero(histogram.counts)
                part = np.zeros(len(used), BUCKET_DTYPE)
                part["bucket"], part["count"] = used, histogram.counts[used]
                parts.append(part)
                row["quantity"], row["count"], row["sum"] = key[0], histogram.count, histogram.total
                row["least"], row["most"] = histogram.least, histogram.most
                row["first_bucket"], row["buckets"] = first, len(used)
                first += len(used)
            tables[name] = rows
        return tables | {"buckets": np.concatenate(parts)}

    def add_tables(self, tables: Tables) -> None:
        """Count what a population with these `tables` has counted. Raises ValueError: they contradict themselves."""
        other = Population(self.tiers, self.classes, histograms=self.has_histograms)
        kinds = kind_numbers(tables["population"], self.tiers)
        for place, name in enumerate(OPERATION_SUMS):
            np.add.at(other.sums[:, place], kinds, tables["population"][name])
        counted = tables["population"]["operations"] > 0
        other.least[kinds[counted]] = tables["population"]["least_nbytes"][counted]
        other.most[kinds[counted]] = tables["population"]["most_nbytes"][counted]
        classes = classes_or_kinds(tables["request_population"], self.tiers, self.classes)
        for place, name in enumerate(REQUEST_SUMS):
            np.add.at(other.request_sums[:, place], classes, tables["request_population"][name])
        errors = tables["errors"]
        for kind, number, count in zip(
            kind_numbers(errors, self.tiers), errors["errno"], errors["operations"], strict=True
        ):
            other.errors[int(kind), int(number)] = other.errors.get((int(kind), int(number)), 0) + int(count)
        for name, _, _ in _HISTOGRAMS:
            numbers = classes_or_kinds(tables[name], self.tiers, self.classes)
            for key, histogram in read_histograms(tables[name], numbers, tables["buckets"]):
                other.histograms[key] = histogram
        _check_codes(tables["late"]["qos"].astype(np.int64), self.classes)
        other.late = tables["late"]
        for row in tables["seen"]:
            other.records, other.requests = other.records + int(row["records"]), other.requests + int(row["requests"])
            other.last_end_ns = max(other.last_end_ns, int(row["last_end_ns"]))
        self.merge(other)


def read_histograms(
    rows: NDArray[np.void], numbers: NDArray[np.int64], buckets: NDArray[np.void]
) -> Iterator[tuple[tuple[Quantity, int], Histogram]]:
    """Each row's histogram (HISTOGRAM_DTYPE or REQUEST_HISTOGRAM_DTYPE) under its quantity and its number in `numbers`.

    Raises ValueError where a row's buckets are not there, are none of the layout, or do not add up to its count.
    """
    _check_codes(rows["quantity"], len(Quantity))
    for row, number in zip(rows, numbers, strict=True):
        first, many = int(row["first_bucket"]), int(row["buckets"])
        if not 0 <= first <= len(buckets) - many or many < 0:
            raise ValueError(f"a histogram claims {many} buckets from {first} on, of {len(buckets)}")
        part = buckets[first : first + many]
        _check_codes(part["bucket"], BUCKETS)
        histogram = Histogram()
        np.add.at(histogram.counts, part["bucket"], part["count"])
        histogram.total, histogram.least, histogram.most = int(row["sum"]), int(row["least"]), int(row["most"])
        if histogram.count != int(row["count"]) or (many and int(part["count"].min()) < 0):
            raise ValueError(f"a histogram of {row['count']} values holds {histogram.count}")
        yield (Quantity(int(row["quantity"])), int(number)), histogram


def classes_or_kinds(rows: NDArray[np.void], tiers: int, classes: int) -> NDArray[np.int64]:
    """What each row is of: the number of its QoS class where it has one, else that of its kind."""
    if "qos" not in (rows.dtype.names or ()):
        return kind_numbers(rows, tiers)
    _check_codes(rows["qos"], classes)
    return rows["qos"].astype(np.int64)


def _occurring(codes: NDArray[Any]) -> NDArray[np.intp]:
    """The numbers that occur among `codes`, which are small; without all that `numpy.unique` imports when it is first
    called, which would be in the load."""
    return np.flatnonzero(np.bincount(codes))


def kind_numbers(rows: NDArray[np.void], tiers: int) -> NDArray[np.int64]:
    """The number of each row's kind: its place among all combinations of `_KIND`, in order.

    Raises ValueError where a code is none of those that there are.
    """
    numbers = np.zeros(len(rows), np.int64)
    for name, many in zip(_KIND, (tiers, *_CODES), strict=True):
        _check_codes(rows[name], many)
        numbers = numbers * many + rows[name]
    return numbers


def _codes(kinds: NDArray[Any]) -> list[NDArray[Any]]:
    """Tier, operation, path and locality of the kinds with these numbers."""
    codes = []
    for many in reversed(_CODES):
        kinds, code = np.divmod(kinds, many)
        codes.append(code)
    return [kinds, *reversed(codes)]


def _coded(kinds: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[np.void]:
    rows = np.zeros(len(kinds), dtype)
    for name, codes in zip(_KIND, _codes(kinds), strict=True):
        rows[name] = codes
    return rows


def _check_codes(codes: NDArray[Any], number: int) -> None:
    if len(codes) and not 0 <= int(codes.min()) <= int(codes.max()) < number:
        raise ValueError(f"the code {codes.max()} where there are {number}")
