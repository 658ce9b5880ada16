"""Rows of all ranks to rank 0: a stream in bounded chunks, or one small table.

What travels, `gather_rows`, straight: rank 0 asks one rank after the other for one chunk at a time (8 bytes), which
answers with up to 64 Ki rows; the next chunk is asked for before the present one is handed on, so one is written while
one is in flight. Nothing is sent unasked. Each rank costs rank 0 at least one exchange, tens of microseconds plus up to
a millisecond for a sleeping sender to wake (hidden behind the writing of the chunk before): at 10 000 ranks 10 s at
worst beside the data, and as many connections at rank 0.

By nodes: the first rank of each node asks its node's ranks in the same way and passes their rows on, as many ranks' as
fit in a chunk. Rank 0 exchanges messages with nodes only: 1 250 where 10 000 ranks are 8 a node. The rows of a node are
copied once more, within the node, while other nodes' rows travel. Their order is the same: by rank.

Memory for messages: at most `memory_bytes` in each process, four chunks of which it holds (two that come, two that
go), whatever the number of ranks and rows.

What travels, `gather_table`: each rank's number of rows, then the rows, by MPI's gather: at 10 000 ranks with one row
of 200 bytes, 2 MB at rank 0.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from kvbench.cluster.broadcast import total
from kvbench.cluster.comm import Communicator, Pending, flatten, quiet_barrier, quiet_bcast, wait_quietly
from kvbench.cluster.oversubscription import pause_s
from kvbench.cluster.topology import Topology
from kvbench.errors import KvbenchError
from kvbench.records.tables import Rows
from kvbench.units import KIB, MIB, format_bytes, parse_bytes

CHUNK_ROWS: Final = 65536
MEMORY_BYTES: Final = 32 * MIB
LEAST_MEMORY_BYTES: Final = 64 * KIB
Sink = Callable[[int, Rows], None]
Way = Literal["auto", "ranks", "nodes"]

_ASK_TAG: Final = 7301
_ROWS_TAG: Final = 7302
_RECEIVER_PAUSE_S: Final = pause_s(1e-4, 2e-3)
_SEND: Final = 1
_STOP: Final = 0
_HEADER_BYTES: Final = 64
"""Number of rows, of ranks that they are from, and whether they are the sender's last, as int64, and padding that keeps
the rows aligned."""
_MOST_RANKS: Final = 256
"""Ranks whose rows are in one message; which they are and how many rows each has stands behind the rows."""
_ORIGIN: Final = np.dtype([("rank", "<i8"), ("rows", "<i8")])


@dataclass(frozen=True)
class Gathering:
    """How rows get to rank 0: straight from every rank, or by way of the first rank of each node."""

    nodes: tuple[Communicator, Communicator | None] | None = None
    """By nodes: the ranks of this node, and the first ranks of all nodes (None on the other ranks)."""
    memory_bytes: int = MEMORY_BYTES

    @property
    def way(self) -> str:
        return "ranks" if self.nodes is None else "nodes"

    def neighbours(self, comm: Communicator) -> tuple[list[Communicator], Communicator | None]:
        """Whose other ranks this rank of `comm` receives from, in turn, and whose first rank it sends to (None: it is
        rank 0)."""
        if self.nodes is None:
            return ([comm], None) if comm.rank == 0 else ([], comm)
        node_comm, leader_comm = self.nodes
        if leader_comm is None:
            return [], node_comm
        return ([node_comm, leader_comm], None) if comm.rank == 0 else ([node_comm], leader_comm)

    def chunk_rows(self, dtype: np.dtype[Any]) -> int:
        """Rows of a message, four of which fit in the memory."""
        overhead = _HEADER_BYTES + _MOST_RANKS * _ORIGIN.itemsize
        return max(1, min(CHUNK_ROWS, (self.memory_bytes // 4 - overhead) // dtype.itemsize))


STRAIGHT: Final = Gathering()


def read_memory(text: str) -> int:
    """Bytes of memory for messages, as a user writes them. Raises KvbenchError where it is no size, or too small."""
    try:
        nbytes = parse_bytes(text)
    except ValueError as error:
        raise KvbenchError(f"--gather-memory: {error}") from error
    if nbytes < LEAST_MEMORY_BYTES:
        raise KvbenchError(f"--gather-memory: {format_bytes(LEAST_MEMORY_BYTES)} is the least (given: {text})")
    return nbytes


def choose_gathering(topology: Topology, way: Way = "auto", memory_bytes: int = MEMORY_BYTES) -> Gathering:
    """How the ranks of `topology` are gathered. Collective.

    `auto` is by nodes where there are several, and fewer than ranks: rank 0 then exchanges messages with as few as
    possible. The order of rows is that of ranks, so it takes ranks that are placed node after node (mpirun's default);
    otherwise `auto` is straight, and `nodes` a KvbenchError on every rank.
    """
    first = np.array([topology.rank], np.int64)
    quiet_bcast(topology.node_comm, first)
    scattered = total(topology.comm, topology.rank != int(first[0]) + topology.local_rank)[0]
    if way == "nodes" and scattered:
        raise KvbenchError(
            "--gather nodes needs ranks that are placed node after node, and these are dealt out to the nodes in turn: "
            "place them by slot (mpirun --map-by slot, srun --distribution=block), or use --gather ranks"
        )
    fewer = 1 < topology.nodes < topology.size
    by_nodes = way == "nodes" or (way == "auto" and fewer and not scattered)
    return Gathering((topology.node_comm, topology.leader_comm) if by_nodes else None, memory_bytes)


def gather_rows(
    comm: Communicator,
    chunks: Iterable[Rows],
    dtype: np.dtype[Any],
    sink: Sink,
    chunk_rows: int | None = None,
    gathering: Gathering = STRAIGHT,
) -> None:
    """Hand the rows of every rank to `sink(rank, rows)` on rank 0, rank by rank, in order. Collective.

    `chunks`: this rank's rows, 1-D arrays of `dtype` of any lengths. `sink` gets at most `chunk_rows` rows at a time
    (None: as many as the gathering's memory allows), valid until it returns, and is called on rank 0 alone. An error in
    rank 0's sink or in any rank's `chunks` is raised there when all ranks are through: the remaining senders are told
    to stop, so nobody hangs. Run it in an agreement.
    """
    chunk_rows = gathering.chunk_rows(dtype) if chunk_rows is None else chunk_rows
    below, above = gathering.neighbours(comm)
    mine = ((comm.rank, chunk) for chunk in chunks)
    with ExitStack() as stack:
        senders = [stack.enter_context(closing(_Senders(ranks, dtype, chunk_rows))) for ranks in below]
        arriving = chain.from_iterable(sender.arriving() for sender in senders)
        if above is not None:
            _send(above, _messages(chain(mine, arriving), dtype, chunk_rows))
            return
        own = (part for message in _messages(mine, dtype, chunk_rows) for part in _opened(message, dtype)[0])
        for rank, rows in chain(own, arriving):
            sink(rank, rows)


def _messages(
    parts: Iterable[tuple[int, Rows]], dtype: np.dtype[Any], chunk_rows: int
) -> Iterator[npt.NDArray[np.uint8]]:
    """Messages of up to `chunk_rows` of the rows of ranks, the last of them marked, in two buffers by turns; at least
    one."""
    buffers = [np.empty(_message_bytes(dtype, chunk_rows), np.uint8) for _ in range(2)]
    filled, turn = 0, 0
    origins: list[tuple[int, int]] = []
    for rank, rows in parts:
        if rows.dtype != dtype:
            raise TypeError(f"rows of {rows.dtype} where {dtype} is gathered")
        start = 0
        while start < len(rows):
            known = bool(origins) and origins[-1][0] == rank
            if filled == chunk_rows or (len(origins) == _MOST_RANKS and not known):
                yield _sealed(buffers[turn], dtype, origins, last=False)
                filled, turn, origins, known = 0, 1 - turn, [], False
            count = min(chunk_rows - filled, len(rows) - start)
            place = _HEADER_BYTES + filled * dtype.itemsize
            buffers[turn][place : place + count * dtype.itemsize] = flatten(
                np.ascontiguousarray(rows[start : start + count])
            )
            before = origins.pop()[1] if known else 0
            origins.append((rank, before + count))
            filled += count
            start += count
    yield _sealed(buffers[turn], dtype, origins, last=True)


def _message_bytes(dtype: np.dtype[Any], rows: int, ranks: int = _MOST_RANKS) -> int:
    return _HEADER_BYTES + rows * dtype.itemsize + ranks * _ORIGIN.itemsize


def _sealed(
    buffer: npt.NDArray[np.uint8], dtype: np.dtype[Any], origins: Sequence[tuple[int, int]], *, last: bool
) -> npt.NDArray[np.uint8]:
    """The message in `buffer`, whose rows are there already."""
    rows = sum(count for _, count in origins)
    buffer[:24].view(np.int64)[:] = rows, len(origins), last
    end = _message_bytes(dtype, rows, len(origins))
    behind = _message_bytes(dtype, rows, 0)
    buffer[behind:end] = flatten(np.array(origins, dtype=_ORIGIN))
    return buffer[:end]


def _opened(buffer: npt.NDArray[np.uint8], dtype: np.dtype[Any]) -> tuple[Iterator[tuple[int, Rows]], bool]:
    """The rows in a message with the ranks that they are from, and whether the message is its sender's last."""
    rows, ranks, last = map(int, buffer[:24].view(np.int64))
    behind = _message_bytes(dtype, rows, 0)
    every = buffer[_HEADER_BYTES:behind].view(dtype)
    origins = buffer[behind : _message_bytes(dtype, rows, ranks)].view(_ORIGIN).tolist()
    return _parts(every, origins), bool(last)


def _parts(rows: Rows, origins: Iterable[tuple[int, int]]) -> Iterator[tuple[int, Rows]]:
    start = 0
    for rank, count in origins:
        yield rank, rows[start : start + count]
        start += count


def _send(comm: Communicator, messages: Iterator[npt.NDArray[np.uint8]]) -> None:
    """Answer every request of `comm`'s first rank with one message, until the last message or until it says stop."""
    ask = np.zeros(1, np.int64)
    last = np.zeros(_HEADER_BYTES, np.uint8)
    last[:24].view(np.int64)[:] = 0, 0, True
    error: BaseException | None = None
    sending: Pending | None = None
    done = False
    while not done:
        try:
            # Made while the previous message may still be on its way, out of the other buffer.
            message = next(messages)
        except (Exception, KeyboardInterrupt) as raised:  # noqa: BLE001 - raised again when the receiver knows
            error, message = raised, last
        done = bool(message[:24].view(np.int64)[2])
        if sending is not None:
            wait_quietly(sending)
        wait_quietly(comm.Irecv(ask, source=0, tag=_ASK_TAG))
        if ask[0] == _STOP:
            break
        sending = comm.Isend(message, dest=0, tag=_ROWS_TAG)
    if sending is not None:
        wait_quietly(sending)
    if error is not None:
        raise error


class _Senders:
    """The other ranks of `comm`, seen from its first rank: asked one after the other, one message ahead."""

    def __init__(self, comm: Communicator, dtype: np.dtype[Any], chunk_rows: int) -> None:
        self._comm = comm
        self._dtype = dtype
        self._chunk_rows = chunk_rows
        self._buffers: list[npt.NDArray[np.uint8]] = []
        self._source = 1
        self._turn = 0
        self._coming: Pending | None = None

    def arriving(self) -> Iterator[tuple[int, Rows]]:
        """Their rows, each rank's together; valid until the next is asked for."""
        self._buffers = [np.empty(_message_bytes(self._dtype, self._chunk_rows), np.uint8) for _ in range(2)]
        self._ask()
        while self._coming is not None:
            wait_quietly(self._coming, _RECEIVER_PAUSE_S)
            parts, last = _opened(self._buffers[self._turn], self._dtype)
            self._source += last
            self._turn = 1 - self._turn
            self._ask()
            yield from parts
        self._buffers = []

    def close(self) -> None:
        """Tell those that have not sent all to stop."""
        if self._coming is not None:
            wait_quietly(self._coming, _RECEIVER_PAUSE_S)
            self._source += _opened(self._buffers[self._turn], self._dtype)[1]
            self._coming = None
        for sender in range(self._source, self._comm.size):
            self._comm.Send(np.array([_STOP], np.int64), dest=sender, tag=_ASK_TAG)
        self._source = self._comm.size

    def _ask(self) -> None:
        """Ask the next sender for its next message, to land in the buffer whose turn it is."""
        self._coming = None
        if self._source < self._comm.size:
            self._coming = self._comm.Irecv(self._buffers[self._turn], source=self._source, tag=_ROWS_TAG)
            self._comm.Send(np.array([_SEND], np.int64), dest=self._source, tag=_ASK_TAG)


def gather_table(comm: Communicator, rows: Rows) -> Rows | None:
    """The `rows` of all ranks, in the order of the ranks, on rank 0; None elsewhere. Collective.

    `rows`: 1-D, the same dtype on every rank, any number of rows. For a few rows a rank and at most 2 GiB in all.
    """
    counts = np.zeros(comm.size, np.int64) if comm.rank == 0 else None
    quiet_barrier(comm)
    comm.Gather(np.array([rows.nbytes], np.int64), counts)
    mine = flatten(np.ascontiguousarray(rows))
    if counts is None:
        comm.Gatherv(mine, None)
        return None
    table = np.empty(int(counts.sum()), np.uint8)
    comm.Gatherv(mine, (table, [int(count) for count in counts]))
    return table.view(rows.dtype)
