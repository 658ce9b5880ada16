"""Becomes another program that ends when the process which started it ends: `python tether.py PARENT_PID PROGRAM ...`.

Nothing travels between ranks. The kernel sends this process SIGTERM when its parent dies (prctl PR_SET_PDEATHSIG, which
exec keeps), and mpirun on SIGTERM ends its ranks on all nodes. Asked for in a fresh process, after exec and before
PROGRAM, because code between fork and exec is unsafe in a parent that has threads. Linux only: elsewhere PROGRAM just
runs. Uses the standard library alone, as it is started without site-packages.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent and become the program of the command line."""
    parent, program = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            # It died before the kernel was asked.
            sys.exit(1)
    os.execv(program[0], program)


if __name__ == "__main__":
    main()
