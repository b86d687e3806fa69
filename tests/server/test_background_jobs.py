"""Background jobs of several worker processes: any tells of each, and the one that has submitted it cancels it."""

from __future__ import annotations

import json
import os
import signal
from contextlib import AsyncExitStack

import pytest

from gatewayx.embedded import encode
from gatewayx.gearman.packet import PacketType
from support.gateway import eventually
from support.http import HttpClient, get, head, post
from support.job_servers import hand_worker
from support.relaying import relaying
from support.times import PROCESS_S

pytestmark = pytest.mark.anyio

BACKGROUND = b"X-Gearman-Background: true"


async def submitted(client: HttpClient, function: bytes) -> bytes:
    """Where a new background job is found."""
    answer = await client.ask(post(b"/" + function, b"w", BACKGROUND))
    assert answer.status == 200
    return answer.headers[b"location"]


def cancellation(location: bytes) -> bytes:
    """A request to cancel a job."""
    return head(b"POST", location + b"/cancel", b"Content-Length: 0")


async def test_any_process_tells_of_it_and_has_it_cancelled(address, function):
    async with relaying([address], workers=3) as gateway, AsyncExitStack() as stack:
        clients = await gateway.clients(stack)
        for place, client in enumerate(clients):
            other = clients[(place + 1) % 3]
            location, forgotten, runs = [await submitted(client, function) for _ in range(3)]
            # What is told is in the id: nobody else is asked.
            relayed, answer = await gateway.asked(other, get(location))
            assert (relayed, json.loads(answer.body)["state"]) == (False, "queued")
            relayed, answer = await gateway.asked(other, cancellation(location))
            assert (relayed, answer.status) == (True, 200)
            assert json.loads(answer.body)["state"] == "queued"
            relayed, answer = await gateway.asked(other, head(b"DELETE", forgotten))
            assert (relayed, answer.status) == (True, 204)
            relayed, answer = await gateway.asked(client, cancellation(location))
            assert (relayed, answer.status) == (False, 200)
            async with hand_worker(address, function) as worker:
                handle, _, _, _ = await worker.take()
                relayed, answer = await gateway.asked(other, cancellation(runs))
                assert (relayed, answer.status) == (True, 202)
                worker.complete(handle)
                worker.send(encode.grab_job_uniq())
                await worker.expect(PacketType.NO_JOB)


async def test_once_that_process_has_ended_nobody_can_and_it_is_said_why(address, function):
    async with relaying([address]) as gateway, AsyncExitStack() as stack:
        clients = await gateway.clients(stack)
        location = await submitted(clients[0], function)
        dead = gateway.first_workers[0]
        os.kill(dead, signal.SIGKILL)
        await eventually(lambda: dead not in gateway.served.workers() and len(gateway.served.workers()) == 2, PROCESS_S)
        for _ in range(20):
            newcomer = await stack.enter_async_context(HttpClient(gateway.address))
            for client in (clients[1], newcomer):
                answer = await client.ask(cancellation(location))
                assert (answer.status, answer.kind()) == (409, "not-cancellable")
                assert "has ended" in str(answer.problem()["detail"])
                assert (await client.ask(head(b"DELETE", location))).status == 204
                # It still runs, as background jobs do.
                assert json.loads((await client.ask(get(location))).body)["state"] == "queued"
        async with hand_worker(address, function) as worker:
            handle, _, _, _ = await worker.take()
            worker.complete(handle)
