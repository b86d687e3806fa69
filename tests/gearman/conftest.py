"""Fixtures of the Gearman tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gatewayx.net import names
from support.behind import upstreams_of
from support.gateway import MAX_RESULT, RunningGateway, running_gateway
from support.gearmand import Gearmand
from support.http import HttpClient
from support.job_servers import ScriptedConnection, ScriptedJobServer
from support.lookups import HangingLookups


@pytest.fixture
def function(request: pytest.FixtureRequest) -> bytes:
    """A function name of this test alone: gearmand lives longer than a test."""
    return request.node.name.encode().translate(None, b" \t")


@pytest.fixture
def tmp_gearmand(tmp_path: Path) -> Iterator[Gearmand]:
    """A gearmand of this test alone."""
    with Gearmand(tmp_path) as gearmand:
        yield gearmand


@pytest.fixture
def hanging_lookups(monkeypatch: pytest.MonkeyPatch) -> Iterator[HangingLookups]:
    """Lookups that hang until the test lets them go on, at the latest when it ends."""
    lookups = HangingLookups()
    monkeypatch.setattr(names, "look_up", lookups.look_up)
    yield lookups
    lookups.go_on()


@pytest.fixture
async def server() -> AsyncIterator[ScriptedJobServer]:
    """A job server that answers what the test says."""
    async with ScriptedJobServer() as server:
        yield server


@pytest.fixture
async def gateway(server: ScriptedJobServer) -> AsyncIterator[RunningGateway]:
    """A gateway with one connection to it."""
    async with running_gateway([server.address], connections_per_server=1, max_result_bytes=MAX_RESULT) as gateway:
        yield gateway


@pytest.fixture
async def upstream(server: ScriptedJobServer, gateway: RunningGateway) -> ScriptedConnection:
    """That connection, as the job server sees it."""
    [upstream] = await upstreams_of(gateway, server)
    return upstream


@pytest.fixture
async def clients(gateway: RunningGateway) -> AsyncIterator[list[HttpClient]]:
    """Three clients of the gateway."""
    clients = [await HttpClient(gateway.address).connect() for _ in range(3)]
    yield clients
    for client in clients:
        await client.close()
