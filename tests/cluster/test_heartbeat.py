"""The line between ranks: who is let in, what an end sees of the other's end, and how time counts."""

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from kvbench.cluster.watch.heartbeat import Gone, Peer, accepted, dial, keep_alive, listen, nearest_first, own_networks
from kvbench.cluster.watch.stall import Pulse

HELLO = {"token": "secret", "rank": 3, "host": "b", "ranks": 2}


@pytest.fixture
def ends() -> Iterator[tuple[Peer, Peer]]:
    """Two ends of one connection."""
    server = listen(everywhere=False)
    near = Peer(socket.create_connection(server.getsockname()[:2]))
    server.settimeout(10)
    far = Peer(server.accept()[0])
    yield near, far
    for end in (near.connection, far.connection, server):
        end.close()


def heard(peer: Peer) -> list[dict[str, Any]]:
    """The next messages that come."""
    peer.connection.settimeout(10)
    peer.connection.recv(1, socket.MSG_PEEK)
    return peer.receive()


def everything(peer: Peer) -> None:
    """Listen to the end."""
    while True:
        heard(peer)


def test_messages_arrive_whole_however_they_are_cut(ends: tuple[Peer, Peer]) -> None:
    near, far = ends
    near.connection.sendall(b'{"word": "a"}\n{"wo')
    assert heard(far) == [{"word": "a"}]
    near.connection.sendall(b'rd": "b"}\n')
    assert heard(far) == [{"word": "b"}]
    assert far.receive() == [], "nothing more has come"


def test_an_end_that_closes_is_gone_because_it_ended(ends: tuple[Peer, Peer]) -> None:
    near, far = ends
    near.connection.close()
    with pytest.raises(Gone) as gone:
        heard(far)
    assert gone.value.how == "ended"
    far.send({"word": "to nobody"})


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\n", b"\xff\xfe\n", b"x" * 70000])
def test_who_speaks_another_language_is_not_listened_to(ends: tuple[Peer, Peer], sent: bytes) -> None:
    near, far = ends
    near.connection.sendall(sent)
    near.connection.close()
    with pytest.raises(Gone):
        everything(far)


@pytest.mark.parametrize(("patience_s", "idle_s", "probe_s"), [(30, 10, 5), (12, 4, 2), (2, 1, 1)])
def test_the_kernel_gives_up_after_the_patience(
    ends: tuple[Peer, Peer], patience_s: float, idle_s: int, probe_s: int
) -> None:
    connection = ends[0].connection
    keep_alive(connection, patience_s)
    assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == idle_s
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == probe_s
    assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == patience_s * 1000


def test_a_rank_is_dialed_at_the_first_address_where_it_answers() -> None:
    server = listen(everywhere=False)
    port = server.getsockname()[1]

    def answer() -> None:
        server.settimeout(10)
        connection, _ = server.accept()
        guest = Peer(connection)
        assert heard(guest) == [HELLO]
        guest.send({"welcome": "secret", "rank": 0, "host": "a", "ranks": 4})

    thread = threading.Thread(target=answer)
    thread.start()
    # Nobody listens at the first one.
    peer = dial(["127.0.0.2", "127.0.0.1"], port, HELLO, 30)
    thread.join()
    assert peer is not None
    assert (peer.rank, peer.host, peer.ranks) == (0, "a", 4)
    peer.connection.close()
    server.close()


@pytest.mark.slow
def test_a_stranger_at_the_address_is_not_taken_for_the_rank() -> None:
    server = listen(everywhere=False)

    def answer() -> None:
        server.settimeout(10)
        Peer(server.accept()[0]).send({"welcome": "another", "rank": 0, "host": "a", "ranks": 4})

    thread = threading.Thread(target=answer)
    thread.start()
    assert dial(["127.0.0.1"], server.getsockname()[1], HELLO, 30) is None
    thread.join()
    assert list(accepted(server)) == []
    server.close()


def test_addresses_in_a_common_network_are_tried_first() -> None:
    theirs = ["172.17.0.1/255.255.0.0", "10.0.0.1/255.255.255.0", "10.1.0.1/255.255.255.0"]
    own = ["10.1.0.7/255.255.255.0", "192.168.1.1/255.255.255.0"]
    assert nearest_first(theirs, own) == ["10.1.0.1", "172.17.0.1", "10.0.0.1"]


def test_stuck_and_stalled_are_told_apart() -> None:
    pulse = Pulse(running=True)
    for _ in range(5):
        pulse.polls += 1
        pulse.pass_time(1.0)
    assert (pulse.stuck_s, pulse.stalled_s) == (0.0, 5.0), "the main thread moves, and no exchange is completed"
    pulse.completed += 1
    pulse.pass_time(1.0)
    assert (pulse.stuck_s, pulse.stalled_s, pulse.longest_s) == (1.0, 0.0, 5.0)


def test_what_a_node_says_of_its_own_networks_can_be_read_again() -> None:
    own = own_networks()
    assert nearest_first(own, own) == [network.partition("/")[0] for network in own]
    assert nearest_first(["10.9.0.1/24", "fd00::2/128"], ["fd00::2/128"]) == ["fd00::2", "10.9.0.1"]
