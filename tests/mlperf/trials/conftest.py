"""A whole sequence of three options on one rank, with a model so small that it takes some seconds; made once."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent / "harness"))

from sequence_harness import Done, choices_in

from kvbench.cluster.comm import SerialComm
from kvbench.mlperf.trials import surroundings
from kvbench.mlperf.trials.measuring import run_sequence


@pytest.fixture(scope="session")
def shm() -> Iterator[Path]:
    """A directory in memory: on a filesystem that is not that of the results."""
    place = Path(tempfile.mkdtemp(prefix="kvbench-test-", dir="/dev/shm"))
    yield place
    shutil.rmtree(place)


@pytest.fixture(scope="session", autouse=True)
def drop_switch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Stands for the kernel's switch: the page cache of the machine that tests run on is not theirs to drop."""
    switch = tmp_path_factory.mktemp("proc") / "drop_caches"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(surroundings, "DROP_CACHES", switch)
        yield switch


@pytest.fixture(scope="session")
def done(shm: Path, drop_switch: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """Three options, two trials each, in the open division."""
    choices = choices_in(shm, tmp_path_factory.mktemp("results"))
    with open("/dev/null", "w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=200, file=nowhere)
        directory = run_sequence(SerialComm(), choices, console)
        return Done(directory, choices, console.export_text())
