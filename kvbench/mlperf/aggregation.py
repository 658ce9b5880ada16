"""The figures of an option, from its ranks' results as the rules define them (6.3.4): sum, mean, maximum.

It computes them anew from the files and knows nothing of how the summary was made.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from kvbench.mlperf.tree.declared import declared_ranks, declared_trials
from kvbench.mlperf.tree.parts import Run
from kvbench.mlperf.tree.rank_result import RANK_RESULT, RankFile
from kvbench.mlperf.tree.untrusted import MISSING


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure of the summary."""

    name: str
    """Its key in an option of the summary."""
    source: str
    """The dotted key in a rank's result."""
    within: Callable[[Iterable[float]], float]
    """Over the ranks of a trial."""
    across: Callable[[Sequence[float]], float]
    """Over the trials."""
    rule: str
    """The id of the rule that defines it."""
    title: str
    """For tables, with its unit."""


READ_BANDWIDTH: Final = Figure(
    "aggregated_read_bandwidth_gbps",
    "summary.cache_stats.tier_storage_read_bandwidth_gbps",
    sum,
    fmean,
    "kvcacheAggregateBandwidth",
    "read GiB/s",
)
WRITE_BANDWIDTH: Final = Figure(
    "aggregated_write_bandwidth_gbps",
    "summary.cache_stats.tier_storage_write_bandwidth_gbps",
    sum,
    fmean,
    "kvcacheAggregateBandwidth",
    "write GiB/s",
)
AVG_THROUGHPUT: Final = Figure(
    "aggregated_avg_throughput_tokens_per_sec",
    "summary.avg_throughput_tokens_per_sec",
    sum,
    fmean,
    "kvcacheAggregateThroughput",
    "average tokens/s",
)
STORAGE_THROUGHPUT: Final = Figure(
    "aggregated_storage_throughput_tokens_per_sec",
    "summary.storage_throughput_tokens_per_sec",
    sum,
    fmean,
    "kvcacheAggregateThroughput",
    "storage tokens/s",
)
READ_P95: Final = Figure(
    "aggregated_device_read_p95_ms",
    "summary.cache_stats.storage_read_device_p95_ms",
    max,
    max,
    "kvcacheAggregateDeviceLatency",
    "read P95 ms",
)
WRITE_P95: Final = Figure(
    "aggregated_device_write_p95_ms",
    "summary.cache_stats.storage_write_device_p95_ms",
    max,
    max,
    "kvcacheAggregateDeviceLatency",
    "write P95 ms",
)

REQUEST_P95: Final = Figure(
    "aggregated_p95_latency_ms",
    "summary.storage_io_latency_ms.p95",
    max,
    max,
    "kvcacheAggregateDeviceLatency",
    "request P95 ms",
)
"""Of the sum of all storage operations of a request, which is what published summaries have."""

FIGURES: Final = (
    READ_BANDWIDTH,
    WRITE_BANDWIDTH,
    AVG_THROUGHPUT,
    STORAGE_THROUGHPUT,
    READ_P95,
    WRITE_P95,
    REQUEST_P95,
)
HEADLINE: Final = (READ_BANDWIDTH, READ_P95, WRITE_P95, STORAGE_THROUGHPUT)
"""The four of 6.3.4.5, in its order."""


def memory_only(result: RankFile) -> bool:
    """Whether the rank's working set never left its memory tier (6.3.4.4)."""
    return result.number("summary.cache_stats.storage_entries") == 0


def rank_value(result: RankFile, figure: Figure) -> float | None:
    """The figure of one rank; None where it has none. A rank that moved nothing has no percentile, and counts as 0."""
    if result[figure.source] is MISSING and RANK_RESULT[figure.source].absent(result.content):
        return 0.0
    return result.number(figure.source)


def results_of(run: Run, option: int) -> list[list[RankFile]] | None:
    """The results of every rank, trial by trial; None where one is missing or cannot be read."""
    trials = results_there(run, option)
    ranks = declared_ranks(run)
    return trials if trials and ranks and all(len(results) == ranks for results in trials) else None


def results_there(run: Run, option: int) -> list[list[RankFile]]:
    """The results that can be read, of every trial that there should be."""
    trials = []
    for trial in declared_trials(run, option):
        there = run.options[option].trials.get(trial) if option in run.options else None
        ranks = there.ranks if there is not None else {}
        results = [ranks[rank].file for rank in range(declared_ranks(run)) if rank in ranks]
        trials.append([result for result in results if result.readable])
    return trials


def at_least(trials: Sequence[Sequence[RankFile]], figure: Figure) -> float:
    """What the option's figure is at least, by the results that are there: no rank counts for less than nothing."""
    present = [[value for result in results if (value := rank_value(result, figure)) is not None] for results in trials]
    return figure.across([figure.within(values) if values else 0.0 for values in present] or [0.0])


def aggregate(trials: Sequence[Sequence[RankFile]], figure: Figure) -> float | None:
    """The option's figure; None where a rank does not have it."""
    within = []
    for results in trials:
        values = [rank_value(result, figure) for result in results]
        if any(value is None for value in values):
            return None
        within.append(figure.within(value for value in values if value is not None))
    return figure.across(within)
