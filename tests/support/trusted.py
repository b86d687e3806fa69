"""Trusted proxies for tests: connections of one and of strangers, and a gateway that tells whose requests it had."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from gatewayx.address import Address
from support.gateway import RunningGateway, eventually, running_gateway
from support.http import HttpClient, Response, head

PROXY = "127.0.0.2"
STRANGER = "127.0.0.3"
OPTIONS = head(b"OPTIONS", b"*")
# So slow that nothing comes back while a test runs.
SLOW = 0.01
ONE = b"192.0.2.1"
OTHER = b"192.0.2.2"
BY_X = {"trusted_proxy": (f"{PROXY}/32", "10.0.0.0/8"), "client_address": "x-forwarded-for"}
BY_FORWARDED = {**BY_X, "client_address": "forwarded"}
BY_NONE = {**BY_X, "client_address": "connection"}
PER_ADDRESS = "too-many-connections-per-address"


def options(*headers: bytes) -> bytes:
    """A request that needs no job."""
    return head(b"OPTIONS", b"*", *headers)


def of(client: bytes) -> bytes:
    """The line by which a proxy says whose request it is."""
    return b"X-Forwarded-For: " + client


class Logged:
    """A gateway and its access log."""

    def __init__(self, gateway: RunningGateway, path: Path) -> None:
        self.gateway = gateway
        self.address = gateway.address
        self.path = path

    async def lines(self, count: int) -> list[dict[str, object]]:
        """The lines, once there are so many."""
        await eventually(lambda: self.path.exists() and self.path.read_bytes().count(b"\n") >= count)
        found = [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]
        assert len(found) == count
        return found

    async def clients(self, count: int) -> list[str | None]:
        """Whose requests there were, in the order in which they were answered."""
        return [line.get("client") for line in await self.lines(count)]


@asynccontextmanager
async def logged(
    servers: Sequence[tuple[str, int]],
    path: Path,
    listen: Sequence[object] = (Address("127.0.0.1", 0),),
    **settings: object,
) -> AsyncIterator[Logged]:
    """A gateway with an access log."""
    async with running_gateway(servers, tuple(listen), access_log=str(path), **settings) as gateway:
        yield Logged(gateway, path)


def proxy(address: tuple[str, int] | str, source: str | None = PROXY, begins: bytes = b"") -> HttpClient:
    """A connection of the proxy. begins: with which PROXY header."""
    return HttpClient(address, source=source, names_requests=True, begins=begins)


async def change(gateway: RunningGateway, **settings: object) -> None:
    """Have the gateway take these settings."""
    await gateway.process.reconfigure(msgspec.structs.replace(gateway.process.settings, **settings))


def refused(answer: Response) -> bool:
    """Whether it was refused since too much of its client is in flight."""
    assert answer.status in (200, 204, 429), answer
    if answer.status == 429:
        assert answer.kind() == PER_ADDRESS
        assert "in flight" in answer.problem()["detail"]
        assert 1 <= int(answer.headers[b"retry-after"]) <= 3
    return answer.status == 429
