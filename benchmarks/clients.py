"""Blocking clients that send one request at a time: as little as possible beside the server's own time."""

import socket
import time

from packets import HEADER, PacketType, encode_request

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
