"""The request that is sent again and again: its bytes, its number, and what the answer must be."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from gatewayx.bench.template import LEAST_UNIQUE_BYTES
from support.load import TAG, echo, load, raw_server, template
from support.scripted_server import Request, ok, scripted_server

pytestmark = pytest.mark.anyio


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
            await load(server.address, template(body, check="echo"))
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
                until=lambda told: told["good"] >= 5 * pipeline,
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
            outcome = await load(server.address, template(b"0123456789abcdefghijklmnop", tag=tag, check=check))
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
