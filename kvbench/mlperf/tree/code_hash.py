"""The hash of a copy of source code (Rules.md 2.1.6), and the file that records it.

The MD5 is fed, file by file, with its path relative to the copy (`/` between names, the bytes that the filesystem
holds) and directly after it the file's content. Files come in the order of the bytes of their relative paths. Symbolic
links are not followed, and empty directories do not count.

`md5-tree-v2` leaves out the directories and files of two lists; by the rules at any depth, by one version of the
reference tool only at the top: both are tried. `md5-tree-v1`, of drafts, leaves out at every level names that begin
with a dot, directories called test, tests or __pycache__ or ending in .egg-info, and files ending in .pyc.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Final

from kvbench.mlperf.tree.untrusted import Entry, Unreadable, entries_of, opened

ALGORITHM: Final = "md5-tree-v2"
OLD_ALGORITHM: Final = "md5-tree-v1"
HASH_NAME: Final = ".code-hash.json"
_OLD_DIRECTORIES: Final = frozenset({"test", "tests", "__pycache__"})
_DIRECTORIES: Final = frozenset(
    {".git", ".idea", ".vscode", ".claude", ".agent", ".agents", ".roo", ".planning", ".gsd-tmp", ".venv", ".tox"}
    | {"__pycache__", ".pytest_cache", "node_modules", "build", "dist", "test", "tests"}
)
_FILES: Final = frozenset({HASH_NAME, ".DS_Store", "Thumbs.db"})
_COMPILED: Final = (".pyc", ".pyo")
_BLOCK_BYTES: Final = 1024 * 1024
_HASH: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SHA: Final = re.compile(r"[0-9a-f]{40}", re.ASCII)


def code_files(root: Path, algorithm: str = ALGORITHM, *, at_any_depth: bool = True) -> list[Path]:
    """The files below `root` that are part of the hash, in its order."""
    old = algorithm == OLD_ALGORITHM
    found: list[Path] = []
    directories = [root]
    while directories:
        directory = directories.pop()
        for entry in entries_of(directory):
            if entry.kind == "directory":
                everywhere = old or at_any_depth or directory == root
                if not (everywhere and _leaves_out_directory(entry, old)):
                    directories.append(entry.path)
            elif entry.kind == "file" and not _leaves_out_file(entry, old):
                found.append(entry.path)
    return sorted(found, key=lambda path: _relative(path, root))


def code_hash(root: Path, algorithm: str = ALGORITHM, *, at_any_depth: bool = True) -> str:
    """The hash of the copy at `root`. Raises Unreadable where a file cannot be read."""
    digest = hashlib.md5(usedforsecurity=False)
    for path in code_files(root, algorithm, at_any_depth=at_any_depth):
        digest.update(_relative(path, root))
        try:
            with opened(path) as descriptor:
                while block := os.read(descriptor, _BLOCK_BYTES):
                    digest.update(block)
        except OSError as error:
            raise Unreadable(f"{path.name} is unreadable ({error.strerror})") from error
    return digest.hexdigest()


def image_hashes(root: Path) -> tuple[str, str]:
    """`md5-tree-v2` of the copy at `root` by both readings: directories left out at any depth, and at the top alone."""
    return code_hash(root), code_hash(root, at_any_depth=False)


def is_hash(value: object) -> bool:
    """Whether `value` looks like a hash of a tree."""
    return isinstance(value, str) and bool(_HASH.fullmatch(value))


def is_git_sha(value: object) -> bool:
    """Whether `value` is the full name of a commit."""
    return isinstance(value, str) and bool(_SHA.fullmatch(value))


def _leaves_out_directory(entry: Entry, old: bool) -> bool:
    if old:
        return entry.hidden or entry.name in _OLD_DIRECTORIES or entry.name.endswith(".egg-info")
    return entry.name in _DIRECTORIES or entry.name.endswith(".egg-info")


def _leaves_out_file(entry: Entry, old: bool) -> bool:
    if old:
        return entry.hidden or entry.name.endswith(".pyc")
    return entry.name in _FILES or entry.name.endswith(_COMPILED)


def _relative(path: Path, root: Path) -> bytes:
    return os.fsencode(path.relative_to(root).as_posix())
