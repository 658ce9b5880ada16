"""Which objects other ranks have on the shared storage, as far as this rank has been told. Pure bookkeeping.

Two ranks may both have written the same object before either heard of the other: both copies count, each under its
writer. The first that was heard of is preferred.
"""

from kvbench.cache.announcements import Announcements, Kind


class PeerDirectory:
    """The objects of the ranks other than `rank`."""

    def __init__(self, rank: int) -> None:
        self._rank = rank
        self._writer: dict[int, int] = {}
        self._more: dict[int, list[int]] = {}
        """Further writers of an object, in the order in which they were heard of."""

    def __len__(self) -> int:
        return len(self._writer)

    def apply(self, news: Announcements) -> None:
        """Take in announcements, in order; those of this rank itself and those of requests are passed over."""
        for key, rank, kind in zip(news["key"].tolist(), news["rank"].tolist(), news["kind"].tolist(), strict=True):
            if rank == self._rank:
                continue
            if kind == Kind.WRITTEN:
                self._add(key, rank)
            elif kind == Kind.RETIRED:
                self._discard(key, rank)

    def writer_of(self, key: int) -> int | None:
        """A rank whose copy of object `key` may be read; None where no other rank has one."""
        return self._writer.get(key)

    def holds(self, key: int, writer: int) -> bool:
        """Whether `writer` has object `key` and has not said that it will delete it."""
        return self._writer.get(key) == writer or writer in self._more.get(key, ())

    def _add(self, key: int, rank: int) -> None:
        if key not in self._writer:
            self._writer[key] = rank
        elif not self.holds(key, rank):
            self._more.setdefault(key, []).append(rank)

    def _discard(self, key: int, rank: int) -> None:
        others = self._more.get(key, [])
        if rank in others:
            others.remove(rank)
        elif self._writer.get(key) == rank:
            if others:
                self._writer[key] = others.pop(0)
            else:
                del self._writer[key]
        if not others:
            self._more.pop(key, None)
