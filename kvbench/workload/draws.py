"""Random whole numbers that are the same on every machine and with every version of numpy.

Everything is derived with whole-number arithmetic from `Generator.random()`, whose 53 random bits are fixed by the bit
generator (numpy's NEP 19). No logarithm is taken and no distribution of numpy's is used, since those may change in the
last digit between versions and mathematics libraries. This module knows nothing of requests.
"""

from typing import Final

import numpy as np

UNIT: Final = 1 << 53
"""The number of different values of `Draws.bits()`; also the unit of `Draws.exponential()`."""


def stream_generator(*entropy: int) -> np.random.Generator:
    """A generator of its own for each tuple of whole numbers of 0 and more: PCG64 seeded by their SeedSequence."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(list(entropy))))


class Draws:
    """Whole numbers drawn from one generator."""

    def __init__(self, generator: np.random.Generator) -> None:
        self._random = generator.random

    def bits(self) -> int:
        """A uniform whole number of 0 to `UNIT` - 1."""
        return int(self._random() * UNIT)

    def below(self, limit: int) -> int:
        """A uniform whole number of 0 to `limit` - 1."""
        return (self.bits() * limit) >> 53

    def between(self, lowest: int, highest: int) -> int:
        """A uniform whole number of `lowest` to `highest`, both included."""
        return lowest + self.below(highest - lowest + 1)

    def chance(self, probability: float) -> bool:
        """True with `probability`."""
        return self.bits() < probability * UNIT

    def exponential(self) -> int:
        """An exponential variate of mean 1, in units of 1 / `UNIT`.

        Von Neumann's comparison method (J. von Neumann, "Various techniques used in connection with random digits",
        1951): it needs no logarithm, so it gives the same number everywhere.
        """
        whole = 0
        while True:
            first = last = self.bits()
            falling = 1
            while (following := self.bits()) < last:
                last = following
                falling += 1
            if falling % 2 == 1:
                return whole * UNIT + first
            whole += 1
