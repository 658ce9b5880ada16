"""Rule 2.1.6: the source that ran is in the tree, and its recorded hash is that of what is there."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

from kvbench.mlperf.rules.registry import Problem, rule
from kvbench.mlperf.tree.code_hash import HASH_NAME, OLD_ALGORITHM, code_files, code_hash, is_git_sha, is_hash
from kvbench.mlperf.tree.document import read_document
from kvbench.mlperf.tree.parts import WORKLOAD, Run, Submitter
from kvbench.mlperf.tree.recorded import Recorded
from kvbench.mlperf.tree.untrusted import Unreadable, dig, shown


def _no_code(submitter: Submitter) -> str:
    return "" if any(_code_directories(submitter)) else "no directory of code"


@rule("2.1.6", "codeDirectoryContents", Submitter, nothing=_no_code)
def code_directory_contents(submitter: Submitter) -> Iterator[Problem]:
    """Every code directory has a .code-hash.json that is complete, and whose hash recomputes."""
    for path, runs in _code_directories(submitter):
        yield from _check(path, runs)


def _code_directories(submitter: Submitter) -> Iterator[tuple[Path, list[Run]]]:
    """Those that are there, each with the runs of its code."""
    if submitter.division == "closed":
        if submitter.has("code"):
            yield submitter.path / "code", [run for system in submitter.systems for run in system.runs]
        return
    for system in submitter.systems:
        if any(entry.name == "code" and entry.kind == "directory" for entry in system.workload):
            yield system.path / WORKLOAD / "code", list(system.runs)


def _check(code: Path, runs: list[Run]) -> Iterator[Problem]:
    document = read_document(code / HASH_NAME)
    path, content = document.path, document.content
    if not document.readable:
        yield Problem(path, document.problem, "the hash of the code, and where it is from")
        return
    recorded = dig(content, "hash")
    if not is_hash(recorded):
        yield Problem(path, f"hash {shown(recorded)}", "32 hexadecimal digits in lower case")
    if (algorithm := dig(content, "algorithm")) != OLD_ALGORITHM:
        yield Problem(path, f"algorithm {shown(algorithm)}", OLD_ALGORITHM)
    if not _is_utc(captured := dig(content, "captured_at")):
        yield Problem(path, f"captured_at {shown(captured)}", "a time in UTC in ISO 8601, such as 2026-06-16T15:42:11Z")
    version = dig(content, "mlpstorage_version")
    if not isinstance(version, str) or not version:
        yield Problem(path, f"mlpstorage_version {shown(version)}", "the version of the tool that captured the code")
    git_sha = dig(content, "git_sha")
    if git_sha is not None and not is_git_sha(git_sha):
        yield Problem(path, f"git_sha {shown(git_sha)}", "40 hexadecimal digits, or null")
    if not code_files(code, OLD_ALGORITHM):
        yield Problem(code, "no source code", "the source that ran")
    try:
        found = code_hash(code, OLD_ALGORITHM)
    except Unreadable as error:
        yield Problem(code, str(error), "code that can be read")
        return
    if is_hash(recorded) and recorded != found:
        yield Problem(code, f"code with the hash {found}", f"code with the recorded hash {recorded}")
    for run in runs:
        ran = Recorded(run)["git_sha"]
        if isinstance(ran, str) and git_sha is not None and ran != git_sha:
            yield Problem(
                run.sequence.path, f"git_sha {shown(ran)}", f"{shown(git_sha)}, the commit of the code in the tree"
            )


def _is_utc(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return False
    return "T" in value and time.utcoffset() == timedelta(0)
