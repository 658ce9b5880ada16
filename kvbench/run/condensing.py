"""From the digests of all ranks to what the run file says of all rows (`records: sampled` and `histogram`).

What travels is said in `cluster.merge`; the sampled rows themselves are gathered as all rows would be.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kvbench.cluster.broadcast import share
from kvbench.cluster.comm import reduce_to_root
from kvbench.cluster.merge import agree_on_levels, merge_populations, place_rows
from kvbench.cluster.topology import Topology
from kvbench.records.clock import CommonClock
from kvbench.records.condensed.digest import Digest
from kvbench.records.condensed.population_schema import FILE_TABLES, HISTOGRAM_TABLES


@dataclass(frozen=True, slots=True)
class Condensed:
    """What is known of all rows."""

    places: npt.NDArray[np.void]
    """Of this rank, and on the first rank of a node of its node (PLACE_DTYPE)."""
    tables: Mapping[str, npt.NDArray[np.void]]
    """Of all ranks, on rank 0; empty elsewhere."""
    attributes: dict[str, str | int | float]
    """Of the run file, on rank 0; empty elsewhere."""


def condense(topology: Topology, digest: Digest, clock: CommonClock, end_ns: int) -> Condensed:
    """Merge the digests of all ranks, and thin their samples to one. Collective.

    `end_ns` is the end of this rank's last measured operation, on its own clock (0: none).
    """
    comm = topology.comm
    agree_on_levels(comm, digest.records, digest.requests)
    last = reduce_to_root(comm, np.array([clock.to_common(end_ns) if end_ns else 0], np.int64), "max")
    window_end_ns = clock.to_local(share(comm, None if last is None else int(last[0])))
    tables = merge_populations(comm, digest.population, window_end_ns)
    places = place_rows(topology, digest.population)
    if tables is None:
        return Condensed(places, {}, {})
    seen = tables["seen"][0]
    attributes: dict[str, str | int | float] = {
        "records_sampled_1_in": 2**digest.records.level,
        "requests_sampled_1_in": 2**digest.requests.level,
        "records_population": int(seen["records"]),
        "requests_population": int(seen["requests"]),
    }
    without = () if digest.population.has_histograms else HISTOGRAM_TABLES
    wanted = set(FILE_TABLES) - {"places", *without}
    return Condensed(places, {name: rows for name, rows in tables.items() if name in wanted}, attributes)
