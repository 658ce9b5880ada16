"""The command `kvbench`, also as `python -m kvbench`: what has to be so before anything else is imported.

**The working directory is no source of modules.** Python puts it on the path of imports for `python -m`, and for every
empty or relative entry of PYTHONPATH. Whoever may write to it, as everybody may to a folder for temporary files, would
then decide what runs here. Until it is off the path nothing is imported but what every interpreter has already; what
Python itself imports to find this module, only `python -P` keeps from there.

**No threads beside its own.** numpy's OpenBLAS starts a thread for every processor, which spins for a while before it
sleeps. kvbench asks it for nothing, and the ranks of a node of many processors would start thousands.

**No plugins.** pydantic looks through all installed packages for plugins of its own. None has anything to do here, and
every rank would open a file of each package.

**Ctrl-C ends the program without a word.** Loading a command takes some tenths of a second, in which nothing is made.
Until it is loaded Ctrl-C ends this program as it ends any other, without a traceback of Python's; from then on see
`cluster.signals`.
"""

import os
import sys


def main() -> None:
    """Entry point of the command `kvbench`."""
    leave_out_working_directory()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    let_interrupts_end_at_once()
    from kvbench.commands.main import main as command  # noqa: PLC0415 - see above

    command()


def leave_out_working_directory() -> None:
    """Take what stands for the working directory, or leads on from it, off `sys.path`."""
    if __name__ == "__main__" and not sys.flags.safe_path:
        del sys.path[0]
    # Python itself takes an empty variable for none.
    entries = (os.environ.get("PYTHONPATH") or os.sep).split(os.pathsep)
    absolute = {os.path.normpath(entry) for entry in entries if os.path.isabs(entry)}
    relative = {os.path.abspath(entry) for entry in entries if not os.path.isabs(entry)} - absolute
    sys.path[:] = [entry for entry in sys.path if entry and os.path.abspath(entry) not in relative]
    origin = getattr(sys.modules["kvbench"], "__file__", None) or ""
    if os.path.dirname(os.path.abspath(origin)) != os.path.dirname(os.path.abspath(__file__)):
        # A folder called kvbench in the working directory was taken for the package: once more, without it.
        for name in [name for name in sys.modules if name.partition(".")[0] == "kvbench"]:
            del sys.modules[name]


def let_interrupts_end_at_once() -> None:
    """Put the kernel's own answer to Ctrl-C in the place of Python's; what is ignored stays ignored."""
    import signal  # noqa: PLC0415 - not before the path is right

    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


if __name__ == "__main__":
    main()
