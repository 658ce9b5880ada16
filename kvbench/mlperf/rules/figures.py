"""Rules 6.3.4: every figure follows from the ranks' results, and those from the records where there are any."""

from collections.abc import Callable, Iterator
from math import isclose
from typing import Final

from kvbench.mlperf.aggregation import (
    FIGURES,
    READ_P95,
    WRITE_P95,
    aggregate,
    at_least,
    memory_only,
    results_of,
    results_there,
)
from kvbench.mlperf.rules.registry import Problem, rule
from kvbench.mlperf.tree.declared import declared_options, summary_options
from kvbench.mlperf.tree.numbers import Section
from kvbench.mlperf.tree.parts import Rank, Run, Trial, is_stamp, no_results
from kvbench.mlperf.tree.rank_result import RankFile
from kvbench.mlperf.tree.recorded import Recorded
from kvbench.mlperf.tree.trial_records import RankRecords
from kvbench.mlperf.tree.untrusted import MISSING, dig, items, shown

_SAME: Final = 1e-6
"""Relative difference within which two figures are the same: what is computed twice differs in its last digits."""
SUMMARY_NAME: Final = "summary.json"
_STATS: Final = "summary.cache_stats"

Derived = tuple[str, float | None]
"""A key of a rank's result, and what it should be by other things that are known of the rank; None if not known."""


@rule("6.3.4.1", "kvcacheAggregateBandwidth", Run, nothing=no_results)
def kvcache_aggregate_bandwidth(run: Run) -> Iterator[Problem]:
    """Bandwidth: the sum over ranks, the mean over trials; a rank's is its bytes over its time."""
    yield from _recomputed(run, "kvcacheAggregateBandwidth")
    yield from _derived(run, _bandwidth)
    for _, trial in run.trials():
        yield from _records_belong(run, trial)


@rule("6.3.4.2", "kvcacheAggregateThroughput", Run, nothing=no_results)
def kvcache_aggregate_throughput(run: Run) -> Iterator[Problem]:
    """Tokens per second: the sum over ranks, the mean over trials; a rank's is its tokens over its (storage) time."""
    yield from _recomputed(run, "kvcacheAggregateThroughput")
    yield from _derived(run, _throughput)


@rule("6.3.4.3", "kvcacheAggregateDeviceLatency", Run, nothing=no_results)
def kvcache_aggregate_device_latency(run: Run) -> Iterator[Problem]:
    """P95 of device spans: the largest of all ranks and trials; a rank's is the percentile of its spans.

    Published summaries have that of the time of whole requests instead.
    """
    yield from _recomputed(run, "kvcacheAggregateDeviceLatency")
    yield from _left_out(run)
    yield from _derived(run, _latency)


@rule("6.3.4.4", "kvcacheLatencyValidity", Run, nothing=no_results)
def kvcache_latency_validity(run: Run) -> Iterator[Problem]:
    """Storage was read: no option whose ranks all stayed in memory, and none at all where there is no memory tier."""
    for number_of, option in run.options.items():
        results = [rank.file for trial in option.trials.values() for rank in trial.ranks.values() if rank.file.readable]
        if not results:
            continue
        idle = [result for result in results if _never_read(result)]
        for result in idle:
            told = Recorded(run).options().get(number_of)
            if len(idle) == len(results) or (told is not None and told.number("settings.cpu_gb") == 0):
                yield Problem(result.path, "a rank that never read from storage", "reads from storage by every rank")
        entry = summary_options(run).get(number_of)
        listed = {str(path) for path in items(MISSING if entry is None else entry["cpu_tier_ranks"])}
        for result in results:
            if (
                memory_only(result)
                and not any(path.endswith(_tail(result)) for path in listed)
                and len(idle) < len(results)
            ):
                yield Problem(result.path, "storage_entries 0, and not in cpu_tier_ranks", "every such rank listed")


@rule("6.3.4.5", "kvcacheHeadlineResult", Run)
def kvcache_headline_result(run: Run) -> Iterator[Problem]:
    """One summary, with the four headline figures of every option and the number of clients."""
    if len(run.summaries) != 1:
        wanted = "one kvcache_run_summary_YYYYMMDD_HHmmss.json" if run.old else f"one {SUMMARY_NAME}"
        yield Problem(run.path, f"{len(run.summaries)} run summaries", wanted)
        return
    summary = run.summaries[0]
    if not summary.readable:
        yield Problem(summary.path, summary.problem, "the run summary in JSON")
        return
    stamp = summary.path.name.removeprefix("kvcache_run_summary_").removesuffix(".json")
    if not run.old and summary.path.name != SUMMARY_NAME:
        found = f"the name {shown(summary.path.name)}, which drafts had"
        yield Problem(summary.path, found, f"{SUMMARY_NAME}: under another name no table has the leaf")
    elif run.old and summary.path.name != SUMMARY_NAME and not is_stamp(stamp):
        yield Problem(summary.path, f"the name {shown(summary.path.name)}", "kvcache_run_summary_YYYYMMDD_HHmmss.json")
    if (version := dig(summary.content, "schema_version")) != "1.0":
        yield Problem(summary.path, f"schema_version {shown(version)}", '"1.0"')
    options = summary_options(run)
    for option in declared_options(run):
        if option not in options:
            yield Problem(summary.path, f"nothing on option {option}", "the headline figures of every option")


def _recomputed(run: Run, identifier: str) -> Iterator[Problem]:
    """The figures of the summary that the rule `identifier` defines, against those of the ranks' results."""
    if not summary_options(run) and not no_results(run):
        yield Problem(run.path, "no run summary with any option", "figures to recompute", "not checked")
    for option, entry in summary_options(run).items():
        trials = results_of(run, option)
        place = run.summaries[0].path
        if trials is None:
            found = f"option {option} without the results of every rank"
            yield Problem(place, found, "figures that can be recomputed", "not recorded")
            yield from _too_little(run, option, entry, identifier)
            continue
        for figure in (figure for figure in FIGURES if figure.rule == identifier):
            wanted, found_value = aggregate(trials, figure), entry.number(figure.name)
            if wanted is not None and found_value is not None and not _close(found_value, wanted):
                yield Problem(
                    place,
                    f"{figure.name} {found_value:.6g} of option {option}",
                    f"{wanted:.6g}, recomputed from the ranks' results",
                )


def _too_little(run: Run, option: int, entry: Section, identifier: str) -> Iterator[Problem]:
    """Figures that are less than those of the ranks that are there, where not all are."""
    for figure in (figure for figure in FIGURES if figure.rule == identifier):
        found, least = entry.number(figure.name), at_least(results_there(run, option), figure)
        if found is not None and found < least * (1 - _SAME):
            claim = f"{figure.name} {found:.6g} of option {option}"
            yield Problem(run.summaries[0].path, claim, f"{least:.6g} at least, by the ranks' results that are there")


def _left_out(run: Run) -> Iterator[Problem]:
    """The percentiles of the rules in options of which the summary has another; as the ranks have them."""
    for option, entry in summary_options(run).items():
        absent = [figure for figure in (READ_P95, WRITE_P95) if entry[figure.name] is MISSING]
        trials = results_of(run, option) if absent else None
        values = [(figure, aggregate(trials, figure)) for figure in absent] if trials else []
        told = [f"{figure.title} {value:.6g}" for figure, value in values if value is not None]
        if told:
            found = f"no device P95 of option {option}"
            yield Problem(
                run.summaries[0].path, found, f"{', '.join(told)}, recomputed from the ranks' results", "note"
            )


def _derived(run: Run, derive: Callable[[RankFile, RankRecords | None], list[Derived]]) -> Iterator[Problem]:
    """The figures of every rank against what `derive` makes of its result and its records."""
    without = 0
    for _, trial in run.trials():
        records = trial.records.ranks if trial.records is not None and trial.records.readable else {}
        without += not records
        for rank in trial.ranks.values():
            if not rank.file.readable:
                continue
            for key, wanted in derive(rank.file, records.get(rank.number)):
                found = rank.file.number(key)
                if wanted is not None and found is not None and not _close(found, wanted):
                    yield Problem(rank.file.path, f"{key} {found:.6g}", f"{wanted:.6g}, {_source(rank, records)}")
    if without:
        yield Problem(run.path, f"{without} trials without records of operations", "a run file", "not recorded")


def _bandwidth(result: RankFile, records: RankRecords | None) -> list[Derived]:
    elapsed = result.number("summary.elapsed_time")
    derived: list[Derived] = []
    if records is not None:
        derived.append(("summary.elapsed_time", records.elapsed_s))
        elapsed = records.elapsed_s or elapsed
    for direction in ("read", "write"):
        name = "read" if direction == "read" else "written"
        gib = result.number(f"{_STATS}.tier_storage_kv_bytes_{name}_gb")
        if records is not None:
            moved = records.reads if direction == "read" else records.writes
            derived.append((f"{_STATS}.tier_storage_kv_bytes_{name}_gb", moved.gib))
            gib = moved.gib
        bandwidth = gib / elapsed if gib is not None and elapsed else None
        derived.append((f"{_STATS}.tier_storage_{direction}_bandwidth_gbps", bandwidth))
    return derived


def _throughput(result: RankFile, records: RankRecords | None) -> list[Derived]:
    tokens = result.number("summary.total_tokens")
    elapsed, storage = result.number("summary.elapsed_time"), result.number("summary.total_storage_io_time")
    derived: list[Derived] = []
    if records is not None:
        derived += [("summary.total_tokens", records.tokens), ("summary.total_storage_io_time", records.io_s)]
        tokens, storage = records.tokens, records.io_s
    return [
        *derived,
        ("summary.avg_throughput_tokens_per_sec", tokens / elapsed if tokens is not None and elapsed else None),
        ("summary.storage_throughput_tokens_per_sec", _per(tokens, storage)),
    ]


def _per(tokens: float | None, seconds: float | None) -> float | None:
    """Where no time was spent there is no throughput: it is 0 then."""
    if tokens is None or seconds is None:
        return None
    return tokens / seconds if seconds else 0.0


def _latency(result: RankFile, records: RankRecords | None) -> list[Derived]:
    if records is None:
        return []
    return [
        (f"{_STATS}.storage_{direction}_device_p95_ms", moved.span_p95_ms if moved.operations else None)
        for direction, moved in (("read", records.reads), ("write", records.writes))
    ]


def _records_belong(run: Run, trial: Trial) -> Iterator[Problem]:
    """A run file is one of this trial: readable, complete, and with the recorded identity."""
    if trial.records is None:
        return
    path = trial.records.path
    if not trial.records.readable:
        yield Problem(path, trial.records.problem, "records that the figures can be recomputed from")
        return
    if (status := trial.records.attributes.get("status")) != "complete":
        yield Problem(path, f"status {shown(status)}", "a complete run")
    option = int(trial.path.parent.name.removeprefix("option_"))
    entry = Recorded(run).trials(option).get(trial.number)
    told = MISSING if entry is None else entry["run_id"]
    if told is not MISSING and told != trial.records.attributes.get("run_id"):
        yield Problem(
            path, f"run_id {shown(trial.records.attributes.get('run_id'))}", f"{shown(told)}, as in the sequence"
        )


def _never_read(result: RankFile) -> bool:
    """What is said of it is what counts: bytes that are no number are no proof that nothing was read."""
    return memory_only(result) or result.number(f"{_STATS}.tier_storage_kv_bytes_read_gb") == 0


def _source(rank: Rank, records: dict[int, RankRecords] | object) -> str:
    has = isinstance(records, dict) and rank.number in records
    return "recomputed from the records" if has else "recomputed from its bytes, tokens and time"


def _tail(result: RankFile) -> str:
    """The end of a result's path by which a summary written elsewhere names it."""
    return "/".join(result.path.parts[-4:])


def _close(found: float, wanted: float) -> bool:
    return isclose(found, wanted, rel_tol=_SAME, abs_tol=1e-12)
