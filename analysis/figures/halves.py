"""Whether the second half of a run differs from its first: what storage did, what was found, and the first token.

The window is cut into blocks of equal time, each much longer than an operation, and a figure is made of every block.
The means of the two halves' blocks are compared by Student's t, with the variance of the mean raised by
(1 + r) / (1 - r) for blocks that follow their neighbours (first-order autocorrelation r of what is left when each
half's mean is taken off, at least 0), and the degrees of freedom lowered by as much (the effective sample size of
H. J. Thiebaux and F. W. Zwiers, Journal of Climate and Applied Meteorology 23, 1984). Figures of one run are judged
together (S. Holm, Scandinavian Journal of Statistics 6, 1979): at most one steady run in a hundred is told to have
changed, if its blocks are as assumed. A change of less than a tenth is none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import scipy  # its parts are loaded where they are first used
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.time_bins import MOST_BLOCKS, block_count, block_numbers, spread
from kvbench_analysis.tables.window import Window
from numpy.typing import NDArray

from kvbench.records.schema import Op, Phase, RequestState

FALSE_ALARMS: Final = 0.01
LEAST_CHANGE: Final = 1.1
"""Times, or the inverse of it."""
FEWEST_BLOCKS: Final = 10
_OF_A_BLOCK: Final = {"P50": 20, "P95": 100, "mean": 5}
"""Operations or requests on average, below which there is no such figure of blocks."""
_MOST_CORRELATION: Final = 0.9

COLUMNS: Final = ("what", "figure", "unit", "first", "second", "change", "p", "blocks", "differs")
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class _Series:
    """A figure of each block, and of each half as a whole."""

    what: str
    figure: str
    unit: str
    blocks: Floats
    first: float
    second: float


def half_figures(run: Run, window: Window) -> pd.DataFrame:
    """A row for each figure that both halves have, with COLUMNS: `first` and `second` are in `unit`, `change` is the
    second by the first less 1, `p` is of the test, `differs` its verdict over all rows. No rows where nothing was
    measured, and for a study, whose parts differ on purpose.

    Of a run whose rows are a sample, rates are scaled up.
    """
    if window.seconds is None or str(run.attributes.get("kind", "")).startswith("study"):
        return pd.DataFrame(columns=list(COLUMNS))
    series = [*_of_operations(run, window), *_of_requests(run, window)]
    p = np.array([_p_value(one.blocks) for one in series])
    differs = _holm(p)
    rows = []
    for one, p_value, differing in zip(series, p, differs, strict=True):
        change = one.second / one.first - 1 if one.first > 0 else float("inf") if one.second > 0 else 0.0
        large = not 1 / LEAST_CHANGE <= change + 1 <= LEAST_CHANGE
        rows.append(
            (one.what, one.figure, one.unit, one.first, one.second, change, p_value, len(one.blocks), differing & large)
        )
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype({"differs": bool})


def _of_operations(run: Run, window: Window) -> Iterator[_Series]:
    codes = run.columns(["phase", "errno", "op", "tier"])
    storage = run.tiers["storage"].to_numpy(bool)
    if not len(storage) or not len(codes["op"]):
        return
    counted = (codes["phase"] == Phase.MEASURE) & (codes["errno"] == 0) & storage[codes["tier"]]
    scale = run.sampled_1_in()
    for what, ops in (("storage reads", (Op.READ, Op.PROMOTE)), ("storage writes", (Op.WRITE, Op.DEMOTE))):
        chosen = np.flatnonzero(counted & np.isin(codes["op"], ops))
        if not len(chosen):
            continue
        times = {
            name: values[chosen].astype(np.int64)
            for name, values in run.columns(["t_start_ns", "wall_ns", "nbytes"]).items()
        }
        start, wall = times["t_start_ns"], times["wall_ns"]
        blocks = _blocks(window, float(wall.mean()))
        edges = np.linspace(window.start_ns, window.end_ns, blocks + 1).astype(np.int64)
        seconds = np.diff(edges) / 1e9
        (moved,) = spread(start, wall, [times["nbytes"]], edges, np.zeros(len(start), np.int64), 1)
        rates = moved[0] * scale / seconds / 2**30
        half = blocks // 2
        yield _Series(
            what,
            "bandwidth",
            "GiB/s",
            rates,
            float((rates[:half] * seconds[:half]).sum() / seconds[:half].sum()),
            float((rates[half:] * seconds[half:]).sum() / seconds[half:].sum()),
        )
        yield from _percentiles(what, start + wall, wall / 1e6, window, blocks)


def _of_requests(run: Run, window: Window) -> Iterator[_Series]:
    names = ["phase", "state", "start_ns", "end_ns", "hit_tokens", "miss_tokens"]
    # Files of version 0.1 do not have it.
    first_token = "first_token_ns" in run.file.tables["requests"].columns
    found = run.columns([*names, "first_token_ns"] if first_token else names, "requests")
    chosen = (found["phase"] == Phase.MEASURE) & (found["state"] == RequestState.DONE)
    if not chosen.any():
        return
    request = {name: values[chosen].astype(np.int64) for name, values in found.items()}
    blocks = _blocks(window, float((request["end_ns"] - request["start_ns"]).mean()))
    tokens = request["hit_tokens"] + request["miss_tokens"]
    if tokens.sum() and len(tokens) >= blocks * _OF_A_BLOCK["mean"]:
        number = block_numbers(request["start_ns"], window.start_ns, window.end_ns, blocks)
        hits = np.bincount(number, request["hit_tokens"], minlength=blocks)
        of = np.bincount(number, tokens, minlength=blocks)
        if (of > 0).all():
            half = blocks // 2
            first, second = (100 * hits[part].sum() / of[part].sum() for part in (slice(half), slice(half, None)))
            yield _Series("hits", "of tokens", "%", hits / of, float(first), float(second))
    if not first_token:
        return
    reached = request["first_token_ns"] > 0
    if reached.any():
        times = request["first_token_ns"][reached] / 1e6
        yield from _percentiles("time to first token", request["end_ns"][reached], times, window, blocks)


def _percentiles(
    what: str, moments_ns: NDArray[np.int64], values_ms: Floats, window: Window, blocks: int
) -> Iterator[_Series]:
    """P50 and P95 by the block in which something ended, as far as blocks have enough of them."""
    for name, quantile in (("P50", 0.5), ("P95", 0.95)):
        count = min(blocks, len(moments_ns) // _OF_A_BLOCK[name] // 2 * 2)
        if count < FEWEST_BLOCKS:
            continue
        number = block_numbers(moments_ns, window.start_ns, window.end_ns, count)
        parts = [values_ms[number == block] for block in range(count)]
        if min(map(len, parts)) < _OF_A_BLOCK[name] // 4:
            continue
        of_blocks = np.array([np.quantile(part, quantile) for part in parts])
        halves = (np.concatenate(parts[: count // 2]), np.concatenate(parts[count // 2 :]))
        first, second = (float(np.quantile(half, quantile)) for half in halves)
        yield _Series(what, name, "ms", of_blocks, first, second)


def _blocks(window: Window, mean_wall_ns: float) -> int:
    """An even number of them."""
    return (
        max(FEWEST_BLOCKS, block_count((window.seconds or 0) * 1e9, mean_wall_ns) // 2 * 2)
        if mean_wall_ns
        else (MOST_BLOCKS)
    )


def _p_value(blocks: Floats) -> float:
    """Of two halves with one mean, as the module says; of the logarithms, where there are no zeros."""
    values = np.log(blocks) if (blocks > 0).all() else blocks
    half = len(values) // 2
    first, second = values[:half], values[half:]
    left = np.stack([first - first.mean(), second - second.mean()])
    squares, freedom = float(np.square(left).sum()), 2 * half - 2
    difference = float(second.mean() - first.mean())
    if squares <= 1e-24:
        return 1.0 if abs(difference) <= 1e-12 else 0.0
    lagged = float((left[:, 1:] * left[:, :-1]).sum()) / squares * 2 * half / freedom
    correlation = float(np.clip(lagged, 0, _MOST_CORRELATION))
    raised = (1 + correlation) / (1 - correlation)
    error = np.sqrt(squares / freedom * 2 / half * raised)
    return float(2 * scipy.special.stdtr(max(2.0, 2 * half / raised - 2), -abs(difference) / error))


def _holm(p: Floats) -> NDArray[np.bool_]:
    """Which of them are significant together."""
    order, verdict = np.argsort(p), np.zeros(len(p), bool)
    for place, number in enumerate(order):
        if p[number] > FALSE_ALARMS / (len(p) - place):
            break
        verdict[number] = True
    return verdict


def told(row: dict[Any, Any]) -> tuple[str, str, str]:
    """`storage writes bandwidth`, the first half's and the second's, as text."""
    digits = [f"{value:.3g}" for value in (row["first"], row["second"])]
    return f"{row['what']} {row['figure']}", digits[0], digits[1]
