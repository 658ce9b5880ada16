"""Makes what the fuzz tests share importable, and says at the end how many cases there were."""

import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).parent / "harness"), str(Path(__file__).parents[1] / "analysis")]

from cases import FACTOR, made, refused  # noqa: E402 - now that it can be found


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if made and FACTOR > 1:
        terminalreporter.section("fuzz cases")
        for reader, count in sorted(made.items()):
            terminalreporter.line(f"{reader}: {count} cases, {refused[reader]} refused, {count - refused[reader]} read")
