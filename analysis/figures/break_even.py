"""From which length on a prefix is loaded (measured) faster than it is computed (modelled). Reads no file."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kvbench.records.compute_model import ComputeModel

FEWEST: Final = 20
"""Requests that have loaded something, for a break-even."""
_BLOCKS: Final = FEWEST
"""At least one request in each."""
_DRAWS: Final = 400
_LEVEL: Final = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BreakEven:
    """From which length on a prefix is loaded faster than it is computed: where the straight line through look-up and
    load over tokens found meets the modelled prefill of so many tokens. All in tokens."""

    tokens: float | None
    """None: at no length up to `longest`."""
    low: float | None
    high: float | None
    """Of 95 % of resamples of blocks of time; None as above."""
    shortest: int
    longest: int
    """That were loaded."""
    load_s_per_token: float
    load_s: float
    """Of a prefix of no length: the line is load_s + load_s_per_token x tokens."""


def break_even(
    model: ComputeModel, found: NDArray[np.int64], waited_s: Floats, start_ns: NDArray[np.int64]
) -> BreakEven | None:
    """Of requests that found `found` tokens, and waited `waited_s` until they were loaded; None: too few of them, or
    all found equally many."""
    if len(found) < FEWEST or found.min() == found.max():
        return None
    longest = int(found.max())
    lengths = np.unique(np.linspace(1, longest, 2000).astype(np.int64))
    computed_s = model.prefill_s(lengths, 0)

    def met(line: tuple[float, float]) -> float:
        """The shortest length from which on loading stays the faster; infinite: none up to the longest."""
        slower = np.flatnonzero(line[0] + line[1] * lengths > computed_s)
        last = int(slower[-1]) + 1 if len(slower) else 0
        return float(lengths[last]) if last < len(lengths) else float("inf")

    tokens = found.astype(np.float64)
    line = _line(tokens, waited_s, np.ones(len(found)))
    order = np.argsort(start_ns, kind="stable")
    block = np.empty(len(found), np.intp)
    block[order] = np.arange(len(found)) * _BLOCKS // len(found)
    rng = np.random.default_rng(1)
    draws = rng.multinomial(_BLOCKS, np.full(_BLOCKS, 1 / _BLOCKS), _DRAWS).astype(np.float64)
    of_draws = [met(_line(tokens, waited_s, weights[block])) for weights in draws]
    tail = (1 - _LEVEL) / 2
    # Order statistics, not interpolated: some may be infinite.
    low, high = np.quantile(of_draws, [tail, 1 - tail], method="nearest")
    return BreakEven(
        tokens=_finite(met(line)),
        low=_finite(float(low)),
        high=_finite(float(high)),
        shortest=int(found.min()),
        longest=longest,
        load_s_per_token=line[1],
        load_s=line[0],
    )


def _line(x: Floats, y: Floats, weights: Floats) -> tuple[float, float]:
    """Least squares: y where x is 0, and the slope; a level line where all x are the same."""
    total = weights.sum()
    mean_x, mean_y = float(weights @ x / total), float(weights @ y / total)
    spread = float(weights @ (x - mean_x) ** 2)
    slope = float(weights @ ((x - mean_x) * (y - mean_y))) / spread if spread else 0.0
    return mean_y - slope * mean_x, slope


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
