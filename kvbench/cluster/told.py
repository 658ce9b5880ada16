"""Whether all ranks were told the same: their command lines are compared, before anything is made of them.

Ranks that a shell starts (`mpirun sh -c 'kvbench run ... --dir /mnt/nv$LOCAL_RANK'`) may each have a command line of
its own, and most of it is followed on rank 0 alone.

What travels: a digest of 16 bytes from rank 0 to every rank, and one sum of an integer: at 10 000 ranks two times about
14 rounds. Only where something differs, rank 0's words follow (a KB), and what differs goes up the tree of `agree`, at
most 16 different texts.
"""

import json
import socket
from collections.abc import Mapping
from typing import Final

import numpy as np
import xxhash

from kvbench.cluster.agree import FailedElsewhere, RanksFailed, collect
from kvbench.cluster.broadcast import share, total
from kvbench.cluster.comm import Communicator, quiet_bcast
from kvbench.cluster.problems import Report

COMMAND: Final = "command"
"""Among what was told, the command itself."""

MOST_CHARACTERS: Final = 200
"""Kept of what a rank was told, for the message."""


def check_told(comm: Communicator, told: Mapping[str, str] | str, advice: str) -> None:
    """Raise RanksFailed on rank 0, and FailedElsewhere on the others, unless `told` is the same on all ranks.
    Collective.

    `told` has, for each thing that a user can say, the words in which it was said; or it is the one message of a rank
    that could not make anything of its words. What is raised names what differs with the ranks on which it does, and
    ends with `advice`.
    """
    content = json.dumps(_plain(told), sort_keys=True).encode()
    mine = np.frombuffer(xxhash.xxh3_128_digest(content), np.uint8)
    first = mine.copy()
    quiet_bcast(comm, first)
    if not total(comm, not np.array_equal(mine, first))[0]:
        return
    report = collect(comm, Report.of(comm.rank, socket.gethostname(), differences(told, share(comm, _plain(told)))))
    if comm.rank != 0:
        raise FailedElsewhere
    raise RanksFailed("\n  ".join(["the ranks were told different things:", *report.lines(), advice]))


def _plain(told: Mapping[str, str] | str) -> dict[str, str] | str:
    return told if isinstance(told, str) else dict(told)


def differences(told: Mapping[str, str] | str, first: Mapping[str, str] | str) -> str:
    """What of `told` is not as rank 0 was told; empty where all is."""
    if isinstance(told, str) or isinstance(first, str):
        return "" if told == first else f"{_short(told)} (rank 0: {_short(first)})"
    things = [thing for thing in dict.fromkeys([*first, *told]) if told.get(thing) != first.get(thing)]
    # Of another command nothing else need be said.
    if COMMAND in things:
        things = [COMMAND]
    return ", ".join(f"{_short(told.get(thing, ''))} (rank 0: {_short(first.get(thing, ''))})" for thing in things)


def _short(words: Mapping[str, str] | str) -> str:
    if not isinstance(words, str):
        return "a command line without a mistake"
    return words[:MOST_CHARACTERS] + ("..." if len(words) > MOST_CHARACTERS else "") if words else "nothing"
