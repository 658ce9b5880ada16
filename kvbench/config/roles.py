"""Which ranks prefill and which decode, in disaggregated serving: `prefill=0-3,decode=4-7`. Knows nothing of MPI."""

import re
from dataclasses import dataclass
from typing import Final, Literal, Self

Role = Literal["prefill", "decode"]

_ITEM: Final = re.compile(r"(?:(prefill|decode)=)?(\d{1,9})(?:-(\d{1,9}))?")
_MOST_RANKS: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class Roles:
    """The ranks of each role, rising. Prefill ranks write what decode ranks read."""

    prefill: tuple[int, ...]
    decode: tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """From text such as `prefill=0-3,8,decode=4-7`. Raises ValueError that says what is wrong with it."""
        ranks: dict[str, list[int]] = {}
        role = None
        for item in text.replace(" ", "").split(","):
            match = _ITEM.fullmatch(item)
            role = match[1] or role if match else None
            if match is None or role is None:
                raise ValueError(f"{item or text or 'nothing'} is no role; expected such as prefill=0-3,decode=4-7")
            first, last = int(match[2]), int(match[3] or match[2])
            if last < first or last >= _MOST_RANKS:
                raise ValueError(f"{item}: expected ranks from low to high, below {_MOST_RANKS}")
            ranks.setdefault(role, []).extend(range(first, last + 1))
        named = [rank for numbers in ranks.values() for rank in numbers]
        twice = sorted({rank for rank in named if named.count(rank) > 1}) if len(set(named)) < len(named) else []
        if twice:
            raise ValueError(f"rank {twice[0]} is named twice; a rank has one role")
        if set(ranks) != {"prefill", "decode"}:
            raise ValueError("both prefill and decode need ranks, such as prefill=0-3,decode=4-7")
        return cls(tuple(sorted(ranks["prefill"])), tuple(sorted(ranks["decode"])))

    def problem(self, size: int) -> str:
        """What keeps these roles from fitting a job of `size` ranks; empty where they fit."""
        named = sorted((*self.prefill, *self.decode))
        if named == list(range(size)):
            return ""
        beyond = [rank for rank in named if rank >= size]
        if beyond:
            return f"rank {beyond[0]} has a role, and the job has {size} ranks (0-{size - 1})"
        without = sorted(set(range(size)) - set(named))
        return f"rank {without[0]} of {size} has no role; name every rank"

    def of(self, rank: int) -> Role:
        """The role of `rank`."""
        return "prefill" if rank in self.prefill else "decode"

    def decoder(self, prefill_rank: int, lane: int, lanes: int) -> int:
        """The rank that decodes what `prefill_rank` prefilled for its user number `lane` of `lanes`.

        The users of all prefill ranks are dealt over the decode ranks in turn, and each stays with one.
        """
        return self.decode[(self.prefill.index(prefill_rank) * lanes + lane) % len(self.decode)]
