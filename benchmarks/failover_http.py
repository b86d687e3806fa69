"""HTTP clients under load: how many requests went well and how many failed, by time.

    python benchmarks/failover_http.py HOST PORT FUNCTION CONNECTIONS SECONDS BIN_SECONDS

Every connection asks for one job after the other. Prints one JSON object: began_s by time.monotonic(), bin_s, a list
each of good and failed requests by bin, and how often each failure came: its status, or "lost" for a connection without
an answer.
"""

import asyncio
import json
import re
import sys
import time
from collections import Counter

import uvloop

HEAD = re.compile(rb"HTTP/1\.1 (\d+) .*?\r\ncontent-length: (\d+)\r\n(?:.*?\r\n)?\r\n", re.DOTALL | re.IGNORECASE)


class Bins:
    """Counts by time since now."""

    def __init__(self, seconds: float, bin_s: float) -> None:
        self.bin_s = bin_s
        self.began_s = time.monotonic()
        self.ends_s = self.began_s + seconds
        self.good = [0] * int(seconds / bin_s)
        self.failed = [0] * int(seconds / bin_s)
        self.failures: Counter[str] = Counter()

    def count(self, failure: str | None) -> None:
        """One request has ended, without a failure or with this one."""
        number = int((time.monotonic() - self.began_s) / self.bin_s)
        if failure is not None:
            self.failures[failure] += 1
        if number < len(self.good):
            (self.good if failure is None else self.failed)[number] += 1


class Client(asyncio.Protocol):
    """One connection with one request at a time."""

    def __init__(self, bins: Bins, host: str, function: str, number: int, ended: asyncio.Future[None]) -> None:
        self.bins = bins
        self.head = f"POST /{function} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 20\r\n\r\n".encode()
        self.number = number
        self.job = 0
        self.received = b""
        self.ended = ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: begin."""
        self.transport = transport
        self._ask()

    def _ask(self) -> None:
        if time.monotonic() >= self.bins.ends_s:
            self.transport.close()
            return
        self.job += 1
        self.workload = b"%06d-%013d" % (self.number, self.job)
        self.transport.write(self.head + self.workload)  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        """asyncio: an answer, or a part of one."""
        self.received += data
        found = HEAD.match(self.received)
        if found is None or len(self.received) < found.end() + int(found[2]):
            return
        body, self.received = self.received[found.end() :], b""
        good = found[1] == b"200" and body == self.workload
        self.bins.count(None if good else found[1].decode())
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:
        """asyncio: over."""
        if time.monotonic() < self.bins.ends_s:
            self.bins.count("lost")
        if not self.ended.done():
            self.ended.set_result(None)


async def run(host: str, port: int, function: str, connections: int, seconds: float, bin_s: float) -> None:
    """Load and report."""
    loop = asyncio.get_running_loop()
    bins = Bins(seconds, bin_s)
    ended = [loop.create_future() for _ in range(connections)]
    for number, end in enumerate(ended):
        await loop.create_connection(
            lambda number=number, end=end: Client(bins, host, function, number, end),  # type: ignore[misc]
            host,
            port,
        )
    await asyncio.wait(ended, timeout=seconds + 40)
    counts = {"good": bins.good, "failed": bins.failed, "failures": bins.failures}
    print(json.dumps({"began_s": bins.began_s, "bin_s": bin_s, **counts}))


if __name__ == "__main__":
    host, port, function, connections, seconds, bin_s = sys.argv[1:]
    uvloop.run(run(host, int(port), function, int(connections), float(seconds), float(bin_s)))
