"""The admin address while the gateway is flooded, and while it is flooded itself."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import pytest

from support.admin import ADMIN, AdminAddress, admin_of, until
from support.gateway import ServeProcess
from support.gearmand import die_with_parent

pytestmark = pytest.mark.anyio

TARGETS = ("/livez", "/readyz", "/metrics", "/status")
# Many connections that ask as fast as they can, or send nonsense again and again.
FLOOD = """
import socket, sys
address, kind = (sys.argv[1], int(sys.argv[2])), sys.argv[3]
request = b"OPTIONS * HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n" * 32 if kind == "good" else b"nonsense\\r\\n\\r\\n"
connections = [socket.create_connection(address) for _ in range(32)]
while True:
    for number, connection in enumerate(connections):
        try:
            connection.sendall(request)
            connection.recv(65536)
        except OSError:
            pass
        if kind == "bad":
            connection.close()
            connections[number] = socket.create_connection(address)
"""
# As in server/admin.
MAX_CONNECTIONS = 256


@pytest.fixture
async def served(embedded) -> AsyncIterator[ServeProcess]:
    """Two worker processes."""
    host, port = embedded.address
    async with ServeProcess(*ADMIN, "--server", f"{host}:{port}", "--workers", "2") as served:
        yield served


@pytest.fixture
async def admin(served) -> AdminAddress:
    """The admin address."""
    return await admin_of(served)


@contextmanager
def flooded(host: str, port: str) -> Iterator[list[subprocess.Popen]]:
    """Two processes that flood this address meanwhile."""
    floods = [
        subprocess.Popen([sys.executable, "-c", FLOOD, host, port, kind], preexec_fn=die_with_parent)
        for kind in ("good", "bad")
    ]
    try:
        yield floods
    finally:
        for flood in floods:
            flood.kill()
            flood.wait()


async def test_it_answers_while_all_worker_processes_are_flooded(served, admin):
    line = next(line for line in served.lines if "listens on" in line)
    host, port = served.listens_on.search(line).groups()

    with flooded(host, port) as floods:
        # Under the flood, not before it.
        async def is_flooded() -> bool:
            return await admin.metric("gatewayx_refusals_total", reason="requests") > 100

        await until(is_flooded)
        for _ in range(10):
            for target in TARGETS:
                assert (await admin.ask(target)).status == 200
        assert [flood.poll() for flood in floods] == [None, None]


async def test_clients_of_its_own_that_stay_do_not_lock_others_out(admin):
    idle = [socket.create_connection(admin.address) for _ in range(MAX_CONNECTIONS + 40)]
    try:
        for target in TARGETS:
            assert (await admin.ask(target)).status == 200
    finally:
        for connection in idle:
            connection.close()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
        (b"GET /" + b"a" * 4096 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n", 414),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n", 413),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody", 200),
        (b"GET http://evil.example/livez HTTP/1.1\r\nHost: localhost\r\n\r\n", 403),
        (b"GET /livez HTTP/1.1\r\nHost: localhost\t\r\n\r\n", 200),
        (b"GET /livez HTTP/1.0\r\n\r\n", 200),
    ],
)
async def test_a_request_is_bounded(admin, request_bytes, status):
    answer = await admin.send(request_bytes)
    assert answer.status == status
    assert await admin.code("/livez") == 200


async def test_head_is_answered_as_get_without_the_body(admin):
    for target in TARGETS:
        whole = await admin.ask(target)
        only_head = await admin.ask(target, method=b"HEAD")
        assert (only_head.status, only_head.headers[b"content-type"]) == (200, whole.headers[b"content-type"])
        assert int(only_head.headers[b"content-length"]) > 0


async def test_the_forms_are_negotiated_over_the_wire(admin):
    text = await admin.ask("/metrics")
    assert text.headers[b"content-type"] == b"text/plain; version=0.0.4; charset=utf-8"
    other = await admin.ask("/metrics", b"Accept: application/openmetrics-text;version=1.0.0,*/*;q=0.1")
    assert other.headers[b"content-type"] == b"application/openmetrics-text; version=1.0.0; charset=utf-8"
    packed = await admin.ask("/metrics", b"Accept-Encoding: gzip")
    assert packed.headers[b"content-encoding"] == b"gzip"
    assert packed.headers[b"vary"] == b"Accept, Accept-Encoding"
