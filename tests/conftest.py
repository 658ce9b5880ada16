"""What all tests share, and how the whole suite is shared out among processes (pytest-xdist).

A call that names no test runs all of them, in as many processes as there are processors, up to MOST. A call that names
a folder, a file or a test, or that is about single ones (-k, -x, --lf, --pdb, -s), runs in its own process; `-n 0` and
`-n 3` say otherwise.

A process takes one room after the other. All that starts ranks is one room, and so is what the same costly things are
made for, a folder or a file: no two runs of ranks are in each other's way, and nothing is made twice.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from xdist.remote import Producer
    from xdist.scheduler import LoadScopeScheduling

MOST: Final = 4
"""Processes: there are not many more rooms that take long."""
RANKS: Final = ("tests/mpi/", "tests/cli/", "tests/faults/", "tests/studies/", "tests/mlperf/run/")
"""Where tests start ranks, which measure."""
_HERE: Final = Path(__file__).resolve().parent


@pytest.fixture(scope="session", autouse=True)
def patient() -> Iterator[None]:
    """Whoever is asked to end and does not in time is ended. Where a run is in the process of the tests, that would be
    the tests, and how fast it is depends on the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kvbench.cluster.signals.ANSWER_S", 3600.0)
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Choose the number of processes where the call does not. A process that was started for that comes here too."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    if config.pluginmanager.hasplugin("xdist") and config.option.numprocesses is None and _is_of_all(config):
        processors = min(len(os.sched_getaffinity(0)), MOST)
        config.option.numprocesses = processors if processors > 1 else 0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In several processes the longest room comes first."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: room(item.nodeid) != RANKS[0])


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
    return RANKS[0] if file.startswith(RANKS) else file


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
