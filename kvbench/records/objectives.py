"""What a service promises of its requests (SLO), written as one text each: `ttft_p95<2s`, `load_p99<500ms`, and of one
QoS class `interactive.ttft_p95<1s`.

An objective bounds a percentile, or the mean, of one figure over the requests that were done. As a bound of each
request by itself it is what goodput counts: `ttft_p95<2s` asks of each of them less than 2 s.
"""

import difflib
import re
from dataclasses import dataclass
from typing import Final

from kvbench.units import parse_seconds

FIGURES: Final = {
    "ttft": "time to first token: queue, look-up and load measured, the rest modelled; needs `compute`",
    "queue": "from the intended start to the start",
    "look_up": "look-ups of the request's blocks",
    "load": "loading of what was found, over requests that found something",
    "storage": "all operations of the request on storage",
    "tpot": "time per output token behind the first, modelled; needs `compute`",
    "latency": "from the intended start to the end of the request",
}
"""What an objective can be of, in seconds each."""

MODELLED: Final = frozenset({"ttft", "tpot"})
"""Those with a modelled part: without `compute` in the configuration there is no such figure."""

_OBJECTIVE: Final = re.compile(
    r"\s*(?:([\w ]+)\.)?([a-z_]+?)_(mean|p\d{1,2}(?:\.\d{1,4})?)\s*(<=?)\s*(\S+)\s*", re.ASCII | re.IGNORECASE
)
_EXAMPLE: Final = (
    "expected FIGURE_pNN<TIME or FIGURE_mean<TIME, as ttft_p95<2s, load_p99<500ms, interactive.ttft_p95<1s"
)


@dataclass(frozen=True, slots=True)
class Objective:
    """One bound."""

    figure: str
    """Of FIGURES."""
    percentile: float | None
    """In percent, above 0 and below 100; None: the mean."""
    bound_s: float
    qos: str | None = None
    """The class of requests that it is for; None: all."""

    def __str__(self) -> str:
        of = "mean" if self.percentile is None else f"p{self.percentile:g}"
        bound = f"{self.bound_s:g}s" if self.bound_s >= 1 else f"{self.bound_s * 1e3:g}ms"
        return f"{f'{self.qos}.' if self.qos else ''}{self.figure}_{of}<{bound}"

    @property
    def name(self) -> str:
        """Without its bound: `interactive.ttft_p95`."""
        return str(self).partition("<")[0]


def parse_objective(text: str, classes: tuple[str, ...] = ()) -> Objective:
    """The objective that a text says. `classes` are the QoS classes there are; empty: any is taken.

    Raises ValueError, which says what was expected.
    """
    match = _OBJECTIVE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no objective: {_EXAMPLE}")
    qos, figure, of, _, bound = match.groups()
    figure = figure.lower()
    if figure not in FIGURES:
        near = difflib.get_close_matches(figure, FIGURES, n=1, cutoff=0.5)
        hint = f": did you mean {near[0]}?" if near else ""
        raise ValueError(f"{text!r}: unknown figure {figure!r}{hint} (known: {', '.join(FIGURES)})")
    if qos is not None and classes and qos not in classes:
        raise ValueError(f"{text!r}: unknown QoS class {qos!r} (known: {', '.join(classes)})")
    percentile = None if of.lower() == "mean" else float(of[1:])
    if percentile == 0:
        raise ValueError(f"{text!r}: expected a percentile above 0 and below 100")
    try:
        bound_s = parse_seconds(bound)
    except ValueError as error:
        raise ValueError(f"{text!r}: {error}") from error
    if bound_s <= 0:
        raise ValueError(f"{text!r}: no request takes less than {bound}; expected a time above 0")
    return Objective(figure, percentile, bound_s, qos)
