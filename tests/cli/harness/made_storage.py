"""Storage models whose times are said here, and a trace of requests that load known blocks, one after the other."""

import json
from collections.abc import Callable
from pathlib import Path

from kvbench.records.storage_model import FORMAT, PROBABILITIES, Service, Source, StorageModel

BLOCKS = 8
"""Of the context of every request of `one_after_the_other`."""


def service(
    kind: str, seconds_at: Callable[[int], float], nbytes: float, most: int = 64, station: str = "storage"
) -> Service:
    """Every operation takes exactly its mean time; resamples are all as the estimate."""
    levels = tuple(range(1, most + 1))
    times = tuple(seconds_at(level) for level in levels)
    return Service(
        station=station, kind=kind, nbytes=nbytes, operations=1000, levels=levels, most=most, seconds=(times,) * 3,
        works=((1.0,) * len(PROBABILITIES),) * most, shares={},
    )  # fmt: skip


def made_storage(path: Path, *services: Service, **source: object) -> Path:
    """A file of these."""
    facts = {
        "file": "made.h5", "run_id": "made", "fingerprint": "0" * 16, "started_at": "", "kvbench_version": "0",
        "name": "made", "hosts": ("box",), "filesystem": "ext4", "mount_options": "", "device": "", "layout": "file",
        "engine": "sync", "twin": "", "read_path": "buffered", "write_path": "buffered", "sync": "object", "ranks": 1,
        "threads": 1, "operations": 1000,
    }  # fmt: skip
    model = StorageModel(
        kvbench_storage_model=FORMAT, kvbench_version="0", tier="file", tier_kind="file",
        sources=(Source.model_validate(facts | source),), services=services,
    )  # fmt: skip
    path.write_bytes(model.to_bytes())
    return path


def one_after_the_other(path: Path, requests: int = 10, gap_s: float = 10.0) -> Path:
    """A trace: the first request stores BLOCKS blocks, and all others find them."""
    lines = [
        {"timestamp": round(number * gap_s * 1000), "input_length": 512 * BLOCKS, "output_length": 1,
         "hash_ids": list(range(BLOCKS))}
        for number in range(requests)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path
