"""kvbench with an error on rank 1, in a place where no agreement is: `failing_rank.py ARGUMENTS OF kvbench`."""

import sys
from typing import NoReturn
from unittest.mock import patch

from kvbench.cluster.comm import get_world
from kvbench.commands.main import main
from kvbench.run import runner


def fail(*_: object) -> NoReturn:
    """Stands for a mistake in kvbench itself."""
    raise ZeroDivisionError("a mistake on this rank")


if get_world().rank == 1:
    patch.object(runner, "read_clock", fail).start()
sys.argv[0] = "kvbench"
main()
