"""What a program asked of the kernel about files, read from strace's output: calls by object, in order, in plain words.

A call is one text: what was asked, with the flags and sizes that count. Left out is what asks nothing of the storage:
where a file is positioned, whether it is a terminal, its size by its descriptor; and what failed, but for look-ups of
what is not there.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

MARK: Final = "/kvbench-twins/"
"""A path that begins so is asked for to say which phase begins."""
TRACED: Final = "file,desc,io_submit,io_uring_enter"
"""What strace is to show."""
AT_ONCE: Final = "at once"
"""Instead of a path: of a call that hands the kernel several requests, `what` is their number."""

_LINE: Final = re.compile(r"(?:(\d+) +)?(\w+)\((.*)\) += (-?\d+|\?)(?: (E\w+))?.*")
_UNFINISHED: Final = re.compile(r"(\d+) +(.*) <unfinished \.\.\.>")
_RESUMED: Final = re.compile(r"(\d+) +<\.\.\. \w+ resumed>(.*)")
_TEXT: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_FLAGS: Final = {"O_CREAT": "create", "O_EXCL": "exclusive", "O_TRUNC": "truncate", "O_DIRECT": "direct"}
_LOOKS: Final = {"stat", "lstat", "newfstatat", "statx", "access", "faccessat", "faccessat2"}
_MOVES: Final = {
    "read": "read", "pread64": "read", "readv": "read", "preadv": "read", "preadv2": "read",
    "write": "write", "pwrite64": "write", "writev": "write", "pwritev": "write", "pwritev2": "write",
}  # fmt: skip
_PLACED: Final = {"pread64", "preadv", "pwrite64", "pwritev"}
_AIO: Final = re.compile(r"IOCB_CMD_P(READ|WRITE)V?, aio_fildes=(\d+).*?aio_nbytes=(\d+), aio_offset=(\d+)")
_SYNCS: Final = {"fsync", "fdatasync", "syncfs", "sync_file_range", "fallocate", "ftruncate"}
_OPENS: Final = {"open", "openat", "creat"}
_COPIES: Final = {"dup", "dup2", "dup3", "fcntl"}


@dataclass(frozen=True, slots=True)
class Call:
    """One call that succeeded, or was a look-up that found nothing."""

    phase: str
    thread: int
    path: str
    """The file's; of a rename, the new name."""
    what: str
    before: str = ""
    """Of a rename, the old name."""
    offset: int = -1
    """Of what is read or written, in the file; -1: not said."""


@dataclass(slots=True)
class _Line:
    """A call as strace has it."""

    thread: int
    name: str
    text: str
    """Its arguments."""
    result: int
    error: str

    @property
    def descriptor(self) -> int:
        """The first argument; -1 where it is none."""
        found = re.match(r"\d+", self.text)
        return int(found[0]) if found else -1


@dataclass(slots=True)
class _Reader:
    """What descriptors stand for, and which phase it is, as calls go by."""

    phase: str = ""
    names: dict[int, str] = field(default_factory=dict)

    def read(self, line: _Line) -> Iterator[Call]:
        if line.name in {"io_submit", "io_uring_enter"}:
            yield from self._of_requests(line)
            return
        paths = self._paths(line)
        if paths and paths[0].startswith(MARK):
            self.phase = paths[0].removeprefix(MARK)
        elif paths:
            yield from self._of_names(line, paths)
        elif line.descriptor in self.names and line.result >= 0:
            yield from self._of_open_file(line, self.names[line.descriptor])

    def _paths(self, line: _Line) -> list[str]:
        """What stands in quotes and is a path, whole."""
        if line.name in _MOVES or line.name in _SYNCS:
            return []
        texts = [text.replace('\\"', '"').replace("\\\\", "\\") for text in _TEXT.findall(line.text)]
        folder = self.names.get(line.descriptor, "")
        return [text if text.startswith("/") or not folder else f"{folder}/{text}" for text in texts if text]

    def _of_names(self, line: _Line, paths: list[str]) -> Iterator[Call]:
        path, what, before = paths[0], "", ""
        if line.name in _OPENS:
            if line.result >= 0:
                self.names[line.result] = path
                what = _opening(line.text)
            elif line.error == "ENOENT":
                what = "open: not there"
        elif line.name in _LOOKS:
            what = {"": "look up: there", "ENOENT": "look up: not there"}.get(line.error, "")
        elif line.name in {"mkdir", "mkdirat"}:
            what = {"": "make folder", "EEXIST": "make folder: there"}.get(line.error, "")
        elif line.name in {"rename", "renameat", "renameat2"} and line.result == 0:
            what, before, path = "rename", paths[0], paths[1]
        elif line.name in {"unlink", "unlinkat"} and line.result == 0:
            what = "delete"
        if what:
            yield Call(self.phase, line.thread, path, what, before)

    def _of_requests(self, line: _Line) -> Iterator[Call]:
        """What of a ring is asked for lies in memory, where no trace shows it."""
        if line.result > 0:
            yield Call(self.phase, line.thread, AT_ONCE, str(line.result))
        for does, file, nbytes, offset in _AIO.findall(_TEXT.sub("", line.text)):
            what = f"{does.lower()} {nbytes}, not waited for"
            yield Call(self.phase, line.thread, self.names.get(int(file), ""), what, offset=int(offset))

    def _of_open_file(self, line: _Line, path: str) -> Iterator[Call]:
        what, offset = "", -1
        if line.name in _MOVES:
            what = f"{_MOVES[line.name]} {line.result}"
            if line.name in _PLACED and (found := re.search(r", (\d+)$", line.text)):
                offset = int(found[1])
        elif line.name in _SYNCS:
            what = line.name
        elif line.name == "fadvise64":
            what = "advise"
        elif line.name in _COPIES and line.result > 2 and "F_GET" not in line.text and "F_SET" not in line.text:
            self.names[line.result] = path
        elif line.name == "close":
            del self.names[line.descriptor]
            # A descriptor that was copied is closed with the last of them.
            what = "" if path in self.names.values() else "close"
        if what:
            yield Call(self.phase, line.thread, path, what, offset=offset)


def read_calls(trace: Path) -> Iterator[Call]:
    """The calls in `trace` (of `strace -f -e trace=TRACED`) on files, in order."""
    reader = _Reader()
    for line in _whole(trace):
        yield from reader.read(line)


def by_object(calls: Iterable[Call], is_object: Callable[[str], bool]) -> dict[str, list[Call]]:
    """The calls on each file that `is_object` says is one, in order of their first; those on the name that it had
    before it was renamed are among them."""
    listed = list(calls)
    last_name = {call.before: call.path for call in listed if call.before and is_object(call.path)}
    found: dict[str, list[Call]] = {}
    for call in listed:
        path = last_name.get(call.path, call.path)
        if is_object(path):
            found.setdefault(path, []).append(call)
    return found


def _whole(trace: Path) -> Iterator[_Line]:
    """Each call that returned."""
    begun: dict[str, str] = {}
    with trace.open(encoding="utf-8", errors="replace") as lines:
        for text in lines:
            line = text
            if unfinished := _UNFINISHED.match(line):
                begun[unfinished[1]] = unfinished[2]
                if unfinished[2].startswith("close("):
                    # Another thread can be given the same number before this one hears that it is free.
                    del begun[unfinished[1]]
                    yield _Line(int(unfinished[1]), "close", unfinished[2].removeprefix("close("), 0, "")
                continue
            if resumed := _RESUMED.match(line):
                line = f"{resumed[1]} {begun.pop(resumed[1], '')}{resumed[2]}"
            if (found := _LINE.match(line)) and found[4] != "?":
                yield _Line(int(found[1] or 0), found[2], found[3], int(found[4]), found[5] or "")


def _opening(text: str) -> str:
    flags = [word for flag, word in _FLAGS.items() if re.search(rf"\b{flag}\b", text)]
    does = "write" if re.search(r"\bO_(WRONLY|RDWR)\b", text) else "read"
    return f"open to {does}" + "".join(f", {flag}" for flag in flags)
