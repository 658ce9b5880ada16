"""How often nodes find that they share a directory, with no time to settle: `sharing.py DIRECTORY TIMES`."""

import sys
from functools import partial
from pathlib import Path

from kvbench.cluster.agree import Agreement
from kvbench.cluster.comm import get_world
from kvbench.cluster.filesystems import filesystem_group
from kvbench.cluster.topology import discover
from kvbench.tiers.file.filesystem import on_one_filesystem


def main() -> None:
    """Rank 0 prints how often."""
    comm = get_world()
    topology = discover(comm)
    directory, times = Path(sys.argv[1]), int(sys.argv[2])

    def found(number: int) -> bool:
        return filesystem_group(topology, directory, on_one_filesystem, f"try{number}", settle_s=0).sharing == "shared"

    agreement = Agreement(comm)
    shared = sum(agreement.run("check", partial(found, number)) for number in range(times))
    if comm.rank == 0:
        print(f"{shared} of {times} found shared")


main()
