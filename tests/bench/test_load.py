"""The load generator against servers that do what a test says: what each request ends in, and what is measured."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gatewayx.bench.load import LoadGenerator
from gatewayx.bench.template import LEAST_UNIQUE_BYTES, RequestTemplate
from gatewayx.net.sockets import Peer, clock_ns
from support.gateway import WAIT_S, eventually
from support.scripted_server import Request, ok, scripted_server

pytestmark = pytest.mark.anyio

SWEEP_S = 0.01
TAG = b"abcdefgh"


def template(
    body: bytes | None = b"hello", *, tag: bytes = b"", check: str = "framing", method: bytes = b"POST"
) -> RequestTemplate:
    """A request to /."""
    return RequestTemplate(method + b" / HTTP/1.1\r\nHost: a\r\n", body, tag, check)


class Outcome:
    """What a generator has to tell at the end; every request is accounted for."""

    def __init__(self, generator: LoadGenerator) -> None:
        told = generator.snapshot()
        self.generator = generator
        self.sent: int = told["sent"]
        self.good: int = told["good"]
        self.errors: dict[str, int] = told["errors"]
        self.statuses: dict[str, int] = told["statuses"]
        self.sent_in_time: int = told["sent_in_time"]
        self.sent_bytes: int = told["sent_bytes"]
        self.received_bytes: int = told["received_bytes"]
        self.latency = generator.latency
        self.uncorrected = generator.uncorrected
        never_sent = self.errors.get("connect", 0) + self.errors.get("not_sent", 0)
        assert generator.outstanding == 0
        assert told["ended"] == self.sent + never_sent
        assert self.good + sum(self.errors.values()) == self.sent + never_sent
        timed = sum(self.statuses.values()) + self.errors.get("timeout", 0) + self.errors.get("not_sent", 0)
        assert self.latency.count == timed
        assert self.good <= sum(self.statuses.values()) <= self.sent


async def started(address: tuple[str, int], request: RequestTemplate, connections: int, **options) -> LoadGenerator:
    """A generator whose connections are up, or refused."""
    generator = LoadGenerator(asyncio.get_running_loop(), Peer(*address), request, connections=connections, **options)
    generator.connect()
    await eventually(lambda: generator.connected == connections or generator.connect_errno)
    return generator


async def ended(generator: LoadGenerator) -> Outcome:
    """Wait until it is done."""
    ends_s = asyncio.get_running_loop().time() + WAIT_S
    while not generator.done:
        assert asyncio.get_running_loop().time() < ends_s, "a request has not ended"
        await asyncio.sleep(SWEEP_S)
        generator.sweep()
    generator.finish()
    return Outcome(generator)


async def load(
    address: tuple[str, int],
    request: RequestTemplate | None = None,
    *,
    duration_s: float = 0.05,
    connections: int = 2,
    **options,
) -> Outcome:
    """Load a server for so long."""
    generator = await started(address, request or template(), connections, **options)
    begins_ns = clock_ns()
    generator.begin(begins_ns, begins_ns + round(duration_s * 1e9))
    return await ended(generator)


@asynccontextmanager
async def raw_server(
    serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[tuple[str, int]]:
    """A server whose connections are served so, and ended at the end."""
    tasks = set()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        with contextlib.suppress(asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            await serve(reader, writer)
        writer.close()

    server = await asyncio.start_server(connection, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome


async def echo(request: Request) -> bytes:
    """The request's body."""
    return ok(request.body)


async def never(request: Request) -> None:
    """No answer, ever."""
    await asyncio.sleep(2 * WAIT_S)


class TestEveryRequestEndsOnce:
    @pytest.mark.parametrize("pipeline", [1, 4])
    async def test_answered(self, pipeline):
        async with scripted_server(echo) as server:
            outcome = await load(server.address, connections=3, pipeline=pipeline)
        assert outcome.sent == outcome.good == len(server.requests) > 10
        assert outcome.statuses == {"200": outcome.sent}
        assert outcome.errors == {}
        assert server.connections == 3

    async def test_bytes_are_counted(self):
        async with scripted_server(echo) as server:
            outcome = await load(server.address)
        assert outcome.sent_bytes == sum(len(request.head) + len(request.body) for request in server.requests)
        assert outcome.received_bytes == outcome.sent * len(ok(b"hello"))

    async def test_connect_refused(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            outcome = await load(unused.getsockname(), connections=2)
        assert outcome.generator.connect_errno == errno.ECONNREFUSED
        assert outcome.sent == 0
        assert set(outcome.errors) == {"connect"}
        # Tried again at each sweep, not at once.
        assert 2 <= outcome.errors["connect"] <= 2 * 0.3 / SWEEP_S

    async def test_connect_that_is_not_answered(self):
        # One that does not accept: its queue is full, the kernel drops what comes.
        with socket.socket() as full, contextlib.ExitStack() as clients:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for _ in range(3):
                client = clients.enter_context(socket.socket())
                client.setblocking(False)
                client.connect_ex(full.getsockname())
            generator = LoadGenerator(
                asyncio.get_running_loop(), Peer(*full.getsockname()), template(), connections=1, timeout_s=0.1
            )
            generator.connect()
            begins_ns = clock_ns()
            generator.begin(begins_ns, begins_ns + 350_000_000)
            outcome = await ended(generator)
        assert outcome.sent == 0
        assert 1 <= outcome.errors["connect"] <= 4

    async def test_reset_after_the_request(self):
        async def reset(request: Request) -> None:
            request.reset()

        async with scripted_server(reset) as server:
            outcome = await load(server.address)
        assert outcome.errors == {"reset": outcome.sent}
        assert outcome.sent >= 2
        assert outcome.statuses == {}

    async def test_closed_without_an_answer(self):
        async def close(request: Request) -> None:
            request.close()

        async with scripted_server(close) as server:
            outcome = await load(server.address)
        assert outcome.errors == {"reset": outcome.sent}
        assert outcome.sent >= 2

    async def test_closed_within_an_answer(self):
        async def cut(request: Request) -> bytes:
            request.writer.write(ok(b"hello")[:-1])
            request.close()
            return b""

        async with scripted_server(cut) as server:
            outcome = await load(server.address)
        assert outcome.errors == {"reset": outcome.sent}
        assert outcome.statuses == {}

    async def test_server_that_only_resets_is_not_flooded(self):
        async def reset(request: Request) -> None:
            request.reset()

        async with scripted_server(reset) as server:
            await load(server.address, connections=1, duration_s=0.3)
        assert server.connections <= 0.3 / SWEEP_S + 2

    async def test_pipelined_requests_behind_a_reset_end_too(self):
        async def second(request: Request) -> bytes | None:
            if request.number % 4 == 1:
                request.reset()
                return None
            return ok()

        async with scripted_server(second) as server:
            outcome = await load(server.address, connections=1, pipeline=4)
        assert set(outcome.errors) == {"reset"}
        assert outcome.errors["reset"] + outcome.statuses.get("200", 0) == outcome.sent

    async def test_never_answered(self):
        async with scripted_server(never) as server:
            outcome = await load(server.address, connections=3, timeout_s=0.15, duration_s=0.3)
        assert outcome.errors == {"timeout": outcome.sent}
        assert 6 <= outcome.sent <= 9

    async def test_pipelined_and_never_answered(self):
        async with scripted_server(never) as server:
            outcome = await load(server.address, connections=1, pipeline=5, timeout_s=0.1, duration_s=0.05)
        assert outcome.errors == {"timeout": 5}

    async def test_half_an_answer_that_stops(self):
        async def half(request: Request) -> bytes:
            return b"HTTP/1.1 200 OK\r\nContent-Le"

        async with scripted_server(half) as server:
            outcome = await load(server.address, timeout_s=0.1, duration_s=0.05)
        assert outcome.errors == {"timeout": 2}

    @pytest.mark.parametrize(
        "answer",
        [b"hello\r\n\r\n", ok().replace(b"1.1", b"2.0"), b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"],
        ids=["no answer", "another version", "another encoding"],
    )
    async def test_garbage(self, answer):
        async def garbage(request: Request) -> bytes:
            return answer

        async with scripted_server(garbage) as server:
            outcome = await load(server.address)
        assert outcome.errors == {"bad_response": outcome.sent}
        assert outcome.sent >= 2
        assert outcome.statuses == {}
        assert outcome.generator.bad_response

    async def test_answer_to_no_request(self):
        async def twice(request: Request) -> bytes:
            return ok() * 2

        async with scripted_server(twice) as server:
            generator = await started(server.address, template(), 1)
            begins_ns = clock_ns()
            generator.begin(begins_ns, begins_ns + 50_000_000)
            while not generator.done:
                await asyncio.sleep(SWEEP_S)
                generator.sweep()
            generator.finish()
        told = generator.snapshot()
        # More errors than requests: each second answer belongs to none.
        assert told["good"] == told["sent"]
        assert told["errors"]["bad_response"] == told["sent"]
        assert generator.bad_response == "an answer to no request"

    @pytest.mark.parametrize("status", [400, 503])
    async def test_refused(self, status):
        async def refuse(request: Request) -> bytes:
            return ok(b"no", status=status)

        async with scripted_server(refuse) as server:
            outcome = await load(server.address)
        assert outcome.statuses == {str(status): outcome.sent}
        assert outcome.errors == {"status": outcome.sent}
        assert server.connections == 2

    @pytest.mark.parametrize("status", [200, 204, 302, 399])
    async def test_other_statuses_are_good(self, status):
        async def answer(request: Request) -> bytes:
            return b"HTTP/1.1 204 -\r\n\r\n" if status == 204 else ok(status=status)

        async with scripted_server(answer) as server:
            outcome = await load(server.address, duration_s=0.05)
        assert outcome.statuses == {str(status): outcome.sent}
        assert outcome.errors == {}

    async def test_all_at_once_add_up(self):
        async def anything(request: Request) -> bytes | None:
            match request.number % 7:
                case 0:
                    request.reset()
                    return None
                case 1:
                    return ok(status=503)
                case 2:
                    return ok(b"hello", b"Connection: close")
                case 3:
                    return b"garbage\r\n\r\n"
                case 4:
                    return ok(b"other")
                case 5 if request.number % 3 == 0:
                    await asyncio.sleep(0.2)
            return ok(request.body)

        async with scripted_server(anything) as server:
            outcome = await load(
                server.address, template(check="echo"), connections=8, pipeline=3, duration_s=0.3, timeout_s=0.1
            )
        assert set(outcome.errors) == {"reset", "status", "bad_response", "timeout"}
        assert outcome.good > 0


class TestConnections:
    async def test_closed_after_each_answer_is_no_error(self):
        async def close(request: Request) -> bytes:
            return ok(b"", b"Connection: close")

        async with scripted_server(close) as server:
            outcome = await load(server.address)
        assert outcome.errors == {}
        assert outcome.good == outcome.sent > 10
        # One for each request, and perhaps one more each that had nothing to send.
        assert outcome.sent <= server.connections <= outcome.sent + 2

    async def test_answer_that_ends_with_the_connection_is_whole(self):
        async def until_close(request: Request) -> bytes:
            request.writer.write(b"HTTP/1.0 200 OK\r\n\r\n" + request.body)
            request.close()
            return b""

        async with scripted_server(until_close) as server:
            outcome = await load(server.address, template(check="echo"))
        assert outcome.errors == {}
        assert outcome.good == outcome.sent > 10

    async def test_requests_behind_the_last_answer_are_lost(self):
        async def close(request: Request) -> bytes:
            request.writer.write(ok(b"", b"Connection: close"))
            request.close()
            return b""

        async with scripted_server(close) as server:
            outcome = await load(server.address, connections=1, pipeline=3)
        assert outcome.statuses["200"] * 2 == outcome.errors["reset"]

    async def test_answer_before_the_request_is_whole_ends_the_connection(self):
        async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(ok(b"too large", status=413))
            await asyncio.sleep(WAIT_S)

        async with raw_server(refuse) as address:
            outcome = await load(address, template(bytes(8 << 20)), duration_s=0.1)
        assert outcome.statuses == {"413": outcome.sent}
        assert outcome.errors == {"status": outcome.sent}
        assert outcome.sent > 2

    async def test_no_connection_is_left_when_it_is_finished(self):
        async with scripted_server(never) as server:
            generator = await started(server.address, template(), 4, timeout_s=WAIT_S)
            begins_ns = clock_ns()
            generator.begin(begins_ns, begins_ns + 10_000_000)
            await eventually(lambda: len(server.requests) == 4)
            generator.finish()
            outcome = Outcome(generator)
            assert generator.connected == 0
        # What was under way has failed.
        assert outcome.errors == {"timeout": 4}


class TestRequests:
    @pytest.mark.parametrize("pipeline", [1, 8])
    @pytest.mark.parametrize("body_bytes", [LEAST_UNIQUE_BYTES, 100, 3000])
    async def test_unique_bodies_are_all_different(self, body_bytes, pipeline):
        async with scripted_server(echo) as server:
            outcomes = await asyncio.gather(
                *(
                    load(server.address, template(b"." * body_bytes, tag=tag, check="echo"), pipeline=pipeline)
                    for tag in (b"01234567", b"89abcdef")
                )
            )
        bodies = [request.body for request in server.requests]
        assert len(set(bodies)) == len(bodies) == sum(outcome.sent for outcome in outcomes)
        assert {len(body) for body in bodies} == {body_bytes}
        assert {body[:2] for body in bodies} == {b"01", b"89"}
        assert {body[20:] for body in bodies} == {b"." * max(body_bytes - 20, 0)}
        assert [outcome.errors for outcome in outcomes] == [{}, {}]

    @pytest.mark.parametrize("body", [b"", b"1234567", None])
    def test_body_too_short_to_be_unique_is_refused(self, body):
        with pytest.raises(ValueError, match="unique bodies need 8 bytes"):
            template(body, tag=TAG)

    @pytest.mark.parametrize(
        ("body", "length"), [(b"hello", b"5"), (b"", b"0"), (None, None)], ids=["some", "empty", "none"]
    )
    async def test_body_has_its_length(self, body, length):
        async with scripted_server(echo) as server:
            await load(server.address, template(body, check="echo"), duration_s=0.02)
        request = server.requests[0]
        lengths = b"" if length is None else b"Content-Length: %b\r\n" % length
        assert request.head == b"POST / HTTP/1.1\r\nHost: a\r\n" + lengths + b"\r\n"
        assert request.body == (body or b"")

    async def test_answer_to_head_has_no_body(self):
        async def head(request: Request) -> bytes:
            return b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"

        async with scripted_server(head) as server:
            outcome = await load(server.address, template(None, method=b"HEAD", check="echo"))
        assert outcome.good == outcome.sent > 10

    @pytest.mark.parametrize("pipeline", [1, 2])
    async def test_large_body_arrives_whole_though_sent_in_parts(self, pipeline):
        body = bytes(range(251)) * (8 * 1024 * 1024 // 251)

        async with scripted_server(echo) as server:
            outcome = await load(
                server.address,
                template(body, tag=TAG, check="echo"),
                connections=2,
                pipeline=pipeline,
                duration_s=0.2,
            )
        assert outcome.errors == {}
        assert outcome.good == outcome.sent >= 2
        assert {request.body[20:] for request in server.requests} == {body[20:]}

    async def test_requests_sent_in_one_write_arrive_whole(self):
        # More than is gathered at once, of a length that does not divide it.
        body = b"x" * 1999
        async with scripted_server(echo) as server:
            outcome = await load(server.address, template(body, tag=TAG, check="echo"), connections=1, pipeline=100)
        assert outcome.errors == {}
        assert outcome.good == outcome.sent >= 100
        assert len({request.body for request in server.requests}) == outcome.sent

    @pytest.mark.parametrize("pipeline", [1, 2, 5])
    async def test_never_more_under_way_than_the_pipeline_and_answers_in_order(self, pipeline):
        size = len(ok(b"." * 20)) + 1000
        batches = itertools.count()
        sent_too_many = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                bodies = []
                for _ in range(pipeline):
                    await reader.readuntil(b"\r\n\r\n")
                    bodies.append(await reader.readexactly(20))
                if next(batches) < 5:
                    with contextlib.suppress(asyncio.TimeoutError):
                        sent_too_many.append(await asyncio.wait_for(reader.read(size), 0.02))
                assert len(set(bodies)) == pipeline
                # One by one, so that the next request comes while others still wait.
                for body in bodies:
                    writer.write(ok(body))

        async with raw_server(serve) as address:
            outcome = await load(
                address,
                template(b"." * 20, tag=TAG, check="echo"),
                connections=2,
                pipeline=pipeline,
                duration_s=0.3,
                timeout_s=0.2,
            )
        assert sent_too_many == []
        assert outcome.good >= 5 * pipeline
        assert set(outcome.errors) <= {"timeout"}


def backwards(body: bytes) -> bytes:
    """Last byte first."""
    return body[::-1]


def another(body: bytes) -> bytes:
    """One byte of it another one."""
    return body[:-1] + bytes((body[-1] ^ 1,))


class TestChecks:
    @pytest.mark.parametrize("chunked", [False, True], ids=["sized", "chunked"])
    @pytest.mark.parametrize("tag", [b"", TAG], ids=["alike", "unique"])
    @pytest.mark.parametrize(
        ("check", "answer", "good"),
        [
            ("echo", bytes, True),
            ("echo", another, False),
            ("echo", backwards, False),
            ("echo", lambda body: body[:-1], False),
            ("echo", lambda body: body + b".", False),
            ("echo", lambda body: b"", False),
            ("reverse", backwards, True),
            ("reverse", bytes, False),
            ("reverse", lambda body: another(backwards(body)), False),
            ("length", another, True),
            ("length", lambda body: body[:-1], False),
            ("length", lambda body: body + b".", False),
            ("framing", lambda body: b"whatever", True),
        ],
    )
    async def test_wrong_body_is_a_bad_response(self, check, answer, good, tag, chunked):
        async def serve(request: Request) -> bytes:
            body = answer(request.body)
            if not chunked:
                return ok(body)
            parts = [body[start : start + 7] for start in range(0, len(body), 7)]
            chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (*parts, b""))
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks

        async with scripted_server(serve) as server:
            outcome = await load(
                server.address, template(b"0123456789abcdefghijklmnop", tag=tag, check=check), duration_s=0.01
            )
        assert outcome.statuses == {"200": outcome.sent}
        assert outcome.sent >= 2
        assert outcome.good == (outcome.sent if good else 0)
        assert outcome.errors == ({} if good else {"bad_response": outcome.sent})
        # Well framed: the connection goes on.
        assert server.connections == 2

    async def test_answer_of_another_request_is_a_bad_response(self):
        bodies: list[bytes] = []

        async def late(request: Request) -> bytes:
            bodies.append(request.body)
            return ok(bodies[max(len(bodies) - 2, 0)])

        async with scripted_server(late) as server:
            outcome = await load(server.address, template(b"." * 30, tag=TAG, check="echo"), connections=1)
        assert outcome.good == 1
        assert outcome.errors == {"bad_response": outcome.sent - 1}

    async def test_wrong_body_does_not_spoil_the_next(self):
        async def second(request: Request) -> bytes:
            return ok(b"wrong" if request.number % 2 else request.body)

        async with scripted_server(second) as server:
            outcome = await load(server.address, template(check="echo"), connections=1)
        assert outcome.good == (outcome.sent + 1) // 2
        assert outcome.errors == {"bad_response": outcome.sent // 2}


class TestClosedLoop:
    async def test_latency_is_what_the_server_takes(self):
        async def slow(request: Request) -> bytes:
            await asyncio.sleep(0.05)
            return ok()

        async with scripted_server(slow) as server:
            outcome = await load(server.address, duration_s=0.3)
        assert outcome.latency.count == outcome.good
        assert 0.049 <= outcome.latency.percentile_s(0) <= outcome.latency.percentile_s(50) < 0.1

    async def test_timeout_counts_in_the_latency(self):
        async def second(request: Request) -> bytes:
            if request.number % 2:
                await never(request)
            return ok()

        async with scripted_server(second) as server:
            outcome = await load(server.address, connections=1, timeout_s=0.15, duration_s=0.5)
        assert outcome.errors["timeout"] >= 2
        assert outcome.latency.count == outcome.good + outcome.errors["timeout"]
        assert outcome.latency.max_s >= 0.15
        assert outcome.latency.percentile_s(25) < 0.1

    async def test_no_request_is_sent_after_the_end(self):
        async with scripted_server(echo) as server:
            outcome = await load(server.address, duration_s=0.1)
            told = len(server.requests)
            await asyncio.sleep(0.05)
            assert len(server.requests) == told == outcome.sent
        assert outcome.sent_in_time == outcome.sent

    async def test_stop_ends_early(self):
        async with scripted_server(echo) as server:
            generator = await started(server.address, template(), 2)
            begins_ns = clock_ns()
            generator.begin(begins_ns, begins_ns + 60_000_000_000)
            await eventually(lambda: len(server.requests) > 10)
            generator.stop()
            outcome = await ended(generator)
        assert outcome.good == outcome.sent == len(server.requests)

    async def test_interval_is_since_the_last_snapshot(self):
        async with scripted_server(echo) as server:
            generator = await started(server.address, template(), 1)
            begins_ns = clock_ns()
            generator.begin(begins_ns, begins_ns + 100_000_000)
            counts = []
            while not generator.done:
                await asyncio.sleep(SWEEP_S)
                generator.sweep()
                counts.append(sum(generator.snapshot()["interval"][4::2]))
            generator.finish()
        assert sum(counts) == generator.good == generator.latency.count
        assert sum(map(bool, counts)) > 2


class TestOpenLoop:
    async def test_rate_is_reached_on_an_idle_server(self):
        rate = 1000
        async with scripted_server(echo) as server:
            outcome = await load(server.address, connections=32, rate=rate, duration_s=0.5)
        assert outcome.sent == outcome.good == rate * 0.5
        assert outcome.sent_in_time >= 0.99 * rate * 0.5
        assert outcome.errors == {}
        assert outcome.latency.count == outcome.uncorrected.count == outcome.sent

    async def test_requests_are_spread_evenly(self):
        times_s = []

        async def note(request: Request) -> bytes:
            times_s.append(asyncio.get_running_loop().time())
            return ok()

        async with scripted_server(note) as server:
            await load(server.address, connections=8, rate=200, duration_s=0.5)
        gaps_s = [after - before for before, after in itertools.pairwise(times_s)]
        assert len(times_s) == 100
        # A busy machine holds some up, not half of them.
        assert 0.003 < sorted(gaps_s)[50] < 0.007
        assert times_s[-1] - times_s[0] == pytest.approx(0.495, abs=0.1)

    async def test_processes_take_turns(self):
        async with scripted_server(echo) as server:
            outcomes = await asyncio.gather(
                *(
                    load(server.address, connections=4, rate=200, process=process, processes=3, duration_s=0.25)
                    for process in range(3)
                )
            )
        assert [outcome.sent for outcome in outcomes] == [17, 17, 16]
        assert len(server.requests) == 50

    async def test_stall_is_seen_by_all_requests_that_it_kept_waiting(self):
        begun_s = None

        async def stall_once(request: Request) -> bytes:
            nonlocal begun_s
            now_s = asyncio.get_running_loop().time()
            if begun_s is None:
                begun_s = now_s
            if 0.3 <= now_s - begun_s < 0.8:
                await asyncio.sleep(0.8 - (now_s - begun_s))
            return ok()

        async with scripted_server(stall_once) as server:
            outcome = await load(server.address, connections=4, rate=400, duration_s=1.2)
        assert outcome.errors == {}
        assert outcome.sent == 480
        # Of 480 requests the stall held up 200, one after the other due, but only 4 were under way.
        assert outcome.latency.percentile_s(90) >= 0.2
        assert outcome.latency.percentile_s(99) >= 0.4
        assert outcome.uncorrected.percentile_s(90) < 0.05
        assert outcome.uncorrected.percentile_s(99) < 0.1
        assert outcome.uncorrected.max_s >= 0.4

    async def test_waiting_for_the_server_is_not_the_generators_lateness(self):
        async def slow(request: Request) -> bytes:
            await asyncio.sleep(0.02)
            return ok()

        async with scripted_server(slow) as server:
            outcome = await load(server.address, connections=1, rate=100, duration_s=0.3)
        assert outcome.latency.percentile_s(90) > 0.1
        assert outcome.generator.lateness.percentile_s(90) < 0.01

    async def test_what_could_not_be_sent_is_told_and_in_the_latency(self):
        async with scripted_server(never) as server:
            outcome = await load(server.address, connections=1, rate=200, duration_s=0.25, timeout_s=0.2)
        assert outcome.sent + outcome.errors["not_sent"] == 50
        assert 2 <= outcome.errors["timeout"] == outcome.sent <= 5
        assert set(outcome.errors) == {"timeout", "not_sent"}
        assert outcome.latency.count == 50
        assert outcome.latency.percentile_s(50) >= 0.2
        # Only what was sent.
        assert outcome.uncorrected.count == outcome.sent

    async def test_refused_connections_send_nothing(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            outcome = await load(unused.getsockname(), connections=2, rate=100, duration_s=0.2)
        assert outcome.sent == 0
        assert outcome.errors["not_sent"] == 20
        assert outcome.latency.count == 20

    async def test_timeout_counts_from_when_the_request_was_due(self):
        async with scripted_server(never) as server:
            outcome = await load(server.address, connections=1, rate=10, duration_s=0.15, timeout_s=0.2)
        # Due at 0 and 0.1 s; the second one waits for the first one's timeout.
        assert outcome.errors == {"timeout": 2}
        assert outcome.latency.max_s >= 0.3
        assert outcome.uncorrected.max_s < outcome.latency.max_s - 0.05

    async def test_pipelined_requests_share_a_connection(self):
        held: list[Request] = []

        async def three(request: Request) -> None:
            held.append(request)
            if len(held) == 3:
                request.writer.write(b"".join(ok(each.body) for each in held))
                held.clear()

        async with scripted_server(three) as server:
            outcome = await load(
                server.address,
                template(b"." * 20, tag=TAG, check="echo"),
                connections=1,
                pipeline=3,
                rate=120,
                duration_s=0.25,
            )
        assert outcome.good == outcome.sent == 30
        assert server.connections == 1

    async def test_closed_after_each_answer_is_no_error(self):
        async def close(request: Request) -> bytes:
            return ok(b"", b"Connection: close")

        async with scripted_server(close) as server:
            outcome = await load(server.address, rate=400, connections=4, duration_s=0.25)
        assert outcome.errors == {}
        assert outcome.good == 100

    async def test_stop_ends_early(self):
        async with scripted_server(echo) as server:
            generator = await started(server.address, template(), 2, rate=1000)
            begins_ns = clock_ns()
            generator.begin(begins_ns, begins_ns + 60_000_000_000)
            await eventually(lambda: len(server.requests) > 10)
            generator.stop()
            outcome = await ended(generator)
        assert outcome.good == outcome.sent == len(server.requests)
        assert outcome.errors.get("not_sent", 0) == 0
