"""Clients that ask at a steady rate, whatever they are answered, and know which of their connections was lost when."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
import time
from collections import deque
from pathlib import Path
from typing import NamedTuple

from support.account import FUNCTION, Account
from support.gateway import eventually
from support.http import Response, post
from support.lost_connections import write
from support.times import PROCESS_S

TICK_S = 0.005
AGAIN_S = 0.02
LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: ([0-9]+)\r\n")
TCP_ESTABLISHED = b"01"


# A client's host and port.
Name = tuple[str, int]


class Loss(NamedTuple):
    """A connection that has ended without an answer that said so. workload: of the request under way, if any."""

    client: Name
    workload: bytes | None
    # Whether it had ever been answered anything.
    was_served: bool


class OpenLoop:
    """So many connections, over which `rate` requests a second are sent: each when it is due, over one that is idle.

    What is due while none is idle is sent as soon as one is, and its time counts from when it was due.
    """

    def __init__(self, address: tuple[str, int], account: Account, connections: int, rate: float) -> None:
        self.address = address
        self.account = account
        self.rate = rate
        self.count = connections
        self.idle: deque[Connection] = deque()
        self.open: dict[Name, Connection] = {}
        self.losses: list[Loss] = []
        # How many connections came up, and why others did not, which are tried again.
        self.connected = 0
        self.refused: list[OSError] = []
        # Answers that closed their connection.
        self.closing = 0
        self.sent = 0
        # From when it was due, of each that was answered.
        self.latencies_s: list[float] = []
        self.ends = False
        self._connecting: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Open all connections."""
        for _ in range(self.count):
            self.connect()
        await asyncio.gather(*self._connecting)

    def connect(self) -> None:
        """Open one more connection, which is then idle."""
        task = asyncio.create_task(self._connect())
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self) -> None:
        while not self.ends:
            try:
                await asyncio.get_running_loop().create_connection(lambda: Connection(self), *self.address)
            except OSError as error:
                self.refused.append(error)
                await asyncio.sleep(AGAIN_S)
            else:
                return

    async def run(self, duration_s: float) -> None:
        """Send all that is due within so long, and return once everything is answered or lost."""
        began_s = time.monotonic()
        total = round(self.rate * duration_s)
        while self.sent < total and not self.ends:
            due = min(total, int((time.monotonic() - began_s) * self.rate))
            while self.sent < due and self.idle:
                self.idle.popleft().ask(began_s + self.sent / self.rate)
                self.sent += 1
            await asyncio.sleep(TICK_S)
        await eventually(lambda: not self._connecting and len(self.idle) == len(self.open), PROCESS_S)

    def close(self) -> None:
        """Close all connections, which counts as no loss."""
        self.ends = True
        for connection in list(self.open.values()):
            connection.transport.abort()

    def told(self) -> str:
        """What was measured, in a line."""
        ordered = sorted(self.latencies_s)
        p50_s, p99_s, most_s = (ordered[int(part * (len(ordered) - 1))] for part in (0.5, 0.99, 1))
        lost = sum(loss.workload is not None for loss in self.losses)
        return (
            f"{self.sent} sent, {len(ordered)} answered, {lost} lost in flight on {len(self.losses)} lost connections; "
            f"from when due: p50 {1e3 * p50_s:.1f} ms, p99 {1e3 * p99_s:.1f} ms, most {1e3 * most_s:.0f} ms"
        )


class Connection(asyncio.Protocol):
    """One of them."""

    def __init__(self, load: OpenLoop) -> None:
        self.load = load
        self.workload: bytes | None = None
        self.received = b""
        self.answers = 0

    def connection_made(self, transport: asyncio.Transport) -> None:
        """asyncio: it is up."""
        self.transport = transport
        self.name: Name = transport.get_extra_info("sockname")
        self.load.connected += 1
        self.load.open[self.name] = self
        self.load.idle.append(self)

    def ask(self, due_s: float) -> None:
        """Send a request."""
        self.due_s = due_s
        self.workload = self.load.account.workload()
        write(self.transport, post(b"/" + FUNCTION, self.workload))

    def data_received(self, data: bytes) -> None:
        """asyncio: bytes of an answer."""
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        length = LENGTH.search(head + b"\r\n")
        assert length is not None, head
        if len(body) < int(length[1]):
            return
        assert len(body) == int(length[1]), "more was answered than asked"
        assert self.workload is not None, "an answer came to no request"
        names = (line.partition(b": ") for line in head.split(b"\r\n")[1:])
        headers = {name.lower(): value for name, _, value in names}
        self.load.account.answered(self.workload, Response(int(head[9:12]), headers, body))
        self.load.latencies_s.append(time.monotonic() - self.due_s)
        self.workload, self.received = None, b""
        self.answers += 1
        if headers.get(b"connection") == b"close":
            self.load.closing += 1
            self._leave()
            self.transport.close()
        else:
            self.load.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio: it is gone."""
        if self.load.open.get(self.name) is not self:
            return
        if self.workload is not None:
            self.load.account.abandoned.add(self.workload)
        elif self in self.load.idle:
            self.load.idle.remove(self)
        if not self.load.ends:
            self.load.losses.append(Loss(self.name, self.workload, self.answers > 0))
        self._leave()

    def _leave(self) -> None:
        del self.load.open[self.name]
        if not self.load.ends:
            self.load.connect()


def sockets_of(process_id: int) -> set[bytes]:
    """The inodes of the sockets that a process has open, as `/proc/net/tcp` has them; none once it is gone."""
    inodes = set()
    # Descriptors go meanwhile, and so may the process.
    with contextlib.suppress(FileNotFoundError):
        for descriptor in Path(f"/proc/{process_id}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                target = str(descriptor.readlink())
                if target.startswith("socket:["):
                    inodes.add(target[8:-1].encode())
    return inodes


def accepted_at(port: int) -> dict[Name, bytes]:
    """The clients that are connected with 127.0.0.1:`port`, and the inode of each one's connection there."""
    found = {}
    # One for each connection of the whole machine, those of other tests among them.
    lines = re.compile(rb": 0100007F:%04X ([0-9A-F]{8}):([0-9A-F]{4}) %b (?:\S+ +){5}(\d+)" % (port, TCP_ESTABLISHED))
    for host, client_port, inode in lines.findall(Path("/proc/net/tcp").read_bytes()):
        # The address stands there as the machine has it in memory.
        found[socket.inet_ntoa(struct.pack("=I", int(host, 16))), int(client_port, 16)] = inode
    return found


def clients_of(process_id: int, port: int) -> set[Name]:
    """The clients whose connections with 127.0.0.1:`port` this process has accepted."""
    inodes = sockets_of(process_id)
    return {name for name, inode in accepted_at(port).items() if inode in inodes}
