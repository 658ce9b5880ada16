"""What the GPU of a rank would have done otherwise: one request after the other, modelled. Reads no file.

Without a cache, where it computes all of each context; and layer by layer, where it begins to compute as soon as it is
known what was found, and before each group of layers waits until that has been loaded, as engines do whose connectors
load layer-wise. The ends of the loads are measured, what is computed is modelled.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kvbench.records.compute_model import ComputeModel

Floats = NDArray[np.float64]


def uncached_ns(rank: NDArray[Any], came_ns: NDArray[np.int64], takes_s: Floats) -> NDArray[np.int64]:
    """Times to first token if the GPU of each rank computed all of each context, one after the other as they came.
    Every request that was begun belongs in it: without those that were not done, the queue would be too short."""
    result = np.empty(len(rank), np.int64)
    for each in np.unique(rank):
        mine = np.flatnonzero(rank == each)
        mine = mine[np.argsort(came_ns[mine], kind="stable")]
        came, takes = came_ns[mine], np.rint(takes_s[mine] * 1e9).astype(np.int64)
        # Lindley's recursion: whoever comes begins when the one before is done, or at once.
        ends = np.cumsum(takes)
        result[mine] = np.maximum.accumulate(came - (ends - takes)) + ends - came
    return result


class LayerByLayer(NamedTuple):
    """Of each request, in ns; -1 where it did not come so far."""

    first_ns: NDArray[np.int64]
    """Time to first token."""
    stall_ns: NDArray[np.int64]
    """For how long of it the GPU was the request's, and what it was to compute next had not been loaded."""
    alone_ns: NDArray[np.int64]
    """Time to first token if nothing else were computed on the GPU."""
    takes_ns: NDArray[np.int64]
    """To compute it, without what is waited for."""


def layer_by_layer(
    model: ComputeModel, requests: Mapping[str, NDArray[Any]], ends_ns: NDArray[np.int64]
) -> LayerByLayer:
    """If loads and compute overlapped per group of layers.

    `requests` are columns of /requests of all that came at a time of their own, `ends_ns` (requests x groups) when each
    group of layers had been loaded. The GPU takes requests in the order in which they know what was found, and keeps
    one until it is computed, in equal parts for each group; what a modelled tier takes comes before, as in the run.
    """
    known = requests["start_ns"] + requests["look_up_ns"]
    waited = known - requests["intended_ns"] + requests["load_ns"]
    computed = requests["first_token_ns"] > 0
    # Between loads and prefill is what the modelled first tier takes.
    tier_ns = np.where(computed, requests["first_token_ns"] - waited - requests["modelled_prefill_ns"], 0)
    context = requests["context_tokens"].astype(np.int64)
    new = np.maximum(context - requests["hit_tokens"].astype(np.int64), 1)
    takes_ns = np.rint(model.prefill_s(new, context - new) * 1e9).astype(np.int64)
    first_ns, stall_ns, alone_ns = (np.full(len(known), -1, np.int64) for _ in range(3))
    groups = ends_ns.shape[1]
    # A group's part of the compute lies behind its load: of the last, one part, of the first, all of them.
    behind = np.arange(groups, 0, -1) / groups
    for rank in np.unique(requests["rank"]):
        mine = np.flatnonzero(computed & (requests["rank"] == rank))
        mine = mine[np.argsort(known[mine], kind="stable")]
        ready = known[mine] + np.maximum(tier_ns[mine], 0)
        loaded = np.rint(ends_ns[mine] + behind * takes_ns[mine][:, None]).max(axis=1).astype(np.int64)
        alone_ns[mine] = np.maximum(ready + takes_ns[mine], loaded) - requests["intended_ns"][mine]
        free = 0
        for at, begins, last, takes in zip(
            mine.tolist(), ready.tolist(), loaded.tolist(), takes_ns[mine].tolist(), strict=True
        ):
            begun = max(free, begins)
            free = max(begun + takes, last)
            first_ns[at], stall_ns[at] = free, free - begun - takes
    came = first_ns >= 0
    first_ns[came] -= requests["intended_ns"][came]
    return LayerByLayer(first_ns, stall_ns, alone_ns, takes_ns)
