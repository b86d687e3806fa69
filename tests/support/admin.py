"""The admin address of a gateway that runs as a process of its own."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from support.gateway import ServeProcess
from support.http import HttpClient, Response, head
from support.times import PROCESS_S

TOLD = re.compile(r"the admin address is http://([0-9.]+):([0-9]+)")
ADMIN = ("--admin", "127.0.0.1:0", "--listen", "127.0.0.1:0")
# An answer takes milliseconds; on a busy machine it may take this long.
ANSWER_S = 25.0
ASK_AGAIN_S = 0.02

# A line of the text format: a name, labels or none, a value.
SAMPLE = re.compile(r"([a-z_:]+)(?:\{(.*)\})? (\S+)")
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')


class AdminAddress:
    """Asks one; each question is a connection of its own, so that none waits for another."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.address = address

    async def ask(self, target: str, *headers: bytes, method: bytes = b"GET") -> Response:
        """The answer, which must come in time."""
        request = head(method, target.encode(), *headers).replace(b"Host: gateway", b"Host: localhost")
        return await asyncio.wait_for(self.send(request, to_head=method == b"HEAD"), ANSWER_S)

    async def send(self, request: bytes, *, to_head: bool = False) -> Response:
        """The answer to these bytes."""
        client = await HttpClient(self.address, is_documented=False).connect()
        try:
            client.send(request)
            return await client.response(to_head=to_head)
        finally:
            await client.close()

    async def status(self) -> dict[str, Any]:
        """The document of /status."""
        answer = await self.ask("/status")
        assert (answer.status, answer.headers[b"content-type"]) == (200, b"application/json")
        return json.loads(answer.body)

    async def code(self, target: str) -> int:
        """The status of an answer."""
        return (await self.ask(target)).status

    async def metrics(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        """The samples of /metrics, by name and labels; the values of labels as they are escaped."""
        answer = await self.ask("/metrics")
        assert answer.status == 200
        return samples_of(answer.body.decode())

    async def metric(self, name: str, **labels: str) -> float:
        """One sample of /metrics."""
        return (await self.metrics())[name, frozenset(labels.items())]

    async def becomes(self, target: str, status: int) -> None:
        """Return once the answer has this status."""

        async def ask() -> bool:
            return await self.code(target) == status

        await until(ask)

    async def workers(self) -> list[int]:
        """The process ids of the worker processes, by place; None where none is there."""
        return [worker["pid"] for worker in (await self.status())["workers"]]

    async def process_id(self, name: str) -> int:
        """The process of this name."""
        [found] = [process["pid"] for process in (await self.status())["processes"] if process["process"] == name]
        return found


def samples_of(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """The samples of an exposition, each of which is there once."""
    found = {}
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        matched = SAMPLE.fullmatch(line)
        assert matched is not None, line
        key = (matched[1], frozenset(LABEL.findall(matched[2] or "")))
        assert key not in found, line
        found[key] = float(matched[3])
    return found


async def until(condition: Callable[[], Awaitable[object]]) -> None:
    """Return once the condition, which has to be asked for, holds. Fails after PROCESS_S."""
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + PROCESS_S
    while not await condition():
        assert loop.time() < ends_s, "the condition never came true"
        await asyncio.sleep(ASK_AGAIN_S)


async def admin_of(served: ServeProcess) -> AdminAddress:
    """The admin address of a gateway that was just started, once it listens."""
    await served.address()
    [(host, port)] = [found.groups() for line in served.lines if (found := TOLD.search(line))]
    admin = AdminAddress((host, int(port)))
    # The admin process answers for a moment by what it saw last, which may be older than the start.
    await admin.becomes("/readyz/started", 200)
    return admin
