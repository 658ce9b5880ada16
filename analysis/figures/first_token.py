"""Time to first token: what of it was waited, looked up and loaded, which is measured, and computed, which is modelled;
and the same requests with all of their contexts computed anew, which is modelled whole.

Of files whose rows are a sample, all figures are of the requests in the sample.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.figures.break_even import BreakEven, break_even
from kvbench_analysis.figures.load_split import LoadSplit, load_split
from kvbench_analysis.figures.request_times import RequestTimes, request_times
from kvbench_analysis.figures.requests import class_name
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.percentiles import distribution
from kvbench_analysis.tables.window import Window
from numpy.typing import NDArray

PARTS: Final = (
    "first_token", "queue", "look_up", "load", "modelled_compute", "modelled_recompute", "modelled_uncached",
    "modelled_layer_wise", "modelled_tpot",
)  # fmt: skip
"""Of `FirstToken.parts`; the first is the sum of the four behind it."""

OF_CLASSES: Final = ("first_token", "queue", "look_up", "load", "modelled_compute", "modelled_tpot")
"""Of `FirstToken.classes`."""


@dataclass(frozen=True)
class LayerWise:
    """If loads and compute overlapped layer by layer, of the same requests: the loads measured, the compute modelled.

    Its times to first token are `modelled_layer_wise` of the parts."""

    groups: int
    """Of layers, that were loaded one after the other."""
    stalled: int
    """Requests for whose next layers the GPU waited."""
    stall_share: float
    """Of the GPU's time with all requests together, that it waited for their layers."""
    alone_ns: float
    """Time to first token, mean, if no request waited for the GPU."""
    whole_alone_ns: float
    """The same with each load as a whole before its compute, as in the run."""


@dataclass(frozen=True)
class FirstToken:
    """Of the requests of the measured phase that were done."""

    gpu: str
    requests: int
    sampled_1_in: int
    """1: of all requests."""
    parts: pd.DataFrame
    """A row for each of PARTS: mean and percentiles. `modelled_uncached` is missing where arrivals follow answers,
    `modelled_layer_wise` where it is not known when layers were there, `modelled_tpot` (per output token behind the
    first, of the requests with any) where no answer is longer than a token."""
    classes: pd.DataFrame
    """The same per QoS class (`qos`), where there are several: of the time to first token and its four parts, and
    `modelled_tpot`."""
    load_share: float
    """Of the time to first token of all of them: look-ups and loads."""
    load_split: LoadSplit
    """What the loads were."""
    found: int
    """Requests that found something."""
    slower: int
    """Of those, which waited longer for it than its modelled prefill takes."""
    gpu_s_saved_per_hour: float
    """Modelled prefill of what was found, for each hour of the window, of all GPUs. Of a sample it is scaled up."""
    layer_wise: LayerWise | None
    no_layer_wise: str
    """Why there is none; else empty."""
    break_even: BreakEven | None
    """None: too few requests have loaded something."""
    times: RequestTimes = field(repr=False)
    """What all of it is made of, request by request."""


def first_token(run: Run, window: Window) -> FirstToken | None:
    """None where no compute was modelled, so that there is no first token, or no request came so far."""
    times = request_times(run)
    if times is None or times.table.empty:
        return None
    table, model = times.table, times.model
    waited_ns = (table["look_up_ns"] + table["load_ns"]).to_numpy()
    saved_s = table["modelled_saved_ns"].to_numpy() / 1e9
    found = table["found_tokens"].to_numpy()
    has = found > 0
    sampled, seconds = run.sampled_1_in("requests"), window.seconds
    return FirstToken(
        gpu=model.gpu,
        requests=len(table),
        sampled_1_in=sampled,
        parts=pd.DataFrame(list(_distributions(table, PARTS))),
        classes=_by_class(run, table),
        load_share=float(waited_ns.sum() / max(int(table["first_token_ns"].sum()), 1)),
        load_split=load_split(run, _as_columns(table[has])),
        found=int(has.sum()),
        slower=int(np.count_nonzero(waited_ns[has] / 1e9 > saved_s[has])),
        gpu_s_saved_per_hour=float(saved_s.sum()) * model.gpus * sampled * 3600 / seconds if seconds else float("nan"),
        layer_wise=_layer_wise(times),
        no_layer_wise=times.no_layers,
        break_even=break_even(model, found[has], waited_ns[has] / 1e9, table["start_ns"].to_numpy()[has]),
        times=times,
    )


def _distributions(table: pd.DataFrame, parts: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for part in parts:
        values = table[f"{part}_ns"].to_numpy() if f"{part}_ns" in table else np.empty(0)
        values = values[~np.isnan(values)]
        if len(values):
            yield {"part": part, "requests": len(values)} | distribution(values)


def _by_class(run: Run, table: pd.DataFrame) -> pd.DataFrame:
    rows: list[dict[str, Any]] = []
    codes = np.unique(table["qos"])
    for qos in codes.tolist() if len(codes) > 1 else ():
        mine = table[table["qos"] == qos]
        rows += ({"qos": class_name(run, qos)} | row for row in _distributions(mine, OF_CLASSES))
    return pd.DataFrame(rows, columns=None if rows else ["qos", "part", "requests"])


def _as_columns(table: pd.DataFrame) -> dict[str, NDArray[Any]]:
    return {name: table[name].to_numpy() for name in ("rank", "request", "start_ns", "look_up_ns", "load_ns")}


def _layer_wise(times: RequestTimes) -> LayerWise | None:
    if not times.layers:
        return None
    table = times.table
    stall_ns, whole_ns = table["modelled_stall_ns"].to_numpy(), table["modelled_alone_ns"].to_numpy()
    takes_ns = whole_ns - (table["queue_ns"] + table["look_up_ns"] + table["load_ns"]).to_numpy()
    return LayerWise(
        groups=times.layers,
        stalled=int(np.count_nonzero(stall_ns > 0)),
        stall_share=float(stall_ns.sum() / max(float(stall_ns.sum() + takes_ns.sum()), 1.0)),
        alone_ns=float(table["modelled_layer_wise_alone_ns"].mean()),
        whole_alone_ns=float(whole_ns.mean()),
    )
