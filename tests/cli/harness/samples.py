"""Sample traces, made once by each process."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from kvbench.workload.trace_samples import write_samples


def sample_trace(folder: Path, form: str, requests: int = 100, seed: int = 7) -> Path:
    """A trace of that format in a folder."""
    name, content = _samples(requests, seed)[form]
    path = folder / name
    path.write_bytes(content)
    return path


@cache
def _samples(requests: int, seed: int) -> dict[str, tuple[str, bytes]]:
    with TemporaryDirectory(prefix="kvbench-test-") as folder:
        written = write_samples(Path(folder), np.random.default_rng(seed), requests)
        return {form: (path.name, path.read_bytes()) for form, path in written.items()}
