"""Clients that do as little as possible beside the server's own time: blocking ones, and many connections at once."""

import re
import select
import socket
import time

from packets import HEADER, PacketType, encode_request
from shapes import RequestSeries

from support import HOST, BenchmarkError, run_tag


def receive_exactly(connection: socket.socket, size_bytes: int) -> bytearray:
    data = bytearray(size_bytes)
    view = memoryview(data)
    received_bytes = 0
    while received_bytes < size_bytes:
        count = connection.recv_into(view[received_bytes:], 0, socket.MSG_WAITALL)
        if count == 0:
            raise BenchmarkError(f"connection closed after {received_bytes} of {size_bytes} bytes")
        received_bytes += count
    return data


def open_connection(port: int) -> socket.socket:
    connection = socket.create_connection((HOST, port), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def post_head(function: str, payload_bytes: int) -> bytes:
    return f"POST /{function} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {payload_bytes}\r\n\r\n".encode()


class HttpAnswerReader:
    """Reads answers with a Content-Length from a blocking connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def read(self) -> bytes:
        received = bytearray()
        while (head_end := received.find(b"\r\n\r\n")) < 0:
            chunk = self._connection.recv(65536)
            if not chunk:
                raise BenchmarkError(f"connection closed after {bytes(received)!r}")
            received += chunk
        head = bytes(received[:head_end]).decode("latin-1")
        if head.split(" ", 2)[1] != "200":
            raise BenchmarkError(f"not 200: {head}")
        body = received[head_end + 4 :]
        lengths = [
            int(line.partition(":")[2]) for line in head.split("\r\n") if line.lower().startswith("content-length:")
        ]
        return bytes(body + receive_exactly(self._connection, lengths[0] - len(body)))


class KeepAliveClient:
    """POSTs on one connection."""

    def __init__(self, port: int, function: str) -> None:
        self._connection = open_connection(port)
        self._reader = HttpAnswerReader(self._connection)
        self._function = function

    def post(self, payload: bytes) -> tuple[float, bytes]:
        started_at_s = time.perf_counter()
        self._connection.sendall(post_head(self._function, len(payload)) + payload)
        answer = self._reader.read()
        return time.perf_counter() - started_at_s, answer


class ClosingClient:
    """POSTs on a new connection each: the plugin closes after an answer."""

    def __init__(self, port: int, function: str) -> None:
        self._port = port
        self._function = function

    def post(self, payload: bytes) -> tuple[float, bytes]:
        started_at_s = time.perf_counter()
        with open_connection(self._port) as connection:
            connection.sendall(post_head(self._function, len(payload)) + payload)
            answer = HttpAnswerReader(connection).read()
        return time.perf_counter() - started_at_s, answer


class NativeSequentialClient:
    """Submits foreground jobs to the job server itself, one after the other."""

    def __init__(self, port: int, function: str) -> None:
        self._connection = open_connection(port)
        self._function = function.encode()

    def submit(self, payload: bytes) -> tuple[float, bytes]:
        started_at_s = time.perf_counter()
        self._connection.sendall(encode_request(PacketType.SUBMIT_JOB, self._function, run_tag().encode(), payload))
        while True:
            _, packet_type, data_bytes = HEADER.unpack(receive_exactly(self._connection, HEADER.size))
            data = receive_exactly(self._connection, data_bytes)
            if packet_type == PacketType.WORK_COMPLETE:
                result = bytes(data[data.index(b"\0") + 1 :])
                return time.perf_counter() - started_at_s, result
            if packet_type != PacketType.JOB_CREATED:
                raise BenchmarkError(f"unexpected packet of type {packet_type}: {bytes(data[:100])!r}")


class KeptConnections:
    """Connections that each send `depth` requests, wait for the answers, and send the next; counted to the request.

    With one connection, client and server work in lockstep, so that two runs do the very same.
    """

    ANSWER_TIMEOUT_S = 60.0
    _LENGTH = re.compile(rb"content-length:[ ]*(\d+)", re.IGNORECASE)

    def __init__(self, port: int, count: int, series: RequestSeries, depth: int = 1) -> None:
        self._series = series
        self._depth = depth
        self._poller = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._unread: dict[int, bytes] = {}
        for _ in range(count):
            connection = open_connection(port)
            self._sockets[connection.fileno()] = connection
            self._unread[connection.fileno()] = b""
            self._poller.register(connection.fileno(), select.EPOLLIN)

    def load(self, at_least: int) -> int:
        """As many requests as every connection's whole turns make of it; returns how many were answered."""
        turns_each = -(-at_least // (self._depth * len(self._sockets)))
        turns_left = dict.fromkeys(self._sockets, turns_each)
        awaited = dict.fromkeys(self._sockets, self._depth)
        for descriptor in self._sockets:
            self._send(descriptor)
        while turns_left:
            events = self._poller.poll(self.ANSWER_TIMEOUT_S)
            if not events:
                raise BenchmarkError(f"no answer within {self.ANSWER_TIMEOUT_S} s")
            for descriptor, _ in events:
                awaited[descriptor] -= self._answers(descriptor)
                if awaited[descriptor]:
                    continue
                turns_left[descriptor] -= 1
                if turns_left[descriptor]:
                    awaited[descriptor] = self._depth
                    self._send(descriptor)
                else:
                    del turns_left[descriptor]
        return turns_each * self._depth * len(self._sockets)

    def _send(self, descriptor: int) -> None:
        self._sockets[descriptor].sendall(b"".join(self._series.next() for _ in range(self._depth)))

    def _answers(self, descriptor: int) -> int:
        """How many answers one receive has completed."""
        received = self._sockets[descriptor].recv(1 << 18)
        if not received:
            raise BenchmarkError("the server closed a connection under load")
        data = self._unread[descriptor] + received
        start = count = 0
        while (head_end := data.find(b"\r\n\r\n", start)) >= 0:
            head = data[start:head_end]
            length = self._LENGTH.search(head)
            if not head.startswith(b"HTTP/1.1 200 ") or length is None:
                raise BenchmarkError(f"not the answer that was asked for: {head.decode('latin-1')}")
            end = head_end + 4 + int(length[1])
            if end > len(data):
                break
            start = end
            count += 1
        self._unread[descriptor] = data[start:]
        return count


def open_idle_connections(port: int, count: int, sent: bytes, answered: bool) -> list[socket.socket]:
    """Opens connections that each sent the same bytes and, when `answered`, read one answer."""
    connections = []
    for number in range(count):
        connection = open_connection(port)
        connection.sendall(sent)
        if answered:
            HttpAnswerReader(connection).read()
        connections.append(connection)
        # The plugin's queue of connections to accept is short.
        if number % 16 == 0:
            time.sleep(0.002)
    time.sleep(0.5)
    return connections
