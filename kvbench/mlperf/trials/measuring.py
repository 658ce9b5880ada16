"""Carrying out a sequence: trial after trial in one MPI job, each a run of its own that all ranks start together.

Between trials every rank sleeps out the delay and looks for signals, then hears whether anybody was interrupted (one
sum of an integer); the rest travels within `runner.run` and `surroundings`. Rank 0 alone reads and writes results,
which need not be where another rank sees them.
"""

import os
import shutil
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from kvbench.cluster.agree import Agreement, FailedElsewhere, RanksFailed, RunInterrupted, together
from kvbench.cluster.broadcast import share, total
from kvbench.cluster.comm import Communicator, detect_launcher, quiet_barrier
from kvbench.cluster.signals import Interrupt
from kvbench.cluster.topology import Topology, discover
from kvbench.errors import KvbenchError
from kvbench.mlperf.tree.parts import RUN_FILE_NAME, SUMMARY_NAME
from kvbench.mlperf.trials.choices import Choices, check_choices, preset_name
from kvbench.mlperf.trials.leaf_metadata import metadata_name, metadata_of
from kvbench.mlperf.trials.run_summary import summary_of
from kvbench.mlperf.trials.sequence import (
    Begun,
    TrialSequence,
    TrialStep,
    begin_or_resume,
    local_stamp,
    new_sequence,
    now,
    steps_as_json,
    write_json,
)
from kvbench.mlperf.trials.surroundings import (
    cache_is_empty,
    clear_lost,
    clients_per_node,
    drop_page_cache,
    look_around,
)
from kvbench.mlperf.trials.trial_results import ranks_of, result_of
from kvbench.records.outputs import alone_in
from kvbench.records.reader import open_run, read_columns
from kvbench.run import runner
from kvbench.run.addresses import literal
from kvbench.run.order import Order, new_run_id

if TYPE_CHECKING:
    from rich.console import Console

_POLL_S: Final = 0.05
_OVERHEAD_S: Final = 10.0
"""What a trial takes beside its duration, until one has shown it."""


@dataclass(slots=True)
class _Clock:
    """How long the rest of the sequence takes, as far as it can be told."""

    steps: list[TrialStep]
    overheads_s: list[float] = field(default_factory=list)

    def left_after(self, place: int) -> float:
        """Seconds from the end of step `place`."""
        overhead_s = sum(self.overheads_s) / len(self.overheads_s) if self.overheads_s else _OVERHEAD_S
        later = self.steps[place + 1 :]
        return sum(step.delay_s + step.seconds + overhead_s for step in later) + overhead_s / 2

    def heading(self, place: int, left_s: float) -> str:
        """What progress says before its figures, `left_s` before the end of the load of step `place`."""
        step = self.steps[place]
        rest = _duration(left_s + self.left_after(place))
        return f"option {step.option}, trial {step.trial + 1} of {step.trials}, {rest} left in the sequence"


def run_sequence(comm: Communicator, choices: Choices, console: "Console") -> Path:
    """Carry out what `choices` ask for, or what an unfinished sequence of the same has left. Collective.

    Returns the directory of the results (rank 0 has them). Raises KvbenchError on rank 0 and FailedElsewhere on the
    others where something is refused, before anything is measured, or a trial fails; the trials before it stay.
    """
    interrupt = Interrupt(launched=detect_launcher() is not None, speaks=comm.rank == 0)
    agreement = Agreement(comm, interrupt)
    with interrupt, together(comm), ExitStack() as alone:
        topology = discover(comm)
        agreement.on_first("check", lambda: check_choices(choices))
        around = look_around(topology, agreement, choices.cache, choices.results)

        def begin() -> Begun:
            begun = begin_or_resume(new_sequence(choices, topology.hosts, clients_per_node(topology), around))
            alone.enter_context(
                alone_in(begun.sequence.directory, "wait until it has ended, or give another --results")
            )
            return begun

        begun = agreement.on_first("check", begin)
        sequence = begun and begun.sequence
        quiet_barrier(comm)
        clear_lost(topology, agreement, choices.cache, share(comm, sequence and sequence.note_lost()))
        told = share(comm, None if sequence is None else steps_as_json(sequence.steps()))
        trials = _Trials(topology, agreement, choices, sequence, _Clock([TrialStep(**step) for step in told]), console)
        if begun is not None:
            trials.announce(begun)
        # From here on results are written, and between trials `wait` sees a signal.
        interrupt.waits_for = "writing the results of a trial"
        for place in range(len(told)):
            trials.wait(place, interrupt)
            trials.carry_out(place)
        return trials.end()


class _Trials:
    """The trials of a sequence on one rank; `sequence` is rank 0's."""

    def __init__(
        self,
        topology: Topology,
        agreement: Agreement,
        choices: Choices,
        sequence: TrialSequence | None,
        clock: _Clock,
        console: "Console",
    ) -> None:
        self._topology = topology
        self._agreement = agreement
        self._choices = choices
        self._sequence = sequence
        self._clock = clock
        self._console = console

    def announce(self, begun: Begun) -> None:
        """Say what is to come."""
        steps = self._clock.steps
        seconds = sum(step.delay_s + step.seconds + _OVERHEAD_S for step in steps)
        what = "rehearsal" if self._choices.rehearsal else f"{self._choices.division} division"
        verb = "going on with" if begun.resumed else "beginning"
        if begun.passed_over:
            self._say(begun.passed_over)
        self._say(
            f"{verb} {begun.sequence.directory} ({what}): {len(steps)} trials on {self._topology.size} clients, about "
            f"{_duration(seconds)}"
        )

    def wait(self, place: int, interrupt: Interrupt) -> None:
        """Let the delay before a step go by. Collective. Raises as `run_sequence` does when interrupted."""
        delay_s = self._clock.steps[place].delay_s
        if delay_s and self._sequence is not None:
            rest = _duration(delay_s + self._clock.steps[place].seconds + self._clock.left_after(place))
            self._say(f"waiting {delay_s:g} s between options, {rest} left in the sequence")
        end_s = time.monotonic() + delay_s
        while time.monotonic() < end_s and not interrupt.seen:
            time.sleep(_POLL_S)
        if total(self._topology.comm, interrupt.seen)[0]:
            self._give_up("interrupted between two trials")

    def carry_out(self, place: int) -> None:
        """One trial with its results. Collective. Raises as `run_sequence` does."""
        step, sequence = self._clock.steps[place], self._sequence
        dropped = drop_page_cache(self._topology)
        begun_s = time.monotonic()
        out = Path("unused")
        if sequence is not None:
            out = sequence.unfinished_directory(step.option, step.trial) / RUN_FILE_NAME
            self._say(self._clock.heading(place, step.seconds))
        run_id = new_run_id(datetime.now(UTC))
        self._agreement.on_first("results", lambda: self._begin(step, dropped, run_id))
        order = Order(
            source=preset_name(step.option),
            directory=literal(str(self._choices.cache.absolute())),
            out=out,
            overrides=self._choices.overrides(),
            overwrite=True,
            run_id=run_id,
        )
        try:
            heading = self._clock.heading
            runner.run(self._topology.comm, order, self._console, lambda left_s: heading(place, left_s)).close()
            self._agreement.on_first("results", lambda: self._keep(step, out))
        except KvbenchError as error:
            self._note_failure(step, error)
        self._clock.overheads_s.append(max(0.0, time.monotonic() - begun_s - step.seconds))
        self._check_emptied(step)
        self._agreement.on_first("results", self._summarize)

    def end(self) -> Path:
        """Say where the results are."""
        if self._sequence is None:
            return self._choices.results
        self._say(f"complete: {self._sequence.directory}")
        return self._sequence.directory

    def _begin(self, step: TrialStep, dropped: bool, run_id: str) -> None:
        if self._sequence is None:
            return
        folder = self._sequence.unfinished_directory(step.option, step.trial)
        # A job that ended between giving a trial its name and noting it leaves that one; it counts in nothing yet.
        for attempt in (folder, self._sequence.trial_directory(step.option, step.trial)):
            if attempt.exists():
                shutil.rmtree(attempt)
        folder.mkdir(parents=True)
        content = self._sequence.content
        content["page_cache_dropped_between_trials"] = dropped and content["page_cache_dropped_between_trials"] in (
            None,
            True,
        )
        again = self._sequence.trial(step.option, step.trial)["status"] != "pending"
        self._sequence.begin_trial(
            step.option,
            step.trial,
            run_id=run_id,
            delay_before_s=step.delay_s,
            repeated=step.repeated or again,
            page_cache_dropped=dropped,
        )

    def _keep(self, step: TrialStep, out: Path) -> None:
        """Rank 0: write the ranks' results, then let the trial be one of the complete ones."""
        if self._sequence is None:
            return
        run = open_run(out)
        facts: dict[str, Any] = {
            "division": self._choices.division,
            "rehearsal": self._choices.rehearsal,
            "option": step.option,
            "trial": step.trial,
            "users": self._sequence.option(step.option)["settings"]["users"],
            "max_concurrent_allocs": self._sequence.option(step.option)["settings"]["max_concurrent_allocs"],
            "run_id": run.attributes["run_id"],
            "fingerprint": run.attributes["fingerprint"],
        }
        stamp = local_stamp(self._sequence.trial(step.option, step.trial)["started_at"])
        clients = self._sequence.content["total_ranks"]
        if (kept := len(read_columns(run, "ranks", ("rank",))["rank"])) != clients:
            raise KvbenchError(f"{out} has records of {kept} of {clients} clients, and a trial counts with all or not")
        for rank in ranks_of(out):
            folder = out.parent / f"rank_{rank.rank}"
            folder.mkdir()
            write_json(folder / f"kvcache_results_{stamp}.json", result_of(rank, facts))
        os.rename(out.parent, self._sequence.trial_directory(step.option, step.trial))
        self._sequence.update(
            step.option,
            step.trial,
            status="complete",
            ended_at=now(),
            run_id=run.attributes["run_id"],
            fingerprint=run.attributes["fingerprint"],
        )

    def _check_emptied(self, step: TrialStep) -> None:
        sequence = self._sequence
        quiet_barrier(self._topology.comm)
        run_id = share(self._topology.comm, sequence and sequence.trial(step.option, step.trial)["run_id"])
        emptied = cache_is_empty(self._topology, self._choices.cache, run_id)
        if sequence is not None:
            sequence.content["cache_emptied"] = emptied and sequence.content["cache_emptied"] in (None, True)
            sequence.update(step.option, step.trial, cache_emptied=emptied)

    def _summarize(self) -> None:
        """Rank 0: what the leaf is, and the figures of all trials so far, so that a sequence that ends early has some
        too."""
        if self._sequence is not None:
            directory = self._sequence.directory
            write_json(directory / metadata_name(self._sequence), metadata_of(self._sequence))
            write_json(directory / SUMMARY_NAME, summary_of(self._sequence))

    def _note_failure(self, step: TrialStep, error: KvbenchError) -> NoReturn:
        """Rank 0: a trial that failed or was interrupted."""
        assert self._sequence is not None, "only rank 0 hears of it"
        message = str(error)
        status = "interrupted" if isinstance(error, RunInterrupted) else "failed"
        self._sequence.update(step.option, step.trial, status=status, ended_at=now(), message=message)
        # What went wrong first is what is said, also where nothing can be written any more.
        with suppress(KvbenchError):
            self._summarize()
        self._give_up(f"option {step.option}, trial {step.trial + 1} of {step.trials}: {message}")

    def _give_up(self, what: str) -> NoReturn:
        if self._sequence is None:
            raise FailedElsewhere
        raise RanksFailed(f"{what}\nThe same command goes on with {self._sequence.directory}, without what is complete")

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True, highlight=False, markup=False)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"
