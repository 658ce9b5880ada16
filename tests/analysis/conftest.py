"""Makes `synthetic` importable for the tests of this folder, and gives them a written run."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))

from synthetic import SyntheticRun, synthetic_run


@pytest.fixture(scope="session")
def truth() -> SyntheticRun:
    return synthetic_run(np.random.default_rng(7))


@pytest.fixture(scope="session")
def run_path(truth: SyntheticRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return truth.write(tmp_path_factory.mktemp("run") / "run.h5")
