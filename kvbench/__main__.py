"""The command `kvbench`, also as `python -m kvbench`: takes the working directory off the path of imports first.

Python puts it there for `python -m`, and for every empty or relative entry of PYTHONPATH. Whoever may write to it, as
everybody may to a folder for temporary files, would then decide what runs here. Nothing is imported before that but
what every interpreter has already; what Python imports to find this module, only `python -P` keeps from there.
"""

import os
import sys


def main() -> None:
    """Entry point of the command `kvbench`."""
    leave_out_working_directory()
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
    if getattr(sys.modules["kvbench"], "__file__", None) is None:
        # A folder called kvbench in the working directory was taken for a part of the package: once more, without it.
        for name in [name for name in sys.modules if name.partition(".")[0] == "kvbench"]:
            del sys.modules[name]


if __name__ == "__main__":
    main()
