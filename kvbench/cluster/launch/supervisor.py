"""Runs mpirun for a launcher that may die: `python tether.py PROGRAM ...`, told what to do through standard input.

Nothing travels between ranks. The launcher holds the other end of the pipe: `s` asks the ranks to stop (SIGUSR1, again
and again, as ranks that start meanwhile have not heard it), `t` ends mpirun (SIGTERM, and after 5 s it and its local
ranks are killed), `k` kills them at once. The end of the pipe means that the launcher died, in whatever way, and is
taken as `t`. The exit code is mpirun's, or 1 where it or a rank had not yet learned what SIGUSR1 means, and died of it.

Why a process between: prctl PR_SET_PDEATHSIG instead sends its signal once for each thread of a dying parent, and
Open MPI's mpirun takes a second SIGTERM as an order to leave at once, without its ranks.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time

import psutil

ASK_TO_STOP = b"s"
TERMINATE = b"t"
KILL = b"k"

ADVICE = (
    "'kvbench recover' makes a run file of what was measured, 'kvbench clean' deletes the cache files that are left"
)

_DIED_OF_IT = (-signal.SIGUSR1, 128 + signal.SIGUSR1, int(signal.SIGUSR1))
"""mpirun itself, a rank as Open MPI tells it, and a rank as Hydra does."""

_KILL_AFTER_S = 5.0
_ASK_AGAIN_S = 0.5
_POLL_S = 0.05


def main() -> int:
    """Run the program of the command line and return its exit code."""
    # Only the launcher decides; what hits the whole session is not for this process.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, lambda number, frame: None)
    process = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)
    terminated_s: float | None = None
    asked_s: float | None = None
    killed = False
    listening = True
    while process.poll() is None:
        if asked_s is not None and terminated_s is None and time.monotonic() - asked_s > _ASK_AGAIN_S:
            process.send_signal(signal.SIGUSR1)
            asked_s = time.monotonic()
        if terminated_s is not None and time.monotonic() - terminated_s > _KILL_AFTER_S:
            kill_with_descendants(process)
        if not listening:
            time.sleep(_POLL_S)
            continue
        if not select.select([0], [], [], _POLL_S)[0]:
            continue
        order = os.read(0, 1)
        listening = bool(order)
        if order == ASK_TO_STOP:
            process.send_signal(signal.SIGUSR1)
            asked_s = time.monotonic()
        elif order == KILL:
            killed = True
            kill_with_descendants(process)
        elif terminated_s is None:
            process.terminate()
            terminated_s = time.monotonic()
    code = process.returncode
    if code == 0 and terminated_s is not None:
        # Open MPI's mpirun ends with 0 when it was terminated.
        return 128 + signal.SIGTERM
    if asked_s is not None and code in _DIED_OF_IT:
        return 1
    if code < 0 and terminated_s is None and not killed:
        name = signal.Signals(-code).name
        text = f"kvbench: mpirun on {socket.gethostname()} was killed by {name}; all ranks end. {ADVICE}\n"
        with contextlib.suppress(OSError):
            os.write(2, text.encode(errors="backslashreplace"))
    return code if code >= 0 else 128 - code


def kill_with_descendants(process: subprocess.Popen[bytes]) -> None:
    """Kill mpirun and its ranks on this host, which would outlive it; those elsewhere end with their daemon."""
    try:
        family = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        family = []
    process.kill()
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue


if __name__ == "__main__":
    sys.exit(main())
