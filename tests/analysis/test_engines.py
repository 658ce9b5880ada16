"""Figures of loads, from rows that are written down, and the table of a study of engines."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from kvbench_analysis.engines.loads import LoadFigures, load_figures
from kvbench_analysis.engines.study import engine_figures, load_table, print_engines, to_json
from kvbench_analysis.tables.load import load
from rich.console import Console
from synthetic import START_NS, SyntheticRun, run_attributes, run_tables

from kvbench.records.reader import KvbenchError
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE, Op, Phase, TimedBy

MS = 1_000_000
READ, WRITE, LOOKUP = Op.READ, Op.WRITE, Op.LOOKUP
BEGIN_NS = START_NS + 1000 * MS
Operations = list[tuple[int, int, Op, int, int]]
OPERATIONS: Operations = [
    # request, thread, operation, start and length (ms)
    (0, 0, LOOKUP, 0, 2),
    (0, 0, READ, 5, 4),
    (0, 0, READ, 10, 4),
    (0, 1, READ, 5, 7),
    (0, 1, WRITE, 20, 50),
    (1, 0, READ, 30, 10),
    (1, 0, READ, 35, 10),
    (2, 0, LOOKUP, 50, 5),
]
"""Request 0: thread 0 is busy for 10 ms, 2 of them with a look-up. Request 1: two reads overlap, 15 ms in all. Request
2 reads nothing."""


def rows_of(operations: Operations) -> np.ndarray[Any, Any]:
    rows = np.zeros(len(operations), RECORD_DTYPE)
    for row, (request, thread, op, start, length) in zip(rows, operations, strict=True):
        row["request"], row["thread"], row["op"] = request, thread, op
        row["phase"], row["tier"] = Phase.MEASURE, 1
        row["t_start_ns"], row["wall_ns"] = BEGIN_NS + start * MS, length * MS
        row["device_ns"] = row["wall_ns"]
        row["resident_pct"] = 100 if start == 30 else 0
        row["nbytes"] = 0 if op == LOOKUP else 1 << 20
    return rows


def requests_of(tokens: list[int]) -> np.ndarray[Any, Any]:
    rows = np.zeros(len(tokens), REQUEST_DTYPE)
    for number, row in enumerate(rows):
        row["request"], row["context_tokens"], row["phase"] = number, tokens[number], Phase.MEASURE
        row["intended_ns"] = row["start_ns"] = BEGIN_NS
        row["end_ns"] = BEGIN_NS + 100 * MS
    return rows


def figures_of(path: Path, operations: Operations, tokens: list[int], order: int = 1) -> LoadFigures:
    records, requests = rows_of(operations), requests_of(tokens)[::order]
    run = SyntheticRun(records, requests, run_attributes(1, 1), run_tables(records, requests, 1, 1))
    return load_figures(load(run.write(path / f"{'-'.join(map(str, tokens))}{order}.h5")))


def test_a_load_is_the_time_of_the_thread_that_had_most_to_do(tmp_path: Path) -> None:
    figures = figures_of(tmp_path, OPERATIONS, [10, 20, 30])
    assert (figures.requests, figures.loads, figures.look_ups) == (3, 2, 2)
    assert figures.load_p50_ns == pytest.approx((10 + 15) / 2 * MS)
    assert figures.look_up_share == pytest.approx(2 / 25)
    # 0 to 2, 5 to 14, 30 to 45 and 50 to 55.
    assert figures.load_seconds == pytest.approx(0.031)
    assert (figures.load_gib, figures.store_gib) == (5 / 1024, 1 / 1024)
    assert figures.device_share == pytest.approx(1)
    assert figures.cached_share == pytest.approx(1 / 5)


def test_requests_have_one_digest_in_whatever_order_and_another_where_others_were_asked(tmp_path: Path) -> None:
    asked = (([10, 20, 30], 1), ([10, 20, 30], -1), ([10, 20, 31], 1))
    digests = [figures_of(tmp_path, OPERATIONS, tokens, order).requests_digest for tokens, order in asked]
    assert digests[0] == digests[1] != digests[2]


def test_a_run_that_loaded_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KvbenchError, match="nothing was loaded"):
        figures_of(tmp_path, OPERATIONS[-1:], [10])


def study(**changes: Any) -> pd.DataFrame:
    rows = []
    for repeat in range(5):
        for engine, seconds, look_ups in (("slow-twin", 4.0, 0.5), ("fast-twin", 1.0, 0.01)):
            row = {
                "engine": engine, "package": "made-up", "version": "1", "checked": engine == "fast-twin",
                "repeat": repeat,
                "limit_gib_per_s": 8.0, "limit_direct": True, "requests": 24, "requests_digest": "ab", "load_gib": 4.0,
                "load_seconds": seconds + repeat / 100, "block_bytes": 1 << 20, "look_ups": 200, "loads": 20,
                "load_p50_ns": 5e6, "load_p95_ns": 9e6, "operations_per_s": 1234.0, "look_up_share": look_ups,
                "device_share": 0.5, "host_share": 0.25, "runq_share": 0.25,
                "cached_share": 0.0 if engine == "fast-twin" else 0.5,
            }  # fmt: skip
            rows.append(row | changes)
    return pd.DataFrame(rows)


def test_a_study_says_how_far_each_twin_is_from_the_storage_within_80_columns() -> None:
    figures = engine_figures(study(), np.random.default_rng(0))
    assert figures.engines["engine"].tolist() == ["fast-twin", "slow-twin"]
    assert figures.engines["of_limit"].tolist() == pytest.approx([0.49, 0.124], rel=0.01)
    assert [sentence.split()[0] for sentence in figures.sentences] == ["fast-twin", "Cached:", "slow-twin"]
    assert "3.94 times" in figures.sentences[0]
    assert "50 % of the time of a load" in figures.sentences[2]
    assert "what slow-twin loads" in figures.sentences[1]
    text = io.StringIO()
    print_engines(figures, Console(file=text, width=80))
    assert "slow-twin *" in text.getvalue()
    prose = ("Storage", *figures.sentences)
    assert max(len(line.rstrip()) for line in text.getvalue().splitlines() if not line.startswith(prose)) <= 80
    assert "op/s" in text.getvalue(), "headings are not folded"
    assert "4 MiB by 16 threads, direct" in text.getvalue()
    assert json.loads(to_json(figures))["engines"][0]["engine"] == "fast-twin"


def test_shares_of_batches_are_marked_and_told_apart_from_those_of_operations() -> None:
    table = study()
    table["split_of"] = np.where(table["engine"] == "fast-twin", "batches", "operations")
    text = io.StringIO()
    print_engines(engine_figures(table, np.random.default_rng(0)), Console(file=text, width=80))
    _, _, shares = text.getvalue().partition("Where the time of reads goes")
    fast, slow = (next(line for line in shares.splitlines() if name in line) for name in ("fast-twin", "slow-twin"))
    assert (fast.count("%*"), slow.count("%*")) == (3, 0)
    assert "* of batches" in shares


def test_reads_that_overlap_without_sums_of_their_batches_have_no_known_shares(tmp_path: Path) -> None:
    records, requests = rows_of(OPERATIONS), requests_of([10, 20, 30])
    records["timed_by"], records["device_ns"] = TimedBy.URING, 0
    run = SyntheticRun(records, requests, run_attributes(1, 1), run_tables(records, requests, 1, 1))
    figures = load_figures(load(run.write(tmp_path / "run.h5")))
    assert figures.split_of == "unknown"
    assert np.isnan([figures.device_share, figures.host_share, figures.runq_share]).all()


def test_of_an_object_store_it_says_what_its_limit_is_of() -> None:
    figures = engine_figures(study(limit_requests=True, limit_direct=False), np.random.default_rng(0))
    text = io.StringIO()
    print_engines(figures, Console(file=text, width=80))
    assert "plain gets of objects of 4 MiB, 16 at once" in text.getvalue()
    assert json.loads(to_json(figures))["limit_requests"] is True


def test_twins_that_do_not_differ_are_not_said_to() -> None:
    figures = engine_figures(study(load_seconds=2.0, look_up_share=0.1, cached_share=0.0), np.random.default_rng(0))
    assert figures.sentences == ()


def test_runs_of_other_requests_are_not_compared() -> None:
    table = study()
    table.loc[0, "requests_digest"] = "cd"
    with pytest.raises(KvbenchError, match="did not serve the same requests"):
        engine_figures(table, np.random.default_rng(0))


def test_a_table_of_something_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.csv").write_text("engine,package,version\na,b,c\n")
    with pytest.raises(KvbenchError, match="lacks the columns checked"):
        load_table(tmp_path / "other.csv")
