"""Requests with uniques of their clients, in gateways of several worker processes: to the clients they are like one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from gatewayx.embedded.worker import AssignedJob, Worker
from support.gateway import PROCESS_S, eventually
from support.http import HttpClient, Response, get, head, post
from support.job_servers import HandWorker, hand_worker, nobody_listens
from support.relaying import Relaying, relaying, unique_line

pytestmark = pytest.mark.anyio

BACKGROUND = b"X-Gearman-Background: true"
# Of so many uniques each of two processes owns some: all belong to one in one of 10^9 runs.
ENOUGH = 32


def uniques(count: int = ENOUGH) -> Iterator[bytes]:
    """So many, none of which another test has."""
    number = next(COUNTED)
    return (b"u-%d-%d" % (number, index) for index in range(count))


COUNTED = itertools.count()


class TestOneRun:
    @pytest.mark.parametrize(("clients", "workers"), [(8, 2), (8, 4), (64, 4)])
    async def test_early_and_late_ones_have_the_whole_result(self, address, function, clients, workers):
        async with (
            relaying([address], workers=workers) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            connected = [await stack.enter_async_context(HttpClient(gateway.address)) for _ in range(clients)]
            # One at each place at least, whatever the kernel does.
            connected += await gateway.clients(stack)
            relayed_before = gateway.relayed()
            for unique in uniques(4):
                request = post(b"/" + function, b"workload", unique_line(unique))
                early, middle, late = connected[::3], connected[1::3], connected[2::3]
                relayed = gateway.relayed()
                jobs = gateway.memory.taken()["jobs"]
                assert jobs == 0
                for client in early:
                    client.send(request)
                handle, _, found, workload = await worker.take()
                assert (found, workload) == (unique, b"workload")
                await eventually(lambda count=len(early): gateway.memory.taken()["jobs"] == count)
                worker.send_data(handle, b"first,")
                await worker.settle()
                for client in middle:
                    client.send(request)
                await eventually(lambda count=len(early + middle): gateway.memory.taken()["jobs"] == count)
                worker.send_data(handle, b"second,")
                worker.send_data(handle, b"third,")
                await worker.settle()
                for client in late:
                    client.send(request)
                await eventually(lambda: gateway.memory.taken()["jobs"] == len(connected))
                # As many as are not at the place of the owner, of which there is one.
                assert 0 < gateway.relayed() - relayed < len(connected)
                worker.complete(handle, b"last")
                answers = [await client.response() for client in connected]
                assert {(answer.status, answer.body) for answer in answers} == {(200, b"first,second,third,last")}
                assert {answer.headers[b"x-gearman-job-handle"] for answer in answers} == {handle}
                assert {answer.headers[b"x-gearman-unique"] for answer in answers} == {unique}
                # No second job of it waits.
                await worker.no_job()
                await gateway.jobs_left(0)
            assert gateway.relayed() > relayed_before


class TestMixedKinds:
    async def test_are_409_wherever_the_two_arrive(self, address, function):
        async with (
            relaying([address]) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)
            relayed = set()
            for one, other in itertools.product(clients, repeat=2):
                # A client has one request at a time.
                other = await stack.enter_async_context(HttpClient(gateway.address)) if one is other else other
                for unique in uniques(8):
                    lines = unique_line(unique)
                    before = gateway.relayed()
                    one.send(post(b"/" + function, b"w", lines))
                    handle, _, found, _ = await worker.take()
                    assert found == unique
                    relayed.add(gateway.relayed() - before)
                    assert (await other.ask(post(b"/" + function, b"w", lines, BACKGROUND))).kind() == "unique-in-use"
                    worker.complete(handle, b"done")
                    assert (await one.response()).body == b"done"
                for unique in uniques(8):
                    lines = unique_line(unique)
                    accepted = await one.ask(post(b"/" + function, b"w", lines, BACKGROUND))
                    assert (accepted.status, accepted.headers[b"x-gearman-command"]) == (200, b"JOB_CREATED")
                    assert (await other.ask(post(b"/" + function, b"w", lines))).kind() == "unique-in-use"
                    handle, _, found, _ = await worker.take()
                    assert (handle, found) == (accepted.headers[b"x-gearman-job-handle"], unique)
                    worker.complete(handle)
                await worker.no_job()
            assert relayed == {0, 1}
