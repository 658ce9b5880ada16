"""The copy-path study: what a second copy costs alone and among others, for every read path, in one MPI job.

Phases, in order: plan, check, write, measure, gather, clean up. Every rank walks through all of them; what a rank does
alone ends in an agreement, as in a run. Between the turns of the measurement the ranks meet in a barrier in which the
early ones sleep; within a turn there is nothing of MPI, and ranks whose turn it is not sleep.
"""

import datetime
import secrets
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvbench.cluster.agree import Agreement, FailedElsewhere, RunInterrupted, together
from kvbench.cluster.broadcast import share
from kvbench.cluster.comm import Communicator, detect_launcher
from kvbench.cluster.signals import Interrupt
from kvbench.cluster.topology import Topology, discover
from kvbench.cluster.watch.watch import Watch
from kvbench.errors import KvbenchError
from kvbench.records.outputs import Written
from kvbench.run.bench import cleaned_up
from kvbench.run.outcome import Outcome
from kvbench.run.output.run_file import open_until
from kvbench.studies.equipment import Stock, StudySite
from kvbench.studies.measuring import measure
from kvbench.studies.options import CopyPathChoices
from kvbench.studies.plan import StudyCell, StudyStep, least_seconds, plan_steps, stored_bytes_per_rank
from kvbench.studies.progress import clock_text
from kvbench.studies.requirements import StudyPlaces, look_around
from kvbench.studies.study_file import StudyIdentity, gather_study
from kvbench.tiers.kinds import target_at
from kvbench.units import format_bytes

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class StudyOrder:
    """What the user asked for."""

    choices: CopyPathChoices
    out: Path
    overwrite: bool


def run_copy_path(comm: Communicator, order: StudyOrder, console: "Console") -> Written:
    """Carry out the study on all ranks of `comm`; returns the study file, which rank 0 has written and open.

    Collective. Raises KvbenchError on rank 0 and FailedElsewhere on the others when it could not be done, or ended
    early; what was measured until then is in the file all the same.
    """
    interrupt = Interrupt(launched=detect_launcher() is not None, speaks=comm.rank == 0)
    agreement = Agreement(comm, interrupt)
    with (
        interrupt,
        together(comm),
        Watch(comm) as watch,
        interrupt.ended_by(watch.give_up),
        ExitStack() as stack,
    ):
        topology = discover(comm)
        watch.connect(topology, console.print)
        identity = _identify(comm, order)
        writer = agreement.on_first(
            "check", lambda: open_until(stack, comm, order.out, order.overwrite, identity.run_id)
        )
        if writer is not None:
            watch.before_end.append(writer.withdraw)
        steps = plan_steps(identity.choices)
        around = look_around(topology, agreement, identity.choices, steps, identity.run_id)
        _announce(console, topology, identity, steps)
        with _stock(topology, agreement, identity, around) as stock:
            measured = measure(topology, agreement, identity.choices, steps, around.places, stock, interrupt, console)
            interrupt.waits_for = f"writing {order.out}"
            gather_study(topology, agreement, identity, around, stock, measured, writer)
            agreement.run("measure", lambda: _raise_failure(measured.outcome))
        written = Written(order.out) if writer is None else writer.written()
    if measured.outcome.interrupted or interrupt.seen:
        written.close()
        if comm.rank != 0:
            raise FailedElsewhere
        what = "what was measured until then is in" if measured.outcome.interrupted else "all was measured, and is in"
        raise RunInterrupted(f"interrupted; {what} {order.out}")
    return written


def _identify(comm: Communicator, order: StudyOrder) -> StudyIdentity:
    """Rank 0's choices, and a name for the study, on every rank."""
    now = datetime.datetime.now(datetime.UTC)
    content: dict[str, Any] = share(
        comm,
        {
            "choices": order.choices.to_json(),
            "run_id": f"{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}",
            "started_at": now.isoformat(timespec="seconds"),
        },
    )
    return StudyIdentity(CopyPathChoices.from_json(content["choices"]), content["run_id"], content["started_at"])


def _announce(console: "Console", topology: Topology, identity: StudyIdentity, steps: list[StudyStep]) -> None:
    if topology.rank == 0:
        choices = identity.choices
        cells = sum(isinstance(step, StudyCell) for step in steps)
        least = clock_text(least_seconds(steps, choices))
        written = format_bytes(stored_bytes_per_rank(choices))
        console.print(
            f"kvbench study copy-path {identity.run_id}: {cells} cells in {choices.repeats} repeats, at least {least}; "
            f"each rank first writes {written} to each directory",
            soft_wrap=True,
            highlight=False,
        )


@contextmanager
def _stock(
    topology: Topology, agreement: Agreement, identity: StudyIdentity, around: StudyPlaces
) -> Iterator[Stock | None]:
    """This rank's objects, memory and tiers, None where it takes no part; removed again however the study ended."""
    with ExitStack() as stack:
        choices = identity.choices
        home = None
        targets = [target_at(str(directory)) for directory in choices.directories]
        areas = tuple(target.area(identity.run_id, topology.rank) for target in targets)
        if topology.local_rank < max(choices.ranks):
            home = StudySite(topology.rank, topology.host, areas)
        for area in areas:
            stack.enter_context(cleaned_up(agreement, area))

        def build() -> Stock | None:
            if home is None:
                return None
            for area in areas:
                area.create()
            return Stock.build(stack, choices, home, identity.run_id, around.arena_bytes, agreement.interrupt)

        yield agreement.run("check", build)


def _raise_failure(outcome: Outcome) -> None:
    if outcome.failures:
        raise KvbenchError(outcome.failure)
