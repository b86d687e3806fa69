"""What the tests of client connections run against."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gatewayx.embedded.job_server import JobServer
from gatewayx.embedded.sample_functions import FUNCTIONS
from gatewayx.embedded.worker import Worker
from support.gateway import RunningGateway, running_gateway
from support.http import HttpClient
from support.job_servers import HandWorker, hand_worker


@pytest.fixture
async def worker(embedded: JobServer) -> AsyncIterator[HandWorker]:
    """A worker for /by-hand, by hand."""
    async with hand_worker(embedded.address, b"by-hand") as worker:
        yield worker


@pytest.fixture
async def samples(embedded: JobServer) -> AsyncIterator[Worker]:
    """A worker that runs the sample functions by itself."""
    worker = Worker(embedded.address, FUNCTIONS)
    await worker.start()
    yield worker
    await worker.close()


@pytest.fixture
def settings() -> dict[str, object]:
    """The gateway's settings; a test changes them by `with_settings`."""
    return {}


@pytest.fixture
async def gateway(embedded: JobServer, settings: dict[str, object]) -> AsyncIterator[RunningGateway]:
    """A gateway in front of the embedded job server."""
    async with running_gateway([embedded.address], **settings) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[HttpClient]:
    """A client of the gateway."""
    async with HttpClient(gateway.address) as client:
        yield client
