"""A prediction as a user reads it: every line of it says that it is one."""

from rich.console import Console

from kvbench.console import make_table
from kvbench.records.storage_model import StorageModel
from kvbench.run.planning.predicted import LEVEL, PARTS, STATISTICS, Figure, Predicted
from kvbench.units import format_bytes

_WORDS = {"queue": "queue", "look_up": "look-up", "load": "load", "first_token": "time to first token"}


def print_predicted(predicted: Predicted, console: Console) -> None:
    """Print what it comes from, a row for each part of a request, and what the storage does."""
    ranks = predicted.storage_ranks
    _say(
        console,
        f"PREDICTED on {predicted.storage}: {_whence(predicted.model)}; {predicted.draws} simulations, "
        f"{'all ranks' if ranks > 1 else '1 rank'} on one storage; nothing of this load was measured",
        "bold",
    )
    for what in predicted.extrapolated:
        _say(console, f"EXTRAPOLATED: {what}", "bold yellow")
    mark = " (extrapolated)" if predicted.extrapolated else ""
    table = make_table(
        (f"predicted{mark}", *("mean" if name == "mean" else name.upper() for name in STATISTICS)), left=1
    )
    for part in PARTS:
        if part in predicted.parts:
            table.add_row(_WORDS[part], *(_time(predicted.parts[part][name]) for name in STATISTICS))
    if predicted.parts:
        console.print(table)
    else:
        _say(console, f"predicted{mark}: in a simulation no request is done before the run ends; this load is too much")
    _say(
        console,
        f"predicted{mark}: {_rounded(predicted.requests, 1)} requests done, storage reads "
        f"{_bytes(predicted.read_bytes_per_s)}, writes {_bytes(predicted.written_bytes_per_s)}, busy "
        f"{_rounded(predicted.utilisation, 100)} % of the time, at most {predicted.most_in_flight} in flight",
    )
    if predicted.cut_short.high:
        _say(console, f"predicted{mark}: {_rounded(predicted.cut_short, 1)} requests cut short by the end of the run")
    _say(
        console,
        f"The median of all simulations, in brackets what {LEVEL:.0%} of them lie between: by chance, and by what the "
        "model does not know of the storage. How good such predictions are: docs/storage-model.md.",
    )


def _whence(model: StorageModel) -> str:
    source = model.sources[0]
    hosts = sorted({host for each in model.sources for host in each.hosts})
    files = "1 run file" if len(model.sources) == 1 else f"{len(model.sources)} run files"
    return (
        f"{source.filesystem or model.tier_kind} of {', '.join(hosts[:3])}{' ...' if len(hosts) > 3 else ''}, {files}"
    )


def _time(figure: Figure) -> str:
    unit, name = (1.0, "s") if figure.predicted >= 1 else (1e3, "ms")
    low, middle, high = (f"{value * unit:.3g}" for value in (figure.low, figure.predicted, figure.high))
    return f"{middle} {name} ({low} to {high})"


def _bytes(figure: Figure) -> str:
    low, middle, high = (f"{format_bytes(round(value))}/s" for value in (figure.low, figure.predicted, figure.high))
    return f"{middle} ({low} to {high})"


def _rounded(figure: Figure, times: int) -> str:
    low, middle, high = (f"{value * times:.0f}" for value in (figure.low, figure.predicted, figure.high))
    return middle if low == high else f"{middle} ({low} to {high})"


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(text, style=style, highlight=False, markup=False, soft_wrap=True)
