"""Rows of all ranks to rank 0: a stream in bounded chunks, or one small table.

What travels, `gather_rows`: rank 0 asks one rank after the other for one chunk at a time (8 bytes), which answers with
up to 64 Ki rows; the next chunk is asked for before the present one is handed on, so one is written while one is in
flight. Rank 0 holds three chunks, a sender two, whatever the total; nothing is sent unasked. At 10 000 ranks the order
is rank 0, 1, 2, ...: each rank costs at least one exchange, tens of microseconds plus up to a millisecond for a
sleeping sender to wake (hidden behind the writing of the chunk before): 10 s at worst beside the data.

What travels, `gather_table`: each rank's number of rows, then the rows, by MPI's gather: at 10 000 ranks with one row
of 200 bytes, 2 MB at rank 0.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kvbench.cluster.comm import Communicator, Request, flatten, quiet_barrier, wait_quietly

CHUNK_ROWS: Final = 65536
Rows = npt.NDArray[Any]
Sink = Callable[[int, Rows], None]

_ASK_TAG: Final = 7301
_ROWS_TAG: Final = 7302
_RANK_0_PAUSE_S: Final = 1e-4
_SEND: Final = 1
_STOP: Final = 0
_HEADER_BYTES: Final = 64
"""Number of rows and whether they are the rank's last, as int64, and padding that keeps the rows aligned."""


def gather_rows(
    comm: Communicator, chunks: Iterable[Rows], dtype: np.dtype[Any], sink: Sink, chunk_rows: int = CHUNK_ROWS
) -> None:
    """Hand the rows of every rank to `sink(rank, rows)` on rank 0, rank by rank, in order. Collective.

    `chunks`: this rank's rows, 1-D arrays of `dtype` of any lengths. `sink` gets at most `chunk_rows` rows at a time,
    valid until it returns, and is called on rank 0 alone. An error in rank 0's sink or in any rank's `chunks` is raised
    there when all ranks are through: the remaining senders are told to stop, so nobody hangs. Run it in an agreement.
    """
    pieces = _pieces(chunks, dtype, chunk_rows)
    if comm.rank == 0:
        _receive(comm, pieces, dtype, sink, chunk_rows)
    else:
        _send(comm, pieces)


def _pieces(chunks: Iterable[Rows], dtype: np.dtype[Any], chunk_rows: int) -> Iterator[npt.NDArray[np.uint8]]:
    """Messages of up to `chunk_rows` rows, the last of them marked, in two buffers by turns; at least one."""
    buffers = [np.empty(_HEADER_BYTES + chunk_rows * dtype.itemsize, np.uint8) for _ in range(2)]
    filled, turn = 0, 0
    for chunk in chunks:
        if chunk.dtype != dtype:
            raise TypeError(f"rows of {chunk.dtype} where {dtype} is gathered")
        start = 0
        while start < len(chunk):
            if filled == chunk_rows:
                yield _message(buffers[turn], dtype, filled, last=False)
                filled, turn = 0, 1 - turn
            count = min(chunk_rows - filled, len(chunk) - start)
            place = _HEADER_BYTES + filled * dtype.itemsize
            buffers[turn][place : place + count * dtype.itemsize] = flatten(
                np.ascontiguousarray(chunk[start : start + count])
            )
            filled += count
            start += count
    yield _message(buffers[turn], dtype, filled, last=True)


def _message(buffer: npt.NDArray[np.uint8], dtype: np.dtype[Any], rows: int, *, last: bool) -> npt.NDArray[np.uint8]:
    buffer[:16].view(np.int64)[:] = rows, last
    return buffer[: _HEADER_BYTES + rows * dtype.itemsize]


def _rows_of(buffer: npt.NDArray[np.uint8], dtype: np.dtype[Any]) -> tuple[Rows, bool]:
    rows, last = map(int, buffer[:16].view(np.int64))
    return buffer[_HEADER_BYTES : _HEADER_BYTES + rows * dtype.itemsize].view(dtype), bool(last)


def _send(comm: Communicator, pieces: Iterator[npt.NDArray[np.uint8]]) -> None:
    """Answer every request of rank 0 with one message, until the last message or until it says stop."""
    ask = np.zeros(1, np.int64)
    last = np.zeros(_HEADER_BYTES, np.uint8)
    last[:16].view(np.int64)[:] = 0, True
    error: BaseException | None = None
    sending: Request | None = None
    done = False
    while not done:
        try:
            # Made while the previous message may still be on its way, out of the other buffer.
            message = next(pieces)
        except (Exception, KeyboardInterrupt) as raised:  # noqa: BLE001 - raised again when rank 0 knows
            error, message = raised, last
        done = bool(message[:16].view(np.int64)[1])
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


def _receive(
    comm: Communicator,
    pieces: Iterator[npt.NDArray[np.uint8]],
    dtype: np.dtype[Any],
    sink: Sink,
    chunk_rows: int,
) -> None:
    buffers = [np.empty(_HEADER_BYTES + chunk_rows * dtype.itemsize, np.uint8) for _ in range(2)]
    source, turn = 1, 0
    coming = _ask(comm, source, buffers[turn])
    error: BaseException | None = None
    try:
        for message in pieces:
            rows, _ = _rows_of(message, dtype)
            if len(rows):
                sink(0, rows)
        while coming is not None:
            wait_quietly(coming, _RANK_0_PAUSE_S)
            rows, last = _rows_of(buffers[turn], dtype)
            sender = source
            source += last
            turn = 1 - turn
            coming = _ask(comm, source, buffers[turn])
            if len(rows):
                sink(sender, rows)
    except (Exception, KeyboardInterrupt) as raised:  # noqa: BLE001 - raised again when all senders know
        error = raised
    if error is not None:
        if coming is not None:
            wait_quietly(coming, _RANK_0_PAUSE_S)
            source += _rows_of(buffers[turn], dtype)[1]
        for sender in range(source, comm.size):
            comm.Send(np.array([_STOP], np.int64), dest=sender, tag=_ASK_TAG)
        raise error


def _ask(comm: Communicator, source: int, buffer: npt.NDArray[np.uint8]) -> Request | None:
    """Ask rank `source` for its next message, to land in `buffer`; None when there is no such rank."""
    if source >= comm.size:
        return None
    coming = comm.Irecv(buffer, source=source, tag=_ROWS_TAG)
    comm.Send(np.array([_SEND], np.int64), dest=source, tag=_ASK_TAG)
    return coming


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


def as_rows(dicts: Sequence[Mapping[str, Any]], dtype: np.dtype[Any]) -> Rows:
    """One row of `dtype` for each of `dicts`, whose keys are its fields; text is stored in `S` fields as UTF-8."""
    rows = np.zeros(len(dicts), dtype)
    for row, values in zip(rows, dicts, strict=True):
        for name in dtype.names or ():
            value = values[name]
            row[name] = value.encode() if isinstance(value, str) else value
    return rows


def as_columns(table: Rows) -> dict[str, npt.NDArray[Any] | list[str]]:
    """The fields of `table` as columns, `S` fields as text."""
    columns: dict[str, npt.NDArray[Any] | list[str]] = {}
    for name in table.dtype.names or ():
        column = np.ascontiguousarray(table[name])
        is_text = column.dtype.kind == "S"
        columns[name] = [value.decode(errors="replace") for value in column.tolist()] if is_text else column
    return columns
