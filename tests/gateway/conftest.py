"""Fixtures of the tests with one gateway in front of both kinds of job server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from support.gateway import MAX_RESULT, RunningGateway, running_gateway
from support.http import HttpClient
from support.job_servers import HandWorker, hand_worker
from support.kept import KeptClient


@pytest.fixture
async def gateway(job_server) -> AsyncIterator[RunningGateway]:
    """A gateway in front of the job server, with one connection to it: what disturbs it disturbs everybody."""
    async with running_gateway(
        [job_server.address], connections_per_server=1, max_result_bytes=MAX_RESULT, content_type="text/plain"
    ) as gateway:
        yield gateway


@pytest.fixture
async def worker(job_server, function: bytes) -> AsyncIterator[HandWorker]:
    """A worker for the test's function."""
    async with hand_worker(job_server.address, function) as worker:
        yield worker


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[HttpClient]:
    """A client of the gateway."""
    async with HttpClient(gateway.address) as client:
        yield client


@pytest.fixture
async def kept(gateway: RunningGateway) -> AsyncIterator[KeptClient]:
    """A client of the gateway whose jobs outlive their requests."""
    async with KeptClient(gateway.address) as client:
        yield client
