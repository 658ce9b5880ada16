"""Each request with a first token, for itself: what of it was waited, looked up and loaded, which is measured, and what
was computed, which is modelled; and the same request under other circumstances, modelled too. Adds nothing up.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.figures.layer_ends import LayerEnds, layer_ends
from kvbench_analysis.figures.modelled_gpu import layer_by_layer, uncached_ns
from kvbench_analysis.figures.offered import is_open_loop
from kvbench_analysis.tables.load import Run
from numpy.typing import NDArray

from kvbench.records.compute_model import ComputeModel, compute_model_of
from kvbench.records.schema import Phase, RequestState

NO_COMPUTE: Final = (
    "the run has no compute, so that no token is the first: set compute.gpu in its configuration (docs/workloads.md)"
)
"""Why a run has no time to first token."""

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class RequestTimes:
    """Of the measured phase, of requests that were done."""

    model: ComputeModel
    table: pd.DataFrame
    """A row for each, in the order of /requests: `rank`, `request`, `qos` (its number), `start_ns`, tokens
    (`context_tokens`, `found_tokens`, `output_tokens`), and times in ns. Measured: `queue_ns`, `look_up_ns`, `load_ns`.
    Modelled: `modelled_compute_ns`. `first_token_ns` is the sum of the four. Modelled whole: `modelled_recompute_ns`,
    the prefill of all of the context alone on the GPU; `modelled_saved_ns`, by how much the prefill of what was not
    found is shorter; `modelled_tpot_ns`, time per output token behind the first (NaN: the answer has one token);
    `modelled_uncached_ns` (open loops). Where layers lie apart, if loads and compute overlapped layer by layer:
    `modelled_layer_wise_ns`, the time to first token, `modelled_stall_ns`, for how long of it the GPU waited for
    layers, `modelled_layer_wise_alone_ns`, without a wait for the GPU, and `modelled_alone_ns`, the same of the run."""
    layers: int
    """Groups of layers that were loaded one after the other; 0: it is not known when each was there."""
    no_layers: str
    """Why it is not; else empty."""


def request_times(run: Run) -> RequestTimes | None:
    """None where no compute was modelled, so that there is no first token."""
    model = compute_model_of(run.attributes.get("compute_model_json"))
    if model is None:
        return None
    every = _timed(run)
    done = _done(every)
    columns = {name: values[done] for name, values in every.items()}
    queue, waited = columns["start_ns"] - columns["intended_ns"], columns["look_up_ns"] + columns["load_ns"]
    found, context = columns["hit_tokens"].astype(np.int64), columns["context_tokens"].astype(np.int64)
    new = np.maximum(context - found, 1)
    whole_s, rest_s = model.prefill_s(context, 0), model.prefill_s(new, context - new)
    behind = columns["output_tokens"].astype(np.float64) - 1
    table = pd.DataFrame({name: columns[name] for name in ("rank", "request", "qos", "start_ns", "context_tokens")})
    table["found_tokens"], table["output_tokens"] = found, columns["output_tokens"]
    table["queue_ns"], table["look_up_ns"], table["load_ns"] = queue, columns["look_up_ns"], columns["load_ns"]
    table["modelled_compute_ns"] = columns["first_token_ns"] - queue - waited
    table["first_token_ns"] = columns["first_token_ns"]
    table["modelled_recompute_ns"] = np.rint(whole_s * 1e9).astype(np.int64)
    table["modelled_saved_ns"] = np.maximum(whole_s - rest_s, 0.0) * 1e9
    table["modelled_tpot_ns"] = tpot_ns(columns["modelled_decode_ns"], behind)
    every_request = run.sampled_1_in("requests") == 1
    if is_open_loop(run) and every_request:
        computed_s = model.prefill_s(every["context_tokens"].astype(np.int64), 0)
        table["modelled_uncached_ns"] = uncached_ns(every["rank"], every["intended_ns"], computed_s)[done]
    ends = layer_ends(run, every) if every_request else "the file has a sample of the requests"
    if isinstance(ends, LayerEnds):
        found_so = layer_by_layer(model, every, ends.ends_ns)
        table["modelled_layer_wise_ns"] = found_so.first_ns[done]
        table["modelled_stall_ns"] = found_so.stall_ns[done]
        table["modelled_layer_wise_alone_ns"] = found_so.alone_ns[done]
        # As in the run, but for the wait for the GPU.
        alone = columns["first_token_ns"] - columns["modelled_prefill_ns"] + found_so.takes_ns[done]
        table["modelled_alone_ns"] = alone
        return RequestTimes(model, table, ends.groups, "")
    return RequestTimes(model, table, 0, ends)


def tpot_ns(decode_ns: NDArray[Any], behind: NDArray[Any]) -> NDArray[np.float64]:
    """Modelled decode for each of the tokens `behind` the first; NaN where there is none, or it was not decoded."""
    known = (behind > 0) & (decode_ns > 0)
    return np.where(known, decode_ns / np.maximum(behind, 1), np.nan)


def _timed(run: Run) -> Columns:
    """Of all requests that came at a time of their own, done or not: what is computed of one, others wait for."""
    names = [
        "phase", "state", "rank", "request", "qos", "intended_ns", "start_ns", "look_up_ns", "load_ns",
        "first_token_ns", "modelled_prefill_ns", "modelled_decode_ns", "context_tokens", "hit_tokens", "output_tokens",
    ]  # fmt: skip
    columns = run.columns(names, "requests")
    mask = columns["phase"] != Phase.PRECONDITION
    return {name: values[mask] for name, values in columns.items()}


def _done(columns: Columns) -> NDArray[np.bool_]:
    mask = (columns["phase"] == Phase.MEASURE) & (columns["state"] == RequestState.DONE)
    mask &= (columns["first_token_ns"] > 0) & (columns["load_ns"] >= 0)
    return np.asarray(mask, np.bool_)
