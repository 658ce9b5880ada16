"""From the spill files of a run that was killed to a run file: the tables and attributes of a finished run's, with the
rows up to the last round that each rank has written.

The spill files are read twice and never whole: once to check them and to learn how far each goes, once to copy their
rows. They are foreign data: what is in them is checked before it is believed. They are not changed, nor removed.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

import kvbench
from kvbench.errors import KvbenchError
from kvbench.records.clock import RECORD_TIMES, REQUEST_TIMES, on_common_clock
from kvbench.records.file import RunFileWriter
from kvbench.records.outputs import make_folder
from kvbench.records.reader import REQUIRED_ATTRIBUTES
from kvbench.records.spill.header import SpillHeader, checked_facts, checked_header, spill_path
from kvbench.records.spill.reader import SpillFile, check_rows
from kvbench.records.spill.recover_report import Found, message
from kvbench.records.spill.writer import FACTS, RECORDS, REQUESTS, SAMPLES
from kvbench.records.tables import (
    CALIBRATION_DTYPE,
    DIRECTORY_DTYPE,
    NODE_DTYPE,
    RANK_DTYPE,
    SAMPLE_DTYPE,
    as_columns,
    as_rows,
    clock_columns,
    number_rows,
)
from kvbench.records.tally import Tally

_MOST_TIERS: Final = 255
_EMPTY: Final[Mapping[str, str | int | float]] = {"S": "", "i": 0, "f": 0.0}


@dataclass(frozen=True, slots=True)
class Recovered:
    """What came of it."""

    path: Path
    """The run file."""
    run_id: str
    message: str
    """The file's `status_message`."""
    records: int
    requests: int
    spills: tuple[Path, ...]
    """The files that it was made from."""


def recover(sources: Sequence[Path], out: Path, overwrite: bool = False, run_id: str | None = None) -> Recovered:
    """Write the run file `out` from the spill files in `sources` (files, or directories that hold them).

    `run_id` chooses among the files of several runs. Raises KvbenchError: no usable file, files of several runs or two
    of one rank, `out` exists (and not `overwrite`) or cannot be written.
    """
    found, unreadable = _read_all(_files(sources), run_id)
    with _writer(out, overwrite, [one.path for one in found], found[0].header.run_id) as writer:
        for one in found:
            for rows in _rows(one, RECORDS, RECORD_TIMES):
                writer.append_records(rows)
        for one in found:
            for rows in _rows(one, REQUESTS, REQUEST_TIMES):
                writer.append_requests(rows)
        text, attributes = _attributes(found, unreadable)
        for name, table in _tables(found).items():
            writer.write_table(name, as_columns(table))
        writer.set_attributes(attributes)
        path = writer.finish()
    return Recovered(
        path,
        found[0].header.run_id,
        text,
        sum(one.tally.records for one in found),
        sum(one.tally.requests for one in found),
        tuple(one.path for one in found),
    )


def _files(sources: Sequence[Path]) -> list[Path]:
    files: dict[Path, None] = {}
    for source in sources:
        if source.is_dir():
            pattern = spill_path(source, "*", "*").name
            inside = sorted(source.glob(pattern))
            if not inside:
                raise KvbenchError(f"there are no spill files in {source}: they are called {pattern}")
            files |= dict.fromkeys(inside)
        elif source.exists():
            files[source] = None
        else:
            raise KvbenchError(
                f"there is no file {source}: give the spill files of a run, or directories that hold them"
            )
    return list({path.resolve(): path for path in files}.values())


def _read_all(paths: Sequence[Path], run_id: str | None) -> tuple[list[Found], list[str]]:
    """The files of one run, in the order of their ranks, and what is wrong with those that are no good."""
    found: list[Found] = []
    unreadable: list[str] = []
    for path in paths:
        try:
            one = _read(path, run_id)
        except KvbenchError as error:
            unreadable.append(str(error))
            continue
        if one is not None:
            found.append(one)
    if not found:
        which = "there" if run_id is None else f"of run {run_id}"
        raise KvbenchError("\n  ".join([f"no spill file {which} can be used", *unreadable[:16]]))
    _check_one_run(found)
    return sorted(found, key=lambda one: one.header.rank), unreadable


def _check_one_run(found: Sequence[Found]) -> None:
    first: dict[tuple[Any, ...], Found] = {}
    for one in found:
        header = one.header
        first.setdefault((header.run_id, header.ranks, header.started_at, header.attributes["fingerprint"]), one)
    if len(first) > 1:
        examples = "\n  ".join(f"run {one.header.run_id}: {one.path}" for one in list(first.values())[:8])
        raise KvbenchError(
            f"these are spill files of {len(first)} different runs, of which --run chooses one:\n  {examples}"
        )
    ranks: dict[int, Path] = {}
    for one in found:
        other = ranks.setdefault(one.header.rank, one.path)
        if other != one.path:
            raise KvbenchError(f"{other} and {one.path} are both of rank {one.header.rank}: give one of them")


def _read(path: Path, run_id: str | None) -> Found | None:
    """Read `path` to the end of its good part; None where it is of another run than `run_id`."""
    facts: dict[str, Any] = {}
    tally = Tally()
    last_ns = 0
    with SpillFile(path, SAMPLE_DTYPE) as file:
        header = checked_header(path, file.header)
        tiers = _check_attributes(path, header)
        if run_id not in (None, header.run_id):
            return None
        for frame in file.frames():
            if frame.kind == FACTS:
                facts |= frame.facts
            elif frame.kind == RECORDS:
                check_rows(path, frame.rows, header.rank, tiers)
                tally.take_records(frame.rows)
                last_ns = max(last_ns, int((frame.rows["t_start_ns"] + frame.rows["wall_ns"]).max(initial=0)))
            elif frame.kind == REQUESTS:
                check_rows(path, frame.rows, header.rank, tiers)
                tally.take_requests(frame.rows)
        ending = file.ending
    assert ending is not None, "the frames were read to their end"
    known = checked_facts(path, facts)
    clock = known.clock()
    if clock is None:
        if tally.records or tally.requests:
            raise KvbenchError(f"{path} is damaged: it holds rows, and not how its clock compares with rank 0's")
        raise KvbenchError(f"{path} ends before the run began on rank {header.rank}")
    alive_ns = clock.to_common(max(last_ns, known.t_ns))
    return Found(path, header, known, clock, tally, ending, alive_ns)


def _check_attributes(path: Path, header: SpillHeader) -> int:
    """Check what a reader of the run file will ask for; returns the number of tiers."""
    lacking = {"fingerprint", "ranks", *REQUIRED_ATTRIBUTES} - {"status"} - set(header.attributes)
    if lacking:
        raise KvbenchError(f"{path} is damaged: its header lacks {', '.join(sorted(lacking))}")
    try:
        tiers = json.loads(str(header.attributes["tiers_json"]))
        config = json.loads(str(header.attributes["config_json"]))
    except (ValueError, RecursionError) as error:
        raise KvbenchError(f"{path} is damaged: the configuration in its header is not JSON") from error
    good = isinstance(config, dict) and isinstance(tiers, list) and 0 < len(tiers) <= _MOST_TIERS
    good = good and all(isinstance(tier, dict) and {"name", "kind"} <= set(tier) for tier in tiers)
    if not good or header.attributes["ranks"] != header.ranks:
        raise KvbenchError(f"{path} is damaged: the attributes in its header are none of kvbench's")
    return len(tiers)


def _rows(one: Found, kind: int, times: Sequence[str]) -> Iterator[npt.NDArray[np.void]]:
    """The rows of RECORDS, REQUESTS or SAMPLES in the good part of a file, on rank 0's clock."""
    with SpillFile(one.path, SAMPLE_DTYPE) as file:
        same = checked_header(one.path, file.header) == one.header
        for frame in file.frames(one.ending.good_bytes, [kind]):
            yield on_common_clock(frame.rows, times, one.clock)
        ending = file.ending
    if not same or ending is None or ending.good_bytes != one.ending.good_bytes:
        raise KvbenchError(f"{one.path} has changed while it was read: wait until nothing writes there, and try again")


def _writer(out: Path, overwrite: bool, spills: Sequence[Path], run_id: str) -> RunFileWriter:
    make_folder(out.parent, "the run file", "choose another -o")
    return RunFileWriter(out, overwrite=overwrite, inputs=spills, run_id=run_id)


def _attributes(found: Sequence[Found], unreadable: Sequence[str]) -> tuple[str, dict[str, str | int | float]]:
    """The status message, and the attributes: those of the lowest rank, with what became of the run."""
    starts = [one.clock.to_common(t) for one in found if (t := one.facts.measure_start_ns) is not None]
    attributes = dict(found[0].header.attributes)
    planned = json.loads(str(attributes["config_json"])).get("duration_s")
    start_ns = starts[0] if starts else None
    text = message(found, unreadable, start_ns, planned if isinstance(planned, int | float) else None)
    if start_ns is None:
        # No rank has come so far: a window without length, after all that there is.
        start_ns = max(one.alive_ns for one in found)
    ends = [one.clock.to_common(one.tally.end_ns) for one in found if one.tally.end_ns]
    return text, attributes | {
        "status": "recovered",
        "status_message": text,
        "recovered_ranks": len(found),
        # A spill file holds all rows, also of a run that would have kept a sample.
        "records": "full",
        "kvbench_version": kvbench.__version__,
        "measure_start_ns": start_ns,
        "measure_end_ns": max([start_ns, *ends]),
        "clock_uncertainty_ns": max(one.clock.worst_uncertainty_ns for one in found),
    }


def _tables(found: Sequence[Found]) -> dict[str, npt.NDArray[np.void]]:
    ranks = np.concatenate([_row(RANK_DTYPE, _rank_values(one)) for one in found])
    number_rows(ranks)
    first = {one.header.node: one for one in reversed(found)}
    nodes = [_row(NODE_DTYPE, _node_values(one)) for _, one in sorted(first.items())]
    calibration = [row.model_dump() for one in found for row in one.facts.calibration]
    samples = [rows for one in found for rows in _rows(one, SAMPLES, ("t_ns",))]
    directories = [_row(DIRECTORY_DTYPE, row) for one in found if (row := one.header.directory_row)]
    return {
        "ranks": ranks,
        "nodes": np.concatenate(nodes),
        **({"directories": np.concatenate(directories)} if directories else {}),
        "calibration": as_rows(calibration, CALIBRATION_DTYPE),
        "samples": np.concatenate(samples) if samples else np.empty(0, SAMPLE_DTYPE),
    }


def _node_values(one: Found) -> Mapping[str, str | int | float]:
    header = one.header
    return {**header.node_row, **clock_columns(one.clock), "node": header.node, "host": header.host}


def _rank_values(one: Found) -> Mapping[str, str | int]:
    header, facts, clock, tally = one.header, one.facts, one.clock, one.tally
    return header.rank_row | {
        "rank": header.rank,
        "node": header.node,
        "host": header.host,
        "rows": tally.records,
        "requests": tally.requests,
        "clock_offset_ns": clock.offset_ns,
        "clock_drift_ns": clock.after.offset_ns - clock.before.offset_ns,
        "peak_rss_bytes": facts.peak_rss_bytes,
        "canceled_ops": tally.canceled,
        "failed_ops": tally.failed,
        "verified_sectors": facts.verified_sectors,
        "too_large_objects": facts.too_large_objects,
        "retried_requests": facts.retried_requests,
        "waiting_requests": -1,
        "waiting_tokens": -1,
        "begin_ns": 0 if tally.begin_ns == 0 else clock.to_common(tally.begin_ns),
        "end_ns": 0 if tally.end_ns == 0 else clock.to_common(tally.end_ns),
        "spilled_rows": tally.records,
        "spill_bytes": one.ending.good_bytes,
    }


def _row(dtype: np.dtype[Any], values: Mapping[str, str | int | float]) -> npt.NDArray[np.void]:
    """One row of `dtype`; what `values` does not have, or not in the column's type, is 0 or empty."""
    empty = {name: _EMPTY[dtype[name].kind] for name in dtype.names or ()}
    fitting = {name: values[name] for name in empty if type(values.get(name)) is type(empty[name])}
    return as_rows([empty | fitting], dtype)
