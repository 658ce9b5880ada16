"""The test bed of nodes itself: what its commands do to a node, and that nothing is left of it."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from node_bed import SCRIPT, NodeBed, call_testbed

pytestmark = pytest.mark.slow


@pytest.fixture
def other_name() -> Iterator[str]:
    """The name of a second test bed, which is taken down after the test."""
    name = f"o{os.getpid() % 10**7}"
    yield name
    call_testbed("down", name=name)


def links(name: str) -> list[str]:
    """This machine's network interfaces that belong to test bed `name`."""
    return [path.name for path in Path("/sys/class/net").glob(f"kvb-{name}*")]


def processes(state: Path) -> list[str]:
    """Command lines in which the directory of a test bed occurs."""
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return [line for line in lines if f"{state}/" in line or f"{state} " in line]


def answers(bed: NodeBed, node: int) -> bool:
    """Whether a program can be started on the node over the network, as mpirun does."""
    words = ["ssh", "-F", str(bed.state / "ssh_config"), "-o", "ConnectTimeout=2", f"{bed.subnet}.{node}", "true"]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def test_what_a_second_test_bed_made_is_gone_after_it_and_the_first_is_untouched(bed: NodeBed, other_name: str) -> None:
    up = call_testbed("up", "--no-gluster", "--nodes", 3, name=other_name)
    assert up.returncode == 0, up.stderr
    other = NodeBed(other_name, bed.state.parent / other_name)
    assert other.subnet != bed.subnet
    assert answers(other, 3)
    assert processes(other.state)
    assert len(links(other_name)) == 4
    assert call_testbed("up", name=other_name).returncode == 1, "a name is taken once"

    down = call_testbed("down", name=other_name)
    assert down.returncode == 0, down.stderr
    assert (links(other_name), processes(other.state), other.state.exists()) == ([], [], False)
    assert answers(bed, 1)


def test_what_was_made_before_it_failed_is_taken_away(bed: NodeBed, other_name: str) -> None:
    # The bad size is seen after bridge, keys and the storage node were made.
    up = call_testbed("up", "--local-size", "nonsense", name=other_name)
    assert up.returncode != 0
    assert "--local-size nonsense: give a size" in up.stderr
    state = bed.state.parent / other_name
    assert (links(other_name), processes(state), state.exists()) == ([], [], False)


def test_a_cut_cable_silences_a_node_until_it_is_restored(bed: NodeBed) -> None:
    assert answers(bed, 2)
    bed.call("cut", 2)
    assert not answers(bed, 2)
    assert "network cut" in bed.call("status")
    bed.call("restore", 2)
    assert answers(bed, 2)


def test_a_killed_node_takes_its_processes_along_and_can_be_started_again(bed: NodeBed) -> None:
    marker = f"{bed.state}/left-running"
    bed.call("exec", 2, "sh", "-c", f"setsid tail -f /dev/null --pid=1 {marker} > /dev/null 2>&1 &")
    assert any(marker in line for line in processes(bed.state))
    bed.call("kill", 2)
    assert not any(marker in line for line in processes(bed.state))
    assert "not running" in bed.call("status")
    bed.call("start", 2)
    assert answers(bed, 2)
    assert bed.call("status").count("volume mounted") == 2


def test_a_local_directory_of_a_given_size_is_a_filesystem_of_its_own(bed: NodeBed, other_name: str) -> None:
    up = call_testbed("up", "--no-gluster", "--nodes", 1, "--local-size", "64M", name=other_name)
    assert up.returncode == 0, up.stderr
    other = NodeBed(other_name, bed.state.parent / other_name)
    kind, blocks = other.call("exec", 1, "stat", "-f", "-c", "%T %b", other.local).split()
    size = int(blocks) * int(other.call("exec", 1, "stat", "-f", "-c", "%S", other.local))
    assert kind == "ext2/ext3"
    assert 32 * 2**20 < size <= 64 * 2**20
    assert other.files(1, other.local) == []


@pytest.mark.parametrize("action", [["stop-storage", "continue-storage"], ["kill-storage", "restart-storage"]])
def test_the_volume_is_there_again_after_its_server_was_away(bed: NodeBed, action: list[str]) -> None:
    bed.call("exec", 1, "sh", "-c", f"echo precious > {bed.shared}/file")
    away, back = action
    bed.call(away)
    bed.call(back)
    reading = f"until read -r words < {bed.shared}/file; do sleep 0.1; done; echo $words; rm {bed.shared}/file"
    assert bed.call("exec", 2, "sh", "-c", reading) == "precious\n"


def test_nobody_but_root_is_told_so_at_once(bed: NodeBed) -> None:
    words = ["setpriv", "--reuid=65534", "--clear-groups", "bash", str(SCRIPT), "--name", bed.name, "status"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "need root" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("up", "--nodes", "none"), "--nodes none: give a number"),
        (("up", "--nonsense"), "unknown option --nonsense"),
        (("dance",), "no command dance"),
        (("status",), "there is no test bed nothere"),
        (("exec", "1", "true"), "there is no test bed nothere"),
    ],
)
def test_a_wrong_command_is_one_message(bed: NodeBed, arguments: tuple[str, ...], said: str) -> None:
    done = call_testbed(*arguments, name="nothere")
    assert done.returncode == 1
    assert done.stderr.startswith("testbed: ")
    assert len(done.stderr.splitlines()) == 1
    assert said in done.stderr
