"""What all tests share."""

from collections.abc import Iterator

import pytest


@pytest.fixture(scope="session", autouse=True)
def patient() -> Iterator[None]:
    """Whoever is asked to end and does not in time is ended. Where a run is in the process of the tests, that would be
    the tests, and how fast it is depends on the machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kvbench.cluster.signals.ANSWER_S", 3600.0)
        yield
