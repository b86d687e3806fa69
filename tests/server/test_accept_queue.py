"""Who waits to be accepted when a stop begins: the kernel has let them in, and would reset them."""

from __future__ import annotations

import asyncio
import re
import resource
import signal
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from support.gateway import ServeProcess
from support.gearmand import die_with_parent
from support.http import HttpClient, head, post
from support.job_servers import hand_worker, nobody_listens
from support.times import SOON_S

LISTEN = ("--listen", "127.0.0.1:0")
OPTIONS = head(b"OPTIONS", b"*")

pytestmark = pytest.mark.anyio


def server_at(address: tuple[str, int]) -> tuple[str, str]:
    """The flag for a job server."""
    return ("--server", f"{address[0]}:{address[1]}")


@asynccontextmanager
async def waiting_clients(
    served: ServeProcess, addresses: Sequence[tuple[str, int]], count: int, *request: bytes
) -> AsyncIterator[list[HttpClient]]:
    """So many clients at each address, which wait with their request to be accepted when the stop begins."""
    served.signal_workers(signal.SIGSTOP)
    async with AsyncExitStack() as stack:
        clients = []
        for address in addresses:
            for _ in range(count):
                client = await stack.enter_async_context(HttpClient(address))
                client.send(*request)
                clients.append(client)
        # The kernel has the last one's, too, and each worker process has been told of the stop before it goes on.
        await asyncio.sleep(0)
        served.signal(signal.SIGTERM)
        await served.until("answering what is in flight")
        served.signal_workers(signal.SIGCONT)
        yield clients


async def test_each_is_answered_once_at_every_listener():
    async with ServeProcess(*LISTEN, *LISTEN, *server_at(nobody_listens())) as served:
        ports = re.findall(r"127\.0\.0\.1:([0-9]+)", (await served.until("listens on")).partition("listens on")[2])
        addresses = [("127.0.0.1", int(port)) for port in ports]
        assert len(addresses) == 2
        async with waiting_clients(served, addresses, 400, OPTIONS) as clients:
            answers = [await client.response() for client in clients]
            assert {answer.status for answer in answers} == {204}
            # In the turn in which the stop is heard of, 64 at each listener may be accepted before that.
            assert sum(b"connection" in answer.headers for answer in answers) > 100
            for client in clients:
                assert await client.rest() == b""
        assert await served.ended() == 0
    assert not [line for line in served.lines if "Traceback" in line or "ERROR" in line]


async def test_their_jobs_are_run_and_their_results_waited_for(embedded):
    async with (
        hand_worker(embedded.address, b"f") as worker,
        ServeProcess(*LISTEN, *server_at(embedded.address)) as served,
    ):
        address = await served.address()
        async with waiting_clients(served, [address], 5, post(b"/f", b"workload")) as clients:
            handles = [(await worker.take())[0] for _ in clients]
            await asyncio.sleep(0.2)
            for handle in handles:
                worker.complete(handle, b"result")
            for client in clients:
                answer = await client.response()
                assert (answer.status, answer.body) == (200, b"result")
        assert await served.ended() == 0


async def test_who_sends_nothing_is_closed_after_a_second():
    async with ServeProcess(*LISTEN, *server_at(nobody_listens())) as served:
        address = await served.address()
        began_s = time.monotonic()
        async with waiting_clients(served, [address], 3) as clients:
            for client in clients:
                assert await client.rest() == b""
            assert 0.8 < time.monotonic() - began_s < SOON_S
        assert await served.ended() == 0


async def test_max_connections_bounds_them():
    async with ServeProcess(*LISTEN, *server_at(nobody_listens()), "--max-connections", "4") as served:
        address = await served.address()
        half_a_request = head(b"POST", b"/f", b"Content-Length: 5")
        async with waiting_clients(served, [address], 10, half_a_request) as clients:
            answers = {asyncio.create_task(client.response()): client for client in clients}
            while len(answers) > 4:
                done, _ = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
                for refused in done:
                    assert refused.result().kind() == "too-many-connections"
                    del answers[refused]
            for answer, client in answers.items():
                client.send(b"hello")
                assert (await answer).kind() == "no-job-server"
        assert await served.ended() == 0


async def test_time_in_which_the_process_stands_still_is_not_that_of_who_waits():
    # After a few looks at the clock three seconds have passed.
    jumps = """
import time, types
from gatewayx.server import listeners
looks = []
def monotonic():
    looks.append(None)
    return time.monotonic() + 3.0 * (len(looks) > 5)
listeners.time = types.SimpleNamespace(monotonic=monotonic, sleep=time.sleep)
"""
    async with ServeProcess(*LISTEN, *server_at(nobody_listens()), "--workers", "1", before=jumps) as served:
        address = await served.address()
        async with waiting_clients(served, [address], 400, OPTIONS) as clients:
            assert {(await client.response()).status for client in clients} == {204}
        assert await served.ended() == 0


async def test_want_of_descriptors_is_waited_for():
    # Descriptors are free when the test has closed clients, which may take it longer than a second.
    patient = "from gatewayx.server import listeners\nlisteners.LAST_ACCEPTS_S = 30.0"

    def few_descriptors() -> None:
        die_with_parent()
        resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))

    async with ServeProcess(*LISTEN, *server_at(nobody_listens()), preexec=few_descriptors, before=patient) as served:
        address = await served.address()
        async with waiting_clients(served, [address], 80, OPTIONS) as clients:
            for client in clients:
                assert (await client.response()).status == 204
                # The others wait for its descriptor.
                await client.close()
        assert await served.ended() == 0


async def test_clients_that_never_cease_to_come_do_not_hold_up_the_end():
    async with ServeProcess(*LISTEN, *server_at(nobody_listens())) as served:
        address = await served.address()
        ended = False

        async def come_again() -> None:
            while not ended:
                try:
                    async with HttpClient(address) as client:
                        client.send(OPTIONS)
                        await client.rest()
                except ConnectionError:
                    await asyncio.sleep(0.001)

        coming = [asyncio.create_task(come_again()) for _ in range(16)]
        await asyncio.sleep(0.2)
        began_s = time.monotonic()
        served.signal(signal.SIGTERM)
        try:
            assert await served.ended() == 0
            assert time.monotonic() - began_s < SOON_S
        finally:
            ended = True
            await asyncio.gather(*coming)


async def test_nobody_listens_any_more_once_the_queue_is_empty(embedded):
    async with (
        hand_worker(embedded.address, b"f") as worker,
        ServeProcess(*LISTEN, *server_at(embedded.address)) as served,
    ):
        address = await served.address()
        async with waiting_clients(served, [address], 1, post(b"/f", b"workload")) as [client]:
            handle, _, _, _ = await worker.take()

            async def is_refused() -> bool:
                try:
                    async with HttpClient(address):
                        return False
                except ConnectionRefusedError:
                    return True

            # Long before the drain timeout, to which the job could take.
            ends_s = time.monotonic() + SOON_S
            while not await is_refused():
                assert time.monotonic() < ends_s
            worker.complete(handle, b"result")
            assert (await client.response()).body == b"result"
        assert await served.ended() == 0
