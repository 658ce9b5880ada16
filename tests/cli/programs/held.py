"""kvbench, one function or import of which waits for ever: `held.py WHERE FIFO ARGUMENTS OF kvbench`.

WHERE is `module:name` of a function, or `import:module`. It reads from FIFO, which nobody writes to, with the signals
blocked that would wake it, as a call does that goes on whatever comes; after `!module:name` a signal does wake it. Once
the FIFO has ended, all goes on.
"""

import importlib
import importlib.abc
import runpy
import signal
import sys
from functools import reduce
from typing import Any

where, fifo, *arguments = sys.argv[1:]
kind, _, name = where.removeprefix("!").rpartition(":")
WAKING = () if where.startswith("!") else (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def wait() -> None:
    """Read to the end of the FIFO."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WAKING)
    with open(fifo, "rb") as file:
        file.read()
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


class Finder(importlib.abc.MetaPathFinder):
    """Finds nothing; waits when the module is looked for."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == name:
            wait()


def held(*positional: Any, **named: Any) -> Any:
    """The function, after the wait."""
    wait()
    return function(*positional, **named)


if kind == "import":
    sys.meta_path.insert(0, Finder())
else:
    *owners, last = name.split(".")
    owner = reduce(getattr, owners, importlib.import_module(kind))
    function = getattr(owner, last)
    setattr(owner, last, held)
sys.argv[:] = ["kvbench", *arguments]
runpy.run_module("kvbench", run_name="__main__", alter_sys=False)
