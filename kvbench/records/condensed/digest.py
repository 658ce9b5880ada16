"""What a rank keeps of its rows where it does not keep all: a uniform sample, exact sums, and histograms.

A taker of `stream.RowStream`: rows leave memory once it has seen them, so a rank's memory does not grow with its run.
7 MB of sampled records and 5 MB of requests at most, held twice while a sample is thinned, and what `population`
says.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kvbench.records.condensed.population import Population
from kvbench.records.condensed.sample import Sample, budget
from kvbench.records.schema import RECORD_DTYPE, REQUEST_DTYPE


class Digest:
    """The digest of one rank's rows (a `stream.Keeper`)."""

    def __init__(self, mode: Literal["sampled", "histogram"], rank: int, ranks: int, tiers: int, classes: int) -> None:
        """Of rank `rank` of `ranks`, with `tiers` tiers and `classes` QoS classes."""
        self.records = Sample(RECORD_DTYPE, 0, rank, budget(ranks))
        self.requests = Sample(REQUEST_DTYPE, 1, rank, budget(ranks))
        self.population = Population(tiers, classes, histograms=mode == "histogram")

    keeping = True
    """It keeps what is wanted of the rows."""

    def take_records(self, rows: NDArray[np.void]) -> None:
        """Rows of RECORD_DTYPE."""
        self.records.keep(*self.records.choose(rows))
        self.population.take_records(rows)

    def take_requests(self, rows: NDArray[np.void]) -> None:
        """Rows of REQUEST_DTYPE."""
        self.requests.keep(*self.requests.choose(rows))
        self.population.take_requests(rows)

    def flush(self) -> None:
        """Nothing is put off."""
