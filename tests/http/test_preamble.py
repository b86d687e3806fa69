"""The socket on which other processes of the gateway ask: what stands before each request, and who may ask at all."""

from __future__ import annotations

import array
import asyncio
import contextlib
import fcntl
import os
import socket
import termios
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from gatewayx.address import Address, ServerAddress
from gatewayx.config.settings import Settings
from gatewayx.embedded.job_server import JobServer
from gatewayx.net.names import NumericHost
from gatewayx.server import relay_sockets
from gatewayx.server.listeners import BoundSockets
from gatewayx.server.process import GatewayProcess, places_for
from gatewayx.server.relay_sockets import RelaySockets
from support.gateway import RunningGateway, eventually
from support.http import HttpClient, head, post
from support.pieces import every_way, in_pieces
from support.times import WAIT_S

pytestmark = pytest.mark.anyio

NOBODY = 65534
REQUEST_ID = b"abcdefghijkl7-00000000000042"
MARK = bytes(range(16))
BEGINNING = b"\x00gwx\x04" + REQUEST_ID + bytes(16)
NO_ADDRESS = BEGINNING + b"\x00\x00"
PREAMBLES = {
    "no address": NO_ADDRESS,
    "IPv4": BEGINNING + b"\x0f\x00255.255.255.255",
    "IPv6": BEGINNING + b"\x08\x00\x20\x01\x0d\xb8\x00\x00\x00\x01",
    "a token": b"\x00gwx\x04" + REQUEST_ID + MARK + b"\x0f\x00255.255.255.255",
    "a name": BEGINNING + b"\x00\x05edge1",
    "an address and the longest name": BEGINNING + b"\x0f\x80255.255.255.255" + b"n" * 128,
    # The address may look like the end of one thing and the beginning of another.
    "line ends": BEGINNING + b"\x08\x00\r\n\r\n\x00gwx",
}
OPTIONS = head(b"OPTIONS", b"*")


class AskedGateway(RunningGateway):
    """One of two processes; `address` is where the other one would ask."""

    def __init__(self, process: GatewayProcess, sockets: RelaySockets) -> None:
        super().__init__(process)
        self.clients_address = self.address
        self.address = sockets.address(0)


class Asking(HttpClient):
    """A connection to it."""

    async def connect(self) -> HttpClient:
        """Open the connection, whose address may be an abstract name."""
        connected = socket.socket(socket.AF_UNIX)
        connected.setblocking(False)
        connected.connect(self.address)
        self.reader, self.writer = await asyncio.open_connection(sock=connected)
        return self

    def is_read(self) -> bool:
        """Whether the gateway has read all that was sent."""
        return not self.writer.transport.get_write_buffer_size() and not unread(self.writer.get_extra_info("socket"))

    async def is_dropped(self) -> None:
        """Return once the gateway has dropped the connection without a word."""
        with contextlib.suppress(ConnectionResetError):
            assert await self.rest() == b""


async def heard(address: str | bytes, *pieces: bytes) -> bytes:
    """What comes up to the end of a connection on which these pieces are sent, each once the one before was read."""
    loop = asyncio.get_running_loop()
    came = b""
    with socket.socket(socket.AF_UNIX) as connected, contextlib.suppress(ConnectionResetError):
        connected.setblocking(False)
        connected.connect(address)
        with contextlib.suppress(BrokenPipeError):
            for piece in pieces:
                connected.send(piece)
                await eventually(lambda: not unread(connected))
        while part := await asyncio.wait_for(loop.sock_recv(connected, 65536), WAIT_S):
            came += part
    return came


@asynccontextmanager
async def asked_gateway(embedded: JobServer, **settings: object) -> AsyncIterator[AskedGateway]:
    """The process at the first of two places, with nobody at the second."""
    made = Settings(listen=(Address("127.0.0.1", 0),), server=(ServerAddress(*embedded.address),), **settings)
    sockets = BoundSockets(2)
    sockets.bind(made.listen[0], NumericHost.parse("127.0.0.1"), made)
    asked = RelaySockets(2)
    process = GatewayProcess(made, sockets=sockets, places=places_for(made, 2), place=0, relay_sockets=asked)
    try:
        await process.start()
        gateway = AskedGateway(process, asked)
        yield gateway
        await gateway.let_go()
    finally:
        await process.close()
        asked.close()


@pytest.fixture
async def asked(embedded, settings) -> AsyncIterator[AskedGateway]:
    """It, in front of the embedded job server."""
    async with asked_gateway(embedded, **settings) as gateway:
        yield gateway


class TestWhole:
    @pytest.mark.parametrize("name", PREAMBLES)
    async def test_however_it_is_cut(self, asked, name):
        preamble = PREAMBLES[name]
        for pieces in every_way(preamble + OPTIONS):
            async with Asking(asked.address) as process:
                for piece in pieces:
                    # Each is read by itself: what waits unread in the kernel is none of the next.
                    process.send(piece)
                    await eventually(process.is_read)
                assert (await process.response()).status == 204

    async def test_before_each_request_of_a_connection(self, asked, samples):
        async with Asking(asked.address) as process:
            for preamble in (*PREAMBLES.values(), *PREAMBLES.values()):
                # Of a unique that the other place may own as well: it is not relayed again.
                answer = await process.ask(preamble, post(b"/reverse", b"abc", b"X-Gearman-Unique: %d" % len(preamble)))
                assert (answer.status, answer.body) == (200, b"cba")
        assert asked.process.counted_in.read()["requests_relayed"] == 0
        assert asked.count("http.connections_accepted") == 0

    async def test_a_body_that_comes_in_pieces_may_hold_one(self, asked, samples):
        body = NO_ADDRESS * 3
        async with Asking(asked.address) as process:
            request = post(b"/echo", body)
            for cut in range(len(request) - len(body), len(request)):
                process.send(NO_ADDRESS, request[:cut])
                await eventually(process.is_read)
                process.send(request[cut:])
                assert (await process.response()).body == body


class TestWhoseTokenItIs:
    async def test_a_job_is_known_to_its_token_alone(self, asked, worker):
        def preamble(mark: bytes) -> bytes:
            return b"\x00gwx\x04" + REQUEST_ID + mark + b"\x00\x00"

        marks = [MARK, MARK[::-1], bytes(16)]
        async with Asking(asked.address) as process:
            for mark in marks:
                process.send(preamble(mark), post(b"/by-hand", b"w", b"Prefer: respond-async"))
                handle, _, _, _ = await worker.take()
                answer = await process.response()
                assert answer.status == 202
                path = answer.headers[b"location"]
                for other in marks:
                    answer = await process.ask(preamble(other), head(b"GET", path))
                    assert answer.status == (200 if other == mark else 404)
                    # All of it is the same for one that comes in pieces.
                    request = head(b"GET", path)
                    process.send((preamble(other) + request)[:40])
                    await eventually(process.is_read)
                    process.send((preamble(other) + request)[40:])
                    assert (await process.response()).status == (200 if other == mark else 404)
                worker.complete(handle)
                assert (await process.ask(preamble(mark), head(b"GET", path + b"/result?wait=10"))).status == 200
                assert (await process.ask(preamble(mark), head(b"DELETE", path))).status == 204


def unread(connected: socket.socket) -> int:
    """Of what was sent, the bytes that the gateway has not read (unix(7), SIOCOUTQ)."""
    count = array.array("i", [0])
    fcntl.ioctl(connected.fileno(), termios.TIOCOUTQ, count)
    return count[0]


MALFORMED = {
    "a request": OPTIONS,
    "another byte first": b"\x01gwx\x04" + REQUEST_ID + MARK + b"\x00\x00",
    "another magic": b"\x00gwy\x04" + REQUEST_ID + MARK + b"\x00\x00",
    "an earlier version": b"\x00gwx\x03" + REQUEST_ID + MARK + b"\x00",
    "a later version": b"\x00gwx\x05" + REQUEST_ID + MARK + b"\x00\x00",
    "too long": BEGINNING + b"\x10\x00",
    "as long as a byte tells": BEGINNING + b"\xff\x00",
    "a name that is too long": BEGINNING + b"\x00\x81",
    "a name as long as a byte tells": BEGINNING + b"\x00\xff",
    "a line end": b"\r\n" + NO_ADDRESS,
}


class TestMalformed:
    @pytest.mark.parametrize("name", MALFORMED)
    @pytest.mark.parametrize("size", [1, 1000], ids=["byte by byte", "whole"])
    async def test_is_dropped_without_a_word(self, asked, embedded, name, size):
        data = MALFORMED[name] + OPTIONS + post(b"/never", b"w")
        assert await heard(asked.address, *in_pieces(data, size)) == b""
        await asked.let_go()
        assert embedded.submitted == 0

    async def test_after_a_good_one(self, asked):
        async with Asking(asked.address) as process:
            assert (await process.ask(NO_ADDRESS, OPTIONS)).status == 204
            process.send(OPTIONS)
            await process.is_dropped()

    @pytest.mark.parametrize(
        "half",
        [
            b"",
            b"\x00",
            BEGINNING,
            BEGINNING + b"\x0f\x001.2",
            BEGINNING + b"\x00\x02a",
            NO_ADDRESS,
            NO_ADDRESS + b"GE",
        ],
    )
    async def test_one_that_ends_within_it_leaves_nothing(self, asked, half):
        async with Asking(asked.address) as process:
            process.send(half)
            await eventually(lambda: asked.count("http.connections") == 1)
        await asked.let_go()

    @pytest.mark.parametrize(
        ("request_", "status"),
        [
            (b"AAA\r\n\r\n", 400),
            (b"GET / HTTP/1.1\r\n\r\n", 400),
            (b"\x00\xff\x00\r\n\r\n", 400),
            (b"POST /f HTTP/1.1\r\nHost: relay\r\nContent-Length: x\r\n\r\n", 400),
            (b"POST /f HTTP/1.1\r\nHost: relay\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            (b"GET /f HTTP/2.5\r\nHost: relay\r\n\r\n", 505),
            (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\nHost: relay\r\n\r\n", 414),
        ],
        ids=["no request", "no host", "no text", "length", "two lengths", "version", "target"],
    )
    async def test_a_request_behind_it_is_refused_as_of_a_client(self, asked, embedded, request_, status):
        async with Asking(asked.address) as process:
            assert (await process.ask(NO_ADDRESS, request_)).status == status
            assert await process.rest() == b""
        assert embedded.submitted == 0


class TestOneAtATime:
    @pytest.mark.parametrize("between", [b"", NO_ADDRESS], ids=["bare", "with a preamble"])
    @pytest.mark.parametrize("together", [True, False])
    async def test_a_second_request_while_one_runs_ends_both(self, asked, worker, embedded, between, together):
        first = NO_ADDRESS + post(b"/by-hand", b"first")
        second = between + post(b"/by-hand", b"second")
        async with Asking(asked.address) as process:
            if together:
                process.send(first, second)
            else:
                process.send(first)
                await asked.reaches("pool.outstanding_jobs", 1)
                process.send(second)
            await process.is_dropped()
        await eventually(lambda: asked.count("gateway.open_exchanges") == 0)
        assert embedded.submitted <= 1

    @pytest.mark.parametrize("between", [b"", NO_ADDRESS], ids=["bare", "with a preamble"])
    async def test_nothing_may_stand_behind_one_that_is_answered_at_once(self, asked, between):
        async with Asking(asked.address) as process:
            process.send(NO_ADDRESS, OPTIONS, between, OPTIONS)
            await process.is_dropped()
        await asked.let_go()


class TestABodyThatIsNotThere:
    async def test_leaves_nothing_to_be_asked_behind_it_once_its_request_is_answered(self, asked):
        # The rest of it and the next request might be read together, which would end both.
        async with Asking(asked.address) as process:
            process.send(NO_ADDRESS, head(b"POST", b"/f?query", b"Content-Length: 20000"), bytes(10_000))
            answer = await process.response()
            assert (answer.kind(), answer.headers[b"connection"]) == ("unexpected-query", b"close")
            assert await process.rest() == b""

    @pytest.mark.parametrize("cut", [30, -1], ids=["head", "body"])
    async def test_is_waited_for_as_long_as_the_process_that_asks_does(self, embedded, samples, cut):
        # That process may not read its client for a while, for which neither is late.
        request = post(b"/reverse", b"abc")
        bounds = {"header_timeout_s": 0.3, "body_timeout_s": 0.3}
        async with asked_gateway(embedded, **bounds) as gateway, Asking(gateway.address) as process:
            process.send(NO_ADDRESS, request[:cut])
            await eventually(process.is_read)
            async with HttpClient(gateway.clients_address) as client:
                client.send(request[:cut])
                assert (await client.response()).status == 408
            process.send(request[cut:])
            assert (await process.response()).body == b"cba"


async def test_one_that_lingers_makes_no_room_for_clients(embedded):
    # It has none of their places, so to close it would help nobody.
    async with asked_gateway(embedded, max_connections=1) as gateway, Asking(gateway.address) as process:
        process.send(NO_ADDRESS, head(b"POST", b"/f?query", b"Content-Length: 20000"))
        assert (await process.response()).status == 400
        assert await process.rest() == b""
        async with HttpClient(gateway.clients_address) as idle:
            assert (await idle.ask(OPTIONS)).status == 204
            async with HttpClient(gateway.clients_address) as client:
                assert (await client.ask(OPTIONS)).status == 204


class TestAStranger:
    async def test_gets_nothing_whatever_it_says(self, asked, embedded, monkeypatch):
        # To the gateway, whose user seems to be another one, the test is a stranger.
        user = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: user + 1)
        for said in (b"", OPTIONS, NO_ADDRESS + OPTIONS, NO_ADDRESS + post(b"/f", b"w")):
            assert await heard(asked.address, said) == b""
        assert asked.count("http.connections") == 0
        assert embedded.submitted == 0
        monkeypatch.undo()
        async with Asking(asked.address) as process:
            assert (await process.ask(NO_ADDRESS, OPTIONS)).status == 204

    async def test_of_another_user_gets_nothing_though_it_knows_an_abstract_name(self, embedded, monkeypatch):
        # Names in folders are closed to it as well; an abstract one is open to all.
        monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
        monkeypatch.delenv("TMPDIR", raising=False)
        monkeypatch.setattr(relay_sockets, "BASES", ())
        async with asked_gateway(embedded) as gateway:
            assert isinstance(gateway.address, bytes)
            assert await said_by(lambda: None, gateway.address) == b"HTTP/1.1 204"
            if os.geteuid() == 0:
                assert await said_by(lambda: os.setuid(NOBODY), gateway.address) == b""
            else:
                # Nobody else can be had; the test before this one is what is left.
                with pytest.raises(PermissionError):
                    os.setuid(NOBODY)

    async def test_of_another_process_group_gets_nothing_either(self, asked):
        # Another gateway of the same user is one.
        assert await said_by(lambda: None, asked.address) == b"HTTP/1.1 204"
        assert await said_by(lambda: os.setpgid(0, 0), asked.address) == b""


async def said_by(prepare: Callable[[], object], address: bytes | str) -> bytes:
    """What a forked process that does this first is told there."""
    reads, writes = os.pipe()
    process_id = os.fork()
    if process_id == 0:
        told = b"it was not asked"
        try:
            prepare()
            with socket.socket(socket.AF_UNIX) as connected, contextlib.suppress(OSError):
                connected.connect(address)
                told = b""
                connected.sendall(NO_ADDRESS + OPTIONS)
                told = connected.recv(12)
        finally:
            os.write(writes, told)
            os._exit(0)
    os.close(writes)
    await eventually(lambda: os.waitpid(process_id, os.WNOHANG)[0])
    told = os.read(reads, 100)
    os.close(reads)
    return told
