"""What the tests of this folder share: kvbench with one of the plugins."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kvbench.cache.policies import POLICIES
from kvbench.config.names import CACHE_POLICIES, TIER_KINDS
from kvbench.tiers.arena import Arena
from kvbench.tiers.kinds import KINDS
from kvbench.tiers.payload import Payload
from kvbench.units import SEGMENT_BYTES

PLUGINS = Path(__file__).parent / "plugins"
TESTS = PLUGINS.parent.parent
sys.path += [str(PLUGINS), str(TESTS / "tiers"), str(TESTS / "cache")]

_PROGRAM = """
import importlib, sys
sys.path.append(sys.argv.pop(1))
importlib.import_module(sys.argv.pop(1))
from kvbench.commands.main import main
main()
"""


@pytest.fixture
def kvbench_with() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Call kvbench after a plugin was imported: `kvbench_with("command", "greet", "you")`.

    In a process of its own, as what a plugin adds to the tables is there for good.
    """

    def call(plugin: str, *words: object) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", _PROGRAM, PLUGINS, plugin, *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    return call


@pytest.fixture
def new_in_tables() -> Iterator[None]:
    """What is added to the tables goes again."""
    tables: tuple[dict[str, Any], ...] = (KINDS, TIER_KINDS, POLICIES)
    before = [dict(table) for table in tables]
    names = list(CACHE_POLICIES)
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)
    CACHE_POLICIES[:] = names


@pytest.fixture(scope="session")
def payload() -> Payload:
    return Payload("stamped", run=0xA5A50001, seed=7)


@pytest.fixture(scope="session")
def arena(payload: Payload) -> Arena:
    return Arena(3 * SEGMENT_BYTES, threads=2, body=payload.body)
