"""The highest load within objectives: probe after probe in one MPI job, each a run of its own that all ranks begin
together, at a load that the probes before it give (`kvbench_analysis.search`).

Every probe begins with an empty run directory, warms up with its own load, and has a seed of its own: none finds what
another left, and chance is not the same twice. What travels between them: from rank 0 the next load (a hundred bytes),
and the sums of an agreement; the rest within `runner.run`. Rank 0 alone reads a probe's run file, which is removed once
its figures are in the study file.
"""

import datetime
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console

from kvbench import timed_io
from kvbench.cluster.agree import Agreement, FailedElsewhere, RanksFailed, RunInterrupted, together
from kvbench.cluster.broadcast import share
from kvbench.cluster.comm import Communicator, detect_launcher
from kvbench.cluster.signals import Interrupt
from kvbench.cluster.topology import Topology, discover
from kvbench.console import silent_console
from kvbench.errors import KvbenchError
from kvbench.records.objectives import Objective
from kvbench.records.outputs import alone_in, make_folder
from kvbench.records.search import Asked
from kvbench.run import runner
from kvbench.run.order import Order, new_run_id
from kvbench.run.output.spill_files import SpillOrder
from kvbench.studies.progress import clock_text
from kvbench.studies.search_asked import Wanted, ask, comes_by_itself, probe_overrides, probe_seed, study_folder

if TYPE_CHECKING:
    from kvbench_analysis.search.study import SearchFigures

    from kvbench.studies.search_file import SearchFile

_OVERHEAD_S: Final = 4.0
"""What a probe takes beside its load, until one has shown it."""
_USUAL: Final = 16
"""Probes that a search takes, where none was needed so far."""


@dataclass(frozen=True, slots=True)
class SearchOrder:
    """What the user asked for."""

    wanted: Wanted
    out: Path
    overwrite: bool
    resume: bool
    keep: bool
    """The run files of probes stay."""
    spill: SpillOrder
    patience_s: float


def run_search(comm: Communicator, order: SearchOrder, console: Console) -> "SearchFigures | None":
    """Carry out a search, or what is left of it, on all ranks of `comm`; returns its figures on rank 0. Collective.

    Raises KvbenchError on rank 0 and FailedElsewhere on the others where something is refused, before anything is
    measured, or a probe fails; those before it are in the study file.
    """
    interrupt = Interrupt(launched=detect_launcher() is not None, speaks=comm.rank == 0)
    agreement = Agreement(comm, interrupt)
    with interrupt, together(comm), ExitStack() as alone:
        topology = discover(comm)
        search = agreement.on_first("check", lambda: _begin(order, topology, alone), computes=True)
        asked = Asked.from_json(share(comm, None if search is None else search.asked.to_json()))
        probing = _Probing(topology, agreement, order, asked, search, console)
        if search is not None:
            search.announce(console)
        while (load := probing.following()) is not None:
            probing.carry_out(load)
        return agreement.on_first("results", lambda: None if search is None else search.end())


@dataclass
class _Search:
    """Rank 0's side."""

    asked: Asked
    objectives: tuple[Objective, ...]
    file: "SearchFile"
    figures: "SearchFigures"

    def announce(self, console: Console) -> None:
        """Say what is to come, and how long it takes."""
        asked, done = self.asked, len(self.file.probes)
        what = " and ".join(asked.objectives) or "the highest throughput"
        begin = f"going on after {done} probes" if done else "beginning"
        console.print(
            f"kvbench search, {begin}: {what}, {asked.key} from {asked.low:g} to {asked.high:g}; probes of "
            f"{asked.warmup_s:g} s of warm-up and {asked.seconds:g} s: {self.left()}",
            soft_wrap=True,
            highlight=False,
        )

    def left(self) -> str:
        """How long the rest takes, and at most."""
        if self.figures.next_load is None:
            return "nothing is left to do"
        took = [row["took_s"] for row in self.file.probes]
        each_s = sum(took) / len(took) if took else self.asked.warmup_s + self.asked.seconds + _OVERHEAD_S
        done, most = len(took), self.asked.most
        usual = max(min(_USUAL, most) - done, 1)
        return (
            f"{usual} more take about {clock_text(usual * each_s)}, and {most - done}, which it is at most, about "
            f"{clock_text((most - done) * each_s)}"
        )

    def end(self) -> "SearchFigures":
        """All was measured."""
        self.file.save("complete")
        return self.figures


def _begin(order: SearchOrder, topology: Topology, alone: ExitStack) -> _Search:
    # pandas and HDF5, on the rank alone that makes figures
    from kvbench.studies.search_file import SearchFile  # noqa: PLC0415

    asked, objectives = ask(order.wanted, topology.size)
    now = datetime.datetime.now(datetime.UTC)
    facts = {
        "run_id": new_run_id(now),
        "started_at": now.isoformat(timespec="seconds"),
        "nodes": topology.nodes,
        "timer": timed_io.TIMER,
    }
    folder = study_folder(order.out)
    make_folder(folder, "the run files of probes", "choose another --out")
    alone.callback(_leave, folder)
    alone.enter_context(alone_in(folder, "wait until it has ended, or choose another --out"))
    file = SearchFile.begin(order.out, asked, objectives, facts, overwrite=order.overwrite, resume=order.resume)
    return _Search(asked, objectives, file, file.figures())


def _leave(folder: Path) -> None:
    """Remove `folder` where nothing is kept in it."""
    try:
        folder.rmdir()
    except OSError:
        return


class _Probing:
    """The probes on one rank; `search` is rank 0's."""

    def __init__(
        self,
        topology: Topology,
        agreement: Agreement,
        order: SearchOrder,
        asked: Asked,
        search: _Search | None,
        console: Console,
    ) -> None:
        self._topology = topology
        self._agreement = agreement
        self._order = order
        self._asked = asked
        self._search = search
        self._console = console
        self._number = 0

    def following(self) -> float | None:
        """The next load, on every rank. Collective."""
        search = self._search
        told = None if search is None else [search.figures.next_load, len(search.file.probes)]
        load, self._number = share(self._topology.comm, told)
        return None if load is None else float(load)

    def carry_out(self, load: float) -> None:
        """One probe with its figures. Collective."""
        asked, order, number = self._asked, self._order, self._number
        out = study_folder(order.out) / f"probe-{number + 1}.h5"
        seed = probe_seed(asked, number)
        started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        begun_s = time.monotonic()
        run = Order(
            source=asked.source,
            directory=asked.place or None,
            out=out,
            overrides=(*order.wanted.overrides, *probe_overrides(asked, load, seed)),
            engine=asked.engine,
            overwrite=True,
            patience_s=order.patience_s,
            spill=order.spill,
        )
        try:
            runner.run(self._topology.comm, run, silent_console()).close()
            took_s = time.monotonic() - begun_s
            self._agreement.on_first("results", lambda: self._keep(out, load, seed, started, took_s))
        except KvbenchError as error:
            self._give_up(load, error)

    def _keep(self, out: Path, load: float, seed: int, started: str, took_s: float) -> None:
        """Rank 0: the figures of the probe go into the study file, and its run file goes."""
        search = self._search
        assert search is not None, "called on rank 0"
        import kvbench_analysis  # noqa: PLC0415 - on this rank alone
        from kvbench_analysis.search.probe import probe_figures  # noqa: PLC0415

        figures = probe_figures(
            kvbench_analysis.load(out), load, search.objectives, self._asked.seconds, comes_by_itself(self._asked)
        )
        search.file.add(load, seed, started, took_s, figures)
        if not self._order.keep:
            out.unlink(missing_ok=True)
        search.figures = search.file.figures()
        shown = [
            f"{objective.name} {each.figure_s:.3g} s"
            for objective, each in zip(search.objectives, figures.objectives, strict=True)
        ]
        told = "the backlog grew" if figures.grew else ""
        facts = [f"{figures.served_per_s:.3g} requests/s served", *shown, *([told] if told else [])]
        self._console.print(
            f"probe {len(search.file.probes)} at {load:g}: {', '.join(facts)}; {search.left()}",
            soft_wrap=True,
            highlight=False,
        )

    def _give_up(self, load: float, error: KvbenchError) -> None:
        """Rank 0: a probe failed or was interrupted."""
        if self._search is None:
            raise FailedElsewhere from error
        done = len(self._search.file.probes)
        kept = (
            f"; the {done} probes before it are in {self._order.out}: `kvbench study show` prints them, and --resume "
            "goes on with them"
            if done
            else ""
        )
        kind = RunInterrupted if isinstance(error, RunInterrupted) else RanksFailed
        raise kind(f"probe {done + 1} at a load of {load:g}: {error}{kept}") from error
