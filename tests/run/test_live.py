"""What is shown while a run is under way: counted from the rows as they come, for people and for log files."""

import errno
import io
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from kvbench.records.recorder import RowStore
from kvbench.records.schema import RECORD_DTYPE, Op
from kvbench.run.counters import Counters, counters_width
from kvbench.run.live import View
from kvbench.units import GIB

PER_TIER = counters_width(1)


def add(store: RowStore, **columns: Any) -> None:
    _, row = store.reserve()
    store.rows[row] = np.zeros((), RECORD_DTYPE)
    for name, value in columns.items():
        store.rows[row][name] = value
    store.commit()


@pytest.fixture
def stores() -> list[RowStore]:
    return [RowStore(RECORD_DTYPE, chunk_rows=4) for _ in range(3)]


def console(*, terminal: bool) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=120)


def text_of(shown: Console) -> str:
    assert isinstance(shown.file, io.StringIO)
    return shown.file.getvalue()


def test_operations_bytes_and_failures_are_counted_for_each_tier(stores: list[RowStore]) -> None:
    counters = Counters(stores, tiers=2)
    for number in range(10):
        add(stores[number % 3], op=Op.READ, tier=1, nbytes=100, wall_ns=1000)
    add(stores[0], op=Op.WRITE, tier=0, nbytes=7, wall_ns=1000)
    add(stores[0], op=Op.READ, tier=1, nbytes=50, wall_ns=1000, errno=errno.EIO)
    add(stores[0], op=Op.READ, tier=1, nbytes=50, wall_ns=1000, errno=errno.ECANCELED)
    add(stores[0], op=Op.DELETE, tier=1, wall_ns=1000)
    totals = counters.update()
    assert totals[:3].tolist() == [1, 7, 0]
    assert totals[PER_TIER : PER_TIER + 3].tolist() == [10, 1000, 1], "what was canceled did not fail"


def test_rows_are_counted_once_and_not_those_of_the_load_before(stores: list[RowStore]) -> None:
    add(stores[0], nbytes=1, wall_ns=1)
    counters = Counters(stores, tiers=1)
    assert counters.update().sum() == 0
    for turn in range(1, 12):
        add(stores[1], nbytes=1, wall_ns=1)
        add(stores[2], nbytes=1, wall_ns=1)
        assert counters.update()[0] == counters.update()[0] == 2 * turn


def test_the_percentile_of_all_ranks_is_within_a_fifth_of_the_true_one(stores: list[RowStore]) -> None:
    wall_ns = np.exp(np.random.default_rng(5).normal(13, 2, 3000)).astype(np.int64)
    ranks = [Counters([store], tiers=1) for store in stores]
    for index, value in enumerate(wall_ns):
        add(stores[index % 3], nbytes=1, wall_ns=value)
    totals = np.sum([rank.update() for rank in ranks], axis=0)
    shown = View(console(terminal=False), ["file"], 3)._figures(totals)[0][4]
    true_ms = float(np.percentile(wall_ns, 95)) / 1e6
    assert true_ms * 0.99 <= shown <= true_ms * 1.2


@pytest.mark.parametrize("wall_ns", [0, 1, 2**62])
def test_the_shortest_and_the_longest_operation_have_a_place(stores: list[RowStore], wall_ns: int) -> None:
    counters = Counters(stores, tiers=1)
    add(stores[0], wall_ns=wall_ns)
    totals = counters.update()
    assert totals[0] == totals[3:].sum() == 1


def totals_of(tiers: int, operations: int, nbytes: int) -> np.ndarray:
    totals = np.zeros(counters_width(tiers), dtype=np.int64)
    totals[PER_TIER * (tiers - 1) : PER_TIER * (tiers - 1) + 2] = operations, nbytes
    totals[PER_TIER * (tiers - 1) + 3 + 40] = operations
    return totals


def test_a_log_file_gets_one_plain_line_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter([0.0, 1.0, 5.0, 5.0, 6.0, 10.5, 10.5])
    monkeypatch.setattr("kvbench.run.live.time.monotonic", lambda: next(seconds))
    plain = console(terminal=False)
    with View(plain, ["memory", "file"], 4) as view:
        for _ in range(4):
            view.show(totals_of(2, 400, 2 * GIB), 4.0, 10.0)
    lines = text_of(plain).splitlines()
    assert (
        lines
        == ["4 of 10 s, 6 s left: memory 0.00 GiB/s, 0 op/s, P95 0 ms; file 0.50 GiB/s, 100 op/s, P95 0.312 ms"] * 2
    )


def test_a_terminal_gets_a_table_that_goes_away(stores: list[RowStore]) -> None:
    shown = console(terminal=True)
    view = View(shown, ["memory", "file"], 4)
    for _ in range(2):  # preconditioning, then the load
        with view:
            view.show(totals_of(2, 400, 2 * GIB), 4.0, None)
    text = text_of(shown)
    for word in ("4 ranks", "GiB/s", "operations/s", "P95 so far, ms", "failed", "0.50", "100", "file"):
        assert word in text


def test_nothing_is_divided_by_zero_at_the_start() -> None:
    for terminal in (False, True):
        with View(console(terminal=terminal), ["file"], 1) as view:
            view.show(np.zeros(counters_width(1), dtype=np.int64), 0.0, 1.0)
