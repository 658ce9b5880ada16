"""Live figures for Prometheus: those of the progress line, over HTTP, for as long as the run lasts."""

import io
import json
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from kvbench.errors import KvbenchError
from kvbench.records.recorder import RowStore
from kvbench.records.schema import RECORD_DTYPE, Op
from kvbench.run.counters import HISTOGRAM_EDGES_S, Counters
from kvbench.run.live import View
from kvbench.run.metrics import Metrics, read_address, serve

parser = pytest.importorskip("prometheus_client.openmetrics.parser")
DOCS = Path(__file__).resolve().parents[2] / "docs"
FACTS = {"run_id": "20260301-080000-abcdef", "configuration": "smoke", "fingerprint": "0123"}
TIERS = ("memory", "file")
Samples = Mapping[tuple[str, str], float]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":9464", ("127.0.0.1", 9464)),
        ("0.0.0.0:1", ("0.0.0.0", 1)),
        ("[::1]:65535", ("::1", 65535)),
        ("node7:0", ("node7", 0)),
    ],
)
def test_an_address_without_a_host_is_the_loopback(text: str, expected: tuple[str, int]) -> None:
    assert read_address(text) == expected


@pytest.mark.parametrize("text", ["", "9464", ":", ":x", ":65536", ":-1", "::1:9464", "host:", ":٣"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not like :9464|stands in brackets"):
        read_address(text)


@pytest.fixture
def store() -> RowStore:
    return RowStore(RECORD_DTYPE, chunk_rows=8)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(FACTS, ranks=3)


def add(store: RowStore, count: int, **columns: Any) -> None:
    for _ in range(count):
        _, row = store.reserve()
        store.rows[row] = np.zeros((), RECORD_DTYPE)
        for name, value in columns.items():
            store.rows[row][name] = value
        store.commit()


def view(metrics: Metrics) -> View:
    return View(Console(file=io.StringIO(), force_terminal=False), TIERS, 3, listener=metrics)


@pytest.fixture
def url(metrics: Metrics) -> Iterator[str]:
    with ExitStack() as stack:
        yield serve(stack, metrics, ("127.0.0.1", 0))


def told(url: str) -> tuple[dict[str, str], Samples]:
    """Kinds of metrics by name, and samples by name and the label that tells them apart, as OpenMetrics reads them."""
    request = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["Content-Type"].startswith("application/openmetrics-text")
        families = list(parser.text_string_to_metric_families(answer.read().decode()))
    samples = {
        (sample.name, " ".join(sample.labels.get(name, "") for name in ("tier", "le")).strip()): sample.value
        for family in families
        for sample in family.samples
    }
    return {family.name: family.type for family in families}, samples


def test_what_is_told_is_what_the_progress_line_counts(store: RowStore, metrics: Metrics, url: str) -> None:
    counters = Counters([store], tiers=2)
    shown = view(metrics)
    with shown:
        add(store, 5, op=Op.READ, tier=1, nbytes=100, wall_ns=1000)
        add(store, 2, op=Op.WRITE, tier=1, nbytes=10, wall_ns=3_000_000)
        add(store, 1, op=Op.READ, tier=1, nbytes=7, wall_ns=1000, errno=5)
        add(store, 3, op=Op.READ, tier=0, nbytes=1, wall_ns=10**18)
        shown.show(counters.update(), 2.5, 10.0)
        kinds, samples = told(url)
    assert kinds["kvbench_operations"] == "counter"
    assert kinds["kvbench_operation_wall_seconds"] == "histogram"
    expected = {"operations": (3, 7), "moved_bytes": (3, 520), "failed_operations": (0, 1)}
    for name, values in expected.items():
        assert tuple(samples[f"kvbench_{name}_total", tier] for tier in TIERS) == values
    assert samples["kvbench_ranks", ""] == 3
    assert samples["kvbench_load_elapsed_seconds", ""] == 2.5
    assert samples["kvbench_load_planned_seconds", ""] == 10


def buckets(samples: Samples, tier: str) -> dict[float, float]:
    """Cumulative counts by upper edge."""
    start = f"{tier} "
    return {
        float(labels.removeprefix(start)): value
        for (name, labels), value in samples.items()
        if name == "kvbench_operation_wall_seconds_bucket" and labels.startswith(start)
    }


def test_wall_times_are_counted_below_their_edges(store: RowStore, metrics: Metrics, url: str) -> None:
    rng = np.random.default_rng(5)
    walls = rng.lognormal(13, 3, 300).astype(np.int64)
    counters, shown = Counters([store], tiers=2), view(metrics)
    with shown:
        for wall in walls:
            add(store, 1, op=Op.READ, tier=1, nbytes=1, wall_ns=wall)
        shown.show(counters.update(), 1.0, None)
        _, samples = told(url)
    found = buckets(samples, "file")
    assert len(found) == len(HISTOGRAM_EDGES_S)
    assert found == {edge: np.count_nonzero(walls < edge * 1e9) for edge in found}
    assert ("kvbench_load_planned_seconds", "") not in samples


def test_counters_do_not_fall_when_another_load_begins(store: RowStore, metrics: Metrics, url: str) -> None:
    shown = view(metrics)
    name = ("kvbench_operations_total", "file")
    for turn in range(3):
        counters = Counters([store], tiers=2)
        with shown:
            assert told(url)[1].get(name, 0) == 4 * turn
            add(store, 4, op=Op.READ, tier=1, nbytes=1, wall_ns=1000)
            shown.show(counters.update(), 1.0, None)
            assert told(url)[1][name] == 4 * (turn + 1)
            assert buckets(told(url)[1], "file")[float("inf")] == 4 * (turn + 1)


def test_nobody_listens_when_the_run_is_over(metrics: Metrics) -> None:
    with ExitStack() as stack:
        url = serve(stack, metrics, ("127.0.0.1", 0))
        assert told(url)[1]["kvbench_run_info", ""] == 1
    with pytest.raises(urllib.error.URLError):
        told(url)


def test_a_port_that_is_taken_is_named(metrics: Metrics) -> None:
    with socket.socket() as taken, ExitStack() as stack:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            KvbenchError, match=rf"--metrics: cannot listen at 127\.0\.0\.1, port {port}: .*; give another"
        ):
            serve(stack, metrics, ("127.0.0.1", port))


def names_told(store: RowStore, metrics: Metrics, url: str) -> set[str]:
    counters, shown = Counters([store], tiers=2), view(metrics)
    with shown:
        shown.show(counters.update(), 1.0, 2.0)
        return {name for name, _ in told(url)[1]}


def test_the_documentation_names_every_metric(store: RowStore, metrics: Metrics, url: str) -> None:
    described = set(re.findall(r"^\| `(kvbench_\w+)`", (DOCS / "metrics.md").read_text(encoding="utf-8"), re.MULTILINE))
    assert described == names_told(store, metrics, url)


def test_the_dashboard_asks_for_metrics_that_there_are(store: RowStore, metrics: Metrics, url: str) -> None:
    board = json.loads((DOCS / "grafana-dashboard.json").read_text(encoding="utf-8"))
    asked = {
        name
        for panel in board["panels"]
        for target in panel["targets"]
        for name in re.findall(r"kvbench_\w+", target["expr"])
    }
    assert asked == names_told(store, metrics, url)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
