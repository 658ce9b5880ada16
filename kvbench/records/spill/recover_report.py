"""What a recovered file says of itself: which ranks end early and when, whose records are missing, what was damaged."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kvbench.records.clock import CommonClock
from kvbench.records.spill.header import SpillFacts, SpillHeader
from kvbench.records.spill.reader import Ending
from kvbench.records.tally import Tally

_MOST: Final = 8
"""Of what is listed, so many are named and the others counted."""


@dataclass(frozen=True, slots=True)
class Found:
    """The spill file of one rank, read to its end."""

    path: Path
    header: SpillHeader
    facts: SpillFacts
    clock: CommonClock
    tally: Tally
    ending: Ending
    alive_ns: int
    """Rank 0's clock when the file last says that the rank was alive."""


def message(
    found: Sequence[Found], unreadable: Sequence[str], measure_start_ns: int | None, planned_s: float | None
) -> str:
    """The `status_message`, from the files of all ranks there are (in their order) and what was wrong with others."""
    ranks = found[0].header.ranks
    parts = [f"from the spill files of {len(found)} of {ranks} ranks"]
    missing = sorted(set(range(ranks)) - {one.header.rank for one in found})
    if missing:
        parts.append(f"those of {_rank_list(missing)} are missing, with all that they measured")
    parts += _listed([f"not used: {text}" for text in unreadable])
    parts += _early(found, measure_start_ns, planned_s)
    parts += _listed(
        [
            f"{_name(one)} could not write its spill file to the end ({one.facts.stopped}): what came later is lost"
            for one in found
            if one.facts.stopped
        ]
    )
    parts += _listed(
        [
            f"the last {one.ending.left_bytes} bytes of {one.path.name} are left out: at byte {one.ending.good_bytes} "
            f"{one.ending.reason}"
            for one in found
            if one.ending.left_bytes
        ]
    )
    if any(one.facts.clock_after is None for one in found) and len({one.header.node for one in found}) > 1:
        parts.append("the clocks of nodes that ended early were compared before the run alone")
    return "; ".join(parts)


def _early(found: Sequence[Found], measure_start_ns: int | None, planned_s: float | None) -> list[str]:
    """Which ranks were cut off, the earliest first, and how long before the last sign of life of any rank."""
    cut = sorted((one for one in found if not one.facts.ended), key=lambda one: (one.alive_ns, one.header.rank))
    failed = [f"{_name(one)}: {text}" for one in found for text in one.facts.failures[:1]]
    if not cut:
        return ["all of them had ended, so that no row of theirs is missing", *_listed(failed)]
    last_ns = max(one.alive_ns for one in found)
    texts = []
    for one in cut[:_MOST]:
        before_s = (last_ns - one.alive_ns) / 1e9
        texts.append(
            f"{_name(one)} {_moment(one.alive_ns, measure_start_ns)}"
            + (f" ({before_s:.1f} s before the last)" if before_s >= 0.05 else "")
        )
    if len(cut) > _MOST:
        texts.append(f"{len(cut) - _MOST} more, the last {_moment(cut[-1].alive_ns, measure_start_ns)}")
    planned = f" of {planned_s:g} s" if planned_s is not None else ""
    return [f"ended early{planned}: " + ", ".join(texts), *_listed(failed)]


def _moment(t_ns: int, measure_start_ns: int | None) -> str:
    if measure_start_ns is None:
        return "before the measured phase"
    seconds = (t_ns - measure_start_ns) / 1e9
    return f"at {seconds:.1f} s" if seconds >= 0 else f"{-seconds:.1f} s before the measured phase"


def _name(one: Found) -> str:
    return f"rank {one.header.rank} on {one.header.host}"


def _rank_list(ranks: Sequence[int]) -> str:
    """`rank 3`, or `ranks 0, 4-7`; `ranks` ascend."""
    ranges: list[list[int]] = []
    for rank in ranks:
        if ranges and ranges[-1][1] + 1 == rank:
            ranges[-1][1] = rank
        else:
            ranges.append([rank, rank])
    names = [f"{first}" if first == last else f"{first}-{last}" for first, last in ranges[:_MOST]]
    more = f" and {sum(last - first + 1 for first, last in ranges[_MOST:])} more" if len(ranges) > _MOST else ""
    return f"{'rank' if len(ranks) == 1 else 'ranks'} {', '.join(names)}{more}"


def _listed(texts: Sequence[str]) -> list[str]:
    more = [f"{len(texts) - _MOST} more like these"] if len(texts) > _MOST else []
    return [*texts[:_MOST], *more]
