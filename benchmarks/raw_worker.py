"""A worker that speaks the Gearman protocol itself and echoes: for large workloads and for draining queues.

libgearman's own worker reads a workload in quadratic time and takes one job at a time. This one reads in linear time
and keeps several GRAB_JOB requests in flight, so that one process empties a queue of background jobs quickly.

    python raw_worker.py --server HOST:PORT --function NAME [--grabs 1]
"""

import argparse
import socket

from packets import HEADER, REQUEST_MAGIC, PacketType, encode_request

RECEIVE_BYTES = 2 * 1024 * 1024


class RawWorker:
    """One blocking connection that echoes every job of one function."""

    def __init__(self, host: str, port: int, function: str, grabs: int) -> None:
        self._socket = socket.create_connection((host, port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.sendall(encode_request(PacketType.CAN_DO, function.encode()))
        self._grabs = grabs
        self._grabs_in_flight = 0
        self._buffer = bytearray(RECEIVE_BYTES)
        self._buffered_bytes = 0

    def run(self) -> None:
        """Serves until the job server goes away."""
        self._socket.sendall(self._refill())
        while True:
            answers: list[bytes | memoryview] = []
            for packet_type, data in self._receive_packets():
                if packet_type == PacketType.JOB_ASSIGN:
                    self._grabs_in_flight -= 1
                    handle_end = data.index(b"\0")
                    workload_start = data.index(b"\0", handle_end + 1) + 1
                    handle = data[: handle_end + 1]
                    workload = memoryview(data)[workload_start:]
                    answers += [_header(PacketType.WORK_COMPLETE, len(handle) + len(workload)), handle, workload]
                    answers.append(self._refill())
                elif packet_type == PacketType.NO_JOB:
                    self._grabs_in_flight -= 1
                    if self._grabs_in_flight == 0:
                        answers.append(encode_request(PacketType.PRE_SLEEP))
                elif packet_type == PacketType.NOOP:
                    answers.append(self._refill())
                else:
                    raise ConnectionError(f"unexpected packet of type {packet_type}: {data[:100]!r}")
            if answers:
                self._socket.sendall(b"".join(answers))

    def _refill(self) -> bytes:
        """As many GRAB_JOB packets as are missing in flight."""
        missing = self._grabs - self._grabs_in_flight
        self._grabs_in_flight = self._grabs
        return encode_request(PacketType.GRAB_JOB) * missing

    def _receive_packets(self) -> list[tuple[int, bytes]]:
        """Blocks until something arrives and returns the packets that are complete."""
        if self._buffered_bytes == len(self._buffer):
            self._buffer.extend(bytes(len(self._buffer)))
        with memoryview(self._buffer) as view:
            received_bytes = self._socket.recv_into(view[self._buffered_bytes :])
            if received_bytes == 0:
                raise ConnectionError("the job server closed the connection")
            self._buffered_bytes += received_bytes
            packets = []
            start = 0
            while self._buffered_bytes - start >= HEADER.size:
                _, packet_type, data_bytes = HEADER.unpack_from(view, start)
                end = start + HEADER.size + data_bytes
                if end > self._buffered_bytes:
                    break
                packets.append((packet_type, bytes(view[start + HEADER.size : end])))
                start = end
            rest = bytes(view[start : self._buffered_bytes]) if start else None
        if rest is not None:
            self._buffer[: len(rest)] = rest
            self._buffered_bytes = len(rest)
        return packets


def _header(packet_type: PacketType, data_bytes: int) -> bytes:
    return HEADER.pack(REQUEST_MAGIC, packet_type, data_bytes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", default="127.0.0.1:4730", metavar="HOST:PORT")
    parser.add_argument("--function", required=True)
    parser.add_argument("--grabs", type=int, default=1, help="jobs asked for ahead")
    arguments = parser.parse_args()
    host, _, port = arguments.server.rpartition(":")
    RawWorker(host, int(port), arguments.function, arguments.grabs).run()


if __name__ == "__main__":
    main()
