"""The hash of a copy of source code, `md5-tree-v1` (Rules.md 2.1.6), and the file that records it.

The MD5 is fed, file by file, with its path relative to the copy (`/` between names, the bytes that the filesystem
holds) and directly after it the file's content. Files come in the order of the bytes of their relative paths. Left out
at every level: names that begin with a dot (and so .code-hash.json), directories called test, tests or __pycache__ or
ending in .egg-info, files ending in .pyc, and symbolic links, which are not followed. Empty directories do not count.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Final

from kvbench.mlperf.tree.untrusted import Unreadable, entries_of, opened

ALGORITHM: Final = "md5-tree-v1"
HASH_NAME: Final = ".code-hash.json"
_DIRECTORIES_LEFT_OUT: Final = frozenset({"test", "tests", "__pycache__"})
_BLOCK_BYTES: Final = 1024 * 1024
_HASH: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SHA: Final = re.compile(r"[0-9a-f]{40}", re.ASCII)


def code_files(root: Path) -> list[Path]:
    """The files below `root` that are part of the hash, in its order."""
    found: list[Path] = []
    directories = [root]
    while directories:
        for entry in entries_of(directories.pop()):
            if entry.hidden:
                continue
            if entry.kind == "directory":
                if entry.name not in _DIRECTORIES_LEFT_OUT and not entry.name.endswith(".egg-info"):
                    directories.append(entry.path)
            elif entry.kind == "file" and not entry.name.endswith(".pyc"):
                found.append(entry.path)
    return sorted(found, key=lambda path: _relative(path, root))


def code_hash(root: Path) -> str:
    """The hash of the copy at `root`. Raises Unreadable where a file cannot be read."""
    digest = hashlib.md5(usedforsecurity=False)
    for path in code_files(root):
        digest.update(_relative(path, root))
        try:
            with opened(path) as descriptor:
                while block := os.read(descriptor, _BLOCK_BYTES):
                    digest.update(block)
        except OSError as error:
            raise Unreadable(f"{path.name} is unreadable ({error.strerror})") from error
    return digest.hexdigest()


def is_hash(value: object) -> bool:
    """Whether `value` looks like a hash of a tree."""
    return isinstance(value, str) and bool(_HASH.fullmatch(value))


def is_git_sha(value: object) -> bool:
    """Whether `value` is the full name of a commit."""
    return isinstance(value, str) and bool(_SHA.fullmatch(value))


def _relative(path: Path, root: Path) -> bytes:
    return os.fsencode(path.relative_to(root).as_posix())
