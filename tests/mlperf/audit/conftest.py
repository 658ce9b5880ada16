"""Makes the modules of `harness` importable, and knows where published leaves are."""

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "harness"))

_HERE = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def published() -> Path:
    """Leaves of MLPerf Storage v3.0 as they were published, cut down."""
    data = Path(os.environ.get("KVBENCH_DATA", _HERE.parent / "shared" / "data"))
    place = data / "mlperf" / "published"
    if not place.is_dir():
        pytest.skip(f"needs published leaves in {place} (KVBENCH_DATA)")
    return place
