"""Live figures for Prometheus: what rank 0 shows while a run is under way, for whoever asks over HTTP. Off by default.

Nothing is measured or sent for it: a request is answered from the last sum that the ranks' counters made, which is at
most about a second old. Needs prometheus-client, on rank 0's node alone.
"""

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kvbench.errors import KvbenchError
from kvbench.run.counters import HISTOGRAM_EDGES_S, counters_width, octaves, tier_figures

LOOPBACK: Final = "127.0.0.1"
_SUFFIX: Final = "/metrics"


def read_address(text: str) -> tuple[str, int]:
    """Address and port in `:9464`, `0.0.0.0:9464` or `[::]:9464`; without an address the loopback. Raises ValueError
    that says what is expected."""
    address, colon, port = text.rpartition(":")
    if not colon or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
        raise ValueError(f"{text!r} is not like :9464 (this node alone) or 0.0.0.0:9464 (anybody who reaches it)")
    if ":" in address and not (address.startswith("[") and address.endswith("]")):
        raise ValueError(f"{text!r}: an address with colons stands in brackets, as in [::1]:9464")
    return address.strip("[]") or LOOPBACK, int(port)


class Metrics:
    """The figures of one run, as a collector of prometheus-client."""

    def __init__(self, facts: Mapping[str, str], ranks: int) -> None:
        """`facts`: of the run, in words. `ranks`: how many are summed up."""
        self._facts = dict(facts)
        self._ranks = ranks
        self._tier_names: tuple[str, ...] = ()
        self._before: npt.NDArray[np.int64] | int = 0
        self._totals = np.zeros(0, np.int64)
        self._clock: tuple[float, float | None] | None = None

    def begin_load(self, tier_names: Sequence[str]) -> None:
        """The next counters begin at 0 again, and are of these tiers: those up to now are kept, so that what is told
        never falls."""
        if self._tier_names:
            self._before = self._totals
        else:
            self._totals = np.zeros(counters_width(len(tier_names)), np.int64)
        self._tier_names = tuple(tier_names)
        self._clock = None

    def show(self, totals: npt.NDArray[np.int64], elapsed_s: float, duration_s: float | None) -> None:
        """Tell these from now on; they are of the load that began last."""
        # One assignment each, as whoever asks is answered by another thread.
        self._totals = self._before + totals
        self._clock = elapsed_s, duration_s

    def collect(self) -> Iterator[Any]:
        """What is told, as prometheus-client asks for it."""
        core = importlib.import_module("prometheus_client.core")
        yield core.InfoMetricFamily("kvbench_run", "The run under way.", value=self._facts)
        ranks = core.GaugeMetricFamily("kvbench_ranks", "Ranks of the run.")
        ranks.add_metric([], self._ranks)
        yield ranks
        totals = self._totals
        tiers = [(name, place) for place, name in enumerate(self._tier_names)]
        for name, column, text, unit in (
            ("kvbench_operations", "operations", "Operations that moved bytes, done so far.", ""),
            ("kvbench_moved_bytes", "nbytes", "Bytes that they moved.", "bytes"),
            ("kvbench_failed_operations", "failed", "Operations that failed.", ""),
        ):
            family = core.CounterMetricFamily(name, text, labels=["tier"], unit=unit)
            for tier, place in tiers:
                family.add_metric([tier], getattr(tier_figures(totals, place), column))
            yield family
        wall = core.HistogramMetricFamily(
            "kvbench_operation_wall_seconds", "Wall time of operations.", labels=["tier"], unit="seconds"
        )
        for tier, place in tiers:
            wall.add_metric([tier], _buckets(octaves(totals, place)), None)
        yield wall
        yield from self._clocks(core)

    def _clocks(self, core: Any) -> Iterator[Any]:
        clock = self._clock
        if clock is None:
            return
        for name, text, value in (
            ("kvbench_load_elapsed_seconds", "Since the load under way began.", clock[0]),
            ("kvbench_load_planned_seconds", "How long it is to take.", clock[1]),
        ):
            if value is not None:
                gauge = core.GaugeMetricFamily(name, text, unit="seconds")
                gauge.add_metric([], value)
                yield gauge


def _buckets(histogram: npt.NDArray[np.int64]) -> list[tuple[str, float]]:
    """Cumulative counts by their upper edge."""
    counts = [float(count) for count in np.cumsum(histogram)]
    # What is beyond the last edge is in the last bin.
    edges = [repr(float(edge)) for edge in HISTOGRAM_EDGES_S[:-1]]
    return list(zip([*edges, "+Inf"], counts, strict=True))


def serve(stack: ExitStack, metrics: Metrics, address: tuple[str, int]) -> str:
    """Answer requests at `address` until `stack` is left; returns the URL. Raises KvbenchError that says why it cannot
    be."""
    host, port = address
    try:
        client = importlib.import_module("prometheus_client")
    except ImportError as error:
        raise KvbenchError(
            "--metrics needs prometheus-client, which is not installed: pip install 'kvbench[metrics]'"
        ) from error
    registry = client.CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    try:
        server, thread = client.start_http_server(port, host, registry)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise KvbenchError(f"--metrics: cannot listen at {host}, port {port}: {reason}; give another") from error

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    stack.callback(close)
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{server.server_port}{_SUFFIX}"
