"""Ends a rank that would wait for others for ever: a thread that looks whether they, and the launcher, are still there.

Three things are looked at, from the start of the run to its end:

- the launcher's process that started this rank: when it ends, the rank ends at once;
- the `lifeline` to the other ranks: a rank whose process ended is known at once, a node that is cut off or without
  power after the patience;
- in the load, the exchange of counters that every main thread moves on 50 times a second: when none is completed for
  as long as the patience, some rank is stopped or stuck, or MPI's network is broken. It is asked who is there.

Whoever finds something tells rank 0, over the lifeline; rank 0 prints one message and has all others end, which print
nothing. Only when rank 0 itself is gone, another one prints. Before a rank ends, it calls `before_end`.

What travels: see `lifeline`; nothing of it is MPI's, and all of it is outside the timed calls. While all is well the
thread sleeps, but for one look a second in the load. A process that was suspended (Ctrl-Z) and goes on has not waited:
time counts only as far as this thread saw it pass.
"""

import contextlib
import os
import queue
import secrets
import selectors
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Final, Literal, NoReturn, Self

import numpy as np

from kvbench.cluster.broadcast import share, total
from kvbench.cluster.comm import Communicator, detect_launcher
from kvbench.cluster.node import allow_open_files
from kvbench.cluster.signals import say
from kvbench.cluster.topology import Topology
from kvbench.cluster.watch.heartbeat import (
    Gone,
    Message,
    Peer,
    accepted,
    dial,
    keep_alive,
    listen,
    nearest_first,
    own_networks,
)
from kvbench.cluster.watch.launcher import end_launcher, launcher_descriptor
from kvbench.cluster.watch.stall import Pulse

PATIENCE_S: Final = 30.0
"""How long nothing may be heard of a node, or of the exchange in the load, before the run is given up."""

FAREWELL_S: Final = 5.0
"""A rank that ends gives what it holds so long to be written."""

_SHORT_FAREWELL_S: Final = 0.5
"""For whom a user waits."""

_SPARE_FILES: Final = 32
"""What a rank opens besides until it looks at its limit of open files again."""
_LOOK_S: Final = 1.0
_NO_PIDFD_LOOK_S: Final = 0.5
_ROLL_CALL_S: Final = 3.0
_ANSWER_S: Final = 2.0
_EXIT_CODE: Final = 1


class Watch:
    """The watch of this rank over the others of `comm`; a context in which it lasts. `advice`: what else a user should
    know of a run that ended so (how to recover it), appended to the message."""

    def __init__(self, comm: Communicator, patience_s: float = PATIENCE_S) -> None:
        self._comm = comm
        self._patience_s = patience_s
        self._host = socket.gethostname()
        self._launched = detect_launcher() is not None
        self._launcher = os.getppid()
        self._launcher_descriptor: int | None = None
        self._topology: Topology | None = None
        self.advice = ""
        self.before_end: list[Callable[[], object]] = []
        self._parent: Peer | None = None
        self._children: list[Peer] = []
        self._server: socket.socket | None = None
        self._token = ""
        self._selector = selectors.DefaultSelector()
        self._errands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake_end, self._wake = os.pipe()
        self._leaving = False
        self._end_at_s: float | None = None
        self._pulse = Pulse()
        self._present: set[int] | None = None
        self._absent: list[str] = []
        self._thread = threading.Thread(target=self._run, name="kvbench-watch", daemon=True)

    def __enter__(self) -> Self:
        if self._launched or self._comm.size > 1:
            self._selector.register(self._wake_end, selectors.EVENT_READ, self._on_wake)
            if self._launched:
                self._launcher_descriptor = launcher_descriptor(self._launcher)
                if self._launcher_descriptor is not None:
                    self._selector.register(self._launcher_descriptor, selectors.EVENT_READ, self._on_launcher_gone)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread.ident is not None:
            self._ask(self._leave)
            self._thread.join()
        if self._launcher_descriptor is not None:
            os.close(self._launcher_descriptor)
        os.close(self._wake)
        os.close(self._wake_end)
        self._selector.close()

    def connect(self, topology: Topology, caution: Callable[[str], object]) -> None:
        """Tie the lifeline between all ranks. Collective. Where it does not reach, `caution` is told on rank 0.

        Travels: rank 0's addresses and a random number (a few hundred bytes) to all ranks, a port inside each node, and
        one sum.
        """
        self._topology = topology
        if topology.size == 1:
            return
        is_root, is_leader = topology.rank == 0, topology.local_rank == 0
        allow_open_files(_SPARE_FILES + topology.nodes * is_root + topology.local_size * is_leader)
        if is_root or (is_leader and topology.local_size > 1):
            with contextlib.suppress(OSError):
                self._server = listen(everywhere=is_root and topology.nodes > 1)
        port = self._server.getsockname()[1] if self._server is not None else 0
        root = share(
            topology.comm,
            {"token": secrets.token_hex(16), "networks": own_networks() if is_root else [], "port": port},
        )
        self._token = root["token"]
        local_port = np.array([port], np.int64)
        topology.node_comm.Bcast(local_port)
        if self._server is not None:
            self._ask(self._open_door)
        missing = False
        if not is_root:
            addresses = nearest_first(root["networks"], own_networks()) if is_leader else ["127.0.0.1"]
            ranks = topology.local_size if is_leader else 1
            hello = {"token": self._token, "rank": topology.rank, "host": self._host, "ranks": ranks}
            port = root["port"] if is_leader else int(local_port[0])
            parent = dial(addresses, port, hello, self._patience_s) if port else None
            missing = parent is None
            if parent is not None:
                self._ask(lambda: self._adopt(parent))
        unwatched = total(topology.comm, missing)[0]
        if self._server is not None:
            self._ask(self._close_door)
        if unwatched and is_root:
            caution(
                f"ranks that are not watched, as no TCP connection to them can be made: {unwatched} (docs/faults.md)"
            )

    @contextlib.contextmanager
    def exchange(self) -> Iterator[None]:
        """A context in which the main thread calls `beat` all the time."""
        self._pulse = Pulse(running=True)
        self._ask(lambda: None)
        try:
            yield
        finally:
            self._pulse = Pulse()

    def beat(self, completed: bool) -> None:
        """The main thread has moved the exchange on, and one was `completed` or not."""
        self._pulse.polls += 1
        self._pulse.completed += completed

    def fail(self, text: str) -> NoReturn:
        """End all ranks with `text` (rank and host are added), from the main thread, when it cannot leave in order."""
        named = f"rank {self._comm.rank} on {self._host}: {text}"
        if self._thread.ident is None:
            self._end(named)
        self._ask(lambda: self._report(named))
        while True:
            time.sleep(_LOOK_S)

    def give_up(self, text: str) -> None:
        """End all ranks with `text`, from any thread: the main thread was asked to end and does not. It need not have
        happened when this returns."""
        if self._thread.ident is None:
            self._end(text, farewell_s=_SHORT_FAREWELL_S)
        # Ranks that are not connected yet have all been asked, and rank 0 says it.
        told = text if self._comm.rank == 0 or self._parent is not None else None
        self._ask(lambda: self._end(None) if told is None else self._report(told))

    # What follows is called by the thread alone.

    def _run(self) -> None:
        last_s = time.monotonic()
        while not self._leaving:
            for key, _ in self._selector.select(self._pause_s()):
                if not self._leaving:
                    key.data()
            now_s = time.monotonic()
            if self._end_at_s is not None and now_s > self._end_at_s:
                self._on_time_out()
            if self._launched and self._launcher_descriptor is None and os.getppid() != self._launcher:
                self._on_launcher_gone()
            self._look_at_exchange(min(now_s - last_s, _LOOK_S))
            last_s = now_s

    def _pause_s(self) -> float | None:
        if self._end_at_s is not None:
            return 0.05
        if self._launched and self._launcher_descriptor is None:
            return _NO_PIDFD_LOOK_S
        return _LOOK_S if self._pulse.running else None

    def _ask(self, errand: Callable[[], None]) -> None:
        """Have the thread carry out `errand`."""
        self._errands.put(errand)
        os.write(self._wake, b"x")

    def _on_wake(self) -> None:
        os.read(self._wake_end, 4096)
        with contextlib.suppress(queue.Empty):
            while True:
                self._errands.get_nowait()()

    def _leave(self) -> None:
        for peer in [*self._children, *([self._parent] if self._parent is not None else [])]:
            peer.send({"bye": True})
            self._forget(peer)
        self._close_door()
        self._leaving = True

    # The lifeline

    def _open_door(self) -> None:
        if self._server is not None:
            self._selector.register(self._server, selectors.EVENT_READ, self._on_door)

    def _close_door(self) -> None:
        if self._server is not None:
            self._selector.unregister(self._server)
            self._server.close()
            self._server = None

    def _on_door(self) -> None:
        assert self._server is not None
        for connection in accepted(self._server):
            guest = Peer(connection)
            self._selector.register(connection, selectors.EVENT_READ, lambda guest=guest: self._greet(guest))

    def _greet(self, guest: Peer) -> None:
        """Somebody at the door says who it is; whoever does not know the token is sent away."""
        try:
            messages = guest.receive()
        except Gone:
            self._forget(guest)
            return
        if not messages:
            return
        hello = messages[0]
        if hello.get("token") != self._token:
            self._forget(guest)
            return
        guest.rank, guest.host, guest.ranks = int(hello["rank"]), str(hello["host"]), int(hello["ranks"])
        keep_alive(guest.connection, self._patience_s)
        guest.send({"welcome": self._token, "rank": self._comm.rank, "host": self._host, "ranks": self._comm.size})
        self._children.append(guest)
        self._selector.modify(guest.connection, selectors.EVENT_READ, lambda: self._hear(guest))

    def _adopt(self, parent: Peer) -> None:
        self._parent = parent
        self._selector.register(parent.connection, selectors.EVENT_READ, lambda: self._hear(parent))

    def _forget(self, peer: Peer) -> None:
        self._selector.unregister(peer.connection)
        peer.connection.close()
        if peer in self._children:
            self._children.remove(peer)
        if peer is self._parent:
            self._parent = None

    def _hear(self, peer: Peer) -> None:
        try:
            messages = peer.receive()
        except Gone as gone:
            is_parent = peer is self._parent
            self._forget(peer)
            if not peer.left:
                self._on_lost(peer, gone.how, is_parent)
            return
        for message in messages:
            self._take(peer, message)

    def _take(self, peer: Peer, message: Message) -> None:
        if "bye" in message:
            peer.left = True
        elif "end" in message:
            self._end(None, node_lost=bool(message["end"]))
        elif "word" in message:
            self._report(str(message["word"]), bool(message.get("node_lost")))
        elif "absent" in message:
            if self._present is not None:
                self._present.add(peer.rank)
            self._absent += [str(name) for name in message["absent"]]

    # What is found

    def _on_launcher_gone(self) -> None:
        if self._launcher_descriptor is not None:
            self._selector.unregister(self._launcher_descriptor)
        self._launched = False
        self._report(f"rank {self._comm.rank} on {self._host}: the launcher that started this rank is gone")

    def _on_lost(self, peer: Peer, how: Literal["ended", "silent"], is_parent: bool) -> None:
        silent = how == "silent"
        what = f"rank {peer.rank} on {peer.host}"
        if silent:
            ranks = "" if peer.ranks == 1 else f" and {peer.ranks - 1} more"
            ranks = ranks if peer.rank else ""
            what += f"{ranks}: no sign of life for {self._patience_s:g} s; the node or the network to it is down"
        else:
            what += " is gone: its process ended without a word (killed, crashed, or its node went down)"
        if not is_parent:
            self._report(what, silent)
            return
        # The parent of a node's first rank is rank 0, that of the others their node's first rank, which rank 0 misses.
        topology = self._topology
        assert topology is not None
        if peer.rank == 0 and topology.rank == 1 and not silent:
            self._end(what, node_lost=False)
        elif peer.rank == 0 and topology.local_rank == 0 and topology.node == 1:
            # Rank 1 tells of a rank 0 that died alone; when the whole node died, this is the first that is left.
            if not silent:
                time.sleep(_LOOK_S)
            self._end(what, silent)
        else:
            self._end(None, silent)

    def _report(self, text: str, node_lost: bool = False) -> None:
        """Have rank 0 tell `text` and end all ranks."""
        if self._comm.rank == 0 or self._parent is None:
            self._end(text, node_lost)
        self._parent.send({"word": text, "node_lost": node_lost})
        self._end_at_s = time.monotonic() + _ANSWER_S

    def _on_time_out(self) -> None:
        """No order to end came from rank 0, or the roll call is over."""
        if self._present is None:
            self._end(None)
        missing = [f"rank {peer.rank} on {peer.host}" for peer in self._children if peer.rank not in self._present]
        self._absent += missing
        self._present, self._end_at_s = None, None
        if self._comm.rank != 0 and self._parent is not None:
            self._parent.send({"absent": self._absent})
            self._end_at_s = time.monotonic() + _ANSWER_S + 2 * _ROLL_CALL_S
            return
        stalled = f"the ranks have exchanged nothing for {self._patience_s:g} s"
        if self._absent:
            self._end(f"{stalled}: no answer from {', '.join(self._absent[:8])}; stopped, or stuck?")
        self._end(
            f"{stalled}, though every rank answers: MPI's own network does not work (seen by rank 0 on {self._host})"
        )

    def _look_at_exchange(self, passed_s: float) -> None:
        pulse = self._pulse
        if not pulse.running or self._end_at_s is not None:
            return
        pulse.pass_time(passed_s)
        if pulse.stuck_s > self._patience_s:
            self._report(
                f"rank {self._comm.rank} on {self._host}: its main thread has not moved for {self._patience_s:g} s"
            )
        elif pulse.stalled_s > self._patience_s + 3 * pulse.longest_s and self._comm.size > 1:
            pulse.running = False
            self._present = {self._comm.rank}
            # The first ranks of the nodes answer after a roll call of their own.
            turns = 2 if self._comm.rank == 0 else 1 if self._children else 0
            self._end_at_s = time.monotonic() + turns * _ROLL_CALL_S

    # The end

    def _end(self, text: str | None, node_lost: bool = False, farewell_s: float = FAREWELL_S) -> NoReturn:
        """End this process, after all that can be reached have been told to; prints `text`."""
        if text is not None:
            others = "" if self._comm.size == 1 else "; all ranks end"
            say(text + others + (f". {self.advice}" if self.advice else ""))
            if node_lost:
                time.sleep(_LOOK_S)  # for the message to pass through the launcher, which is going to be ended
        for peer in self._children:
            peer.send({"end": node_lost})
        farewell = threading.Thread(target=self._farewell, daemon=True)
        farewell.start()
        farewell.join(farewell_s)
        if node_lost and self._launched:
            end_launcher(self._launcher)
        os._exit(_EXIT_CODE)

    def _farewell(self) -> None:
        for function in self.before_end:
            function()
