"""One run of a study in an MPI job of its own: what `kvbench run` does, without its summary. Started by `scaling`."""

import json
import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console

from kvbench.cluster.comm import FailedElsewhere, get_world
from kvbench.cluster.launch.mpirun import PYTHON
from kvbench.cluster.signals import say
from kvbench.errors import KvbenchError
from kvbench.run import runner
from kvbench.run.order import Order
from kvbench.streams import SteadyStreams

PROGRAM: Final = (*PYTHON, "-m", "kvbench.studies.one_run")


def arguments_of(order: Order) -> list[str]:
    """The arguments of PROGRAM that have it carry out `order`."""
    return [json.dumps(order.to_json())]


def main(arguments: Sequence[str]) -> int:
    """Carry out the order in `arguments` as one rank; returns the exit code, with the message on stderr."""
    SteadyStreams()
    try:
        runner.run(get_world(), Order.from_json(json.loads(arguments[0])), Console(quiet=True)).close()
    except KvbenchError as error:
        say(str(error))
        return 1
    except FailedElsewhere:
        # Rank 0 says what went wrong and gives the job its exit code; mpirun ends all ranks at the first that fails.
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
