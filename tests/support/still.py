"""A gateway without sockets whose time passes when a test says so: for deadlines, timers and what meets in one turn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from fuzz.links import Links
from fuzz.processes import make_processes
from fuzz.responses import Response, responses_of
from fuzz.world import Failures, FakeStream, JobServer, Loop
from gatewayx.address import ServerAddress
from gatewayx.config.settings import Settings
from gatewayx.gearman.packet import PacketType
from gatewayx.server.process import GatewayProcess


class StillClient(FakeStream):
    """A client's connection."""

    def __init__(self, gateway: StillGateway, place: int) -> None:
        super().__init__(gateway.loop, gateway.processes[place].http.connection())
        self.gateway = gateway
        self.open()

    def send(self, *pieces: bytes) -> None:
        """Send each piece by itself, in one turn of the loop."""
        for piece in pieces:
            self.receive(piece)

    def responses(self) -> list[Response]:
        """All final responses that were written so far."""
        return responses_of(bytes(self.written))


class StillGateway:
    """A gateway and its job servers, which answer as `server` is told; a single one with one connection by default.

    workers: worker processes, which reach each other over `links`.
    """

    def __init__(self, *, workers: int = 1, **settings: object) -> None:
        self.loop = Loop()
        self.server = JobServer(self.loop)
        self.links = Links(self.loop)
        options = {"server": (ServerAddress("127.0.0.1", 4730),), "connections_per_server": 1} | settings
        self.settings = Settings(**options)
        self.processes = self.loop.run(make_processes(self.settings, self.server, self.links, workers))
        for process in self.processes:
            self.loop.run(process.pool.start())

    @property
    def process(self) -> GatewayProcess:
        """The first one."""
        return self.processes[0]

    def count(self, name: str) -> int:
        """One of the counters, of all processes."""
        return sum(process.counters()[name] for process in self.processes)

    def client(self, place: int = 0) -> StillClient:
        """One more client of the process at a place."""
        return StillClient(self, place)

    def complete(self, result: bytes) -> None:
        """The oldest job that was submitted ends with this result."""
        self.loop.settle()
        connection = next(found for found in self.server.open() if found.pending or found.jobs)
        if connection.pending:
            connection.create()
        job = connection.jobs[0]
        connection.work(job, PacketType.WORK_COMPLETE, result)
        self.loop.settle()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, a few milliseconds at once."""
        ends_s = self.loop.now_s + seconds
        while self.loop.now_s < ends_s:
            self.loop.now_s = min(ends_s, self.loop.now_s + 0.005)
            self.loop.settle()


@contextmanager
def still_gateway(*, workers: int = 1, **settings: object) -> Iterator[StillGateway]:
    """A gateway with so many worker processes and these settings; on leaving nothing may have failed."""
    failures = Failures()
    with failures:
        gateway = StillGateway(workers=workers, **settings)
        try:
            yield gateway
            failures.check()
            assert not gateway.loop.failures, gateway.loop.failures
        finally:
            for process in gateway.processes:
                gateway.loop.run(process.close())
            gateway.loop.close()
