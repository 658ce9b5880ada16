from typing import Any

import numpy as np
import numpy.typing as npt

from kvbench.cache.chains.settings import ChainSettings

class ChainCache:
    """Decides one request after the other. One thread at a time.

    A request is a chain of blocks, each named by a key that stands for all before it too. What it does, in this order:

    1. It is looked up from its first block on, up to the first that no tier holds: what lies behind is not found.
    2. What was found is read where it is, on the fastest tier that holds it; from the last found block to the first.
       One that has to leave that tier before its turn, as others are moved up, is read right before it leaves.
    3. Blocks that no tier holds are new, from the last of the chain to the first. One behind the gap that a tier holds
       is there already: it counts as asked for, and is neither read nor written.
    4. With `lru` the found ones count as asked for once more, from the last to the first, so that a chain's tail is
       always older than its head. One that had to leave meanwhile, as the chain is longer than the cache, is written
       again: the head of such a chain stays, and not its tail.

    What leaves a tier, block by block, is what leaves libCacheSim's LRU, FIFO, LFU, S3FIFO (small-size-ratio 0.1,
    ghost-size-ratio 0.9, move-to-main-threshold 2) or TwoQ (Ain 0.25, Aout 0.5) of as many objects of size 1.

    A block takes up to 100 bytes of memory while a tier holds it, and up to 14 from then on: that it was seen is never
    forgotten.

    All the methods raise RuntimeError while another thread decides. After a MemoryError the cache can be used on; the
    request during which it was raised may have been carried through in part.
    """

    def __init__(self, settings: ChainSettings) -> None:
        """Raises ValueError for settings that do not fit together."""

    @property
    def held(self) -> list[int]:
        """Blocks on each tier."""

    @property
    def blocks(self) -> int:
        """Different blocks that any tier holds."""

    @property
    def missed(self) -> npt.NDArray[np.int8]:
        """What became of the blocks that the last request looked up and did not find, from the first missing one on:
        NEVER_SEEN, EVICTED or BEHIND_GAP of each, as it was when they were looked up.

        Seen is what an earlier request looked up or stored. What no tier ever held although it was seen (refused, or
        not to be stored) is EVICTED too, and so is what is too old, though it has a place still.
        """

    def tiers_of(self, key: int) -> tuple[int, ...]:
        """The tiers that hold `key`, fastest first; () for none."""

    def serve(
        self, keys: npt.NDArray[np.uint64], lookup: int, store: int, now_ns: int
    ) -> tuple[npt.NDArray[np.int8], list[tuple[int, int, int, int]]]:
        """One request: the first `lookup` of its `keys` are looked up, and the first `store` are in the cache after it
        where there is room; `now_ns` never falls.

        Returns the tier of each block that was found, and what has to be done, as (op, key, source, target): in this
        order, one after the other, the room that a step needs is there. `op` is a `records.schema.Op`; a tier that
        takes no part in it is -1. READ has a source, WRITE a target, DELETE a source, DEMOTE and PROMOTE both (a
        PROMOTE is a read that lands in a faster tier). What would be done to a modelled tier alone is no step.

        Raises ValueError, and changes nothing, for keys that are no contiguous one-dimensional uint64 array, for parts
        that are longer than it or negative, and for a time that falls or is negative.
        """

    def serve_kinds(
        self, keys: npt.NDArray[np.uint64], lookup: int, store: int, now_ns: int
    ) -> tuple[npt.NDArray[np.int8], list[tuple[int, int, int, list[int]]]]:
        """What `serve` does, with the steps told by kind: (op, source, target, keys) of each, the kinds in the order in
        which they come up first, and the keys of a kind in that of the steps."""

    def last_steps(self) -> list[tuple[int, int, int, int]]:
        """The steps of the last request, as `serve` says them."""

    def prefetch(self, keys: npt.NDArray[np.uint64], now_ns: int) -> list[tuple[int, int, int, int]]:
        """Bring up what is there of a chain before a request asks for it; what has to be done, as `serve` says it.

        Of the leading blocks of `keys`, up to the first that no tier holds (or that is too old), those that are not on
        the fastest tier with places are moved there (PROMOTE), the last of them first, so that tails leave before
        heads. To a modelled tier they are copied, as a hit would: by a READ, or with `promote` by a PROMOTE to the
        first real tier.

        It is no use of a block: nothing counts for admission, time to live, or how often it was asked for. With `lru`
        the chain counts as asked for last, on the tiers that it is on. No block of the chain leaves a tier to make room
        for another of it: there is an end where the fastest tier is full of the chain, or where one of the chain would
        be the next to leave any tier on the way down.

        Raises ValueError, and changes nothing, for keys that are no contiguous one-dimensional uint64 array, and for a
        time that falls or is negative.
        """

    def play(
        self,
        keys: npt.NDArray[np.uint64],
        ends: npt.NDArray[np.int64],
        lookups: npt.NDArray[np.int64],
        stores: npt.NDArray[np.int64],
        times_ns: npt.NDArray[np.int64],
        counts: npt.NDArray[np.int64],
    ) -> None:
        """Many requests at once, of which `ends[i]` is where the keys of request i end (they begin where those before
        end). Row i of `counts`, (requests, 4 x tiers + 4), is filled with what each request comes to. A request that
        looks nothing up and stores PREFETCH is a prefetch of its keys.

        With T tiers: columns 0 to T - 1, blocks found on each tier; T to 2 T - 1, blocks that a step writes to each
        (WRITE, DEMOTE and PROMOTE by their target); 2 T to 3 T - 1, blocks that a step reads from each (READ, DEMOTE
        and PROMOTE by their source); 3 T to 4 T - 1, blocks that leave each without being moved (DELETE); 4 T,
        4 T + 1 and 4 T + 2, blocks that were looked up and are NEVER_SEEN, EVICTED, and BEHIND_GAP; the last, what
        became of the last block that was looked up: the tier that it was found on, one of these three, or NO_BLOCK.

        Raises ValueError, and changes nothing, for arrays of other types or shapes, or not contiguous, for ends that
        fall or lie behind the keys, and for what `serve` refuses of any request. The GIL is released meanwhile.
        """

def __getattr__(name: str) -> Any: ...
