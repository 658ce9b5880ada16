"""Leaves out mpirun's own notice that a rank exited with an error, after the rank itself has said why.

Nothing travels between ranks. It only removes whole notices of Open MPI (framed by lines of 74 dashes) that begin
with one of a few known sentences and name an exit code that kvbench itself gives (1, 2, 130), and one line of Open
MPI's daemon, which could not tell of that exit to a rank that had ended too; and one line that mpirun prints by
chance and that means nothing (its ssh was running before mpirun gave it a process group). Everything else passes byte
for byte, and so does a notice in any other form. A signal that killed a rank is told, but for the one by which ranks
are asked to stop, which ends those that have just been started.
"""

import re
from typing import Final

_FRAME: Final = b"-" * 74 + b"\n"
_MOST_BYTES: Final = 2000
"""A longer text between two frames is no notice."""

_EXITED: Final = re.compile(
    rb"(prterun|mpirun) (detected that|noticed that) one or more processes exited with non-zero status"
    rb".*?Exit code:\s*(1|2|130)\s*\n",
    re.DOTALL,
)
_ABORTED: Final = re.compile(rb"MPI_ABORT was invoked on rank \d+ in communicator .*?[Ee]rrorcode:?\s*1\b", re.DOTALL)
_BY_ABORT: Final = re.compile(rb'(prterun|mpirun) has exited due to process rank \d+ .*?calling\s"abort"', re.DOTALL)
_ASKED: Final = re.compile(
    rb"(prterun|mpirun) noticed that process rank \d+ with PID \d+ on node \S+ exited on\s+"
    rb"signal \d+ \(User defined signal 1\)"
)
_UNREACHED: Final = re.compile(rb"\[[^\]\n]*:\d+\] PMIX ERROR: PMIX_ERR_UNREACH in file .*pmix_server\.c at line \d+\n")
_SETPGID: Final = re.compile(
    rb"\[[^\]\n]*:\d+\] plm:ssh: Warning: setpgid\(\d+,\d+\) failed in parent with errno=[^\n]*\n"
)
_LONGEST_LINE: Final = 300
_LOST: Final = re.compile(
    rb"PRTE has lost communication with a remote daemon.*?Remote daemon: \[.*?\] on node (\S+)\s", re.DOTALL
)
_FAILED: Final = re.compile(rb"A daemon failed to report back.*?Remote host: +(\S+)\s", re.DOTALL)
_CLOSED: Final = re.compile(rb"^Connection to (\S+) closed by remote host", re.MULTILINE)
"""Of ssh, through which Open MPI starts its daemons; its own notice of that goes to standard output."""
_SPOKE: Final = re.compile(rb"^kvbench: ", re.MULTILINE)
_TOLD: Final = re.compile(rb"^kvbench: .*; all ranks end", re.MULTILINE)
_KNOWN: Final = (_EXITED, _ABORTED, _BY_ABORT)
_STARTS: Final = (b"prterun detected", b"prterun noticed", b"mpirun detected", b"mpirun noticed")
_STARTS_ABORT: Final = (b"MPI_ABORT was invoked", b"prterun has exited", b"mpirun has exited")


class BoilerplateFilter:
    """Feed it a stream in pieces of any size; it gives back what is to be shown."""

    def __init__(self) -> None:
        self.asked = False
        """Whether the ranks were asked to stop."""
        self._held = b""
        self._line_start = True
        self._after_notice = False

    def feed(self, piece: bytes) -> bytes:
        """What can be shown after `piece`; a possible notice is held back until it is whole."""
        data = self._held + piece
        self._held = b""
        shown = bytearray()
        while data:
            if self._after_notice:
                # Open MPI 5 ends some notices with a zero byte.
                data, self._after_notice = data.removeprefix(b"\0"), False
                continue
            if self._line_start and data.startswith(b"["):
                if b"\n" not in data and len(data) < _LONGEST_LINE:
                    self._held = data
                    break
                harmless = _UNREACHED.match(data) or _SETPGID.match(data)
                if harmless:
                    data = data[harmless.end() :]
                    continue
            if not self._line_start or not _may_begin(data):
                end = data.find(b"\n") + 1
                line = data[:end] if end else data
                shown += line
                self._line_start = bool(end)
                data = data[len(line) :]
                continue
            end = data.find(_FRAME, len(_FRAME))
            if end < 0 and len(data) <= _MOST_BYTES:
                self._held = data
                break
            notice = data[: end + len(_FRAME)] if 0 <= end <= _MOST_BYTES else b""
            known = (*_KNOWN, _ASKED) if self.asked else _KNOWN
            if notice and any(pattern.match(notice, len(_FRAME)) for pattern in known):
                data, self._after_notice = data[len(notice) :], True
            else:
                shown += _FRAME
                data = data[len(_FRAME) :]
        return bytes(shown)

    def end(self) -> bytes:
        """What is still held when the stream ends."""
        held, self._held = self._held, b""
        return held


class LossListener:
    """Feed it what mpirun says; it knows then whether mpirun lost a node, and whether a rank has told of it.

    Open MPI 5.0.11's mpirun that lost one of its daemons ends with exit code 0, and mostly before it has passed on what
    the ranks say of it.
    """

    def __init__(self) -> None:
        self.node: str | None = None
        """Where the daemon was that mpirun lost."""
        self.told = False
        self.spoke = False
        """A rank has said something."""
        self._recent = b""

    def feed(self, piece: bytes) -> None:
        """Look at the next piece of the stream."""
        self._recent = (self._recent + piece)[-_MOST_BYTES - len(piece) :]
        self.spoke |= _SPOKE.search(self._recent) is not None
        self.told |= _TOLD.search(self._recent) is not None
        for notice in (_LOST, _FAILED, _CLOSED):
            found = notice.search(self._recent)
            if found is not None and self.node is None:
                self.node = found[1].decode(errors="replace")


def _may_begin(data: bytes) -> bool:
    """Whether `data`, from the start of a line, is a frame and one of the known starts, as far as it goes."""
    starts = (_FRAME + start for start in _STARTS + _STARTS_ABORT)
    return any(data.startswith(start) or start.startswith(data) for start in starts)
