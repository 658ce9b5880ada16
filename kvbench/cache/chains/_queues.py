"""The queues of one tier without a compiler: which block leaves it next, by each of the policies.

A tier knows nothing of those beside it, nor of requests.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Final

from kvbench.cache.chains.settings import POLICIES


class Lru:
    """Also what a tier of another policy is made of: keys in the order in which they leave."""

    renews: bool = True

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.order: OrderedDict[int, None] = OrderedDict()

    def __contains__(self, key: int) -> bool:
        return key in self.order

    def __len__(self) -> int:
        return len(self.order)

    def came_back(self, key: int) -> bool:
        """Whether a ghost of `key` was there, which then is no longer. Asked before room is made for the key."""
        return False

    def insert(self, key: int, back: bool) -> None:
        self.order[key] = None

    def hit(self, key: int) -> None:
        self.order.move_to_end(key)

    def remove(self, key: int) -> None:
        del self.order[key]

    def victim(self) -> int:
        """What leaves next. Asked again before anything else is done, it is the same."""
        return next(iter(self.order))

    def evict(self) -> int:
        return self.order.popitem(last=False)[0]


class Fifo(Lru):
    renews = False

    def hit(self, key: int) -> None:
        pass


class Lfu:
    """Of those asked for least often, the one that came to that number first."""

    renews = False

    def __init__(self, blocks: int) -> None:
        self.blocks = blocks
        self.times: dict[int, int] = {}
        self.lists: dict[int, OrderedDict[int, None]] = {}
        self.least = 1

    def __contains__(self, key: int) -> bool:
        return key in self.times

    def __len__(self) -> int:
        return len(self.times)

    def came_back(self, key: int) -> bool:
        return False

    def insert(self, key: int, back: bool) -> None:
        self.times[key] = self.least = 1
        self.lists.setdefault(1, OrderedDict())[key] = None

    def hit(self, key: int) -> None:
        times = self.times[key]
        self._leave(key)
        self.times[key] = times + 1
        self.lists.setdefault(times + 1, OrderedDict())[key] = None
        if times == self.least and times not in self.lists:
            self.least = times + 1

    def remove(self, key: int) -> None:
        self._leave(key)
        del self.times[key]

    def victim(self) -> int:
        if self.least not in self.lists:
            self.least = min(self.lists)
        return next(iter(self.lists[self.least]))

    def evict(self) -> int:
        key = self.victim()
        self.remove(key)
        return key

    def _leave(self, key: int) -> None:
        among = self.lists[self.times[key]]
        del among[key]
        if not among:
            del self.lists[self.times[key]]


class Ghosts:
    """The last so many keys that have left, oldest first."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.keys: OrderedDict[int, None] = OrderedDict()

    def add(self, key: int) -> None:
        if self.most <= 0:
            return
        self.keys.pop(key, None)
        while len(self.keys) >= self.most:
            self.keys.popitem(last=False)
        self.keys[key] = None

    def take(self, key: int) -> bool:
        """Whether `key` is among them, which it then no longer is."""
        return self.keys.pop(key, 0) is None


class S3Fifo:
    """A small queue for what is new (a tenth of the tier), a main one, and as many ghosts as the main one has places.

    What was asked for twice in the small queue after it came goes to the main one when it would leave, where a block
    that was asked for since goes round again, at most three times for it. Until a first block leaves the tier, what is
    new goes to the main queue where the small one is full.
    """

    renews = False
    _MOST = 3
    _TO_MAIN = 2

    def __init__(self, blocks: int) -> None:
        self.small_most = max(1, blocks // 10)
        self.main_most = blocks - self.small_most
        self.ghosts = Ghosts(blocks * 9 // 10)
        self.small: OrderedDict[int, int] = OrderedDict()
        self.main: OrderedDict[int, int] = OrderedDict()
        self.was_full = False

    def __contains__(self, key: int) -> bool:
        return key in self.small or key in self.main

    def __len__(self) -> int:
        return len(self.small) + len(self.main)

    def came_back(self, key: int) -> bool:
        return self.ghosts.take(key)

    def insert(self, key: int, back: bool) -> None:
        fills = not self.was_full and len(self.small) >= self.small_most
        (self.main if back or fills else self.small)[key] = 0

    def hit(self, key: int) -> None:
        queue = self.small if key in self.small else self.main
        queue[key] = min(queue[key] + 1, self._MOST)

    def remove(self, key: int) -> None:
        del (self.small if key in self.small else self.main)[key]

    def victim(self) -> int:
        self.was_full = True
        if len(self.main) <= self.main_most:
            while self.small:
                key = next(iter(self.small))
                if self.small[key] < self._TO_MAIN:
                    return key
                del self.small[key]
                self.main[key] = 0
        while True:
            key = next(iter(self.main))
            if not self.main[key]:
                return key
            self.main[key] -= 1
            self.main.move_to_end(key)

    def evict(self) -> int:
        key = self.victim()
        if key in self.small:
            self.ghosts.add(key)
        self.remove(key)
        return key


class TwoQ:
    """A queue for what is new (a quarter of the tier), the ghosts of what left it (half of its blocks), and an LRU of
    what came again while its ghost was there."""

    renews = False

    def __init__(self, blocks: int) -> None:
        self.new_most = max(1, blocks // 4)
        self.ghosts = Ghosts(blocks // 2)
        self.new: OrderedDict[int, None] = OrderedDict()
        self.again: OrderedDict[int, None] = OrderedDict()

    def __contains__(self, key: int) -> bool:
        return key in self.new or key in self.again

    def __len__(self) -> int:
        return len(self.new) + len(self.again)

    def came_back(self, key: int) -> bool:
        return self.ghosts.take(key)

    def insert(self, key: int, back: bool) -> None:
        (self.again if back else self.new)[key] = None

    def hit(self, key: int) -> None:
        if key in self.again:
            self.again.move_to_end(key)

    def remove(self, key: int) -> None:
        del (self.new if key in self.new else self.again)[key]

    def victim(self) -> int:
        is_new = len(self.new) > self.new_most or not self.again
        return next(iter(self.new if is_new else self.again))

    def evict(self) -> int:
        key = self.victim()
        if key in self.new:
            self.ghosts.add(key)
        self.remove(key)
        return key


Queue = Lru | Lfu | S3Fifo | TwoQ
KINDS: Final[dict[str, Callable[[int], Queue]]] = dict(zip(POLICIES, (Lru, Fifo, Lfu, S3Fifo, TwoQ), strict=True))


def keys_of(queue: Queue) -> Iterator[int]:
    """All that it holds."""
    if isinstance(queue, Lru):
        yield from queue.order
    elif isinstance(queue, Lfu):
        yield from queue.times
    elif isinstance(queue, S3Fifo):
        yield from queue.small
        yield from queue.main
    else:
        yield from queue.new
        yield from queue.again
