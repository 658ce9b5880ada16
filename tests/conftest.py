"""What all tests share, and how the whole suite is shared out among processes (pytest-xdist).

A call that names no test runs all of them, in some more processes than there are processors, up to MOST: tests that
start ranks wait for the most part. A call that names a folder, a file or a test, or that is about single ones (-k, -x,
--lf, --pdb, -s), runs in its own process; `-n 0` and `-n 3` say otherwise.

A process takes one room after the other. A room is what the same costly things are made for: a file, all that is about
several ranks or nodes, and all that is about one sequence of trials.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

# Asserts in a class of tests that other folders derive from, too, say what they compared.
pytest.register_assert_rewrite("tier_contract")

# How long one example takes says nothing where other tests run beside it.
settings.register_profile("beside others", deadline=None)
settings.load_profile("beside others")

MOST: Final = 5
"""Processes: there are not many more rooms that take long."""
RANKS: Final = ("tests/mpi/", "tests/faults/")
"""One room, as they share the nodes of the test bed."""
TRIALS: Final = "tests/mlperf/trials/"
"""One room, as they share a sequence."""
LONG: Final = (*RANKS, "tests/browser/", "tests/cli/", "tests/studies/", "tests/mlperf/", "tests/analysis/")
"""What is begun first, so that at the end no process has a long room to itself."""
QUICK_STARTS: Final = {"OMPI_MCA_btl": "^ofi", "OMPI_MCA_mtl": "^ofi", "OPENBLAS_NUM_THREADS": "1"}
"""Open MPI looks for fast networks through libfabric, and waits a second for them in every rank of every start;
OpenBLAS, which nothing here asks for anything, keeps a processor busy for the tenth of a second that it starts in."""
_HERE: Final = Path(__file__).resolve().parent


@pytest.fixture(scope="session", autouse=True)
def patient() -> Iterator[None]:
    """Whoever is asked to end and does not in time is ended. Where a run is in the process of the tests, that would be
    the tests, and how fast it is depends on the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kvbench.cluster.signals.ANSWER_S", 3600.0)
        yield


def pytest_configure() -> None:
    """What the processes of all tests are told, where the call does not say otherwise."""
    for name, value in QUICK_STARTS.items():
        os.environ.setdefault(name, value)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Choose the number of processes where the call does not. A process that was started for that comes here too."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    if config.pluginmanager.hasplugin("xdist") and config.option.numprocesses is None and _is_of_all(config):
        processors = len(os.sched_getaffinity(0))
        config.option.numprocesses = min(processors + 1, MOST) if processors > 1 else 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In several processes the longest rooms come first."""
    if hasattr(config, "workerinput"):
        items.sort(
            key=lambda item: next((turn for turn, long in enumerate(LONG) if item.nodeid.startswith(long)), len(LONG))
        )


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: "Producer") -> "LoadScopeScheduling":
    """Rooms in the order of their first test."""
    from xdist.scheduler import LoadScopeScheduling  # noqa: PLC0415 - only there where it is installed

    class Rooms(LoadScopeScheduling):  # type: ignore[misc]  # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            return room(nodeid)

    config.option.loadscopereorder = False
    return Rooms(config, log)


def room(nodeid: str) -> str:
    """The room that a test is in."""
    file = nodeid.partition("::")[0]
    if file.startswith(RANKS):
        return RANKS[0]
    return TRIALS if file.startswith(TRIALS) else file


def _is_of_all(config: pytest.Config) -> bool:
    """Whether the call is one of the whole suite, and of nothing in particular."""
    option = config.option
    particular: Sequence[Any] = (
        option.keyword,
        option.maxfail,
        option.usepdb,
        option.collectonly,
        getattr(option, "lf", False) or getattr(option, "failedfirst", False),
        getattr(option, "stepwise", False),
        option.capture == "no",
    )
    named = [argument for argument in config.args if Path(argument.partition("::")[0]).resolve() != _HERE]
    return not any(particular) and not named
