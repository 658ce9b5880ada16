"""Rules 6.3.3: what a client is, that each bears the full load, that none shares anything, that all have reported."""

import re
from collections.abc import Iterator
from typing import Any, Final

from kvbench.mlperf.option_table import recorded_settings, same
from kvbench.mlperf.rules.registry import Problem, rule
from kvbench.mlperf.tree.declared import declared_options, declared_ranks, declared_trials, summary_options
from kvbench.mlperf.tree.parts import Rank, Run, Trial, is_stamp
from kvbench.mlperf.tree.recorded import Recorded
from kvbench.mlperf.tree.untrusted import MISSING, dig, items, shown, whole

_RESULT_NAME: Final = re.compile(r"kvcache_results_(.*)\.json", re.DOTALL)
_MOST_NAMED: Final = 20
"""Missing ranks that are named one by one; a thousand lines would say no more."""


@rule("6.3.3.1", "kvcacheClientDefinition", Run)
def kvcache_client_definition(run: Run) -> Iterator[Problem]:
    """A client is one process: total, per node and hosts agree, in summary, sequence and what is there."""
    for document, content in ((run.sequence, run.sequence.content), *((s, s.content) for s in run.summaries)):
        if not document.readable:
            continue
        total, npernode, hosts = (dig(content, "total_ranks"), dig(content, "npernode"), _hosts(content))
        if not (isinstance(whole(total), int) and (whole(total) or 0) > 0):
            yield Problem(document.path, f"total_ranks {shown(total)}", "the number of clients")
        elif (whole(npernode) or 0) * hosts != whole(total):
            claim = f"total_ranks {shown(total)} with npernode {shown(npernode)} on {hosts} hosts"
            yield Problem(document.path, claim, "total_ranks = npernode x hosts")
    total = declared_ranks(run)
    recorded = Recorded(run)["total_ranks"]
    if run.summaries and recorded is not MISSING and not same(recorded, total):
        yield Problem(run.sequence.path, f"total_ranks {shown(recorded)}", f"{total}, as in the summary")
    for option, entry in summary_options(run).items():
        if not same(count := dig(entry, "rank_count"), total):
            yield Problem(
                run.summaries[0].path, f"rank_count {shown(count)} of option {option}", f"total_ranks, {total}"
            )
    for _, trial in run.trials():
        for rank in sorted(set(trial.ranks) - set(range(total))):
            yield Problem(trial.ranks[rank].path, f"a client beyond the {total}", f"rank_0 to rank_{total - 1}")


@rule("6.3.3.2", "kvcacheScaleUpModel", Run)
def kvcache_scale_up_model(run: Run) -> Iterator[Problem]:
    """Every client has all users of the option and its whole concurrency, however many clients there are."""
    recorded = Recorded(run)
    unsaid = 0
    for option, trial in run.trials():
        wanted = recorded_settings(recorded.options().get(option.number)).as_dict()
        for rank in trial.ranks.values():
            said = [name for name in ("users", "max_concurrent_allocs") if rank.file[f"kvbench.{name}"] is not MISSING]
            unsaid += rank.file.readable and len(said) < 2
            for name in said:
                found = rank.file[f"kvbench.{name}"]
                if wanted[name] is not MISSING and not same(found, wanted[name]):
                    yield Problem(
                        rank.file.path,
                        f"{name} {shown(found)}",
                        f"{name} {shown(wanted[name])}, in full for each client",
                    )
    if unsaid:
        what = f"users and concurrent allocations of {unsaid} ranks' results not recorded"
        yield Problem(run.path, what, "every client at the full user count and concurrency", "not recorded")


@rule("6.3.3.3", "kvcachePerClientIsolation", Run)
def kvcache_per_client_isolation(run: Run) -> Iterator[Problem]:
    """No two clients share a result file or a cache directory."""
    unsaid = 0
    for _, trial in run.trials():
        namespace = dig(trial.records.config, "namespace") if trial.records is not None else MISSING
        if namespace not in (MISSING, "private"):
            found = f"namespace {shown(namespace)}: clients read what others wrote"
            yield Problem(trial.path, found, "a cache of each client's own")
        outputs: dict[str, Rank] = {}
        caches: dict[str, Rank] = {}
        for rank in trial.ranks.values():
            if len(rank.results) > 1:
                names = ", ".join(shown(entry.name) for entry in rank.results)
                yield Problem(rank.path, f"{len(rank.results)} results: {names}", "one result file, of this rank alone")
            if rank.file.measured:
                other = outputs.setdefault(rank.file.measured, rank)
                if other is not rank:
                    found = f"the same measurements as in rank_{other.number}"
                    yield Problem(rank.file.path, found, "a result of each rank's own")
            cache = rank.file["kvbench.cache_directory"]
            unsaid += rank.file.readable and not isinstance(cache, str)
            if isinstance(cache, str):
                other = caches.setdefault(cache.rstrip("/"), rank)
                if other is not rank:
                    found = f"cache directory {shown(cache)}, as rank_{other.number} has"
                    yield Problem(rank.file.path, found, "a cache directory of each rank's own")
    if unsaid:
        what = f"the cache directory of {unsaid} ranks' results not recorded"
        yield Problem(run.path, what, "a cache directory for each client", "not recorded")


@rule("6.3.3.4", "kvcacheSharedResultsDir", Run)
def kvcache_shared_results_dir(run: Run) -> Iterator[Problem]:
    """The result of every rank of every trial is there, under its name, and can be read."""
    total, recorded = declared_ranks(run), Recorded(run)
    if not declared_options(run) or not total:
        yield Problem(run.path, "no results of any rank", "the results of every rank")
    for option in declared_options(run):
        there = run.options[option].trials if option in run.options else {}
        for trial in declared_trials(run, option):
            status = dig(recorded.trials(option).get(trial), "status")
            if status not in (MISSING, "complete"):
                found = f"trial {trial} of option {option} is {shown(status)}"
                yield Problem(run.sequence.path, found, "complete trials; a failed one can be repeated alone")
            if trial not in there:
                place = run.path / f"option_{option}" / f"trial_{trial}"
                yield Problem(place, "no such trial", f"the results of {total} ranks")
                continue
            yield from _missing(there[trial], total)
            for rank in there[trial].ranks.values():
                yield from _result(rank)
    yield from _reported_failures(run)


def _missing(trial: Trial, total: int) -> Iterator[Problem]:
    missing = [rank for rank in range(total) if rank not in trial.ranks]
    for rank in missing[:_MOST_NAMED]:
        yield Problem(trial.path / f"rank_{rank}", "no such rank", f"the results of all {total} ranks")
    if len(missing) > _MOST_NAMED:
        yield Problem(trial.path, f"{len(missing) - _MOST_NAMED} more ranks without results", f"all {total} ranks")


def _result(rank: Rank) -> Iterator[Problem]:
    if not rank.results:
        yield Problem(rank.path, "no result file", "kvcache_results_YYYYMMDD_HHmmss.json")
        return
    for entry in rank.results:
        match = _RESULT_NAME.fullmatch(entry.name)
        if match is None or not is_stamp(match[1]):
            yield Problem(entry.path, f"the name {shown(entry.name)}", "kvcache_results_YYYYMMDD_HHmmss.json")
    if not rank.file.readable:
        yield Problem(rank.file.path, rank.file.problem, "the rank's result in JSON")


def _reported_failures(run: Run) -> Iterator[Problem]:
    for summary in run.summaries:
        where = [("", summary.content), *((f" of option {o}", entry) for o, entry in summary_options(run).items())]
        for name, content in where:
            if dig(content, "partial_failure") not in (False, MISSING):
                yield Problem(
                    summary.path, f"partial_failure {shown(dig(content, 'partial_failure'))}{name}", "no failure"
                )
            if items(missing := dig(content, "missing_files")):
                yield Problem(summary.path, f"missing_files {shown(missing)}{name}", "no missing files")


def _hosts(content: Any) -> int:
    """The number of hosts in a summary (host_count) or a sequence (hosts)."""
    count = whole(dig(content, "host_count"))
    return count if count is not None else len({str(host).split(":")[0] for host in items(dig(content, "hosts"))})
