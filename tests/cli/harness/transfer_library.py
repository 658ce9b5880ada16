"""Whether the transfer library NIXL is there for a test."""

import os

import pytest

from kvbench.errors import KvbenchError
from kvbench.tiers.file.nixl_library import load


def need_nixl() -> None:
    """Skip the test where it is not installed; in CI it must be."""
    try:
        load()
    except KvbenchError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
