"""Twins of engines beside the real things, run on demand: `bash launch/test.sh tests/twins`.

They install the engines' packages (no GPU is needed) into a virtual environment in the folder KVBENCH_TWINS, or one in
the temporary directory, once; and need strace. torch must be the build for processors, which the index of PyTorch has
(PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu). What cannot be installed is skipped with the reason.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from packages import Missing, environment_with


@pytest.fixture(scope="session")
def python_with() -> Callable[[str], list[str]]:
    """The command that runs a Python which has the package called so. Skips the test where there is none."""

    def found(package: str) -> list[str]:
        if shutil.which("strace") is None:
            pytest.skip("strace is not there")
        try:
            return environment_with(package)
        except Missing as reason:
            pytest.skip(str(reason))

    return found
