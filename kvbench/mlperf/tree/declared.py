"""Which trials and ranks a run ought to have, by what it says of itself; and what its summary says of each option."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from kvbench.mlperf.tree.numbers import BadNumber, Number, Section, all_bad, always
from kvbench.mlperf.tree.parts import Run
from kvbench.mlperf.tree.recorded import MOST_RANKS, MOST_TRIALS, NODE, Recorded
from kvbench.mlperf.tree.untrusted import MISSING, dig, items, shown

_HEADLINE: Final = ("kvcacheHeadlineResult",)
_CLIENTS: Final = ("kvcacheClientDefinition",)
_TRIALS: Final = ("kvcacheClosedSequenceLocks", "kvcacheSharedResultsDir")

_P95: Final = ("kvcacheAggregateDeviceLatency",)
REQUEST_P95: Final = "aggregated_p95_latency_ms"
"""What published summaries have in the place of the two percentiles of the rules."""


def _as_published(option: Any) -> bool:
    return dig(option, REQUEST_P95) is not MISSING


SUMMARY: Final[Mapping[str, Number]] = {
    "npernode": Number(_CLIENTS, whole=True, positive=True, most=MOST_RANKS),
    "host_count": Number(_CLIENTS, whole=True, positive=True, most=MOST_RANKS),
    "total_ranks": Number(_CLIENTS, whole=True, positive=True, most=MOST_RANKS, title="the number of clients"),
    "trials_per_option": Number(_TRIALS, whole=True, positive=True, most=MOST_TRIALS),
}
"""The numbers of a run summary, and of each option in it:"""
SUMMARY_OPTION: Final[Mapping[str, Number]] = {
    "option": Number(_HEADLINE, whole=True),
    "aggregated_read_bandwidth_gbps": Number(_HEADLINE, title="read GiB/s"),
    "aggregated_device_read_p95_ms": Number(_HEADLINE, title="read P95 ms", absent=_as_published),
    "aggregated_device_write_p95_ms": Number(_HEADLINE, title="write P95 ms", absent=_as_published),
    REQUEST_P95: Number(_P95, title="P95 of a request's storage time, ms", absent=always),
    "aggregated_storage_throughput_tokens_per_sec": Number(_HEADLINE, title="storage tokens/s"),
    "aggregated_write_bandwidth_gbps": Number(("kvcacheAggregateBandwidth",), title="write GiB/s"),
    "aggregated_avg_throughput_tokens_per_sec": Number(("kvcacheAggregateThroughput",), title="average tokens/s"),
    "rank_count": Number(_CLIENTS, whole=True, positive=True, most=MOST_RANKS),
    "trial_count": Number(_TRIALS, whole=True, positive=True, most=MOST_TRIALS),
}


def summary_of(run: Run) -> Section:
    """The run summary; with nothing in it where there is not exactly one that can be read."""
    return Section(run.summary, SUMMARY)


def summary_options(run: Run) -> dict[int, Section]:
    """What the run summary says of each option, by its number; it is a list there, or a mapping by number."""
    found: dict[int, Section] = {}
    for section in _options_of(run.summary):
        if (number := section.count("option")) is not None:
            found.setdefault(number, section)
    return found


def bad_numbers(run: Run) -> Iterator[BadNumber]:
    """Every number in the files of a run that is none: in the sequence, summaries, ranks' results and run files."""
    yield from Recorded(run).bad()
    for document in run.summaries:
        if document.readable:
            yield from all_bad(document.path, [Section(document.content, SUMMARY), *_options_of(document.content)])
    for _, trial in run.trials():
        for rank in trial.ranks.values():
            yield from rank.file.bad
        if trial.records is not None:
            for node in trial.records.nodes:
                there = {key: kind for key, kind in NODE.items() if key in node}
                yield from Section(node, there, f" of {shown(node.get('host', MISSING))}").bad(trial.records.path)


def declared_options(run: Run) -> list[int]:
    """The options that anything in the run names."""
    return sorted(set(run.options) | set(Recorded(run).options()) | set(summary_options(run)))


def declared_trials(run: Run, option: int) -> list[int]:
    """The numbers of the trials of `option`: those of the sequence, else as many as the summary says, else those there.

    Trials are counted from 0, by some from 1: whichever the directories do, and from 0 where there are none.
    """
    told = sorted(Recorded(run).trials(option))
    there = sorted(run.options[option].trials) if option in run.options else []
    if told:
        return told
    entry = summary_options(run).get(option)
    claims = (None if entry is None else entry.count("trial_count"), summary_of(run).count("trials_per_option"))
    for count in claims:
        if count is not None:
            numbers = [number for other in run.options.values() for number in other.trials]
            first = 1 if numbers and 0 not in numbers else 0
            return list(range(first, first + count))
    return there


def declared_ranks(run: Run) -> int:
    """How many clients the run has by its summary, else by its sequence, else as many as left a directory."""
    for claim in (summary_of(run).number("total_ranks"), Recorded(run).number("total_ranks")):
        if claim is not None:
            return int(claim)
    return max((rank + 1 for _, trial in run.trials() for rank in trial.ranks), default=0)


def _options_of(summary: object) -> list[Section]:
    options = dig(summary, "options")
    entries = list(options.values()) if isinstance(options, dict) else items(options)
    return [Section(entry, SUMMARY_OPTION, f" of option {shown(dig(entry, 'option'))}") for entry in entries]
