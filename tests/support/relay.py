"""The gateway's clients on the fake stream: sockets of a test on one side, on the other what fuzzers use.

A connection that is accepted here gets a FakeStream instead of a SocketStream, so whatever a test does with a socket
meets the same connection over another stream, which hands each read over in memory of just its size.
"""

from __future__ import annotations

import array
import asyncio
import fcntl
import select
import socket
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fuzz.world import FakeStream
from gatewayx.server.process import GatewayProcess

# What a connection is given at once, one time a turn of the loop, as of a SocketStream.
RECEIVE_BYTES = 65536
WATCHED = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET


class RealTime:
    """What a FakeStream needs of a loop, by the test's own."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.call_soon = self.loop.call_soon

    @property
    def now_s(self) -> float:
        """The loop's time."""
        return self.loop.time()


class RelayedStream(FakeStream):
    """A client's connection on the fake stream, whose kernel is that of a socket."""

    def __init__(self, relay: Relay, connected: socket.socket, address: tuple[str, int]) -> None:
        super().__init__(RealTime(), relay.process.http.connection())
        self.relay = relay
        self.socket = connected
        self.address = address
        self.host = address[0]
        self.readable = False
        self.at_end = False
        self.scheduled = False

    # What the socket tells.

    def happened(self, events: int) -> None:
        """Events of the socket."""
        if events & select.EPOLLERR and (self.closed or self.at_end or not self.reads):
            self.lose(OSError(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR), "the connection has failed"))
            return
        if events & select.EPOLLOUT:
            self._push()
        if events & (select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP):
            self.readable = True
            if events & select.EPOLLRDHUP and not self.reads:
                self.receive_eof()
            self._schedule()

    def _schedule(self) -> None:
        if not self.scheduled:
            self.scheduled = True
            self.loop.call_soon(self._read)

    def _read(self) -> None:
        """Hand over what has come, if the connection reads."""
        self.scheduled = False
        if self.closed or not self.reads or not self.readable or self.at_end:
            return
        try:
            data = self.socket.recv(RECEIVE_BYTES)
        except BlockingIOError:
            self.readable = False
        except OSError as error:
            self.lose(error)
        else:
            self._schedule()
            self.at_end = not data
            if data:
                self.receive(data)
            else:
                self.receive_eof()

    # What the connection calls, beside what FakeStream does.

    def give(self, size_bytes: int) -> int:
        """FakeStream: what the socket takes."""
        sent_bytes = 0
        while sent_bytes < size_bytes:
            begin = self.taken_bytes + sent_bytes
            try:
                sent_bytes += self.socket.send(self.written[begin : begin + RECEIVE_BYTES])
            except BlockingIOError:
                break
            except OSError as error:
                self.loop.call_soon(self.lose, error)
                break
        return sent_bytes

    def took(self, data: bytes) -> None:
        """FakeStream."""
        self._end_sending()

    def write_eof(self) -> int:
        """Stream."""
        super().write_eof()
        self._end_sending()
        return 0

    def _end_sending(self) -> None:
        if self.wrote_eof and not self.pending_bytes() and not self.gone:
            self.socket.shutdown(socket.SHUT_WR)

    def resume(self) -> int:
        """Stream: what has come before the end is read first."""
        self.eof_waits = False
        super().resume()
        self._schedule()
        return 0

    def lose(self, error: Exception | None) -> None:
        """FakeStream."""
        if not self.gone:
            self.relay.forget(self)
            super().lose(error)
            self.socket.close()

    def unconfirmed_bytes(self) -> int:
        """Stream (tcp(7), SIOCOUTQ)."""
        return self._kernel_has(termios.TIOCOUTQ)

    def incoming_bytes(self) -> int:
        """Stream (tcp(7), SIOCINQ)."""
        return self._kernel_has(termios.FIONREAD)

    def _kernel_has(self, request: int) -> int:
        count = array.array("i", [0])
        if not self.gone:
            fcntl.ioctl(self.socket.fileno(), request, count)
        return count[0]

    def peer(self) -> tuple[str, int]:
        """Stream."""
        return self.address


class Relay:
    """Accepts clients of the gateway for fake streams."""

    def __init__(self, process: GatewayProcess) -> None:
        self.process = process
        self.loop = asyncio.get_running_loop()
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.listening.setblocking(False)
        self.poll = select.epoll()
        self.streams: dict[int, RelayedStream] = {}
        self.loop.add_reader(self.listening, self._accept)
        self.loop.add_reader(self.poll, self._happened)

    def _accept(self) -> None:
        connected, address = self.listening.accept()
        connected.setblocking(False)
        stream = RelayedStream(self, connected, address)
        self.streams[connected.fileno()] = stream
        stream.open()
        if not stream.gone:
            self.poll.register(connected, WATCHED)

    def _happened(self) -> None:
        for descriptor, events in self.poll.poll(0):
            if descriptor in self.streams:
                self.streams[descriptor].happened(events)

    def forget(self, stream: RelayedStream) -> None:
        """The stream is gone."""
        del self.streams[stream.socket.fileno()]

    def close(self) -> None:
        """Accept no more, and watch no more."""
        self.loop.remove_reader(self.listening)
        self.loop.remove_reader(self.poll)
        self.listening.close()
        self.poll.close()


@asynccontextmanager
async def relay(process: GatewayProcess) -> AsyncIterator[tuple[str, int]]:
    """The address at which the gateway's clients are on the fake stream."""
    accepting = Relay(process)
    try:
        yield accepting.listening.getsockname()
    finally:
        accepting.close()
