"""What the tests of this folder share."""

import pytest

from kvbench.tiers.payload import Payload


@pytest.fixture(scope="session")
def payload() -> Payload:
    return Payload("stamped", run=0x600D, seed=7)
