"""Jobs and questions that a test gives to a gateway's pool itself, without HTTP."""

from __future__ import annotations

import os
from typing import Any

from gatewayx.gearman.pool import Pool
from gatewayx.gearman.pooled_server import PooledServer
from gatewayx.gearman.python_jobs import PythonJob, PythonStatus
from support.gateway import RunningGateway, eventually

# The names of events that end a job.
ENDS = {"completed", "failed", "exception", "too_large", "refused", "timed_out", "lost", "broken"}


class PooledJobs:
    """The jobs of one gateway with one job server; each has a unique of its own."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.pool: Pool = gateway.process.pool
        self.count = 0
        # A question by unique finds the jobs of other tests as well.
        self.prefix = b"gatewayx-" + os.urandom(8).hex().encode()

    async def connected(self) -> PooledJobs:
        """Itself, once the gateway is connected by text, too."""
        await eventually(lambda: self.server.status.answered)
        return self

    @property
    def server(self) -> PooledServer:
        """The job server."""
        [server] = self.pool.servers
        return server

    @property
    def unique(self) -> bytes:
        """That of the last job."""
        return b"%b-%d" % (self.prefix, self.count)

    def submit(self, function: bytes, workload: bytes = b"", on_event: Any = None, **options: Any) -> PythonJob:
        """A job that is on its way."""
        job = PythonJob(on_event)
        self.count += 1
        assert job.submit(self.pool, function, workload, **{"unique": self.unique, **options})
        return job

    async def created(self, function: bytes, workload: bytes = b"", **options: Any) -> PythonJob:
        """A job that the job server has."""
        job = self.submit(function, workload, **options)
        await eventually(lambda: job.events)
        assert job.events[0][0] == "created"
        return job

    async def cancel(self, job: PythonJob) -> tuple[Any, ...]:
        """What the job server knows of the job behind its cancellation."""
        status = PythonStatus()
        assert job.cancel(status) is None
        return await answer(status)

    async def ask(self, unique: bytes) -> tuple[Any, ...]:
        """What the job server knows of the job with this unique."""
        status = PythonStatus()
        status.ask(self.pool, self.server, unique)
        return await answer(status)


async def answer(status: PythonStatus) -> tuple[Any, ...]:
    """The only answer to a question."""
    await eventually(lambda: status.answers)
    [found] = status.answers
    return found


async def end(job: PythonJob) -> tuple[Any, ...]:
    """The event that has ended the job, and is the only such."""
    await eventually(lambda: any(event[0] in ENDS for event in job.events))
    [found] = [event for event in job.events if event[0] in ENDS]
    assert job.events[-1] is found
    return found
