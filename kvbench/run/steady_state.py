"""How storage is brought to a steady state before a load: what is asked for, and when that is reached.

The criterion is that of SNIA's Solid State Storage Performance Test Specification (version 2.0.2, "steady state"): in a
window of five rounds the largest figure less the smallest is no more than 20 % of their average, and the straight line
that fits them best (least squares) rises or falls by no more than 10 % of it from the first round of the window to the
last. A round is a minute there, and a test that does not get there ends after 25 rounds. Writes nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from kvbench.config.run_config import RunConfig
from kvbench.errors import KvbenchError

WINDOW_ROUNDS: Final = 5
MOST_EXCURSION: Final = 0.20
MOST_SLOPE: Final = 0.10
ROUND_S: Final = 60.0
MOST_ROUNDS: Final = 25
_ROUNDING: Final = 1e-9
"""What is exactly at a limit is within it."""


@dataclass(frozen=True, slots=True)
class PreconditionOrder:
    """Writes before a run. The same on all ranks."""

    multiple: float | None = None
    """How often the capacity of each rank's storage tier is written; None: until the storage is steady."""
    round_s: float = ROUND_S
    most_rounds: int | None = None
    """After so many it is over, whatever has been reached; None: MOST_ROUNDS, and without a limit where a multiple of
    the capacity is written."""

    @property
    def text(self) -> str:
        """As the command line has it."""
        return "steady" if self.multiple is None else f"{self.multiple:g}x"

    @property
    def limit(self) -> int | None:
        """Rounds, at most."""
        if self.most_rounds is None and self.multiple is None:
            return MOST_ROUNDS
        return self.most_rounds


def read_precondition(text: str) -> float | None:
    """`multiple` of the order that `text` asks for. Raises ValueError."""
    if text.strip() == "steady":
        return None
    found = re.fullmatch(r"\s*(\d{1,4}(?:\.\d{1,4})?)\s*x\s*", text)
    if not found or not 0 < float(found[1]) <= 1000:
        raise ValueError(f"expected steady, or how often the capacity is written, as 2x (given: {text})")
    return float(found[1])


def check_precondition(config: RunConfig, order: PreconditionOrder | None) -> None:
    """Raise KvbenchError where there is nothing to bring to a steady state."""
    if order is not None and not (config.tiers[-1].facts.storage and config.tiers[-1].facts.keeps_bytes):
        raise KvbenchError(
            f"--precondition {order.text} writes to storage, and the last tier of this configuration is a "
            f"{config.tiers[-1].kind} tier: leave it out, or add a file tier"
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """Of the window that ends with a round; NaN before there are enough."""

    excursion: float
    """The largest less the smallest, by the average."""
    slope: float
    """By how much the fitted line rises (negative: falls) from the first round to the last, by the average."""

    @property
    def steady(self) -> bool:
        """Whether both are within their limits."""
        return self.excursion <= MOST_EXCURSION + _ROUNDING and abs(self.slope) <= MOST_SLOPE + _ROUNDING


def verdict(figures: Sequence[float]) -> Verdict:
    """Of the last WINDOW_ROUNDS of `figures`, one for each round (a bandwidth)."""
    window = np.array(figures[-WINDOW_ROUNDS:], np.float64)
    if len(window) < WINDOW_ROUNDS or not window.mean() > 0:
        return Verdict(float("nan"), float("nan"))
    places = np.arange(WINDOW_ROUNDS) - (WINDOW_ROUNDS - 1) / 2
    per_round = float((places * window).sum() / np.square(places).sum())
    average = float(window.mean())
    return Verdict(float(window.max() - window.min()) / average, per_round * (WINDOW_ROUNDS - 1) / average)
