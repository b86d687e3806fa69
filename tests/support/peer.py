"""A raw Gearman connection for tests: what was sent is known, what came is looked at packet by packet."""

from __future__ import annotations

import asyncio
import contextlib

from gatewayx.embedded import encode
from gatewayx.gearman.packet import Magic, Packet, PacketReader, PacketType
from support.gearmand import is_whole
from support.times import WAIT_S


class Peer:
    """A client or worker; an asynchronous context manager around `connect()` and `close()`."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address
        self.packets = PacketReader(Magic.RESPONSE)
        self.received: list[Packet] = []

    async def connect(self) -> Peer:
        """Open the connection."""
        self.reader, self.writer = await asyncio.open_connection(*self.address)
        return self

    def send(self, *parts: bytes) -> None:
        """Send all parts in one write."""
        self.writer.write(b"".join(parts))

    async def receive(self) -> Packet:
        """The next packet; ConnectionResetError at the end of the stream."""
        while not self.received:
            data = await asyncio.wait_for(self.reader.read(262_144), WAIT_S)
            if not data:
                raise ConnectionResetError("the peer closed the connection")
            self.packets.feed(data)
            self.received += self.packets.packets()
        return self.received.pop(0)

    async def expect(self, packet_type: PacketType) -> tuple[bytes, ...]:
        """The arguments of the next packet, which is of this type."""
        found = await self.receive()
        assert found.type == packet_type, found
        return found.arguments

    async def settle(self) -> list[Packet]:
        """Wait until everything sent so far was handled; the packets that came meanwhile."""
        self.send(encode.echo_req(b"settle"))
        before = []
        while (found := await self.receive()).type != PacketType.ECHO_RES:
            before.append(found)
        return before

    async def submit(
        self, function: bytes, unique: bytes, workload: bytes, packet_type: PacketType = PacketType.SUBMIT_JOB
    ) -> bytes:
        """Submit a job; its handle."""
        self.send(encode.submit_job(packet_type, function, unique, workload))
        (handle,) = await self.expect(PacketType.JOB_CREATED)
        return handle

    async def can_do(self, *functions: bytes) -> None:
        """Register as a worker; returns once the job server knows."""
        self.send(*map(encode.can_do, functions))
        assert await self.settle() == []

    async def grab(self) -> tuple[bytes, bytes, bytes, bytes]:
        """Take the job that waits: handle, function, unique, workload."""
        self.send(encode.grab_job_uniq())
        handle, function, unique, workload = await self.expect(PacketType.JOB_ASSIGN_UNIQ)
        return handle, function, unique, workload

    async def no_job(self) -> None:
        """No job waits for this worker."""
        self.send(encode.grab_job())
        await self.expect(PacketType.NO_JOB)

    async def close(self) -> None:
        """Close the connection, which the job server may have reset before."""
        self.writer.close()
        with contextlib.suppress(ConnectionResetError):
            await self.writer.wait_closed()

    async def __aenter__(self) -> Peer:
        return await self.connect()

    async def __aexit__(self, *exception: object) -> None:
        await self.close()


async def ask_text(address: tuple[str, int], line: bytes) -> bytes:
    """The answer to one text command, over a connection of its own."""
    reader, writer = await asyncio.open_connection(*address)
    writer.write(line + b"\n")
    answer = b""
    while not is_whole(answer):
        part = await asyncio.wait_for(reader.read(65536), WAIT_S)
        if not part:
            raise ConnectionResetError(f"connection closed after {answer!r}")
        answer += part
    writer.close()
    await writer.wait_closed()
    return answer


async def handles(address: tuple[str, int]) -> set[bytes]:
    """Of all jobs that the job server has."""
    return {line.split(b"\t")[0] for line in (await ask_text(address, b"show jobs")).splitlines()}


async def dropped(address: tuple[str, int], handle: bytes) -> None:
    """Return once the job server has the job only to throw it away (`show jobs`: handle, retries, dropped, queued)."""
    ends_s = asyncio.get_running_loop().time() + WAIT_S
    while handle + b"\t0\t1\t" not in await ask_text(address, b"show jobs"):
        assert asyncio.get_running_loop().time() < ends_s, "the job server was not asked to cancel it"
