"""Says `ready`, waits to be told to stop by SIGUSR1, and exits as the command line says.

`stop CODE`: exit with CODE after SIGUSR1. `stubborn`: ignore it. `starting`: end by it, as whoever knows nothing of it.
`exit CODE`: rank 1 exits with CODE at once.
"""

import os
import signal
import sys
import threading
from types import FrameType

from kvbench.cluster.comm import get_world, quiet_barrier


def main() -> int:
    """Behave as told."""
    mode, asked = sys.argv[1], threading.Event()

    def on_signal(number: int, frame: FrameType | None) -> None:
        asked.set()

    if mode != "starting":
        signal.signal(signal.SIGUSR1, signal.SIG_IGN if mode == "stubborn" else on_signal)
    comm = get_world()
    if mode == "exit":
        code = int(sys.argv[2]) if comm.rank == 1 else 0
        if code:
            print(f"rank 1 fails with {code}", file=sys.stderr, flush=True)
        return code
    quiet_barrier(comm)
    if comm.rank == 0:
        print("ready", os.environ["KVBENCH_TEST"], *(str(pid) for pid in (os.getpid(), os.getppid())), flush=True)
    while not asked.is_set():
        asked.wait(0.01)
    # The launcher asks again and again, also while this process ends.
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    print(f"rank {comm.rank} stopped", flush=True)
    return int(sys.argv[2])


sys.exit(main())
