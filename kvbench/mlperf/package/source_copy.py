"""A copy of the source that ran, with the file that records its hash (rule 2.1.6).

From a checkout the commit that ran is taken out of git; without one (an installed package, or a checkout with changes)
the modules that are installed now are copied, which have to be of the version that ran.
"""

import json
import os
import shutil
import subprocess
import tarfile
from datetime import UTC, datetime
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Final

import kvbench
from kvbench.errors import KvbenchError
from kvbench.mlperf.tree.code_hash import HASH_NAME, OLD_ALGORITHM, code_files, code_hash, is_git_sha

_PACKAGES: Final = ("kvbench", "kvbench_analysis", "kvbench_configs")
_BUILT: Final = frozenset({".so", ".pyd"})
"""What a compiler made of the source; the copy holds the source."""
_LONGEST_S: Final = 120


def copy_source(target: Path, version: str, git_sha: str | None) -> str:
    """Copy the source of kvbench `version`, at the commit `git_sha` where one is known, to `target`, which is made.

    Returns the hash that was recorded. Raises KvbenchError where that source is not to be had.
    """
    archive = None
    if is_git_sha(git_sha):
        archive = _git("archive", "--format=tar", str(git_sha))
        if archive is None:
            raise KvbenchError(
                f"the results are of the commit {git_sha}, which is not in a checkout that this kvbench runs from: "
                "rule 2.1.6 codeDirectoryContents wants the source that ran; package them from that checkout"
            )
    elif version != kvbench.__version__:
        raise KvbenchError(
            f"the results are of kvbench {version}, and this is {kvbench.__version__}: rule 2.1.6 "
            "codeDirectoryContents wants the source that ran; package them with that version"
        )
    target.mkdir(parents=True)
    if archive is not None:
        with tarfile.open(fileobj=BytesIO(archive)) as tar:
            if hasattr(tarfile, "data_filter"):
                tar.extractall(target, filter="data")
            else:  # before 3.11.4; it is kvbench's own repository
                tar.extractall(target)
        _leave_out(target)
    else:
        for name in _PACKAGES:
            _copy_package(name, target / name)
    digest = code_hash(target, OLD_ALGORITHM)
    content = {
        "hash": digest,
        "algorithm": OLD_ALGORITHM,
        "captured_at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "mlpstorage_version": f"kvbench {version}",
        "git_sha": git_sha if is_git_sha(git_sha) else None,
    }
    (target / HASH_NAME).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return digest


def head_of_checkout() -> str | None:
    """The commit that the checkout of kvbench is at; None where it is none."""
    answer = _git("rev-parse", "HEAD")
    return None if answer is None else answer.decode("ascii", "replace").strip()


def _git(*words: str) -> bytes | None:
    """What git says in the checkout of kvbench; None where there is none, or it fails."""
    root = Path(kvbench.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(["git", "-C", str(root), *words], capture_output=True, timeout=_LONGEST_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout if answer.returncode == 0 else None


def _leave_out(target: Path) -> None:
    """Remove what the hash does not count, so that the copy is what is hashed."""
    kept = set(code_files(target, OLD_ALGORITHM))
    for directory, _, names in os.walk(target, topdown=False):
        place = Path(directory)
        for name in names:
            if place / name not in kept:
                (place / name).unlink()
        if place != target and not any(place.iterdir()):
            place.rmdir()


def _copy_package(name: str, target: Path) -> None:
    spec = find_spec(name)
    places = list(spec.submodule_search_locations or ()) if spec else []
    if not places:
        raise KvbenchError(f"the source of {name} is not to be found: is kvbench installed?")
    source = Path(places[0])
    for path in code_files(source, OLD_ALGORITHM):
        if path.suffix not in _BUILT:
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
