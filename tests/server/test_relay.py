"""Requests with uniques of their clients, in gateways of several worker processes: to the clients they are like one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from gatewayx.embedded.worker import AssignedJob, Worker
from gatewayx.gearman.packet import PacketType
from support.gateway import POLL_S, cancelled
from support.http import REQUEST_ID, HttpClient, Response, chunked, head, post
from support.job_servers import ScriptedConnection, ScriptedJobServer, hand_worker, nobody_listens
from support.relaying import Relaying, relaying, unique_line
from support.times import PROCESS_S

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
            markers = await gateway.clients(stack)
            relayed_before = gateway.relayed()
            for unique in uniques(4):
                request = post(b"/" + function, b"workload", unique_line(unique))
                early, middle, late = connected[::3], connected[1::3], connected[2::3]
                relayed = gateway.relayed()
                for client in early:
                    client.send(request)
                handle, _, found, workload = await worker.take()
                assert (found, workload) == (unique, b"workload")
                await gateway.jobs_left(len(early))
                worker.send_data(handle, b"first,")
                await worker.settle()
                for client in middle:
                    client.send(request)
                await gateway.jobs_left(len(early + middle))
                worker.send_data(handle, b"second,")
                worker.send_data(handle, b"third,")
                await worker.settle()
                for client in late:
                    client.send(request)
                await gateway.jobs_left(len(connected))
                # As many as are not at the place of the owner, of which there is one.
                assert 0 < gateway.relayed() - relayed < len(connected)
                await gateway.submitted(markers, address)
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


async def sample(job: AssignedJob) -> bytes | None:
    """What the workload asks for."""
    if job.workload == b"fail":
        job.fail()
        return None
    if job.workload == b"exception":
        job.exception(b"what went wrong")
        return None
    if job.workload == b"parts":
        job.send_data(b"one,")
        job.send_data(b"two,")
    if job.workload == b"large":
        return bytes(5000)
    if job.workload == b"empty":
        return b""
    return b"%b of %b" % (job.workload, job.function)


@asynccontextmanager
async def samples(address: tuple[str, int], function: bytes) -> AsyncIterator[Worker]:
    """A worker that does so."""
    worker = Worker(address, {function: sample})
    await worker.start()
    try:
        yield worker
    finally:
        await worker.close()


class Raw(HttpClient):
    """A client that sees the bytes of an answer's head."""

    async def raw(self, *request: bytes, to_head: bool = False) -> bytes:
        """The answer to a request, as it came, without what differs from one answer to the next."""
        self.send(*request)
        came = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), PROCESS_S)
        lines = came.split(b"\r\n")
        [length] = [int(line.partition(b": ")[2]) for line in lines if line.lower().startswith(b"content-length")]
        body = b"" if to_head else await asyncio.wait_for(self.reader.readexactly(length), PROCESS_S)
        for number, line in enumerate(lines):
            name, colon, _ = line.partition(b": ")
            if name in {b"Date", b"X-Gearman-Job-Handle", b"Retry-After", b"X-Gearman-Unique", b"X-Request-Id"}:
                lines[number] = name + colon
        return b"\r\n".join(lines) + REQUEST_ID.sub(b"", body)


def asking(workload: bytes, *lines: bytes, method: bytes = b"POST", query: bytes = b""):
    """What makes a request of a path and the line that holds a unique."""

    def make(path: bytes, unique: bytes) -> bytes:
        if method in {b"GET", b"HEAD"}:
            return head(method, path + query, unique, *lines)
        return head(method, path, unique, *lines, b"Content-Length: %d" % len(workload)) + workload

    return make


def chunked_request(path: bytes, unique: bytes) -> bytes:
    """One whose body has no length."""
    return head(b"POST", path, unique, b"Transfer-Encoding: chunked") + chunked(b"abc", b"de")


REQUESTS = {
    "POST": (asking(b"w"), b"200"),
    "no body": (asking(b""), b"200"),
    "chunked": (chunked_request, b"200"),
    "PUT": (asking(b"w", method=b"PUT"), b"200"),
    "GET": (asking(b"", method=b"GET"), b"200"),
    "GET with a query": (asking(b"", method=b"GET", query=b"?a=b%20c&d"), b"200"),
    "GET with an empty query": (asking(b"", method=b"GET", query=b"?"), b"200"),
    "HEAD": (asking(b"", method=b"HEAD"), b"200"),
    "HEAD with a query": (asking(b"", method=b"HEAD", query=b"?fail"), b"500"),
    "HTTP/1.0": (
        lambda path, unique: post(path, b"w", unique, b"Connection: keep-alive", version=b"1.0"),
        b"200",
    ),
    "high": (asking(b"w", b"X-Gearman-Priority: high"), b"200"),
    "low": (asking(b"w", b"X-Gearman-Priority: low"), b"200"),
    "background": (asking(b"w", b"X-Gearman-Background: true"), b"200"),
    "background, high": (asking(b"w", b"X-Gearman-Background: true", b"X-Gearman-Priority: high"), b"200"),
    "not background": (asking(b"w", b"X-Gearman-Background: false"), b"200"),
    "timeout": (asking(b"w", b"X-Gearman-Timeout: 20.5"), b"200"),
    "parts": (asking(b"parts"), b"200"),
    "empty result": (asking(b"empty"), b"200"),
    "failed": (asking(b"fail"), b"500"),
    "exception": (asking(b"exception"), b"500"),
    "too large": (asking(b"large"), b"502"),
    "timed out": (asking(b"w", b"X-Gearman-Timeout: 0.2"), b"504"),
    "timed out at once": (asking(b"w", b"X-Gearman-Timeout: 0.0000001"), b"504"),
    "function with a slash": (asking(b"w", query=b""), b"200"),
}
# Those whose job no worker takes.
UNTAKEN = {"timed out", "timed out at once"}


async def both(gateway: Relaying, make, path: bytes, *, to_head: bool = False) -> tuple[set[bytes], set[bytes]]:
    """What is answered where it is not relayed, and where it is."""
    answers: tuple[set[bytes], set[bytes]] = (set(), set())
    async with Raw(gateway.address) as client:
        for unique in uniques():
            before = gateway.relayed()
            answer = await client.raw(make(path, unique_line(unique)), to_head=to_head)
            answers[gateway.relayed() > before].add(answer)
            if all(answers):
                return answers
    raise AssertionError(f"of so many none is relayed, or all are: {answers}")


class TestTheAnswer:
    @pytest.mark.parametrize("name", REQUESTS)
    async def test_is_the_same_byte_for_byte(self, address, function, name):
        make, status = REQUESTS[name]
        path = b"/" + function + (b"%2Fx%20y/:" if name == "function with a slash" else b"")
        taken = function + (b"/x y/:" if name == "function with a slash" else b"")
        async with relaying([address], "--max-result", "4096", "--content-type", "text/plain") as gateway:
            async with samples(address, b"nobody's" if name in UNTAKEN else taken):
                own, relayed = await both(gateway, make, path, to_head=name.startswith("HEAD"))
            assert own == relayed
            [answer] = own
            assert answer.split(b" ")[1] == status

    @pytest.mark.parametrize(
        ("options", "kind"),
        [(("--max-function-jobs", "*=1"), "too-many-function-jobs"), (("--max-jobs", "1"), "too-many-jobs")],
        ids=["of a function", "of all"],
    )
    async def test_is_the_same_when_a_bound_is_full_once_the_body_is_there(self, embedded, options, kind):
        answers: dict[bool, Response] = {}
        async with relaying([embedded.address], *options) as gateway, AsyncExitStack() as stack:
            [client, _] = await gateway.clients(stack)
            for unique in uniques():
                client.send(head(b"POST", b"/f", unique_line(unique), b"Expect: 100-continue", b"Content-Length: 1"))
                assert (await client.response()).status == 100
                async with HttpClient(gateway.address) as other:
                    other.send(post(b"/f", b"the only one"))
                    await gateway.jobs_left(1)
                    relayed, answer = await gateway.asked(client, b"w")
                    assert answer.kind() == kind
                    answers[relayed] = answer
                await gateway.jobs_left(0)
                if len(answers) == 2:
                    break
        own, relayed = (REQUEST_ID.sub(b"", answers[is_relayed].body) for is_relayed in (False, True))
        assert own == relayed
        assert list(answers[False].headers) == list(answers[True].headers)
        assert int(answers[True].headers[b"retry-after"]) >= 1

    async def test_is_the_same_when_every_queue_is_full(self, function):
        async with ScriptedJobServer() as server, relaying([server.address]) as gateway:
            served = asyncio.create_task(refuse_all(server))
            own, relayed = await both(gateway, asking(b"w"), b"/" + function)
            await cancelled([served])
            assert own == relayed
            [answer] = own
            assert b"urn:gatewayx:job-refused" in answer

    async def test_is_the_same_without_a_job_server(self, function):
        async with relaying([nobody_listens()]) as gateway:
            own, relayed = await both(gateway, asking(b"w"), b"/" + function)
            assert own == relayed
            [answer] = own
            assert b"urn:gatewayx:no-job-server" in answer

    @pytest.mark.parametrize("option", [("--max-headers", "6"), ("--max-header-bytes", "1KiB", "--max-target", "256")])
    async def test_is_the_same_with_small_bounds_on_heads(self, embedded, option):
        function = b"f" * 255
        lines = (b"X-Gearman-Background: false", b"X-Gearman-Priority: normal", b"X-Gearman-Timeout: 29.9999")
        async with relaying([embedded.address], *option) as gateway, samples(embedded.address, function):
            own, relayed = await both(
                gateway,
                lambda path, line: post(path, b"w", line + b"x" * (len(unique_line(b"")) + 63 - len(line)), *lines),
                b"/" + function,
            )
            assert own == relayed
            [answer] = own
            assert answer.split(b" ")[1] == b"200"

    async def test_is_the_same_for_one_without_a_body_and_with_as_many_lines_as_may_be(self, embedded):
        async with relaying([embedded.address], "--max-headers", "2") as gateway, samples(embedded.address, b"f"):
            own, relayed = await both(gateway, lambda path, line: head(b"POST", path, line), b"/f")
            assert own == relayed
            [answer] = own
            assert answer.split(b" ")[1] == b"200"

    @pytest.mark.parametrize(
        ("name", "path"),
        [
            ("POST", b""),
            ("PUT", b""),
            ("GET", b""),
            ("HEAD", b""),
            ("failed", b""),
            ("exception", b""),
            ("too large", b""),
            ("timed out", b""),
            ("background", b""),
            ("POST with a query", b"?a=b"),
            ("POST with an empty query", b"?"),
        ],
    )
    async def test_is_the_same_as_the_plugin_s(self, address, function, name, path):
        make, _ = REQUESTS[name.partition(" with")[0]]
        async with relaying([address], "--plugin-compat", "--max-result", "4096") as gateway:
            async with samples(address, b"nobody's" if name in UNTAKEN else function + path):
                own, relayed = await both(gateway, make, b"/" + function + path, to_head=name == "HEAD")
            assert own == relayed
            assert len(own) == 1


async def refuse_all(server: ScriptedJobServer) -> None:
    """Answer every submission with an ERROR."""
    connections: list[ScriptedConnection] = []
    while True:
        while not server.accepted.empty():
            connections.append(server.accepted.get_nowait())
        for connection in connections:
            while not connection.submissions.empty():
                connection.submissions.get_nowait()
                connection.answer(PacketType.ERROR, b"QUEUE_ERROR", b"Job queue is full")
        await asyncio.sleep(POLL_S)


class TestWithoutAUnique:
    """Of `-`, the plugin's default: the workload decides, so that it is one job all the same."""

    @pytest.mark.parametrize("lines", [(), (b"X-Gearman-Unique: -",)], ids=["none", "given"])
    @pytest.mark.parametrize("plugin", [True, False], ids=["plugin", "own"])
    async def test_equal_workloads_are_one_run(self, address, function, plugin, lines):
        options = ("--plugin-compat",) if plugin else ()
        async with (
            relaying([address], *options, workers=3) as gateway,
            hand_worker(address, function) as worker,
            AsyncExitStack() as stack,
        ):
            if not plugin:
                lines = (b"X-Gearman-Unique: -",)
            clients = await gateway.clients(stack)
            markers = await gateway.clients(stack)
            # Large ones differ in the middle only, which does not rank them.
            for workload in (b"small", b"other", bytes(100_000), bytes(50_000) + b"x" + bytes(49_999)):
                before = gateway.relayed()
                for client in clients:
                    client.send(post(b"/" + function, workload, *lines))
                handle, _, unique, found = await worker.take()
                assert (unique, found) == (b"-", workload)
                await gateway.jobs_left(len(clients))
                assert gateway.relayed() - before == len(clients) - 1
                await gateway.submitted(markers, address)
                worker.send_data(handle, b"part,")
                worker.complete(handle, b"last")
                for client in clients:
                    answer = await client.response()
                    assert (answer.status, answer.body) == (200, b"part,last")
                await worker.no_job()
                await gateway.jobs_left(0)

    async def test_nothing_is_relayed(self, embedded):
        async with relaying([embedded.address]) as gateway, samples(embedded.address, b"f"):
            async with AsyncExitStack() as stack:
                for client in await gateway.clients(stack):
                    for _ in range(10):
                        assert (await client.ask(post(b"/f", b"w"))).status == 200
            assert gateway.relayed() == 0

    async def test_nothing_is_relayed_for_an_empty_workload_of_the_plugin(self, embedded):
        # A job server merges none of them.
        async with relaying([embedded.address], "--plugin-compat") as gateway, samples(embedded.address, b"f"):
            async with AsyncExitStack() as stack:
                for client in await gateway.clients(stack):
                    for method in (b"GET", b"POST"):
                        assert (await client.ask(head(method, b"/f"))).body == b" of f"
            assert gateway.relayed() == 0


async def test_one_worker_process_relays_nothing(embedded):
    async with relaying([embedded.address], workers=1) as gateway, samples(embedded.address, b"f"):
        async with HttpClient(gateway.address) as client:
            for unique in uniques():
                assert (await client.ask(post(b"/f", b"w", unique_line(unique)))).body == b"w of f"
        assert gateway.relayed() == 0
