"""What the tests of this folder share: kvbench with one of the plugins."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from kvbench.cache.policies import POLICIES
from kvbench.cluster.comm import SerialComm
from kvbench.commands.main import commands
from kvbench.commands.table import COMMANDS
from kvbench.config.names import CACHE_POLICIES, TIER_KINDS, TRACE_FORMATS
from kvbench.tiers.arena import Arena
from kvbench.tiers.kinds import KINDS
from kvbench.tiers.payload import Payload
from kvbench.units import SEGMENT_BYTES
from kvbench.workload.traces.formats import FORMATS

TESTS = Path(__file__).parent.parent
sys.path += [str(TESTS / "contracts" / "plugins"), str(TESTS / "tiers" / "harness"), str(TESTS / "cache")]

TABLES: tuple[dict[str, Any], ...] = (KINDS, TIER_KINDS, POLICIES, FORMATS, COMMANDS)
NAMES = (CACHE_POLICIES, TRACE_FORMATS)


@pytest.fixture
def plugged() -> Iterator[Callable[[str], Any]]:
    """Import a plugin, which adds itself to a table; it goes again."""
    tables, names = [dict(table) for table in TABLES], [list(some) for some in NAMES]
    imported = []

    def plug(name: str) -> Any:
        imported.append(name)
        return importlib.import_module(name)

    yield plug
    for name in imported:
        sys.modules.pop(name, None)
    for table, content in zip(TABLES, tables, strict=True):
        table.clear()
        table.update(content)
    for some, before in zip(NAMES, names, strict=True):
        some[:] = before


@pytest.fixture
def kvbench_with(plugged: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Call kvbench, as one rank without MPI, after a plugin was imported: `kvbench_with("command", "greet", "you")`."""
    monkeypatch.setattr("kvbench.commands.run.get_world", SerialComm)
    monkeypatch.setattr("kvbench.run.checks.datasize.get_world", SerialComm)

    def call(plugin: str, *words: object) -> Result:
        plugged(plugin)
        return CliRunner().invoke(commands, [str(word) for word in words], prog_name="kvbench")

    return call


@pytest.fixture(scope="session")
def payload() -> Payload:
    return Payload("stamped", run=0xA5A50001, seed=7)


@pytest.fixture(scope="session")
def arena(payload: Payload) -> Arena:
    return Arena(3 * SEGMENT_BYTES, threads=2, body=payload.body)
