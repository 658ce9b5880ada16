"""The files that a trace is of: one, those of a folder, or those that a pattern of paths matches. Reads none."""

import glob
from pathlib import Path

from kvbench.errors import KvbenchError


def trace_files(path: str | Path) -> list[Path]:
    """The files of the trace at `path`, in order of their names: the file or pipe itself; all files that lie directly
    in a folder, but those whose names begin with a dot; or what a pattern like `traces/*.json` matches.

    Raises KvbenchError where these are none. What is no folder and no pattern is left to whoever opens it.
    """
    text = str(path)
    if "\0" in text:
        return [Path(path)]
    given = Path(path)
    if given.is_dir():
        return _in_folder(given)
    if given.exists() or not glob.has_magic(text):
        return [given]
    found = sorted(Path(name) for name in glob.glob(text, recursive=True))
    files = [file for file in found if not file.is_dir()]
    if not files:
        raise KvbenchError(f"cannot read trace {text}: no file matches this pattern (give the path of a trace file)")
    return files


def _in_folder(folder: Path) -> list[Path]:
    try:
        found = sorted(folder.iterdir())
    except OSError as error:
        raise KvbenchError(f"cannot read trace {folder}: {error.strerror}") from error
    files = [file for file in found if not file.name.startswith(".") and not file.is_dir()]
    if not files:
        raise KvbenchError(
            f"cannot read trace {folder}: this directory has no files (give a trace file, a directory of some, or a "
            f"pattern: '{folder}/*/*.json')"
        )
    return files
