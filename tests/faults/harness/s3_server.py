"""The S3 server of the test bed as tests use it, and a proxy before it that has requests fail. It judges nothing."""

import asyncio
import http.client
import os
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from kvbench.tiers.object.target import BucketTarget

SCRIPT = Path(__file__).resolve().parents[3] / "launch" / "testbed" / "ceph.sh"
BUCKET = "kvbench"
SLOW_DOWN = b"<?xml version='1.0' encoding='UTF-8'?><Error><Code>SlowDown</Code></Error>"


def call_server(*arguments: object, name: str | None = None) -> subprocess.CompletedProcess[str]:
    """Call ceph.sh, and return what it did."""
    words = ["bash", str(SCRIPT), *(["--name", name] if name else []), *map(str, arguments)]
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False)


@dataclass(frozen=True)
class S3Server:
    """A server that is up, with an empty bucket."""

    name: str
    state: Path

    def call(self, *arguments: object) -> str:
        """Call ceph.sh on it; what it printed. Raises AssertionError with its message where it failed."""
        done = call_server(*arguments, name=self.name)
        assert done.returncode == 0, f"ceph.sh {arguments}: {done.stderr}"
        return done.stdout

    @cached_property
    def environment(self) -> dict[str, str]:
        """The variables of env.sh."""
        words = ["bash", "-c", '. "$0"; env --null', str(self.state / "env.sh")]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env={"PATH": os.environ["PATH"]})
        pairs = dict(line.partition("=")[::2] for line in done.stdout.split("\0") if line)
        return {name: value for name, value in pairs.items() if name.startswith("AWS_")}


@contextmanager
def brought_up(name: str) -> Iterator[S3Server]:
    """A server on free ports, taken down afterwards."""
    made = call_server("up", "--port", free_ports(), "--memory", "2G", name=name)
    if made.returncode != 0:
        pytest.fail(f"the S3 server does not come up:\n{made.stdout}\n{made.stderr}")
    try:
        yield S3Server(name, Path(os.environ.get("KVBENCH_TESTBED_ROOT", "/var/tmp/kvbench-testbed")) / f"{name}.s3")
    finally:
        taken_down = call_server("down", name=name)
        assert taken_down.returncode == 0, taken_down.stderr


def free_ports(number: int = 10) -> int:
    """The first of so many ports of loopback that nobody has."""
    for first in range(20000 + os.getpid() % 1000 * 10, 32000, number):
        with opened_sockets(number) as sockets:
            try:
                for offset, one in enumerate(sockets):
                    one.bind(("127.0.0.1", first + offset))
            except OSError:
                continue
        return first
    raise AssertionError("no free ports on loopback")


@contextmanager
def opened_sockets(number: int) -> Iterator[list[socket.socket]]:
    """So many sockets, closed afterwards."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        yield sockets
    finally:
        for one in sockets:
            one.close()


@dataclass
class Proxy:
    """What stands before the server: `fails` says, by its number from 1 on, whether a request is answered with 503."""

    url: str
    fails: Callable[[int], bool]
    requests: int = 0
    failed: int = 0


@contextmanager
def proxy_before(endpoint: str) -> Iterator[Proxy]:
    """A proxy on loopback that passes on what it does not have fail."""
    upstream = urlsplit(endpoint)
    lock = threading.Lock()
    of_thread = threading.local()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with lock:
                proxy.requests += 1
                fails = proxy.fails(proxy.requests)
                proxy.failed += fails
            if fails:
                self._answer(503, [("Content-Type", "application/xml")], SLOW_DOWN)
                return
            connection = getattr(of_thread, "connection", None)
            if connection is None:
                connection = of_thread.connection = http.client.HTTPConnection(upstream.netloc, timeout=60)
            try:
                # Signed with the name of this proxy as the host: it stays.
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException):
                of_thread.connection = None
                self.close_connection = True
                return
            kept = [pair for pair in answer.getheaders() if pair[0].lower() not in ("transfer-encoding", "connection")]
            self._answer(answer.status, kept, content)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

        def _answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers:
                self.send_header(name, value)
            if not any(name.lower() == "content-length" for name, _ in headers) and status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def log_message(self, *arguments: Any) -> None:
            """Nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, request: Any, address: Any) -> None:
            """Whoever is killed breaks its connections."""

    with Server(("127.0.0.1", 0), Handler) as server:
        proxy = Proxy(f"http://127.0.0.1:{server.server_address[1]}", lambda number: False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield proxy
        server.shutdown()


def paths_below(address: str) -> list[str]:
    """All objects below an address, by their paths from there."""
    target = BucketTarget(address)

    async def every() -> list[str]:
        prefix = target.place.prefix
        return [entry.path.removeprefix(f"{prefix}/") async for entry in target.requests.listed(prefix)]

    return sorted(asyncio.run(every()))


def put(address: str, content: bytes) -> None:
    """Put one object."""
    target = BucketTarget(address)
    asyncio.run(target.requests.put(target.place.prefix, [memoryview(content)], 2**30, 1))


def delete(address: str) -> None:
    """Delete one object."""
    target = BucketTarget(address)
    asyncio.run(target.requests.delete(target.place.prefix))
