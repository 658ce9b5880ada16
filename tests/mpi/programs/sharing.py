"""How often nodes find that they share a directory, with no time to settle: `sharing.py DIRECTORY TIMES`."""

import sys
from functools import partial

from kvbench.cluster.agree import Agreement
from kvbench.cluster.comm import get_world
from kvbench.cluster.places import place_group
from kvbench.cluster.topology import discover
from kvbench.tiers.file.target import DirectoryTarget


def main() -> None:
    """Rank 0 prints how often."""
    comm = get_world()
    topology = discover(comm)
    place, times = DirectoryTarget(sys.argv[1]), int(sys.argv[2])

    def found(number: int) -> bool:
        return place_group(topology, place, f"try{number}", settle_s=0).sharing == "shared"

    agreement = Agreement(comm)
    shared = sum(agreement.run("check", partial(found, number)) for number in range(times))
    if comm.rank == 0:
        print(f"{shared} of {times} found shared")


main()
