"""Deals a made-up trace to all ranks in small pieces; a rank named on the command line cannot keep its part."""

import sys

import numpy as np

from kvbench.cluster.agree import Agreement, FailedElsewhere
from kvbench.cluster.comm import get_world
from kvbench.config.run_config import TraceWorkload
from kvbench.run import dealing
from kvbench.run.dealing import deal_trace
from kvbench.workload.build import dealt
from kvbench.workload.traces import Trace, id_store
from kvbench.workload.traces.id_store import IdStore, unkept
from kvbench.workload.traces.trace import trace_digest


class Full(IdStore):
    """A store on a disk that is full."""

    def extend(self, ids: object) -> None:
        raise unkept("made up", None, OSError(28, "No space left on device"))


def made_up() -> Trace:
    """Of 500 requests, of which some have no ids and one has many."""
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 30, 500)
    counts[77] = 1234
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    return Trace(
        number=np.arange(500),
        arrival_ns=np.arange(500) * 1000,
        context_tokens=np.maximum(1, counts * 16).astype(np.int32),
        output_tokens=np.ones(500, np.int32),
        hash_ids=rng.integers(0, 2**63, int(offsets[-1])).astype(np.uint64),
        hash_offsets=offsets,
        session=np.full(500, -1),
        gap_ns=np.full(500, -1),
        answer_counts=np.zeros(500, np.int64),
        hash_block_tokens=16,
        source="made up",
        format="none",
        digest="0" * 16,
        token_counting="made up",
        bad_lines=0,
        first_bad_line="",
    )


def main() -> None:
    """Every rank compares its part with what it takes of the whole itself."""
    comm = get_world()
    for module in (id_store, dealing):
        vars(module)["PIECE_IDS"] = 100
    if str(comm.rank) in sys.argv[1:]:
        vars(dealing)["IdStore"] = Full
    whole, workload = made_up(), TraceWorkload(kind="trace", path="made up", deal="prefix")
    mine = list(dealt(whole, workload, comm.size))[comm.rank]
    first = comm.rank == 0
    try:
        part = deal_trace(
            comm, Agreement(comm), whole if first else None, dealt(whole, workload, comm.size) if first else None
        )
    except FailedElsewhere:
        print(f"rank {comm.rank} left quietly", flush=True)
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 - what a user reads of it is looked at
        print(error, file=sys.stderr, flush=True)
        sys.exit(1)
    wanted = whole.take(mine)
    assert trace_digest(part) == trace_digest(wanted)
    assert part.number.tolist() == wanted.number.tolist()
    assert (part.digest, part.source) == (whole.digest, "made up")
    print(f"rank {comm.rank} has its part", flush=True)


main()
