"""Ranks named on the command line (`RANK:KIND`) fail in a phase; everybody must leave it, and rank 0 says why."""

import sys

from kvbench.cluster.agree import Agreement, FailedElsewhere, abort
from kvbench.cluster.comm import get_world, quiet_barrier
from kvbench.errors import KvbenchError


def fail(kind: str) -> str:
    """Fail in the way `kind` names."""
    if kind == "user":
        raise KvbenchError("the directory is missing")
    if kind == "disk":
        raise OSError(28, "No space left on device", "/mnt/x")
    if kind == "bug":
        raise ZeroDivisionError("a bug")
    return "fine"


def main() -> None:
    """Agree twice, the second time inside an agreement, and exit as kvbench does."""
    comm = get_world()
    kinds = {int(rank): kind for rank, _, kind in (item.partition(":") for item in sys.argv[1:])}
    kind = kinds.get(comm.rank, "none")
    agreement = Agreement(comm)
    if kind == "abort":
        abort(comm, "the disk is gone")
    if "abort" in kinds.values():
        quiet_barrier(comm)
    agreement.run("plan", lambda: None)
    try:
        agreement.run("outer", lambda: agreement.run("check", lambda: fail(kind)))
    except KvbenchError as error:
        print(error, file=sys.stderr, flush=True)
        sys.exit(1)
    except FailedElsewhere:
        print(f"rank {comm.rank} left quietly", flush=True)
        sys.exit(1)
    print(f"rank {comm.rank} agreed", flush=True)


main()
