"""Stopping and canceling: promptly, which is counted in operations, and with a record of what was cut short."""

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path as FilePath

import numpy as np
import pytest
from rank_harness import Rank, Script, config_of, finish, ref, request, wait_for

from kvbench.records.schema import RequestState
from kvbench.tiers.arena import Arena
from kvbench.tiers.payload import Payload
from kvbench.units import SECTOR_BYTES, SEGMENT_BYTES
from kvbench.workload.request import Request

MakeRank = Callable[..., Rank]


@dataclass(frozen=True)
class Endless(Script):
    """Users who never stop asking."""

    streams: tuple[()] = ()
    closed_loop: bool = True
    users: int = 20

    def stream(self, user: int) -> Iterator[Request]:
        for turn in count():
            yield request(
                turn * self.users + user, ref(turn % 7 * self.users + user), user=user, decode_passes=1, qos=user % 3
            )


@pytest.mark.parametrize(("pacing", "threads"), [("closed", 1), ("closed", 16), ("asap", 16)])
def test_a_load_that_is_stopped_ends_what_runs_and_begins_nothing(
    make_rank: MakeRank, pacing: str, threads: int
) -> None:
    rank = make_rank((30, 60), tiers=("memory", "file"), pacing=pacing, threads=threads)
    load, _ = rank.start(Endless(closed_loop=pacing == "closed"))
    wait_for(lambda: sum(store.count for store in rank.engine.stores) > 300, "nothing happens")
    load.stop()
    recorded = sum(store.count for store in rank.engine.stores)
    finish(load)
    assert len(rank.rows) <= recorded + threads
    assert rank.engine.failures == rank.journal.wrongs == []
    assert (rank.rows["errno"] == 0).all()
    log = rank.log
    assert len(set(log["request"].tolist())) == len(log)
    cut_short = log["state"] == RequestState.CUT_SHORT
    assert (log["state"][~cut_short] == RequestState.DONE).all()
    assert cut_short.sum() <= threads
    named = np.isin(rank.rows["request"], log["request"])
    assert named.all(), "every operation belongs to a request in the log"


def test_an_operation_that_is_canceled_ends_in_the_middle(folder: FilePath, payload: Payload) -> None:
    """Reading 256 GiB of zeros would take a minute or more."""
    sectors = 2**26
    arena = Arena(SEGMENT_BYTES, 1, payload.body)
    rank = Rank(config_of(threads=1, verify="sampled"), folder, (sectors,), arena, payload)
    rank.put(1, sectors)
    FilePath(rank.files.where(1)).symlink_to("/dev/zero")
    load, _ = rank.start(Script([[request(0, ref(1, sectors), prefill=False), request(1, ref(1, sectors))]]))
    wait_for(lambda: rank.journal.busy(1), "the read does not begin")
    rank.engine.cancel()
    finish(load)
    assert rank.engine.failures == []
    assert rank.rows["errno"].tolist() == [errno.ECANCELED]
    assert rank.rows["nbytes"][0] < sectors * SECTOR_BYTES
    assert rank.log["state"].tolist() == [RequestState.CUT_SHORT]
    rank.close()
