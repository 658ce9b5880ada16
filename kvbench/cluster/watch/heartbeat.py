"""The line on which a rank notices that another is gone: TCP connections that carry nothing while all is well.

A tree: each rank is connected to the first rank of its node, and these to rank 0. Whoever dies closes its connections,
which the other end sees at once. A node that is cut off or without power cannot close anything: the kernels at both
ends probe an idle connection (TCP keepalive) and give it up after `patience_s` without an answer. The kernel answers
for a process however long it computes, writes or waits for storage, so a long wait is never taken for a death.

What travels: at the start one line each way on each connection; then one empty packet each way per connection and third
of the patience, sent by the kernels; a few lines when the run ends. At 10 000 ranks on 1 250 nodes rank 0 has 1 256
connections: with a patience of 30 s about 125 packets a second, and no thread wakes for them.

Nothing here decides what follows from a loss: that is `watch`.
"""

import contextlib
import errno
import ipaddress
import json
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import psutil

Message = dict[str, Any]

_DIAL_S: Final = 2.0
"""For one address to answer."""
_SEND_S: Final = 2.0
_MOST_ADDRESSES: Final = 8
_LONGEST_LINE: Final = 65536
_ENDED: Final = (errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.EBADF)
_LOOPBACK: Final = "127.0.0.1"


class Gone(Exception):
    """The other end of a connection is gone: its process `ended`, or it was `silent` for as long as the patience."""

    def __init__(self, how: Literal["ended", "silent"]) -> None:
        super().__init__(how)
        self.how = how


@dataclass(slots=True)
class Peer:
    """The rank at the other end of a connection. Its methods wait for nothing but a full socket."""

    connection: socket.socket
    rank: int = -1
    host: str = ""
    ranks: int = 1
    """Ranks behind this connection: itself, and those of its node if it is the node's first."""
    left: bool = False
    """It has said that it leaves in good order."""
    _received: bytearray = field(default_factory=bytearray)

    def send(self, message: Message) -> None:
        """Send one message; who cannot be reached any more does not get it."""
        with contextlib.suppress(OSError):
            self.connection.settimeout(_SEND_S)
            self.connection.sendall(json.dumps(message).encode() + b"\n")

    def receive(self) -> list[Message]:
        """What has come, once the connection is readable. Raises Gone, also for what is no message."""
        try:
            self.connection.settimeout(0)
            piece = self.connection.recv(65536)
        except BlockingIOError:
            return []
        except OSError as error:
            raise Gone("ended" if error.errno in _ENDED else "silent") from error
        self._received += piece
        if not piece or len(self._received) > _LONGEST_LINE:
            raise Gone("ended")
        *lines, rest = self._received.split(b"\n")
        self._received = bytearray(rest)
        try:
            return [message for message in map(json.loads, lines) if isinstance(message, dict)]
        except ValueError as error:
            raise Gone("ended") from error


def listen(everywhere: bool) -> socket.socket:
    """A socket that other ranks can connect to, from other nodes if `everywhere`. Raises OSError."""
    if everywhere and socket.has_dualstack_ipv6():
        server = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
    else:
        server = socket.create_server(("" if everywhere else _LOOPBACK, 0), backlog=4096)
    server.settimeout(0)
    return server


def own_networks() -> list[str]:
    """This node's addresses with their networks (`10.1.2.3/24`, `fd00::3/128`), without what only it can reach."""
    up = {name for name, facts in psutil.net_if_stats().items() if facts.isup}
    networks = []
    for name, addresses in psutil.net_if_addrs().items():
        for address in addresses if name in up else ():
            if address.family == socket.AF_INET and address.netmask:
                interface = ipaddress.ip_interface(f"{address.address}/{address.netmask}")
            elif address.family == socket.AF_INET6:
                interface = ipaddress.ip_interface(address.address.partition("%")[0])
            else:
                continue
            if not interface.is_loopback and not interface.is_link_local:
                networks.append(interface.with_prefixlen)  # IPv6 has no other way to be read again
    return networks[:_MOST_ADDRESSES]


def nearest_first(theirs: Sequence[str], own: Sequence[str]) -> list[str]:
    """The addresses of `theirs`, those in one of this node's `own` networks first (both as `own_networks` gives)."""
    mine = [ipaddress.ip_interface(network).network for network in own]
    interfaces = [ipaddress.ip_interface(network) for network in theirs]
    return [str(place.ip) for place in sorted(interfaces, key=lambda place: place.network not in mine)]


def dial(addresses: Sequence[str], port: int, hello: Message, patience_s: float) -> Peer | None:
    """A connection to the rank that listens on `port` at one of `addresses` and knows `hello`; None for none."""
    for address in addresses:
        connection = None
        try:
            connection = socket.create_connection((address, port), timeout=_DIAL_S)
            peer = Peer(connection)
            peer.send(hello)
            connection.settimeout(_DIAL_S)
            with connection.makefile("rb", buffering=0) as answer:
                welcome = json.loads(answer.readline(_LONGEST_LINE))
            if isinstance(welcome, dict) and welcome.get("welcome") == hello["token"]:
                peer.rank, peer.host, peer.ranks = welcome["rank"], welcome["host"], welcome["ranks"]
                keep_alive(connection, patience_s)
                return peer
        except (OSError, ValueError, KeyError):
            pass
        if connection is not None:
            connection.close()
    return None


def keep_alive(connection: socket.socket, patience_s: float) -> None:
    """Have the kernel give `connection` up after `patience_s` without a sign of life, used or idle."""
    probe_s = max(1, int(patience_s / 6))
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(patience_s) - 4 * probe_s))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, probe_s)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
    # What was sent and is not acknowledged is under this limit instead, which replaces minutes of repeated sending.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(patience_s * 1000))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def accepted(server: socket.socket) -> Iterator[socket.socket]:
    """The connections that wait at `server`."""
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        yield connection
