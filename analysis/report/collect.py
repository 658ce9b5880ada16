"""Everything that the report of one run shows, computed once: the page and the picture files are made of it."""

from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis import summarize
from kvbench_analysis.contention.attribution import Attribution, attribution
from kvbench_analysis.contention.concurrency import OVERLAPPING, UNTOLD
from kvbench_analysis.contention.contention import Contention, contention, no_contention
from kvbench_analysis.contention.factor import FEWEST_OPERATIONS
from kvbench_analysis.plots import tables
from kvbench_analysis.plots.contention import contention_curve
from kvbench_analysis.plots.figure import Figure
from kvbench_analysis.plots.latency import latency_bands, latency_cdf, parts_by_rank
from kvbench_analysis.plots.over_time import timeline_plot
from kvbench_analysis.plots.places import rank_heatmap
from kvbench_analysis.plots.preconditioning import precondition_rounds
from kvbench_analysis.report.shown import Shown, first_token_figures, shown_as
from kvbench_analysis.search.likeness import caution
from kvbench_analysis.summary.caution import Caution
from kvbench_analysis.summary.summary import Summary
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.timeline import timeline
from kvbench_analysis.tables.window import Window
from kvbench_analysis.text import overlapping, units
from numpy.typing import NDArray

from kvbench.records.endurance import RatedDrives
from kvbench.records.prices import Prices
from kvbench.records.search import Asked

_BUSY_PCT: Final = 90.0
_FEWEST_PARTS: Final = 20
_OF_NO_ROWS: Final = ("precondition", "load-curve")
"""Figures that are whole where the rows of a run are a sample."""
_MOST_PARTS: Final = 300


@dataclass(frozen=True)
class Focus:
    """The operations that the top of the page is about: storage reads, or what comes next where there are none."""

    storage: bool
    op: str

    @property
    def name(self) -> str:
        """`storage reads`."""
        return f"{'storage' if self.storage else 'memory'} {self.op}s"


@dataclass(frozen=True)
class Content:
    """The report of one run, before it becomes a page."""

    name: str
    """Of the run, unlike that of the others on the page."""
    run: Run
    summary: Summary
    warnings: tuple[Caution, ...]
    focus: Focus | None
    """None where nothing was read or written."""
    figures: dict[str, Shown]
    contention: Contention
    attribution: Attribution
    focus_quantiles: pd.DataFrame
    """`plots.tables.quantiles` of the operations of `focus`, for comparisons with other runs."""
    bands: pd.DataFrame
    """`plots.tables.latency_bands` of the operations of `focus`; no rows without."""
    highest_load: str = ""
    """What a search found, as a sentence; empty: none was given."""


@dataclass(frozen=True)
class Given:
    """What is said of runs beside their files."""

    slo: tuple[str, ...] = ()
    """Objectives in place of those of their configurations."""
    prices: Prices | None = None
    """Likewise."""
    rated: RatedDrives | None = None
    """The endurance of the drives under test; likewise."""
    highest_load: str = ""
    """What a search found, as a sentence."""
    searched: Asked | None = None
    """What that search was asked for."""
    load_curve: Figure | None = None
    """And its picture."""


def collect(run: Run, name: str, given: Given = Given()) -> Content:
    """Compute the content of `run`'s report. Raises KvbenchError where the file is damaged, or an objective is of what
    the run does not have."""
    summary, window = summarize(run, slo=given.slo, prices=given.prices, rated=given.rated), Window.of(run.attributes)
    counted = tables.Counted(run)
    focus = _focus(summary)
    chosen = counted.of(storage=focus.storage, op=focus.op) if focus else np.zeros(len(counted.rank), bool)
    quantiles, bands = tables.latency_quantiles(counted), tables.latency_bands(counted, chosen)
    what = focus.name if focus else ""
    contended = contention(run) if run.sampled_1_in() == 1 else no_contention()
    attributed = attribution(run)
    figures = [
        *first_token_figures(summary),
        shown_as("latency", "Latency distributions", latency_cdf(quantiles) if len(quantiles) else None),
        shown_as(
            "slow-operations", "What slow operations waited for", latency_bands(bands, what) if len(bands) else None
        ),
        _ranks(counted),
        _contention(run, contended, focus, bool(counted.overlap.any())),
        _timeline(run, window),
        _heatmap(counted, chosen, what, window),
    ]
    before = summary.preconditioning
    if before is not None:
        figures.append(Shown("precondition", "Writes before the load", precondition_rounds(before)))
    if given.load_curve is not None:
        figures.append(Shown("load-curve", "The highest load within objectives", given.load_curve))
    return Content(
        name=name,
        run=run,
        summary=summary,
        warnings=(*_study(run), *summary.warnings, *_saturated(run, window), *_stragglers(attributed)),
        focus=focus,
        contention=contended,
        attribution=attributed,
        figures={s.key: s if s.key in _OF_NO_ROWS else _of_sample(s, run) for s in figures},
        focus_quantiles=tables.quantiles(counted.column("wall_ns")[chosen]),
        bands=bands,
        highest_load=given.highest_load + ("" if given.searched is None else caution(run, given.searched)),
    )


def told_factor(content: Content) -> dict[Any, Any] | None:
    """The contention factor that the top names: of the focus if it is known, else of other reads; None: of neither.

    Of several kinds, that with most operations.
    """
    factors, focus, run = content.contention.factors, content.focus, content.run
    if focus is None:
        return None
    factors = factors[(factors["scope"] == "all") & factors["factor"].notna()]
    storage = factors["tier"].isin(run.tiers.loc[run.tiers["storage"], "name"])
    mine = factors[(factors["op"] == focus.op) & (storage == focus.storage)]
    found = factors[factors["op"] == "read"] if mine.empty else mine
    return None if found.empty else found.nlargest(1, "operations").iloc[0].to_dict()


def _focus(summary: Summary) -> Focus | None:
    found = set(summary.totals[["storage", "op"]].itertuples(index=False, name=None))
    order = [(place, op) for place in ("storage", "memory") for op in ("read", "write", "demote", "promote")]
    first = next((pair for pair in order if pair in found), None)
    return Focus(first[0] == "storage", first[1]) if first else None


def _of_sample(shown: Shown, run: Run) -> Shown:
    """Says under a figure that it is drawn from a sample, where it is."""
    if shown.figure is None or run.sampled_1_in() == 1:
        return shown
    said = (
        f" Drawn from a sample of 1 in {run.sampled_1_in()} operations; rates are scaled up, counts are the sample's."
    )
    return replace(shown, figure=replace(shown.figure, note=shown.figure.note + said))


def _ranks(counted: tables.Counted) -> Shown:
    parts = tables.time_parts(counted)
    known = (parts["split_of"] != "unknown").any()
    absent = overlapping.NOT_KNOWN if len(parts) else "no rank read or wrote anything in the measured phase"
    return shown_as("ranks", "What the time of each rank went to", parts_by_rank(parts) if known else None, absent)


def _contention(run: Run, contended: Contention, focus: Focus | None, overlap: bool) -> Shown:
    """`overlap`: some operations have no host time of their own, and are not in the curve."""
    title = "Contention: the cost of a byte against concurrency"
    curve = contended.curve
    if run.sampled_1_in() > 1:
        return shown_as("contention", title, None, UNTOLD)
    if focus is None or curve.empty:
        return shown_as("contention", title, None, OVERLAPPING if overlap else "no operation moved bytes")
    storage = curve["tier"].isin(run.tiers.loc[run.tiers["storage"], "name"])
    shown = (curve["op"] == focus.op) & (storage if focus.storage else ~storage) | (curve["op"] == "read") & ~storage
    curve = curve[(curve["scope"] == "all") & (curve["against"] == "operations") & shown]
    if not (curve["operations"] >= FEWEST_OPERATIONS).any():
        few = "too few operations ran among the same number of others"
        return shown_as("contention", title, None, f"{few}; {OVERLAPPING}" if overlap else few)
    figure = contention_curve(curve, tables.copy_limits(run))
    said = f" Only of operations that do not overlap: {OVERLAPPING}." if overlap else ""
    return shown_as("contention", title, replace(figure, note=figure.note + said))


def _timeline(run: Run, window: Window) -> Shown:
    """In parts of a second, or of what a short run has enough of, and a long one not too many."""
    seconds = window.seconds or 1.0
    step = tables.bin_width(max(seconds / _MOST_PARTS, min(1.0, seconds / _FEWEST_PARTS)))
    found = timeline(run, step)
    nothing = found.nodes.empty or not (found.nodes["in_flight"] > 0).any()
    return shown_as("timeline", "Timeline", None if nothing else timeline_plot(found.nodes, found.flows))


def _heatmap(counted: tables.Counted, chosen: NDArray[np.bool_], what: str, window: Window) -> Shown:
    title = "Ranks over time"
    if window.seconds is None:
        return shown_as("heatmap", title, None, "the file gives no measured window")
    cells = tables.rank_cells(counted, chosen, window)
    if not len(cells):
        return shown_as("heatmap", title, None, "no operation ended in the measured window")
    return shown_as("heatmap", title, rank_heatmap(cells, what))


def _stragglers(attributed: Attribution) -> tuple[Caution, ...]:
    """A warning that names ranks and nodes whose reads or writes are out of line; the table of them says more."""
    slow = attributed.stragglers
    slow = slow[slow["op"].isin(["read", "write"])].drop_duplicates(["scope", "node", "rank"])
    if slow.empty:
        return ()
    named = [
        f"{row['scope']} {row[row['scope']]}{' on ' + row['host'] if row['host'] else ''} "
        f"(median {row['tier']} {row['op']} {row['ratio']:.2g} times the typical)"
        for row in slow.head(4).to_dict("records")
    ]
    more = f" and {len(slow) - 4} more" if len(slow) > 4 else ""
    return (Caution("straggler", f"slower than the others: {', '.join(named)}{more}"),)


def _study(run: Run) -> tuple[Caution, ...]:
    kind = str(run.attributes.get("kind", ""))
    if not kind.startswith("study"):
        return ()
    message = f"the file is a study ({kind}) of many measurements that differ on purpose: the figures here mix them"
    return (Caution("study", message),)


def _saturated(run: Run, window: Window) -> tuple[Caution, ...]:
    """A warning where a node had hardly a free processor: its run-queue times are then those of a full machine."""
    samples = run.samples
    if not {"node", "t_ns", "cpu_user_pct", "cpu_system_pct"} <= set(samples):
        return ()
    inside = samples[(samples["t_ns"] > window.start_ns) & (samples["t_ns"] <= window.end_ns)]
    busy = (inside["cpu_user_pct"] + inside["cpu_system_pct"]).groupby(inside["node"]).mean()
    full = busy[busy >= _BUSY_PCT]
    if full.empty:
        return ()
    nodes = f"node {full.index[0]} were" if len(full) == 1 else f"{len(full)} nodes were"
    return (
        Caution(
            "cpu-saturated",
            f"the processors of {nodes} busy {units.share(full.max() / 100)} of the time: part of what was measured is "
            "waiting for a processor, not for the storage",
        ),
    )
