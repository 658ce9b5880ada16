"""Runs `kvbench ARGUMENTS` as one rank and prints, as JSON lines, every path that Python was asked to change or run.

What the C extension opens it opens below a directory's descriptor, by a name of 16 hexadecimal digits: the test looks
at what is there afterwards.
"""

import json
import os
import sys

from kvbench.commands.main import main as run_command
from kvbench.commands.table import COMMANDS

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_PATHS = {
    "os.mkdir": (0,), "os.rename": (0, 1), "os.remove": (0,), "os.rmdir": (0,), "os.link": (0, 1), "os.symlink": (0, 1),
    "os.chmod": (0,), "os.chown": (0,), "os.truncate": (0,), "shutil.rmtree": (0,), "os.exec": (0,), "os.system": (0,),
    "subprocess.Popen": (0,), "os.posix_spawn": (0,), "pickle.find_class": (0, 1),
}  # fmt: skip
_DIRECTORIES = {"os.mkdir": (2,), "os.rename": (2, 3), "os.remove": (1,), "os.rmdir": (1,)}
"""Where the descriptors stand of the directories that paths are relative to; -1: the working directory."""
watching = False


def below(path: object, directory: object) -> object:
    """`path` as it is from the root, where it is given relative to an open directory."""
    if isinstance(path, str | bytes) and isinstance(directory, int) and directory >= 0:
        return os.path.join(os.readlink(f"/proc/self/fd/{directory}"), os.fsdecode(path))
    return path


def look(event: str, arguments: tuple[object, ...]) -> None:
    """Told of every event by the interpreter."""
    if not watching:
        return
    seen: list[object] = []
    if event == "open":
        path, _, flags = arguments
        if isinstance(path, str | bytes) and isinstance(flags, int) and flags & _WRITING:
            seen = [path]
    else:
        seen = [arguments[place] for place in _PATHS.get(event, ()) if place < len(arguments)]
        relative = [arguments[place] for place in _DIRECTORIES.get(event, ()) if place < len(arguments)]
        seen = [*map(below, seen, relative), *seen[len(relative) :]]
    for one in seen:
        print(json.dumps([event, os.fsdecode(one) if isinstance(one, str | bytes | os.PathLike) else repr(one)]))


def main() -> None:
    """Import all there is first, so that what is seen is what the command does."""
    global watching  # noqa: PLW0603 - the hook cannot be taken off again
    for entry in COMMANDS.values():
        if entry.place:
            entry.command()
    sys.addaudithook(look)
    watching = True
    run_command()


main()
