"""The percentiles of storage operations: fsync that cannot have written anything, and percentiles of nearly nothing."""

from collections.abc import Iterator
from typing import Final

from kvbench.mlperf.audit.arithmetic import most_samples, rate_gib_per_s
from kvbench.mlperf.audit.finding import Answer, Evidence, Finding, NotAudited, few
from kvbench.mlperf.audit.leaf import LeafFacts, OptionFacts, RankFacts
from kvbench.units import format_bytes

FSYNC: Final = "fsync-span"
FEW: Final = "few-requests"
NO_STORAGE_GIB_PER_S: Final = 1024.0
"""One stream of one host: more than the memory of a host moves, let alone its network."""
FEWEST: Final = 100
"""Of fewer values than these, less than five lie above the P95."""


def fsync_spans(leaf: LeafFacts) -> Iterator[Answer]:
    """A finding for each option whose median fsync is shorter than any storage could take for what it would write."""
    unknown = []
    for option in leaf.options:
        known = [(rank, rate) for _, rank in option.ranks() if (rate := _fsync_rate(rank)) is not None]
        if not known:
            unknown.append(option.number)
            continue
        instant = [(rank, rate) for rank, rate in known if rate > NO_STORAGE_GIB_PER_S]
        if instant:
            yield _instant(option, instant, len(known))
    if unknown:
        yield NotAudited(FSYNC, "no ranks' results with written bytes and the spans of fsync", tuple(unknown))


def few_requests(leaf: LeafFacts) -> Iterator[Answer]:
    """A finding for each option whose P95 of storage reads or writes is of fewer than `FEWEST` operations."""
    unknown = []
    for option in leaf.options:
        ranks = [rank for _, rank in option.ranks()]
        if not any(rank.write_device_ms or rank.read_device_ms for rank in ranks):
            unknown.append(option.number)
            continue
        for direction in ("read", "write"):
            counted = [(rank, count) for rank in ranks if (count := _samples(rank, direction)) is not None]
            scarce = [(rank, count) for rank, count in counted if count[0] < FEWEST]
            if scarce:
                yield _scarce(option, direction, scarce, len(counted))
    if unknown:
        yield NotAudited(FEW, "no ranks' results with percentiles", tuple(unknown))


def _entry_gib(rank: RankFacts) -> float | None:
    return rank.written_gib / rank.writes if rank.writes and rank.written_gib else None


def _fsync_rate(rank: RankFacts) -> float | None:
    """GiB/s of the median fsync, were it to write an entry of the mean size."""
    entry, span = _entry_gib(rank), rank.write_device_ms.get("p50")
    return None if entry is None or span is None else rate_gib_per_s(entry, span)


def _instant(option: OptionFacts, instant: list[tuple[RankFacts, float]], known: int) -> Finding:
    spans = [rank.write_device_ms["p50"] for rank, _ in instant]
    entries = [_entry_gib(rank) or 0.0 for rank, _ in instant]
    device = max(rank.write_device_ms.get("p95", 0.0) for rank, _ in instant)
    whole = max((rank.write_ms["p95"] for rank, _ in instant if "p95" in rank.write_ms), default=None)
    told = "" if whole is None else f"; the P95 of whole writes, which end after the fsync, is {_span(whole)}"
    return Finding(
        "distorts",
        FSYNC,
        f"option {option.number}: the median fsync takes {_span(min(spans))} to {_span(max(spans))} in {len(instant)} "
        f"of {known} results, for entries of {format_bytes(int(min(entries) * 2**30))} in the mean",
        f"it cannot have written them: that would be above {NO_STORAGE_GIB_PER_S:.0f} GiB/s. They were written "
        f'before it, or not at all; the "device" P95 of writes ({_span(device)}) is not the time of a write{told}',
        few(
            [
                Evidence(rank.path, "storage_write_device_p50_ms", f"{rank.write_device_ms['p50']:.4g}")
                for rank, _ in instant
            ]
        ),
        (option.number,),
    )


def _span(milliseconds: float) -> str:
    if milliseconds < 1:
        return f"{milliseconds * 1e3:.3g} us"
    return f"{milliseconds:.3g} ms" if milliseconds < 1000 else f"{milliseconds / 1e3:.3g} s"


def _samples(rank: RankFacts, direction: str) -> tuple[int, str] | None:
    """(how many operations the percentiles are of, or at most of, by what); None where nothing tells."""
    count, spans = (
        (rank.reads, rank.read_device_ms) if direction == "read" else (rank.timed_writes, rank.write_device_ms)
    )
    if not spans:
        return None
    if count is not None:
        return (count, f"{count} operations") if count > 0 else None
    whole = rank.write_ms if direction == "write" else {}
    bounds = [most for each in (spans, whole) if (most := most_samples(each)) is not None]
    return (
        (min(bounds), f"at most {min(bounds)} operations, by the percentiles, which lie on one line")
        if bounds
        else None
    )


def _scarce(option: OptionFacts, direction: str, scarce: list[tuple[RankFacts, tuple[int, str]]], of: int) -> Finding:
    counts = [count for _, (count, _) in scarce]
    span = f"{min(counts)} to {max(counts)}" if min(counts) < max(counts) else f"{counts[0]}"
    above = [max(0, round(count * 0.05)) for count in counts]
    untimed = ""
    if direction == "write" and any((rank.writes or 0) > (rank.timed_writes or 0) for rank, _ in scarce):
        whole = [rank.writes or 0 for rank, _ in scarce]
        untimed = (
            f". {min(whole)} to {max(whole)} entries reached storage; the others came down from the memory tier, and "
            "no percentile has their time"
        )
    return Finding(
        "distorts",
        FEW,
        f"option {option.number}: the percentiles of {direction}s are of {span} operations in {len(scarce)} of "
        f"{of} results",
        f"{'none' if not max(above) else f'{max(above)} at most'} of a result's values lie above its P95, which is the "
        f"largest of them, or nearly: it says little of what the storage did{untimed}",
        few([Evidence(rank.path, f"storage_{direction}_device_p95_ms", f"of {why}") for rank, (_, why) in scarce]),
        (option.number,),
    )
