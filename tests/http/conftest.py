"""What the tests of client connections run against."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from gatewayx.address import ListenAddress
from gatewayx.embedded.job_server import JobServer
from support.gateway import RunningGateway, running_gateway
from support.http import HttpClient
from support.job_servers import HandWorker, hand_worker
from support.relay import relay
from support.tls import authority
from support.tls_client import CONTEXTS

STREAMS = ("sockets", "tls", "fake")
ON_EVERY_STREAM = {
    "tests.http." + name
    for name in (
        "test_bounds",
        "test_connection",
        "test_deep_pipelines",
        "test_endings",
        "test_hang_ups",
        "test_held",
        "test_last_answers",
        "test_lingering",
    )
}


@pytest.fixture
async def worker(embedded: JobServer) -> AsyncIterator[HandWorker]:
    """A worker for /by-hand, by hand."""
    async with hand_worker(embedded.address, b"by-hand") as worker:
        yield worker


@pytest.fixture
def settings() -> dict[str, object]:
    """The gateway's settings; a test changes them by `with_settings`."""
    return {}


@pytest.fixture
def stream() -> str:
    """What the gateway's clients stand on: sockets, TLS, or the fake stream; tests of connections run on all."""
    return "sockets"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of client connections on every stream."""
    if metafunc.module.__name__ in ON_EVERY_STREAM and "gateway" in metafunc.fixturenames:
        left_out = {"fake": "needs_sockets", "tls": "needs_plain"}
        marked = metafunc.definition.get_closest_marker
        metafunc.parametrize("stream", [name for name in STREAMS if marked(left_out.get(name, "")) is None])


@pytest.fixture
async def gateway(embedded: JobServer, settings: dict[str, object], stream: str) -> AsyncIterator[RunningGateway]:
    """A gateway in front of the embedded job server."""
    if stream == "tls":
        settings = {
            **settings,
            "listen": (ListenAddress("127.0.0.1", 0, tls=True),),
            "tls_certificate": (str(authority().certificate("127.0.0.1")),),
        }
    async with running_gateway([embedded.address], **settings) as gateway:
        if stream == "tls":
            CONTEXTS[gateway.address] = authority().context()
        if stream != "fake":
            yield gateway
            CONTEXTS.pop(gateway.address, None)
        else:
            async with relay(gateway.process) as gateway.address:
                yield gateway
                await gateway.let_go()


@pytest.fixture
async def client(gateway: RunningGateway) -> AsyncIterator[HttpClient]:
    """A client of the gateway."""
    async with HttpClient(gateway.address) as client:
        yield client
