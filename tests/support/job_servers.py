"""Job servers and workers that do what a test tells them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from gatewayx.embedded import encode
from gatewayx.gearman.packet import Magic, Packet, PacketReader, PacketType
from gatewayx.net.dialing import Dialer
from gatewayx.net.names import NumericHost
from gatewayx.net.stream import StreamOwner, TransportStream
from support.lost_connections import write
from support.peer import Peer
from support.ports import free_port
from support.times import WAIT_S

OPTION_RES = encode.option_res(b"exceptions")


def response(packet_type: PacketType, *arguments: bytes) -> bytes:
    """A packet as a job server sends it to a client."""
    return encode.packet(Magic.RESPONSE, packet_type, *arguments)


class Submission(NamedTuple):
    """One SUBMIT_JOB* packet."""

    type: PacketType
    function: bytes
    unique: bytes
    workload: bytes


class ScriptedConnection(asyncio.Protocol):
    """One connection of a gateway to a scripted job server."""

    def __init__(self, server: ScriptedJobServer) -> None:
        self.server = server
        # None until the first byte tells a text connection from one for jobs.
        self.is_text: bool | None = None
        self.line = b""
        self.packets = PacketReader(Magic.REQUEST)
        self.asked_option = False
        self.greeted = False
        self.submissions: asyncio.Queue[Submission] = asyncio.Queue()
        # The handles and uniques of GET_STATUS and GET_STATUS_UNIQUE.
        self.questions: asyncio.Queue[bytes] = asyncio.Queue()
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:
        """asyncio: the gateway has connected."""
        self.transport = transport
        self.server.open.add(self)

    def data_received(self, data: bytes) -> None:
        """asyncio: packets or text commands came."""
        if not self.server.reads:
            self.transport.pause_reading()
            return
        if self.is_text is None:
            self.is_text = data[0] != 0
            if not self.is_text:
                self.server.accepted.put_nowait(self)
        if self.is_text:
            *lines, self.line = (self.line + data).split(b"\n")
            for line in lines:
                if line == b"status":
                    self.server.statuses += 1
                    if self.server.tells_status:
                        self.send(*self.server.status_lines(), b".\n")
                    continue
                self.server.commands.append(line)
                if self.server.tells_cancelled or not line.startswith(b"cancel job "):
                    self.send(b"OK\n")
            return
        self.packets.feed(data)
        for found in self.packets.packets():
            self._received(found)

    def _received(self, found: Packet) -> None:
        if found.type == PacketType.OPTION_REQ:
            assert found.arguments == (b"exceptions",)
            assert not self.greeted
            self.asked_option = True
            if self.server.hangs_up_on_option:
                self.send(self.server.last_words)
                self.transport.close()
            elif self.server.greets:
                self.send(self.server.option_answer)
        elif found.type == PacketType.ECHO_REQ:
            # The first is part of the greeting, whatever the later ones are answered with.
            greeting, self.greeted = not self.greeted, True
            self.server.echoes += not greeting
            if self.server.greets and self.server.answers_first_echo if greeting else self.server.echoing:
                self.answer(PacketType.ECHO_RES, *found.arguments)
        elif found.type in (PacketType.GET_STATUS, PacketType.GET_STATUS_UNIQUE):
            self.questions.put_nowait(found.arguments[0])
        else:
            assert found.type in encode.SUBMIT_TYPES, found
            self.submissions.put_nowait(Submission(found.type, *found.arguments))

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self.server.open.discard(self)
        self.lost.set_result(None)

    def send(self, *parts: bytes) -> None:
        """Send all parts in one write; nothing to a gateway that has gone."""
        write(self.transport, b"".join(parts))

    def answer(self, packet_type: PacketType, *arguments: bytes) -> None:
        """Send one packet."""
        self.send(response(packet_type, *arguments))

    async def submission(self) -> Submission:
        """The next submission."""
        return await asyncio.wait_for(self.submissions.get(), WAIT_S)

    async def question(self) -> bytes:
        """The handle or unique that is asked for next."""
        return await asyncio.wait_for(self.questions.get(), WAIT_S)

    async def accept(self, handle: bytes) -> Submission:
        """Answer the next submission with JOB_CREATED."""
        submission = await self.submission()
        self.answer(PacketType.JOB_CREATED, handle)
        return submission

    async def complete(self, handle: bytes, result: bytes) -> Submission:
        """Run the next submission to its end."""
        submission = await self.accept(handle)
        self.answer(PacketType.WORK_COMPLETE, handle, result)
        return submission

    async def closed(self) -> None:
        """Return once the gateway has closed the connection."""
        await asyncio.wait_for(asyncio.shield(self.lost), WAIT_S)

    def greet(self) -> None:
        """Greet the gateway, which a server that does not greet has left to the test."""
        self.send(self.server.option_answer)

    def close(self) -> None:
        """Close the connection."""
        self.transport.abort()


class ScriptedJobServer:
    """Accepts gateways' connections; the test answers for it, text commands are answered OK.

    An asynchronous context manager.

    host, port: where to listen, port 0 for any free one.
    greets: answer OPTION_REQ and the first ECHO_REQ. reads: read what comes; without it is frozen, but accepts.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, greets: bool = True, reads: bool = True) -> None:
        self.host = host
        self.port = port
        self.greets = greets
        self.reads = reads
        # What answers OPTION_REQ; nothing does if it is empty.
        self.option_answer = OPTION_RES
        # With the last words it sends, if any.
        self.hangs_up_on_option = False
        self.last_words = b""
        self.answers_first_echo = True
        self.open: set[ScriptedConnection] = set()
        # Whether an ECHO_REQ after the first is answered, and how many came.
        self.echoing = True
        self.echoes = 0
        # Whether `status` is answered, and how many came.
        self.tells_status = True
        self.statuses = 0
        # Whether `cancel job` is answered.
        self.tells_cancelled = True
        # What `status` tells: function to (queued, running, workers).
        self.status: dict[bytes, tuple[int, int, int]] = {}
        # Text commands that came, `status` aside.
        self.commands: list[bytes] = []
        self.accepted: asyncio.Queue[ScriptedConnection] = asyncio.Queue()

    @property
    def address(self) -> tuple[str, int]:
        """(host, port) to connect to."""
        return (self.host, self.port)

    def status_lines(self) -> list[bytes]:
        """The answer to `status` without its end."""
        return [
            b"%b\t%d\t%d\t%d\n" % (function, queued + running, running, workers)
            for function, (queued, running, workers) in self.status.items()
        ]

    async def connection(self) -> ScriptedConnection:
        """The next connection for jobs."""
        return await asyncio.wait_for(self.accepted.get(), WAIT_S)

    async def open_connection(self) -> ScriptedConnection:
        """The next one that the gateway has not given up meanwhile, as it does if CONNECT_TIMEOUT_S is short."""
        while (connection := await self.connection()).lost.done():
            pass
        return connection

    async def start(self) -> None:
        """Listen."""
        loop = asyncio.get_running_loop()
        # Whoever is stopped is asked for again and again: a port that the kernel chose would soon be somebody else's.
        self.port = self.port or free_port()
        self.listener = await loop.create_server(lambda: ScriptedConnection(self), self.host, self.port)

    async def stop(self) -> None:
        """Stop listening and drop every connection."""
        self.listener.close()
        connections = list(self.open)
        for connection in connections:
            connection.close()
        for connection in connections:
            await connection.closed()

    async def __aenter__(self) -> ScriptedJobServer:
        await self.start()
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.stop()


class FakeTransport:
    """Keeps what was written, one entry a write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    def write(self, data: bytes) -> None:
        """asyncio."""
        self.writes.append(bytes(data))

    def writelines(self, buffers: list[bytes]) -> None:
        """asyncio."""
        self.writes.append(b"".join(buffers))

    def get_write_buffer_size(self) -> int:
        """asyncio."""
        return 0

    def is_closing(self) -> bool:
        """asyncio."""
        return False

    def set_write_buffer_limits(self, high: int) -> None:
        """asyncio."""

    def abort(self) -> None:
        """asyncio."""

    def get_extra_info(self, name: str) -> object:
        """asyncio."""
        return self if name == "socket" else None

    def setsockopt(self, *arguments: int) -> None:
        """socket."""


class FakeDialer(Dialer):
    """Connections to job servers are FakeTransports that come up at once."""

    def __init__(self) -> None:
        self.upstreams: list[tuple[TransportStream, FakeTransport]] = []

    async def dial(
        self, owner: StreamOwner, address: NumericHost, port: int, *, write_high_bytes: int, **more: object
    ) -> None:
        """Dialer."""
        stream, transport = TransportStream(owner, write_high_bytes), FakeTransport()
        stream.connection_made(transport)
        if transport.writes == [b"version\n"]:
            stream.data_received(b"OK fake\n")
        else:
            stream.data_received(OPTION_RES)
            transport.writes.clear()
            self.upstreams.append((stream, transport))


def nobody_listens() -> tuple[str, int]:
    """The address of a job server that is down."""
    return ("127.0.0.1", free_port())


class HandWorker(Peer):
    """A worker whose every packet the test sends."""

    async def take(self, *, awake: bool = False) -> tuple[bytes, bytes, bytes, bytes]:
        """Take the next job, waiting for one: handle, function, unique, workload.

        awake: Ask again and again instead of sleeping: gearmand's timers run beside PRE_SLEEP, and may miss who is just
        lying down.
        """
        while True:
            self.send(encode.grab_job_uniq())
            while (found := await self.receive()).type == PacketType.NOOP:
                continue
            if found.type == PacketType.JOB_ASSIGN_UNIQ:
                handle, function, unique, workload = found.arguments
                return handle, function, unique, workload
            assert found.type == PacketType.NO_JOB, found
            if awake:
                await asyncio.sleep(0.05)
            else:
                self.send(encode.pre_sleep())
                await self.expect(PacketType.NOOP)

    def send_data(self, handle: bytes, data: bytes) -> None:
        """Send a part of a job's result."""
        self.send(encode.work_data(handle, data))

    def complete(self, handle: bytes, result: bytes = b"") -> None:
        """End a job well."""
        self.send(encode.work_complete(handle, result))


@asynccontextmanager
async def hand_worker(address: tuple[str, int], *functions: bytes) -> AsyncIterator[HandWorker]:
    """A worker for these functions."""
    async with HandWorker(address) as worker:
        await worker.can_do(*functions)
        yield worker
