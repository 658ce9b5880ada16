"""What a reader must know before believing a summary: everything here is a fact of the file, with its number."""

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from kvbench_analysis.figures.cells import OperationFigures
from kvbench_analysis.figures.sharing import VIOLATIONS, SharingFigures
from kvbench_analysis.summary.caution import Caution
from kvbench_analysis.summary.presence import presence
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.percentiles import PERCENTILES, operations_needed
from kvbench_analysis.tables.virtual import virtual_speed
from kvbench_analysis.tables.window import Window
from kvbench_analysis.text import units

from kvbench.records.caching_clients import CACHING_CLIENTS

_STEAL_LIMIT_PCT = 1.0
_CLOCK_LIMIT_NS = 1_000_000
_APART_LIMIT_S = 1.0


def cautions(
    run: Run, figures: OperationFigures, requests: pd.DataFrame, window: Window, sharing: SharingFigures
) -> tuple[Caution, ...]:
    """All warnings of `run`, the gravest first; `requests` is the latency of requests."""
    return (
        *_virtual(run),
        *_sharing(sharing),
        *_how_it_ended(run, figures, window),
        *presence(run, window),
        *_trace(run),
        *_measurement(run, figures, window),
        *_page_cache(run, figures),
        *_memory(run),
        *_rings(run),
        *_population(figures, requests),
    )


def _virtual(run: Run) -> Iterator[Caution]:
    virtual = virtual_speed(run)
    if virtual is not None:
        longer = f"; times of requests are {virtual.stretch:g} times as long" if virtual.stretch > 1 else ""
        yield Caution("virtual-speed", f"{virtual.text}: no figure here is of an ordinary run{longer}")


def _how_it_ended(run: Run, figures: OperationFigures, window: Window) -> Iterator[Caution]:
    status = str(run.attributes["status"])
    if status != "complete":
        message = str(run.attributes.get("status_message", ""))
        what = "the run failed" if status == "failed" else f"the run was {status}"
        yield Caution(
            status, f"{what}{': ' + message if message else ''} (the figures are of what was measured so far)"
        )
    yield from _spilling(run)
    if window.seconds is None and "measure_end_ns" in run.attributes and figures.operations["operations"].sum() == 0:
        yield Caution(
            "no-window",
            "nothing was measured: no operation of the measured phase was carried out, so there is no window and there "
            "are no rates",
        )
    elif window.seconds is None:
        yield Caution("no-window", "the file gives no measured window, so there are no rates")
    if run.attributes.get("verify") == "off":
        yield Caution(
            "nothing-kept",
            "a null tier keeps and moves nothing: its figures are kvbench's own, and nothing read was verified",
        )
    elif "verified_sectors" in run.ranks and not _total(run.ranks, "verified_sectors") and _has_reads(figures):
        yield Caution("not-verified", "nothing that was read was verified")
    canceled = figures.lost.get("ECANCELED", 0)
    failed = {name: number for name, number in figures.lost.items() if name != "ECANCELED"}
    if failed:
        reasons = ", ".join(f"{name} {number}" for name, number in failed.items())
        yield Caution("failed-operations", f"{sum(failed.values())} operations failed ({reasons}) and are not counted")
    if canceled:
        yield Caution("canceled-operations", f"{canceled} operations were canceled at the end and are not counted")
    idle = sorted(set(run.ranks.get("rank", [])) - set(figures.ranks["rank"]))
    if idle and len(figures.operations):
        names = ", ".join(map(str, idle[:8])) + (", ..." if len(idle) > 8 else "")
        ranks = run.ranks["rank"].nunique()
        yield Caution(
            "idle-ranks", f"{len(idle)} of {ranks} ranks read and wrote nothing in the measured phase: {names}"
        )
    retried = _total(run.ranks, "retried_requests")
    if retried:
        yield Caution(
            "retried-requests",
            f"{retried} requests to the object store failed for a reason that may pass and were sent again: their "
            "operations took that long, and it says how much the store takes",
        )
    too_large = _total(run.ranks, "too_large_objects")
    if too_large:
        yield Caution("too-large", f"{too_large} objects were larger than every tier and were not cached")


def _spilling(run: Run) -> Iterator[Caution]:
    """What the ranks say of their spill files, and ranks of a recovered run that did not end together."""
    ranks = run.ranks
    if "spill_errno" in ranks and (ranks["spill_errno"] != 0).any():
        short = ranks[ranks["spill_errno"] != 0]
        reasons = ", ".join(sorted({os.strerror(int(code)) for code in short["spill_errno"]}))
        yield Caution(
            "spill",
            f"{len(short)} ranks could not write their spill file to the end ({reasons}): what they recorded later was "
            "in memory alone until the run ended, and is all here",
        )
    ends = ranks["end_ns"][ranks["end_ns"] > 0] if "end_ns" in ranks else pd.Series(dtype=np.int64)
    apart_s = (ends.max() - ends.min()) / 1e9 if len(ends) else 0.0
    if run.attributes["status"] == "recovered" and apart_s > _APART_LIMIT_S:
        yield Caution(
            "uneven-end",
            f"ranks ended up to {apart_s:.1f} s apart, and rates are over the whole window: those that ended early "
            "count as idle until its end",
        )


def _sharing(sharing: SharingFigures) -> Iterator[Caution]:
    broken = {kind: sharing.counts.get(f"{kind}_violations", 0) for kind in VIOLATIONS}
    if any(broken.values()):
        kinds = ", ".join(f"{number} {kind}" for kind, number in broken.items() if number)
        first = f"; the first: {sharing.violations[0]}" if sharing.violations else ""
        yield Caution(
            "violations",
            f"{sum(broken.values())} times what a rank wrote and synced was not what another found ({kinds}){first}",
        )


def _trace(run: Run) -> Iterator[Caution]:
    bad_lines = int(run.attributes.get("trace_bad_lines", 0))
    if bad_lines:
        requests = int(run.attributes.get("trace_requests", 0))
        yield Caution(
            "bad-lines",
            f"bad lines of the trace left out (skip_bad_lines): {bad_lines}, requests that are left: {requests}",
        )


def _measurement(run: Run, figures: OperationFigures, window: Window) -> Iterator[Caution]:
    if run.attributes["timer"] == "python":
        yield Caution(
            "timer-python",
            "timed in Python (no compiled stopwatch): latencies include waits for the interpreter; "
            "install a C compiler and reinstall kvbench",
        )
    elif figures.python_timed:
        yield Caution(
            "python-timed",
            f"{figures.python_timed} operations were timed around Python calls, as their read path is defined; "
            "they include waits for the interpreter",
        )
    steal = _steal_pct(run, window)
    if steal > _STEAL_LIMIT_PCT:
        yield Caution(
            "steal", f"the hypervisor took {steal:.1f} % of a node's processor time, which counts as host time"
        )
    sharing, expected = run.attributes.get("cache_directory"), run.attributes.get("expected_directory")
    if sharing == "mixed":
        yield Caution(
            "mixed-directory",
            "some nodes share the directory under test and others do not: is a mount missing? (filesystem_group and "
            f"mount_point in /{'directories' if 'directories' in run.attributes else 'nodes'}; --expect makes it an "
            "error)",
        )
    elif sharing == "single-node" and expected:
        yield Caution(
            "unverified-directory",
            f"that the directory is {expected} (--expect) cannot be found out with one node; its filesystem may be",
        )
    uncertainty = _number(run, "clock_uncertainty_ns")
    limit = min(_CLOCK_LIMIT_NS, (window.seconds or 1) * 1e6)
    if uncertainty > limit and _number(run, "ranks") > 1:
        yield Caution(
            "clock", f"clocks of the nodes agree only within {uncertainty / 1e6:.3g} ms: do not compare times of ranks"
        )


def _page_cache(run: Run, figures: OperationFigures) -> Iterator[Caution]:
    yield from _clients_cache(run, figures)
    checked, resident = figures.storage_reads_checked, figures.storage_reads_resident
    if not resident:
        return
    message = f"{resident} of {checked} storage reads found pages of their object in the page cache"
    io = run.config.get("io")
    if "tmpfs" in set(run.storages.get("filesystem", [])):
        message += ": tmpfs keeps its files in memory, from which they cannot be dropped"
    elif isinstance(io, dict) and io.get("drop_page_cache") is False:
        message += ": the configuration says not to drop it (io.drop_page_cache)"
    elif isinstance(io, dict) and io.get("sync", "object") != "object":
        message += ": what is not written back yet cannot be dropped from there (io.sync)"
    else:
        message += " although it was dropped: such reads measure memory, not storage"
    yield Caution("page-cache", message)


def _clients_cache(run: Run, figures: OperationFigures) -> Iterator[Caution]:
    caching = sorted(CACHING_CLIENTS & set(run.storages.get("filesystem", [])))
    io = run.config.get("io")
    direct = isinstance(io, dict) and io.get("read_path") == "direct"
    if caching and not direct and figures.storage_reads_checked:
        yield Caution(
            "client-cache",
            f"storage reads may be of the memory of the filesystem's client ({', '.join(caching)}), which kvbench can "
            "neither drop nor look into: with io.read_path=direct they are not",
        )


def _memory(run: Run) -> Iterator[Caution]:
    ranks, nodes = run.ranks, run.nodes
    if run.attributes.get("payload") == "none":
        return
    if not {"node", "arena_bytes"} <= set(ranks) or not {"node", "llc_bytes"} <= set(nodes):
        return
    arenas = ranks.groupby("node", as_index=False)["arena_bytes"].sum()
    sizes = arenas.merge(nodes.drop_duplicates("node")[["node", "llc_bytes"]], on="node")
    small = sizes[(sizes["arena_bytes"] > 0) & (sizes["arena_bytes"] < sizes["llc_bytes"])].to_dict("records")
    if small:
        arena, cache = (units.size(small[0][name]) for name in ("arena_bytes", "llc_bytes"))
        yield Caution(
            "arena",
            f"the arenas of {len(small)} nodes ({arena} together) are smaller than the last-level cache "
            f"({cache}), so reads landed in cache and not in memory; raise io.arena_bytes",
        )


def _rings(run: Run) -> Iterator[Caution]:
    if run.attributes.get("uring_memory_registered") == 0:
        yield Caution(
            "memory-not-registered",
            "the limit of locked memory (ulimit -l) did not allow to register the arena of every rank with its rings "
            "(io.engine: uring): the kernel looked up its pages for each request, which costs host time",
        )


def _population(figures: OperationFigures, requests: pd.DataFrame) -> Iterator[Caution]:
    """Percentiles that are shown somewhere with too little behind them; ranks and nodes show their P95."""
    counts = pd.concat([figures.operations["percentiles_of"], requests["percentiles_of"]])
    least = counts[counts > 0].min()
    places = pd.concat([figures.ranks["percentiles_of"], figures.nodes["percentiles_of"]]).min()
    thin = [p for p in PERCENTILES if least < operations_needed(p) or (p == 95 and places < operations_needed(p))]
    if thin:
        needs = ", ".join(f"P{p:g} {operations_needed(p)}" for p in thin)
        yield Caution(
            "few-operations",
            f"percentiles marked ~ have too few operations or requests behind them (10 / (1 - p) are needed: {needs})",
        )


def _has_reads(figures: OperationFigures) -> bool:
    return bool((figures.totals["op"] == "read").any())


def _total(table: pd.DataFrame, column: str) -> int:
    return int(table[column].sum()) if column in table else 0


def _number(run: Run, name: str) -> float:
    value: Any = run.attributes.get(name, 0)
    return 0.0 if isinstance(value, str) else float(value)


def _steal_pct(run: Run, window: Window) -> float:
    """The mean CPU steal of the node that had the most, over the samples of the window (all, where none is in it)."""
    samples = run.samples
    if not {"node", "t_ns", "cpu_steal_pct"} <= set(samples):
        return 0.0
    inside = samples[(samples["t_ns"] >= window.start_ns) & (samples["t_ns"] <= window.end_ns)]
    steal = (inside if len(inside) else samples).groupby("node")["cpu_steal_pct"].mean()
    return float(np.nanmax(steal)) if steal.notna().any() else 0.0
