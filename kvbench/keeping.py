"""What the ranks of a run do about their spill files together: say where they are, remove them, or say what to do.

What travels: one sum of two integers before the load and one after it; all else is local, or ends in an agreement.
"""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from kvbench.cluster.agree import Agreement, RanksFailed
from kvbench.cluster.broadcast import total
from kvbench.cluster.topology import Topology
from kvbench.errors import KvbenchError
from kvbench.records.spill.writer import SpillWriter
from kvbench.run.output.spill_files import SpillOrder, SpillPlace, spill_path
from kvbench.units import format_bytes


def announce(
    console: Console, topology: Topology, order: SpillOrder, place: SpillPlace | None, spill_bytes: int
) -> None:
    """Say on rank 0 where records go; `spill_bytes` is what this rank's file may need. Collective."""
    nowhere, needed = total(topology.comm, place is None, spill_bytes)
    if topology.rank != 0:
        return
    if not order.wanted:
        text = "no spill files (--no-spill): a rank that is killed takes with it what it has measured"
    elif nowhere:
        text = (
            f"{nowhere} of {topology.size} ranks find no directory for spill files that is not on the "
            "filesystem under test (/var/tmp, TMPDIR, /dev/shm): they keep their records in memory, and if they are "
            "killed they are lost; name one with --spill"
        )
    else:
        assert place is not None, "no rank is without"
        text = f"records are spilled to {place.directory} ({place.filesystem.kind}) on each node"
        if place.filesystem.in_memory:
            text += ", which is memory and does not outlive the node"
        needed = needed * topology.local_size // topology.size
        if place.filesystem.tells_space and needed > place.filesystem.free_bytes:
            text += (
                f"; that may need {format_bytes(needed)}, and {format_bytes(place.filesystem.free_bytes)} are free: "
                "what finds no room stays in memory"
            )
    warning = bool(nowhere) and order.wanted
    console.print(text, style="yellow" if warning else None, soft_wrap=True, highlight=False, markup=False)


def discard(agreement: Agreement, spill: SpillWriter | None) -> None:
    """Remove the spill files of all ranks, whose rows are safe in the run file. Collective."""

    def remove() -> None:
        if spill is not None:
            try:
                spill.remove()
            except OSError as error:
                raise KvbenchError(
                    f"cannot remove the spill file {spill.path}: {error.strerror}; its records are in the run file"
                ) from error

    agreement.run("clean up", remove)


def recovering(spill: SpillWriter, run_id: str, out: Path) -> str:
    """The command that makes a run file of this node's spill files."""
    return f"kvbench recover {spill_path(spill.path.parent, run_id, '*')} -o {out}"


def how_to_go_on(spill: SpillWriter | None, run_id: str, out: Path, directory: Path | None) -> str:
    """What can be done after a run whose ranks were ended without leaving in good order."""
    advice = [] if spill is None else [f"`{recovering(spill, run_id, out)}` makes a run file of what was measured"]
    if directory is not None:
        advice.append(f"`kvbench clean {shlex.quote(str(directory))}` deletes the cache files that are left")
    return ", ".join(advice)


@contextmanager
def saying_what_is_left(topology: Topology, spill: SpillWriter | None, run_id: str, out: Path) -> Iterator[None]:
    """A context that writes the run file: if that fails, the message says how to make one from the spill files.

    Collective.
    """
    incomplete = total(topology.comm, spill is None or not spill.keeping)[0]
    try:
        yield
    except RanksFailed as error:
        if spill is None:
            raise
        files = spill_path(spill.path.parent, run_id, "*")
        lost = f" (but on {incomplete} ranks not all of them)" if incomplete else ""
        raise RanksFailed(
            f"{error}\n  the records of each rank are still in {files} on its node{lost}: "
            f"'{recovering(spill, run_id, out)}' makes a run file of them"
        ) from error
