"""Both backends of the stopwatch, and what a call needs: rows, a stop word, a directory."""

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from kvbench.records.schema import RECORD_DTYPE


@pytest.fixture(params=["_stopwatch", "_python"])
def timer(request: pytest.FixtureRequest) -> ModuleType:
    """Each backend in turn. Continuous integration must have a compiler: a missing extension fails there."""
    name = f"kvbench.timed_io.{request.param}"
    try:
        return importlib.import_module(name)
    except ImportError:
        if os.environ.get("CI") or request.param == "_python":
            raise
        pytest.skip("the C extension is not built: this machine has no C compiler")


@pytest.fixture
def rec() -> NDArray[Any]:
    """Eight records, whose every byte is marked so that a stray write shows."""
    return np.full(8 * RECORD_DTYPE.itemsize, 0xA5, np.uint8).view(RECORD_DTYPE)


@pytest.fixture
def stop() -> NDArray[np.int32]:
    return np.zeros(1, np.int32)


@pytest.fixture
def dirfd(tmp_path: Path) -> Iterator[int]:
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)
