"""A folder that a command makes: it is there whole or not at all, and never in the place of what somebody else has.

All is written below a marked folder beside its place (`unfinished`), which `kvbench clean` knows should the command be
killed, and renamed when it is whole. An existing folder is taken only where it is empty.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kvbench.errors import KvbenchError
from kvbench.records.outputs import check_folder, make_folder
from kvbench.records.unfinished import unfinished_folder

_ADVICE: Final = "give the name of a new folder"
_PREFIX: Final = "kvbench-unfinished-"
_WHOLE: Final = "whole"


def check_new_folder(path: Path) -> None:
    """Look whether `path` may become a folder of a command's own. Nothing is changed. Raises KvbenchError that says why
    not, and what to do."""
    check_folder(path)
    try:
        with os.scandir(path) as entries:
            first = next(entries, None)
        if first is not None:
            raise KvbenchError(f"cannot write into {path}: it is not empty; {_ADVICE}")
        if os.path.samefile(path, os.curdir):
            raise KvbenchError(f"cannot write into {path}: it is the working directory; {_ADVICE}")
    except (FileNotFoundError, NotADirectoryError):
        if path.is_symlink():
            raise KvbenchError(f"cannot write into {path}: it is a link that leads nowhere; {_ADVICE}") from None
    except OSError as error:
        raise KvbenchError(f"cannot write into {path}: {error.strerror}") from error


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A context with an empty folder, which is `path` once the context has ended without an error, and gone otherwise.

    An OSError in the context, and what is found at `path` then, become one KvbenchError.
    """
    check_new_folder(path)
    place = Path(os.path.realpath(path))
    make_folder(place.parent, path.name, "choose another")
    try:
        with unfinished_folder(place.parent, _PREFIX) as unfinished:
            whole = unfinished / _WHOLE
            whole.mkdir()
            yield whole
            # Onto nothing, or an empty folder: the kernel refuses every other.
            whole.rename(place)
    except OSError as error:
        # Libraries have texts of their own.
        reason = os.strerror(error.errno) if error.errno else " ".join(str(error).split())
        raise KvbenchError(f"cannot write into {path}: {reason}; {_ADVICE}") from error
