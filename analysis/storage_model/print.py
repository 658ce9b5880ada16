"""A storage model as a user reads it."""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from kvbench_analysis.text.safe import safe_text
from kvbench_analysis.text.table import print_table
from kvbench_analysis.text.units import count, duration, share, size
from rich.console import Console

from kvbench.records.storage_model import PROBABILITIES, Service, StorageModel

_LEVEL: Final = 0.9


def model_table(model: StorageModel, console: Console) -> None:
    """Print where a model comes from, and a row for each kind, size and load."""
    source = model.sources[0]
    for one in model.sources:
        hosts = ", ".join(one.hosts[:3]) + (" ..." if len(one.hosts) > 3 else "")
        told = f"{one.file}: {one.name}, {one.ranks} x {one.threads} threads, {hosts}, {one.started_at}, fingerprint "
        console.print(safe_text(told + one.fingerprint), soft_wrap=True)
    paths = f"reads {source.read_path}, writes {source.write_path}, sync {source.sync}"
    moved = f"{source.layout}, engine {source.engine}, {paths}"
    where = f"{source.filesystem} ({source.device})" if source.filesystem else model.tier_kind
    title = f"tier {model.tier}: {where}; {moved}" + (f"; {source.twin}" if source.twin else "")
    headings = (
        "what",
        "size",
        "operations",
        "in flight",
        "mean (90 %)",
        "P50",
        "P95",
        "P99",
        "at most",
        "device",
    )
    rows = [row for service in model.services if service.station != "client" for row in _rows(service)]
    between = sum(service.operations for service in model.services if service.station == "client")
    caption = (
        "in flight: operations on the storage, this one included, from its start to its end; percentiles are of "
        "operations that begin then; at most: the most in flight that were measured. Beside these stands what workers "
        f"do between operations ({count(between)} times). In brackets: {_LEVEL:.0%} of {model.resamples} resamples of "
        "blocks of time."
    )
    print_table(console, title, headings, rows, left=1, caption=caption)


def _rows(service: Service) -> Iterator[Sequence[str]]:
    levels = [*service.levels]
    for at, level in enumerate(levels):
        seconds = np.array([row[at] for row in service.seconds])
        low, high = (
            np.quantile(seconds[1:], [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]) if len(seconds) > 1 else (seconds[0],) * 2
        )
        tails = np.interp([0.5, 0.95, 0.99], PROBABILITIES, service.works[at]) * seconds[0] * 1e9
        first = at == 0
        name = service.kind if service.station == "storage" else f"{service.kind} in {service.station}"
        yield (
            name if first else "",
            (size(service.nbytes) if service.nbytes else "-") if first else "",
            count(service.operations) if first else "",
            f"{level:.3g}",
            f"{duration(seconds[0] * 1e9)} ({duration(low * 1e9)} to {duration(high * 1e9)})",
            *(duration(tail) for tail in tails),
            str(service.most) if first else "",
            (share(service.shares["device"]) if "device" in service.shares else "-") if first else "",
        )
