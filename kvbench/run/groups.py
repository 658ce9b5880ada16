"""Ranks that serve requests together (tensor parallel), as the main thread of a rank sees them.

What travels before the load: one split of the ranks, and the least capacity of a tier (8 bytes of every rank to every
rank). During the load, within each group: the rounds of `kvbench.cluster.exchange`, in which each rank says which
requests it has loaded, 32 bytes each. A request goes on when the round is over in which the last of them said so: a
millisecond or two after it did, which is in the request's time and in no operation's.
"""

import numpy as np

from kvbench.cache.announcements import Kind, announcements
from kvbench.cluster.comm import Communicator
from kvbench.cluster.exchange import DirectoryExchange, Saying
from kvbench.engine.engine import Load


class GroupRounds:
    """The rounds of one load of one group, moved on from the main thread. Making one is collective over all ranks."""

    def __init__(self, comm: Communicator, ranks: int, load: Load) -> None:
        """Ranks 0 to `ranks` - 1 of `comm` are a group, and so on."""
        group = comm.Split(comm.rank // ranks, comm.rank)
        self._rank = group.rank
        self._exchange = DirectoryExchange(group, 1)
        group.Free()
        self._load = load

    @property
    def over(self) -> bool:
        """No rank of the group has anything to say any more."""
        return self._exchange.over

    def poll(self) -> None:
        """Move the round on, without waiting, and take it in when it is complete."""
        done = self._exchange.poll(self._say)
        if done is not None and len(done.news):
            self._load.dispatcher.loaded_together(np.asarray(done.news["key"]).tolist())

    def _say(self, number: int) -> Saying:
        # Asked first: once it is finished, nothing is added to what there is to say.
        finished = self._load.finished
        loaded = self._load.dispatcher.say_loaded()
        rows = [(request, 0, 0, self._rank, 0, Kind.LOADED) for request in loaded]
        return Saying(announcements(rows), number - 1, finished)
