"""Fixtures of the workload tests: trace files made on the spot, and the real traces where they are at hand."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from kvbench.config.load import parse_config
from kvbench.config.run_config import RunConfig
from kvbench.workload.draws import stream_generator
from kvbench.workload.trace_samples import write_samples


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Paths of one sample trace of each format, of 60 requests."""
    return write_samples(tmp_path_factory.mktemp("samples"), stream_generator(7), requests=60)


@pytest.fixture(scope="session")
def real_trace() -> Callable[[str], Path]:
    """From the name of a real trace to its path; skips where the data folder is missing, but fails in CI."""
    folder = Path(os.environ.get("KVBENCH_DATA", Path(__file__).parents[3] / "shared" / "data")) / "traces"

    def path(name: str) -> Path:
        if not (folder / name).exists():
            message = f"the real trace {name} is not in {folder} (KVBENCH_DATA says where the data folder is)"
            if os.environ.get("CI") == "true":
                pytest.fail(message)
            pytest.skip(message)
        return folder / name

    return path


@pytest.fixture(scope="session")
def make_config() -> Callable[..., RunConfig]:
    """A configuration from its sections; a trace is replayed as fast as possible unless `pacing` says otherwise."""

    def make(**sections: object) -> RunConfig:
        workload = sections.get("workload")
        if isinstance(workload, dict) and workload.get("kind") == "trace":
            sections.setdefault("pacing", {"mode": "asap"})
        return parse_config(sections, "test")

    return make
