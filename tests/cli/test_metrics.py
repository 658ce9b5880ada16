"""Live figures of a run for others, as they are asked for on the command line."""

import re
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from kvbench_command import ENDLESS, QUICK, Command, Ended, attributes, overrides, remains

Start = Callable[..., Command]


def listening(command: Command) -> list[int]:
    """Ports of the loopback at which a process of the command listens."""
    found = []
    for process in command.descendants():
        found += [port.laddr.port for port in process.net_connections("tcp4") if port.status == "LISTEN"]
    return found


def moved(port: int) -> float:
    """Bytes that the run at `port` has moved on its file tier so far."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except (urllib.error.URLError, OSError):
        return 0
    found = re.search(r'^kvbench_moved_bytes_total\{tier="file"\} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0


@pytest.mark.slow
def test_a_run_of_two_ranks_is_watched_and_interrupted(start_run: Start, tmp_path: Path) -> None:
    pytest.importorskip("prometheus_client")
    command = start_run(*ENDLESS, options=("--ranks", "2", "--metrics", ":0"))
    (port,) = command.wait_for(lambda: [port for port in listening(command) if moved(port) > 0])
    before = moved(port)
    command.wait_for(lambda: moved(port) > before)
    command.send(signal.SIGTERM)
    command.ended()
    assert attributes(tmp_path / "run.h5")["status"] == "interrupted"
    assert moved(port) == 0


def test_without_the_option_nobody_listens_and_nothing_is_said(
    kvbench: Callable[..., Ended], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvbench.run.runner.serve", lambda *_: pytest.fail("listens"))
    words = ("run", "smoke", "--dir", folder, "--out", tmp_path / "run.h5", "--no-spill", *overrides(*QUICK))
    ended = kvbench(*words)
    assert ended.code == 0
    assert "Prometheus" not in ended.out


def test_a_run_whose_figures_cannot_be_told_does_not_begin(
    kvbench: Callable[..., Ended], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("run", "smoke", "--dir", folder, "--out", tmp_path / "run.h5", "--no-spill", *overrides(*QUICK))
    ended = kvbench(*words, "--metrics", "192.0.2.1:0")
    assert ended.code == 1
    assert "--metrics: cannot listen at 192.0.2.1, port 0: Cannot assign requested address; give another" in ended.err
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    ended = kvbench(*words, "--metrics", ":0")
    assert ended.code == 1
    assert "--metrics needs prometheus-client, which is not installed: pip install 'kvbench[metrics]'" in ended.err
    assert remains(tmp_path) == [folder.name]


def test_what_is_no_port_is_a_mistake_of_the_command_line(kvbench: Callable[..., Ended], folder: Path) -> None:
    ended = kvbench("run", "smoke", "--dir", folder, "--metrics", "9464")
    assert ended.code == 2
    assert "'9464' is not like :9464" in ended.err
