"""Fixtures of every test."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import AsyncIterator, Iterator

import hypothesis
import pytest

from gatewayx.embedded.job_server import JobServer
from gatewayx.embedded.sample_functions import FUNCTIONS
from gatewayx.embedded.worker import Worker
from gatewayx.net.open_files import raise_open_files
from support.forks import until_other_threads_sleep
from support.gearmand import Gearmand
from support.ports import free_port

pytest_plugins = ["support.collecting", "support.timeouts", "support.failures", "support.lost_connections"]

# The helpers' assertions shall tell as much as the tests' own.
pytest.register_assert_rewrite(
    "support.account",
    "support.batches",
    "support.bench_runs",
    "support.documented",
    "support.gateway",
    "support.http",
    "support.kept",
    "support.keys",
    "support.job_servers",
    "support.peer",
    "support.relay_sockets",
)

# Some tests have a thousand clients; many users may open no more files than that before they ask for it.
OPEN_FILES = 8192
raise_open_files(OPEN_FILES)

if "libasan" in os.environ.get("LD_PRELOAD", ""):
    os.register_at_fork(before=until_other_threads_sleep)

# An example that takes long on a busy machine has not failed, and neither have those that take long to make.
hypothesis.settings.register_profile(
    "patient",
    parent=hypothesis.settings.default,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("patient")


@pytest.fixture
def anyio_backend():
    """Asynchronous tests run on uvloop, as the program does."""
    return ("asyncio", {"use_uvloop": True})


@pytest.fixture(scope="session")
def session_gearmand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gearmand]:
    """One gearmand for all tests that name their functions apart."""
    with Gearmand(tmp_path_factory.mktemp("gearmand")) as gearmand:
        yield gearmand


@pytest.fixture
async def embedded() -> AsyncIterator[JobServer]:
    """The embedded job server; nothing is left in it after the test."""
    server = JobServer()
    # Once it has ended, nobody else comes to this port.
    await server.start(port=free_port())
    yield server
    await server.close()
    assert (server.connections, server.job_count, server.workload_bytes) == (0, 0, 0)


@pytest.fixture
async def samples(embedded: JobServer) -> AsyncIterator[Worker]:
    """A worker that runs the sample functions by itself."""
    worker = Worker(embedded.address, FUNCTIONS)
    await worker.start()
    yield worker
    await worker.close()


@pytest.fixture(params=["embedded", "gearmand"])
def job_server(request: pytest.FixtureRequest) -> JobServer | Gearmand:
    """Either job server; `address` is where it listens. What a test sees on one holds on the other."""
    return request.getfixturevalue("embedded" if request.param == "embedded" else "session_gearmand")


@pytest.fixture
def address(job_server: JobServer | Gearmand) -> tuple[str, int]:
    """Where either job server listens."""
    return job_server.address


@pytest.fixture
def function(request: pytest.FixtureRequest) -> bytes:
    """A function name of this test alone, fit for a path as it is: gearmand lives longer than a test."""
    # Tests of two files may have the same name.
    name = f"{request.node.name}-{zlib.crc32(request.node.nodeid.encode()):08x}"
    return re.sub(r"[^A-Za-z0-9_]+", "-", name).encode()
