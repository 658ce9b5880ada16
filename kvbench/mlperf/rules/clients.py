"""Rules 6.3.3: what a client is, that each bears the full load, that none shares anything, that all have reported."""

import re
from collections.abc import Iterator
from typing import Final

from kvbench.mlperf.rules.registry import Problem, Weight, rule
from kvbench.mlperf.tree.declared import (
    SUMMARY,
    declared_options,
    declared_ranks,
    declared_trials,
    summary_of,
    summary_options,
)
from kvbench.mlperf.tree.numbers import Section
from kvbench.mlperf.tree.parts import Rank, Run, Trial, is_stamp, no_results
from kvbench.mlperf.tree.recorded import SEQUENCE, Recorded
from kvbench.mlperf.tree.untrusted import MISSING, dig, items, shown

_RESULT_NAME: Final = re.compile(r"kvcache_results_(.*)\.json", re.DOTALL)
_MOST_NAMED: Final = 20
"""Missing ranks that are named one by one; a thousand lines would say no more."""


def _nobody_counts(run: Run) -> str:
    some = any(document.readable for document in (run.sequence, *run.summaries))
    return "" if some or Recorded(run).claims("total_ranks") else "nothing that says how many clients there are"


@rule("6.3.3.1", "kvcacheClientDefinition", Run, nothing=_nobody_counts)
def kvcache_client_definition(run: Run) -> Iterator[Problem]:
    """A client is one process: total, per node and hosts agree, in summary, sequence and what is there."""
    for document, table in ((run.sequence, SEQUENCE), *((summary, SUMMARY) for summary in run.summaries)):
        content = Section(document.content, table)
        total, npernode, hosts = content.count("total_ranks"), content.count("npernode"), _hosts(content)
        if None not in (total, npernode, hosts) and (npernode or 0) * (hosts or 0) != total:
            claim = f"total_ranks {total} with npernode {npernode} on {hosts} hosts"
            yield Problem(document.path, claim, "total_ranks = npernode x hosts")
    total, recorded = declared_ranks(run), Recorded(run)
    if run.summaries or not recorded.ours:
        for told in recorded.claims("total_ranks"):
            if (found := SEQUENCE["total_ranks"].read(told.value)) is not None and found != total:
                yield Problem(recorded.where, f"total_ranks {found:.0f}{told.of}", f"{total}, as in the summary")
    yield from _commands(run, recorded)
    for option, entry in summary_options(run).items():
        if (count := entry.count("rank_count")) not in (None, total):
            yield Problem(run.summaries[0].path, f"rank_count {count} of option {option}", f"total_ranks, {total}")
    for _, trial in run.trials():
        for rank in sorted(set(trial.ranks) - set(range(total))):
            yield Problem(trial.ranks[rank].path, f"a client beyond the {total}", f"rank_0 to rank_{total - 1}")


def _commands(run: Run, recorded: Recorded) -> Iterator[Problem]:
    """Clients, clients of a node and hosts as the commands of another tool have them."""
    per_node = summary_of(run).count("npernode")
    for command in run.metadata.commands if not recorded.ours else ():
        of = f"in the command of option {command.option}, trial {command.trial}"
        if None not in (command.npernode, per_node) and command.npernode != per_node:
            yield Problem(recorded.where, f"npernode {command.npernode} {of}", f"{per_node}, as in the summary")
        hosts = len(set(command.hosts))
        if command.ranks and command.npernode and hosts and command.npernode * hosts != command.ranks:
            found = f"{command.ranks} clients, {command.npernode} a node on {hosts} hosts {of}"
            yield Problem(recorded.where, found, "clients = clients of a node x hosts")


@rule("6.3.3.2", "kvcacheScaleUpModel", Run, nothing=no_results)
def kvcache_scale_up_model(run: Run) -> Iterator[Problem]:
    """Every client has all users of the option and its whole concurrency, however many clients there are."""
    recorded = Recorded(run)
    unsaid = 0
    for option, trial in run.trials():
        told = recorded.options().get(option.number)
        for rank in trial.ranks.values():
            # Another tool gives the same settings to each client of a command, and records the command.
            told_for_all = told is not None and not recorded.ours
            unsaid += rank.file.readable and rank.file["kvbench"] is MISSING and not told_for_all
            for name in ("users", "max_concurrent_allocs"):
                found = rank.file.number(f"kvbench.{name}")
                wanted = None if told is None else told.number(f"settings.{name}")
                if None not in (found, wanted) and found != wanted:
                    yield Problem(
                        rank.file.path, f"{name} {found:.0f}", f"{name} {wanted:.0f}, in full for each client"
                    )
    if unsaid:
        what = f"users and concurrent allocations of {unsaid} ranks' results not recorded"
        wanted_of_all = "every client at the full user count and concurrency"
        yield Problem(run.path, what, wanted_of_all, "violation" if recorded.ours else "not recorded")


@rule("6.3.3.3", "kvcachePerClientIsolation", Run, nothing=no_results)
def kvcache_per_client_isolation(run: Run) -> Iterator[Problem]:
    """No two clients share a result file or a cache directory."""
    unsaid = alike = 0
    # Another tool's clients have a directory each below that of the command.
    told = any(command.text_of("rank-cache-base") for command in run.metadata.commands)
    base = told and not Recorded(run).ours
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
            alike += rank.file.readable and not rank.file.measured
            if rank.file.measured:
                other = outputs.setdefault(rank.file.measured, rank)
                if other is not rank:
                    found = f"the same measurements as in rank_{other.number}"
                    yield Problem(rank.file.path, found, "a result of each rank's own")
            cache = rank.file["kvbench.cache_directory"]
            unsaid += rank.file.readable and not isinstance(cache, str) and not base
            if isinstance(cache, str):
                other = caches.setdefault(cache.rstrip("/"), rank)
                if other is not rank:
                    found = f"cache directory {shown(cache)}, as rank_{other.number} has"
                    yield Problem(rank.file.path, found, "a cache directory of each rank's own")
    if alike and declared_ranks(run) > 1:
        what = f"the latencies of {alike} ranks' results, by which two are told apart, not recorded"
        yield Problem(run.path, what, "a result of each rank's own", "not recorded")
    if unsaid:
        what = f"the cache directory of {unsaid} ranks' results not recorded"
        weight: Weight = "violation" if Recorded(run).ours else "not recorded"
        yield Problem(run.path, what, "a cache directory for each client", weight)


@rule("6.3.3.4", "kvcacheSharedResultsDir", Run)
def kvcache_shared_results_dir(run: Run) -> Iterator[Problem]:
    """The result of every rank of every trial is there, under its name, and can be read."""
    total, recorded = declared_ranks(run), Recorded(run)
    if not declared_options(run) or not total:
        yield Problem(run.path, "no results of any rank", "the results of every rank")
    for option in declared_options(run):
        there = run.options[option].trials if option in run.options else {}
        for trial in declared_trials(run, option):
            told = recorded.trials(option).get(trial)
            status = MISSING if told is None else told["status"]
            if status not in (MISSING, "complete"):
                found = f"trial {trial} of option {option} is {shown(status)}"
                yield Problem(recorded.where, found, "complete trials; a failed one can be repeated alone")
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
        options = ((f" of option {number}", option.content) for number, option in summary_options(run).items())
        for name, content in [("", summary.content), *options]:
            if dig(content, "partial_failure") not in (False, MISSING):
                yield Problem(
                    summary.path, f"partial_failure {shown(dig(content, 'partial_failure'))}{name}", "no failure"
                )
            if (failures := dig(content, "trial_failures")) not in (MISSING, {}, [], None):
                yield Problem(summary.path, f"trial_failures {shown(failures)}{name}", "no trial that failed")
            if items(missing := dig(content, "missing_files")):
                yield Problem(summary.path, f"missing_files {shown(missing)}{name}", "no missing files")


def _hosts(content: Section) -> int | None:
    """The number of hosts in a summary (host_count) or a sequence (hosts)."""
    if content.table is SUMMARY:
        return content.count("host_count")
    return len({str(host).split(":")[0] for host in items(content["hosts"])})
