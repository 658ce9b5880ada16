"""Time to first token: what of it was waited, looked up and loaded, which is measured, and computed, which is modelled;
and the same requests with all of their contexts computed anew, which is modelled whole.

Of files whose rows are a sample, all figures are of the requests in the sample.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from kvbench_analysis.figures.offered import is_open_loop
from kvbench_analysis.tables.load import Run
from kvbench_analysis.tables.percentiles import distribution
from kvbench_analysis.tables.window import Window
from numpy.typing import NDArray

from kvbench.records.compute_model import ComputeModel, compute_model_of
from kvbench.records.schema import Phase, RequestState

PARTS: Final = (
    "first_token", "queue", "look_up", "load", "modelled_compute", "modelled_recompute", "modelled_uncached",
)  # fmt: skip
"""Of `FirstToken.parts`; the first is the sum of the four behind it."""

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


@dataclass(frozen=True)
class FirstToken:
    """Of the requests of the measured phase that were done."""

    gpu: str
    requests: int
    sampled_1_in: int
    """1: of all requests."""
    parts: pd.DataFrame
    """A row for each of PARTS: mean and percentiles. `modelled_uncached` is missing where arrivals follow answers."""
    load_share: float
    """Of the time to first token of all of them: look-ups and loads."""
    found: int
    """Requests that found something."""
    slower: int
    """Of those, which waited longer for it than its modelled prefill takes."""
    gpu_s_saved_per_hour: float
    """Modelled prefill of what was found, for each hour of the window, of all GPUs. Of a sample it is scaled up."""
    break_even: BreakEven | None
    """None: too few requests have loaded something."""


def first_token(run: Run, window: Window) -> FirstToken | None:
    """None where no compute was modelled, so that there is no first token, or no request came so far."""
    model = compute_model_of(run.attributes.get("compute_model_json"))
    if model is None:
        return None
    every = _timed(run)
    done = _done(every)
    columns = {name: values[done] for name, values in every.items()}
    requests = len(columns["first_token_ns"])
    if not requests:
        return None
    queue = columns["start_ns"] - columns["intended_ns"]
    waited_ns = columns["look_up_ns"] + columns["load_ns"]
    found, context = columns["hit_tokens"].astype(np.int64), columns["context_tokens"].astype(np.int64)
    new = np.maximum(context - found, 1)
    whole_s, rest_s = model.prefill_s(context, 0), model.prefill_s(new, context - new)
    saved_s = np.maximum(whole_s - rest_s, 0.0)
    times: dict[str, NDArray[Any]] = {
        "first_token": columns["first_token_ns"],
        "queue": queue,
        "look_up": columns["look_up_ns"],
        "load": columns["load_ns"],
        "modelled_compute": columns["first_token_ns"] - queue - waited_ns,
        "modelled_recompute": np.rint(whole_s * 1e9).astype(np.int64),
    }
    sampled = run.sampled_1_in("requests")
    if is_open_loop(run) and sampled == 1:
        computed_s = model.prefill_s(every["context_tokens"].astype(np.int64), 0)
        times["modelled_uncached"] = _uncached_ns(every["rank"], every["intended_ns"], computed_s)[done]
    has = found > 0
    seconds = window.seconds
    return FirstToken(
        gpu=model.gpu,
        requests=requests,
        sampled_1_in=sampled,
        parts=pd.DataFrame(
            [{"part": part, "requests": requests} | distribution(times[part]) for part in PARTS if part in times]
        ),
        load_share=float(waited_ns.sum() / max(int(columns["first_token_ns"].sum()), 1)),
        found=int(has.sum()),
        slower=int(np.count_nonzero(waited_ns[has] / 1e9 > saved_s[has])),
        gpu_s_saved_per_hour=float(saved_s.sum()) * model.gpus * sampled * 3600 / seconds if seconds else float("nan"),
        break_even=_break_even(model, found[has], waited_ns[has] / 1e9, columns["start_ns"][has]),
    )


def _timed(run: Run) -> dict[str, NDArray[Any]]:
    """Of all requests that came at a time of their own, done or not: what is computed of one, others wait for."""
    names = [
        "phase", "state", "rank", "intended_ns", "start_ns", "look_up_ns", "load_ns", "first_token_ns",
        "context_tokens", "hit_tokens",
    ]  # fmt: skip
    columns = run.columns(names, "requests")
    mask = columns["phase"] != Phase.PRECONDITION
    return {name: values[mask] for name, values in columns.items()}


def _done(columns: dict[str, NDArray[Any]]) -> NDArray[np.bool_]:
    mask = (columns["phase"] == Phase.MEASURE) & (columns["state"] == RequestState.DONE)
    mask &= (columns["first_token_ns"] > 0) & (columns["load_ns"] >= 0)
    return np.asarray(mask, np.bool_)


def _uncached_ns(rank: NDArray[Any], came_ns: NDArray[np.int64], takes_s: Floats) -> NDArray[np.int64]:
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


def _break_even(
    model: ComputeModel, found: NDArray[np.int64], waited_s: Floats, start_ns: NDArray[np.int64]
) -> BreakEven | None:
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
