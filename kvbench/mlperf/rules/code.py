"""Rules 2.1.6 and CHECK-01 to CHECK-04: the source that ran is in the tree, and every leaf says which it is.

Source stands as images in pools, and each leaf points at one. Trees of before have directories called `code`.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

from kvbench.mlperf.rules.registry import Problem, rule
from kvbench.mlperf.tree.code_hash import (
    ALGORITHM,
    HASH_NAME,
    OLD_ALGORITHM,
    code_files,
    code_hash,
    image_hashes,
    is_git_sha,
    is_hash,
)
from kvbench.mlperf.tree.code_images import POINTER_NAME, SHARED_POOL, Image, Pool, image_for
from kvbench.mlperf.tree.document import Document, read_document
from kvbench.mlperf.tree.parts import WORKLOAD, Run, Submitter, Tree
from kvbench.mlperf.tree.recorded import Recorded
from kvbench.mlperf.tree.untrusted import MISSING, Unreadable, dig, shown

_CHECKSUM: Final = "_validated_pool_hash"
_WHOLE_POINTER: Final = "one line, md5-tree-v2: and 32 hexadecimal digits in lower case"
OF_BEFORE: Final = "a tree of the form before v3.0 was published, without code images"


def _no_leaf(tree: Tree) -> str:
    if not any(True for _ in tree.runs()):
        return "no run"
    return "" if any(True for _ in _leaves(tree)) else OF_BEFORE


def _no_image(tree: Tree) -> str:
    if any(pool.images for pool in tree.pools):
        return ""
    return OF_BEFORE if any(submitter.old for submitter in tree.submitters()) else "no code image in the tree"


def _nothing_of_code(tree: Tree) -> str:
    newer = [submitter for submitter in tree.submitters() if not submitter.old]
    code = any(True for submitter in newer for _ in _code_directories(submitter))
    return "" if tree.pools or code else _no_leaf(tree) or "no pool of code images"


def _no_source(tree: Tree) -> str:
    if any(submitter.old for submitter in tree.submitters()):
        some = any(True for submitter in tree.submitters() if submitter.old for _ in _code_directories(submitter))
        return "" if some else "no directory of code"
    return (
        "" if any(_image_of(tree, run) is not None for run in _leaves(tree)) else "no leaf that points at a code image"
    )


@rule("2.1.6", "codeDirectoryContents", Tree, nothing=_no_source)
def code_directory_contents(tree: Tree) -> Iterator[Problem]:
    """The images that leaves point at hold source, of the commit that ran; so do the code directories of before."""
    used: dict[Path, tuple[Image, list[Run]]] = {}
    for run in _leaves(tree):
        if (image := _image_of(tree, run)) is not None:
            used.setdefault(image.path, (image, []))[1].append(run)
    for image, runs in used.values():
        if not code_files(image.path):
            yield Problem(image.path, "no source code", "the source that ran")
        yield from _commits(image.recorded, runs)
    for submitter in tree.submitters():
        if submitter.old:
            found = "the form of drafts: code directories, no code images, no pointers to them"
            wanted = "the form of v3.0 as published; it is checked by the rules of before"
            yield Problem(submitter.path, found, wanted, "note")
            for path, runs in _code_directories(submitter):
                yield from _check_directory(path, runs)


@rule("CHECK-01", "codeImagePointer", Tree, nothing=_no_leaf)
def code_image_pointer(tree: Tree) -> Iterator[Problem]:
    """Every leaf points at an image that is there, the one that its metadata names."""
    for run in _leaves(tree):
        pointer, digest = run.pointer, run.pointer.digest
        if not pointer.document.readable:
            yield Problem(pointer.path, pointer.document.problem, f"a file {POINTER_NAME} that names the code image")
            continue
        if digest is None:
            yield Problem(pointer.path, shown(pointer.document.content), _WHOLE_POINTER)
            continue
        told = run.metadata.argument(_CHECKSUM)
        if told is not MISSING and told != digest:
            place = run.metadata.document.path
            yield Problem(place, f"args.{_CHECKSUM} {shown(told)}", f"{digest}, as in {POINTER_NAME} of the leaf")
        if image_for(tree.pools, run.submitter, digest) is None:
            wanted = f"an image code-{digest[:8]} in {SHARED_POOL} or in the pool of {shown(run.submitter)}"
            yield Problem(pointer.path, f"the hash {digest}, of which no pool has an image", wanted)


@rule("CHECK-02", "codeImageHash", Tree, nothing=_no_image)
def code_image_hash(tree: Tree) -> Iterator[Problem]:
    """An image's name, its recorded hash and its content agree."""
    for pool in tree.pools:
        for image in pool.images:
            yield from _hash_file(image.recorded, ALGORITHM)
            digest = image.digest
            if digest is None or not is_hash(digest):
                continue
            if image.name != f"code-{digest[:8]}":
                yield Problem(image.path, f"the name {shown(image.name)}", f"code-{digest[:8]}, as its hash begins")
            yield from _content(image, digest)


@rule("CHECK-03", "codeImageUse", Tree, nothing=_no_image)
def code_image_use(tree: Tree) -> Iterator[Problem]:
    """No image that no leaf points at."""
    for pool in tree.pools:
        users = [submitter for submitter in tree.submitters() if pool.shared or submitter.name == pool.name]
        pointers = [pointer for submitter in users for pointer in submitter.pointers]
        lost = [
            run for run in _leaves(tree) if _image_of(tree, run) is None and (pool.shared or run.submitter == pool.name)
        ]
        used = {image.path for p in pointers if p.digest and (image := image_for([pool], pool.name, p.digest))}
        for image in pool.images:
            if image.path in used:
                continue
            if lost:
                leaves = "1 leaf points" if len(lost) == 1 else f"{len(lost)} leaves point"
                found = f"whether {shown(image.name)} is used, as {leaves} at no image"
                yield Problem(image.path, found, "leaves that point at images", "not checked")
            else:
                yield Problem(image.path, "an image that no leaf points at", "images of the code that ran alone")


@rule("CHECK-04", "codeImagePool", Tree, nothing=_nothing_of_code)
def code_image_pool(tree: Tree) -> Iterator[Problem]:
    """Images stand in pools with a marker; there is no code where drafts had it."""
    for pool in tree.pools:
        yield from _marker(pool)
    for submitter in tree.submitters():
        if submitter.old:
            continue
        for path, _ in _code_directories(submitter):
            yield Problem(path, "a directory called code", f"source as code images, in {SHARED_POOL} at the top")


def _marker(pool: Pool) -> Iterator[Problem]:
    marker = pool.marker
    if not marker.readable:
        yield Problem(marker.path, marker.problem, "a marker in a pool of code images")


def _leaves(tree: Tree) -> Iterator[Run]:
    """The runs that have to point at an image."""
    return (run for run in tree.runs() if not run.old)


def _image_of(tree: Tree, run: Run) -> Image | None:
    digest = run.pointer.digest
    return None if digest is None else image_for(tree.pools, run.submitter, digest)


def _code_directories(submitter: Submitter) -> Iterator[tuple[Path, list[Run]]]:
    """Where drafts had the code, as far as there is any, each with the runs of its code."""
    if submitter.has("code") and (submitter.division == "closed" or not submitter.old):
        yield submitter.path / "code", [run for system in submitter.systems for run in system.runs]
    if submitter.division == "closed" and submitter.old:
        return
    for system in submitter.systems:
        if any(entry.name == "code" and entry.kind == "directory" for entry in system.workload):
            yield system.path / WORKLOAD / "code", list(system.runs)


def _check_directory(code: Path, runs: list[Run]) -> Iterator[Problem]:
    document = read_document(code / HASH_NAME)
    yield from _hash_file(document, OLD_ALGORITHM)
    if not document.readable:
        return
    recorded = dig(document.content, "hash")
    if not code_files(code, OLD_ALGORITHM):
        yield Problem(code, "no source code", "the source that ran")
    try:
        found = code_hash(code, OLD_ALGORITHM)
    except Unreadable as error:
        yield Problem(code, str(error), "code that can be read")
        return
    if is_hash(recorded) and recorded != found:
        yield Problem(code, f"code with the hash {found}", f"code with the recorded hash {recorded}")
    yield from _commits(document, runs)


def _content(image: Image, digest: str) -> Iterator[Problem]:
    if not code_files(image.path):
        yield Problem(image.path, "no source to compute the hash of", "source with the recorded hash", "not checked")
        return
    try:
        found = dict.fromkeys(image_hashes(image.path))
    except Unreadable as error:
        yield Problem(image.path, str(error), "source that can be read")
        return
    if digest not in found:
        yield Problem(
            image.path, f"source with the hash {' or '.join(found)}", f"source with the recorded hash {digest}"
        )


def _hash_file(document: Document, algorithm: str) -> Iterator[Problem]:
    """Whether a .code-hash.json is complete."""
    path, content = document.path, document.content
    if not document.readable:
        yield Problem(path, document.problem, "the hash of the code, and where it is from")
        return
    if not is_hash(recorded := dig(content, "hash")):
        yield Problem(path, f"hash {shown(recorded)}", "32 hexadecimal digits in lower case")
    if (named := dig(content, "algorithm")) != algorithm:
        yield Problem(path, f"algorithm {shown(named)}", algorithm)
    if not _is_utc(captured := dig(content, "captured_at")):
        yield Problem(path, f"captured_at {shown(captured)}", "a time in UTC in ISO 8601, such as 2026-06-16T15:42:11Z")
    version = dig(content, "mlpstorage_version")
    if not isinstance(version, str) or not version:
        yield Problem(path, f"mlpstorage_version {shown(version)}", "the version of the tool that captured the code")
    git_sha = dig(content, "git_sha")
    if git_sha is not None and not is_git_sha(git_sha):
        yield Problem(path, f"git_sha {shown(git_sha)}", "40 hexadecimal digits, or null")


def _commits(document: Document, runs: list[Run]) -> Iterator[Problem]:
    """Runs that recorded another commit than the code is of."""
    git_sha = dig(document.content, "git_sha")
    for run in runs:
        ran = Recorded(run)["git_sha"]
        if isinstance(ran, str) and isinstance(git_sha, str) and ran != git_sha:
            yield Problem(
                Recorded(run).where, f"git_sha {shown(ran)}", f"{shown(git_sha)}, the commit of the code in the tree"
            )


def _is_utc(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        time = datetime.fromisoformat(value)
    except ValueError:
        return False
    return "T" in value and time.utcoffset() == timedelta(0)
