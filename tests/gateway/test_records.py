"""What is told of each request: its name, what is counted of it and its job, how long they took."""

from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from gatewayx.core.metrics import BOUNDS_S
from gatewayx.embedded import encode
from gatewayx.http.outcomes import OUTCOMES
from support.gateway import RunningGateway, cancelled, eventually, running_gateway
from support.http import HttpClient, chunked, get, head, post
from support.job_servers import hand_worker, nobody_listens
from support.relaying import relaying, unique_line
from support.times import PROCESS_S, SOON_S

pytestmark = pytest.mark.anyio

TIMING = re.compile(rb"gw;dur=([0-9]+\.[0-9]{3})(?:, job;dur=([0-9]+\.[0-9]{3}))?")


def counted(gateway: RunningGateway) -> Counter[tuple[str, int, str, bytes]]:
    """Requests that have ended, by method, status, outcome and function."""
    return counted_in(gateway.process.records.metrics)


def counted_in(metrics) -> Counter[tuple[str, int, str, bytes]]:
    """The same, of metrics."""
    names = metrics.functions.names()
    found: Counter[tuple[str, int, str, bytes]] = Counter()
    for method, outcome, function, count in metrics.requests():
        kind, status = OUTCOMES[outcome]
        found[method, status, kind, names[function]] += count
    return found


def jobs(gateway: RunningGateway) -> dict[tuple[bytes, str, str], int]:
    """Jobs that have ended, by function, job server and result."""
    metrics = gateway.process.records.metrics
    names, servers = metrics.functions.names(), metrics.servers.names()
    return {(names[function], servers[server].decode(), result): n for function, server, result, n in metrics.jobs()}


@pytest.fixture
async def named(gateway: RunningGateway, function: bytes) -> AsyncIterator[RunningGateway]:
    """The gateway, which tells the test's function apart."""
    gateway.process.places.tell_apart([function.decode(), "prefix*"])
    yield gateway
    # What is counted of requests together is what is counted of how long they took.
    metrics = gateway.process.records.metrics
    assert sum(buckets[-1] for _, buckets, _ in metrics.durations()) == sum(row[3] for row in metrics.requests())
    assert sum(buckets[-1] for _, buckets, _ in metrics.job_durations()) == sum(row[3] for row in metrics.jobs())


class TestRequests:
    async def test_one_for_each_end_of_a_job(self, named, client, worker, function, job_server):
        server = "{}:{}".format(*job_server.address)

        async def ended(end, count: int = 1) -> int:
            client.send(post(b"/" + function))
            handle, _, _, _ = await worker.take()
            worker.send(end(handle))
            return (await client.response()).status

        assert await ended(lambda handle: encode.work_complete(handle, b"x")) == 200
        assert await ended(encode.work_fail) == 500
        assert await ended(lambda handle: encode.work_exception(handle, b"x")) == 500
        assert await ended(lambda handle: encode.work_complete(handle, b"x" * 300_000)) == 502
        assert (await client.ask(post(b"/" + function, b"", b"X-Gearman-Background: true"))).status == 200
        assert (await client.ask(post(b"/" + function, b"", b"X-Gearman-Timeout: 0.1"))).status == 504
        assert counted(named) == {
            ("POST", 200, "ok", function): 2,
            ("POST", 500, "job-failed", function): 1,
            ("POST", 500, "exception", function): 1,
            ("POST", 502, "result-too-large", function): 1,
            ("POST", 504, "job-timeout", function): 1,
        }
        results = ("complete", "fail", "exception", "too-large", "queued", "timeout")
        assert jobs(named) == {(function, server, result): 1 for result in results}

    async def test_those_without_a_job(self, named, client, function):
        path = b"/" + function
        for request, status in (
            (head(b"OPTIONS", b"*"), 204),
            (head(b"DELETE", path), 405),
            (post(path, b"", b"X-Gearman-Priority: highest"), 400),
            (post(path + b"?query"), 400),
            (head(b"PUT", b"/", b"Content-Length: 0"), 404),
            (head(b"HEAD", b"/v1/jobs"), 404),
            (b"NOTHING\r\n\r\n", 400),
        ):
            assert (await client.ask(request, to_head=request.startswith(b"HEAD"))).status == status
        assert counted(named) == {
            ("OPTIONS", 204, "ok", b"_other"): 1,
            ("DELETE", 405, "method-not-allowed", b"_other"): 1,
            ("POST", 400, "malformed-header", function): 1,
            ("POST", 400, "unexpected-query", function): 1,
            ("PUT", 404, "no-function", b"_other"): 1,
            ("HEAD", 404, "reserved-path", b"_other"): 1,
            ("_other", 400, "malformed-request", b"_other"): 1,
        }
        assert jobs(named) == {}

    async def test_functions_that_are_not_told_apart_count_together(self, named, client):
        for name in (b"prefix", b"prefixed", b"prefix*", b"_other"):
            assert (await client.ask(post(b"/" + name, b"", b"X-Gearman-Background: true"))).status == 200
        assert counted(named) == {("POST", 200, "ok", b"_other"): 4}

    async def test_a_function_that_is_told_apart_later(self, named, client):
        request = post(b"/later", b"", b"X-Gearman-Background: true")
        await client.ask(request)
        named.process.places.tell_apart(["later"])
        await client.ask(request)
        assert counted(named) == {("POST", 200, "ok", b"_other"): 1, ("POST", 200, "ok", b"later"): 1}

    async def test_a_client_that_hangs_up(self, named, worker, function, job_server):
        async with HttpClient(named.address) as client:
            client.send(post(b"/" + function), head(b"OPTIONS", b"*"))
            await worker.take()
        await eventually(lambda: counted(named).total() == 2)
        assert counted(named) == {
            ("POST", 499, "client-gone", function): 1,
            # Its answer stood behind the other one.
            ("OPTIONS", 499, "client-gone", b"_other"): 1,
        }
        assert jobs(named) == {(function, "{}:{}".format(*job_server.address), "abandoned"): 1}

    async def test_a_connection_that_is_refused(self, job_server):
        async with (
            running_gateway([job_server.address], max_connections=1, first_byte_timeout_s=60) as gateway,
            HttpClient(gateway.address) as first,
        ):
            first.send(b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n1")
            await gateway.reaches("http.requests_in_flight", 1)
            async with HttpClient(gateway.address) as second:
                assert (await second.response()).kind() == "too-many-connections"
            assert counted(gateway) == {("_other", 503, "too-many-connections", b"_other"): 1}

    @pytest.mark.parametrize("request_", [b"POST /f HT", b"POST /f HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n1"])
    async def test_one_that_makes_room_counts_once(self, job_server, request_):
        async with (
            running_gateway([job_server.address], max_connections=1) as gateway,
            HttpClient(gateway.address) as first,
        ):
            first.send(request_)
            await gateway.reaches("http.connections", 1)
            refused = 0
            # It is closed for another once nothing of its request has come for a second.
            while gateway.count("http.connections_evicted") == 0:
                async with HttpClient(gateway.address) as other:
                    other.send(head(b"OPTIONS", b"*"))
                    answer = await other.response()
                    refused += answer.status == 503
                await asyncio.sleep(0.05)
            assert answer.status == 204
            assert (await first.response()).kind() == "too-many-connections"
            found = counted(gateway)
            assert found.pop(("OPTIONS", 204, "ok", b"_other")) == 1
            assert sum(count for key, count in found.items() if key[2] == "too-many-connections") == refused + 1
            assert found.total() == refused + 1

    async def test_without_a_job_server(self):
        async with running_gateway([nobody_listens()]) as gateway, HttpClient(gateway.address) as client:
            assert (await client.ask(post(b"/f"))).kind() == "no-job-server"
            assert counted(gateway) == {("POST", 503, "no-job-server", b"_other"): 1}
            assert jobs(gateway) == {}

    async def test_with_plugin_compat_what_failed_is_known_all_the_same(self, job_server, function):
        async with (
            running_gateway([job_server.address], plugin_compat=True) as gateway,
            HttpClient(gateway.address) as client,
            hand_worker(job_server.address, function) as worker,
        ):
            for end in (encode.work_fail, lambda handle: encode.work_exception(handle, b"x")):
                client.send(post(b"/" + function, b"w"))
                handle, _, _, _ = await worker.take()
                worker.send(end(handle))
                assert (await client.response()).status == 200
            assert counted(gateway) == {
                ("POST", 200, "job-failed", b"_other"): 1,
                ("POST", 200, "exception", b"_other"): 1,
            }


class TestNamesOfRequests:
    async def test_each_has_another_and_they_follow_each_other(self, gateway):
        seen: list[bytes] = []
        for _ in range(3):
            async with HttpClient(gateway.address) as client:
                client.send(*[head(b"OPTIONS", b"*")] * 15)
                seen += [(await client.response()).headers[b"x-request-id"] for _ in range(15)]
        assert len({name[:14] for name in seen}) == 1
        assert [int(name[14:]) for name in seen] == list(range(1, 46))

    async def test_two_processes_have_none_in_common(self, job_server):
        beginnings = set()
        for _ in range(4):
            async with running_gateway([job_server.address]) as gateway, HttpClient(gateway.address) as client:
                beginnings.add((await client.ask(get(b"/"))).headers[b"x-request-id"][:14])
        assert len(beginnings) == 4

    async def test_a_client_s_own_is_not_echoed(self, client):
        answer = await client.ask(get(b"/", b"X-Request-Id: 2345672345672-00000000000042"))
        assert answer.headers[b"x-request-id"] != b"2345672345672-00000000000042"


class TestServerTiming:
    async def test_is_left_out(self, client):
        assert b"server-timing" not in (await client.ask(head(b"OPTIONS", b"*"))).headers

    async def test_tells_what_the_job_took_apart(self, job_server, function):
        async with (
            running_gateway([job_server.address], server_timing=True) as gateway,
            HttpClient(gateway.address) as client,
            hand_worker(job_server.address, function) as worker,
        ):
            began_s = time.monotonic()
            client.send(post(b"/" + function))
            handle, _, _, _ = await worker.take()
            await asyncio.sleep(0.2)
            worker.complete(handle)
            timing = TIMING.fullmatch((await client.response()).headers[b"server-timing"])
            took_ms = 1000 * (time.monotonic() - began_s)
            # Loops are a millisecond coarse, and the gateway looks at the clock once for all that came together.
            assert 195 <= float(timing[2]) <= took_ms
            assert 0 <= float(timing[1]) <= took_ms - 195
            for request in (head(b"OPTIONS", b"*"), get(b"/"), b"NOTHING\r\n\r\n"):
                timing = TIMING.fullmatch((await client.ask(request)).headers[b"server-timing"])
                assert timing[2] is None

    async def test_counts_what_took_long_in_another_bucket(self, job_server, function):
        async with (
            running_gateway([job_server.address]) as gateway,
            HttpClient(gateway.address) as client,
            hand_worker(job_server.address, function) as worker,
        ):
            client.send(post(b"/" + function))
            handle, _, _, _ = await worker.take()
            await asyncio.sleep(0.11)
            worker.complete(handle)
            await client.response()
            metrics = gateway.process.records.metrics
            below = BOUNDS_S.index(0.1)
            for [(_, buckets, sum_s)] in (metrics.durations(), metrics.job_durations()):
                assert (buckets[below], buckets[-1]) == (0, 1)
                assert 0.105 <= sum_s < PROCESS_S


class TestSeveralProcesses:
    async def test_what_is_counted_is_what_clients_have_seen(self, job_server, function):
        name = function.decode()
        chance = random.Random(3)
        seen: Counter[tuple[str, int, str, bytes]] = Counter()
        requests = {
            "GET": get(b"/" + function + b"?x"),
            "POST": post(b"/" + function, b"w"),
            "PUT": head(b"PUT", b"/" + function, b"Content-Length: 0"),
            "OPTIONS": head(b"OPTIONS", b"*"),
        }

        async with (
            relaying([job_server.address], "--function", name, "--function", "un*", workers=4) as gateway,
            hand_worker(job_server.address, function) as worker,
            AsyncExitStack() as stack,
        ):
            clients = await gateway.clients(stack)

            async def serve() -> None:
                while True:
                    handle, _, _, _ = await worker.take(awake=True)
                    worker.complete(handle, b"r")

            served = asyncio.create_task(serve())

            async def ask(client: HttpClient, number: int) -> None:
                method = chance.choice(list(requests))
                request = requests[method]
                if method != "OPTIONS" and chance.random() < 0.5:
                    request = request.replace(b"\r\n\r\n", b"\r\n" + unique_line(b"u%d" % number) + b"\r\n\r\n", 1)
                status = (await client.ask(request)).status
                seen[method, status, "ok", b"_other" if method == "OPTIONS" else function] += 1

            for number in range(100):
                await asyncio.gather(*(ask(client, 10 * number + place) for place, client in enumerate(clients)))
            for client in clients:
                body = chunked(b"x" * 20_000)
                request = head(b"POST", b"/unknown", unique_line(b"large"), b"Transfer-Encoding: chunked",
                               b"X-Gearman-Background: true") + body  # fmt: skip
                assert (await client.ask(request)).status == 200
                seen["POST", 200, "ok", b"_other"] += 1
                assert (await client.ask(post(b"/not-allowed", b"", unique_line(b"u")))).status == 404
                seen["POST", 404, "function-not-allowed", b"_other"] += 1
            metrics = gateway.memory.places.metrics()
            await eventually(lambda: counted_in(metrics) == seen)
            assert gateway.relayed() > 50
            assert sum(row[3] for row in metrics.jobs()) == seen.total() - sum(
                count for key, count in seen.items() if key[0] == "OPTIONS" or key[1] == 404
            )
            await cancelled([served])
            # Whoever takes the place of one that was killed goes on counting there.
            os.kill(gateway.served.workers()[0], signal.SIGKILL)
            await eventually(
                lambda: None not in gateway.served.workers() and len(gateway.served.workers()) == 4, PROCESS_S
            )
            async with HttpClient(gateway.address) as client:
                assert (await client.ask(head(b"OPTIONS", b"*"))).status == 204
            seen["OPTIONS", 204, "ok", b"_other"] += 1
            await eventually(lambda: counted_in(metrics) == seen)


class TestAnswersThatAreNotTaken:
    """What the kernel has not taken for a client has not left."""

    LARGE = b"x" * 8_000_000

    @pytest.fixture
    async def unread(self, request, job_server, function: bytes) -> AsyncIterator[tuple[RunningGateway, socket.socket]]:
        """A gateway with one answer that its client does not read, and the client's socket; its parameter: settings."""
        loop = asyncio.get_running_loop()
        async with (
            running_gateway([job_server.address], **getattr(request, "param", {})) as gateway,
            hand_worker(job_server.address, function) as worker,
        ):
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setblocking(False)
                await loop.sock_connect(client, gateway.address)
                await loop.sock_sendall(client, post(b"/" + function))
                handle, _, _, _ = await worker.take()
                worker.complete(handle, self.LARGE)
                await gateway.reaches("http.unread_connections", 1)
                assert not counted(gateway)
                yield gateway, client

    async def test_one_that_is_read_late_ends_late(self, unread):
        gateway, client = unread
        loop = asyncio.get_running_loop()
        began_s = time.monotonic()
        came = bytearray()
        while len(came) < len(self.LARGE):
            came += await asyncio.wait_for(loop.sock_recv(client, 1 << 20), PROCESS_S)
        await eventually(lambda: counted(gateway) == {("POST", 200, "ok", b"_other"): 1})
        [(_, _, sum_s)] = gateway.process.records.metrics.durations()
        [(_, _, job_s)] = gateway.process.records.metrics.job_durations()
        assert job_s < sum_s < job_s + time.monotonic() - began_s + SOON_S

    async def test_one_whose_client_leaves_was_cut(self, unread):
        gateway, client = unread
        client.close()
        await eventually(lambda: counted(gateway) == {("POST", 200, "answer-cut", b"_other"): 1})

    # Longer than a machine stands still.
    @pytest.mark.parametrize("unread", [{"write_timeout_s": 4.0}], indirect=True, ids=["4s"])
    async def test_one_whose_client_stalls_was_cut(self, unread):
        gateway, _ = unread
        await eventually(lambda: counted(gateway) == {("POST", 200, "answer-cut", b"_other"): 1})
        assert gateway.count("http.writes_timed_out") == 1

    async def test_of_several_those_that_were_taken_have_ended(self, job_server, function):
        loop = asyncio.get_running_loop()
        async with (
            running_gateway([job_server.address]) as gateway,
            hand_worker(job_server.address, function) as worker,
        ):
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setblocking(False)
                await loop.sock_connect(client, gateway.address)
                await loop.sock_sendall(client, head(b"OPTIONS", b"*") + post(b"/" + function) + head(b"OPTIONS", b"*"))
                handle, _, _, _ = await worker.take()
                worker.complete(handle, self.LARGE)
                await gateway.reaches("http.unread_connections", 1)
            await eventually(lambda: counted(gateway).total() == 3)
            found = counted(gateway)
            assert found["OPTIONS", 204, "ok", b"_other"] == 1
            assert found["POST", 200, "answer-cut", b"_other"] + found["POST", 499, "client-gone", b"_other"] == 1
