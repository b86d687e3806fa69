"""The job servers that the Gearman tests run against."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gatewayx import names
from gatewayx.gearman.job_server import JobServer
from support.gearmand import Gearmand
from support.lookups import HangingLookups


@pytest.fixture
async def embedded() -> AsyncIterator[JobServer]:
    """The embedded job server; nothing is left in it after the test."""
    server = JobServer()
    await server.start()
    yield server
    await server.close()
    assert (server.connections, server.job_count, server.workload_bytes) == (0, 0, 0)


@pytest.fixture(params=["embedded", "gearmand"])
def address(request: pytest.FixtureRequest) -> tuple[str, int]:
    """Where either job server listens: what a test sees on one holds on the other."""
    if request.param == "embedded":
        return request.getfixturevalue("embedded").address
    return request.getfixturevalue("session_gearmand").address


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
