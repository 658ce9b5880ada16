"""`summarize`: the figures of one run as tidy tables, each of which says what it is per. `render` prints them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from kvbench_analysis.condensed import operations as condensed
from kvbench_analysis.condensed import requests as condensed_requests
from kvbench_analysis.condensed import sharing as condensed_sharing
from kvbench_analysis.figures.endurance import Endurance, endurance
from kvbench_analysis.figures.first_token import FirstToken, first_token
from kvbench_analysis.figures.halves import half_figures
from kvbench_analysis.figures.look_ups import look_up_figures, prefix_figures
from kvbench_analysis.figures.objectives import Objectives, given_objectives, objective_figures, objectives_of
from kvbench_analysis.figures.offered import load_figures
from kvbench_analysis.figures.operations import operation_figures
from kvbench_analysis.figures.preconditioning import Preconditioning, preconditioning
from kvbench_analysis.figures.request_times import NO_COMPUTE
from kvbench_analysis.figures.requests import request_counts, request_latency
from kvbench_analysis.figures.sharing import SharingFigures, sharing_figures
from kvbench_analysis.figures.worth import Worth, worth
from kvbench_analysis.summary.caution import Caution
from kvbench_analysis.summary.cautions import cautions
from kvbench_analysis.summary.first_token_print import first_token_headline
from kvbench_analysis.summary.headlines import headlines
from kvbench_analysis.summary.objectives_print import objectives_headline
from kvbench_analysis.summary.presence import WINDOW_CODES, planned_seconds
from kvbench_analysis.summary.steadiness import steadiness
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.window import Window
from kvbench_analysis.text import units

from kvbench.records.compute_model import compute_model_of
from kvbench.records.endurance import RatedDrives, rated_drives
from kvbench.records.prices import Prices, prices_of

_FACTS = (
    "run_id", "status", "status_message", "kvbench_version", "fingerprint", "started_at", "model", "timer", "ranks",
    "nodes", "read_path", "write_path", "sync", "layout", "twin", "payload", "verify", "decision_order", "arena_bytes",
    "clock_uncertainty_ns", "cache_directory", "expected_directory",
    "namespace", "roles",
)  # fmt: skip


_SHARING = {
    "shared": "directory shared by all nodes",
    "local": "a directory on each node",
    "mixed": "a directory that some nodes share",
}
_SHARING_OF_OWN = {
    "shared": "on filesystems shared by all nodes",
    "local": "on filesystems of each node",
    "mixed": "on filesystems that some nodes share",
}
"""Where ranks had directories of their own."""

_SYNCS = {
    "none": "writes not synced",
    "batch": "writes synced at the end of each batch",
    "end": "writes synced all at once at the end",
}
"""Where it is not each object before its write ends."""


@dataclass(frozen=True)
class Summary:
    """The figures of one run. Times are in ns, rates per second of the measured window; docs/summary.md says more."""

    source: str
    """The file that was summarized."""
    run: dict[str, str | int | float | None]
    """Facts of the run: attributes of the file, `window_s`, the length of the measured window, and `duration_s`, how
    long was to be measured."""
    headlines: tuple[str, ...]
    """The result in a sentence for storage reads and one for storage writes (memory where there is no storage I/O); and
    one for what a layout wrote besides."""
    warnings: tuple[Caution, ...]
    operations: pd.DataFrame
    """Per tier, operation and path: counts, rates, sizes and shares of the wall time."""
    latency: pd.DataFrame
    """Per tier, operation, path and part of the time: its distribution over all operations of all ranks."""
    totals: pd.DataFrame
    """Per `storage` (`storage` or `memory`: all tiers of the sort) and operation: what the headlines say."""
    ranks: pd.DataFrame
    """Per rank, tier and operation (reads and writes)."""
    nodes: pd.DataFrame
    """Per client node, tier and operation (reads and writes)."""
    prefix: pd.DataFrame
    """Where requests were served as an engine does it (`run["serving"]`): what they found of contexts, by tier, and
    why they did not find the rest (`prefix_figures`)."""
    look_ups: pd.DataFrame
    """Where they were served as the reference does: re-reads of history, first look-ups of contexts, and decode
    re-reads, each for itself (`look_up_figures`)."""
    load: pd.DataFrame
    """Of an open loop: offered and served load (`load_figures`)."""
    requests: pd.DataFrame
    """Requests by QoS class and how they ended, and per second."""
    sharing: SharingFigures
    """Where ranks shared one key space: reads by who wrote the object, and how soon it could be read elsewhere."""
    request_latency: pd.DataFrame
    """Latency of requests, with its queue part and its storage part."""
    first_token: FirstToken | None
    """Time to first token, where compute is modelled."""
    halves: pd.DataFrame
    """What the first half of the window was, and the second (`half_figures`)."""
    preconditioning: Preconditioning | None
    """What was written before the load."""
    endurance: Endurance | None
    """What was written to storage, in a day of this load, and what that is of the rating of drives."""
    no_first_token: str = ""
    """Why there is none; else empty."""
    objectives: Objectives | None = None
    """What was promised, and whether it was kept; None: nothing was."""
    worth: Worth | None = None
    """What storage is worth; None: there are no prices, or nothing is known to have been saved."""
    no_worth: str = ""
    """Why there is none, though there are prices; else empty."""


def summarize(
    run: Run, *, slo: Sequence[str] = (), prices: Prices | None = None, rated: RatedDrives | None = None
) -> Summary:
    """All figures of `run`. Needs memory for a few columns of /records at a time. `slo` (as `ttft_p95<2s`), `prices`
    and `rated`, the endurance of the drives under test, stand in place of those of its configuration. Raises
    KvbenchError: damaged file, or an objective that the run cannot tell."""
    window = Window.of(run.attributes)
    promised = objective_figures(run, window, given_objectives(slo, run) if slo else objectives_of(run))
    prices = prices or prices_of(run.config.get("prices"))
    of_rows = run.mode == "full"
    figures = operation_figures(run, window) if of_rows else condensed.operation_figures(run, window)
    facts: dict[str, Any] = {name: run.attributes.get(name) for name in _FACTS}
    if "directories" in run.attributes:
        facts["directories"] = run.attributes["directories"]
    facts |= {"window_s": window.seconds, "duration_s": planned_seconds(run)}
    facts["serving"] = "engine" if run.serves_as_engine else "reference"
    pacing = run.config.get("pacing")
    facts["pacing"] = pacing.get("mode") if isinstance(pacing, dict) else None
    compute = run.config.get("compute")
    facts["compute"] = str(compute.get("gpu")) if isinstance(compute, dict) else None
    tiers = run.config.get("tiers") or [{}]
    facts["modelled_reads"] = isinstance(tiers[0], dict) and bool(tiers[0].get("bandwidth_bytes_per_s"))
    facts["look_ups_told"] = "look_ups" in run.file.tables
    facts |= {"records": run.mode, "percentiles_are": run.percentiles_are}
    facts |= {f"{table}_sampled_1_in": run.sampled_1_in(table) for table in ("records", "requests")}
    latency = request_latency(run) if of_rows else condensed_requests.request_latency(run)
    sharing = sharing_figures(run, window) if of_rows else condensed_sharing.sharing_figures(run, window)
    tokens = first_token(run, window)
    earned = worth(run, window, tokens, prices)
    halves, before = half_figures(run, window), preconditioning(run)
    if rated is None:
        rated = rated_drives(run.config.get("drive"))
    return Summary(
        source=str(run.path),
        run=facts,
        headlines=(
            *headlines(figures.totals),
            *([first_token_headline(tokens)] if tokens else []),
            *([objectives_headline(promised)] if promised else []),
        ),
        warnings=(*cautions(run, figures, latency, window, sharing), *steadiness(halves, before)),
        operations=figures.operations,
        latency=figures.latency,
        totals=figures.totals,
        ranks=figures.ranks,
        nodes=figures.nodes,
        prefix=prefix_figures(run),
        look_ups=look_up_figures(run),
        load=load_figures(run, window),
        requests=request_counts(run, window) if of_rows else condensed_requests.request_counts(run, window),
        sharing=sharing,
        request_latency=latency,
        first_token=tokens,
        halves=halves,
        preconditioning=before,
        endurance=endurance(run, window, figures.totals, rated),
        no_first_token="" if tokens else _no_first_token(run),
        objectives=promised,
        worth=earned,
        no_worth="" if earned or prices is None else _no_worth(run, tokens),
    )


def _no_first_token(run: Run) -> str:
    if not run.serves_as_engine:
        return "requests are not served as an engine does it (workload.serving), and nothing is computed"
    if compute_model_of(run.attributes.get("compute_model_json")) is None:
        return NO_COMPUTE
    return "no request that was done in the measured phase came so far"


def _no_worth(run: Run, tokens: FirstToken | None) -> str:
    return _no_first_token(run) if tokens is None else "nothing was served in a measured window"


def measured(summary: Summary) -> str:
    """How long was measured, and was to be where that is another time: `10.8 s measured, 6 s asked for`."""
    window, planned = (summary.run[name] for name in ("window_s", "duration_s"))
    if window is None:
        return "no measured window"
    unlike = any(caution.code in WINDOW_CODES for caution in summary.warnings)
    asked = f", {float(planned or 0):g} s asked for" if unlike else ""
    return f"{units.digits(float(window))} s measured{asked}"


def what_was_measured(summary: Summary) -> str:
    """The file, and the facts of the run that its figures hang on."""
    run = summary.run
    parts = [units.count_of(float(run[f"{noun}s"] or 0), noun) for noun in ("rank", "node") if run[f"{noun}s"]]
    sharing = (_SHARING_OF_OWN if "directories" in run else _SHARING).get(str(run["cache_directory"]), "")
    own = f"directories {run['directories']}" if "directories" in run else ""
    parts += [own, sharing, str(run["model"] or "")]
    parts.append(f"compute modelled ({run['compute']})" if run["compute"] else "")
    parts.append(measured(summary) if run["window_s"] is not None else "")
    parts.append(_SYNCS.get(str(run["sync"]), ""))
    parts.append(f"twin of {run['twin']}" if run["twin"] else "")
    parts.append(f"layout: {run['layout']}" if run["layout"] not in (None, "file") else "")
    return f"{summary.source}: " + ", ".join(str(part) for part in parts if part)


def contains_modelled(summary: Summary) -> str:
    """What is to be said beside latencies of requests where they are not measured alone; else ""."""
    modelled = [
        name
        for name, there in (("compute", "compute"), ("reads of the gpu tier", "modelled_reads"))
        if summary.run[there]
    ]
    return f"; contains modelled {' and '.join(modelled)}" if modelled else ""
