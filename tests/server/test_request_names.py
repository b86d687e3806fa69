"""How requests are called: by the gateway, or by a trusted proxy."""

from __future__ import annotations

import pytest

from gatewayx.core.access_line import in_sample
from support.gateway import running_gateway
from support.http import REQUEST_ID, get, post
from support.trusted import (
    BY_FORWARDED,
    BY_NONE,
    BY_X,
    ONE,
    OPTIONS,
    PROXY,
    STRANGER,
    logged,
    of,
    options,
    proxy,
)

pytestmark = pytest.mark.anyio


class TestNames:
    NAMED = (b"a", b"4bf92f3577b34da6a3ce929d0e0e4736", b"Az09._~:/+=@-", b"n" * 128)
    UNNAMED = (b"", b"n" * 129, b"a b", b'a"b', b"a,b", b"a%0d", b"\xff")

    @pytest.mark.parametrize("source", [BY_X, BY_FORWARDED, BY_NONE], ids=["x", "forwarded", "connection"])
    async def test_a_proxys_are_taken_and_nobody_elses(self, embedded, tmp_path, source):
        async with logged([embedded.address], tmp_path / "log", server_timing=True, **source) as gateway:
            expected = []
            for host in (PROXY, STRANGER):
                async with proxy(gateway.address, host) as client:
                    for name in (*self.NAMED, *self.UNNAMED):
                        answer = await client.ask(get(b"/", b"x-request-ID: " + name))
                        told = answer.headers[b"x-request-id"]
                        # The instance is what the answer is called (support.http).
                        assert answer.problem()["status"] == 404
                        taken = host == PROXY and name in self.NAMED
                        assert (told == name) == taken
                        assert taken or REQUEST_ID.fullmatch(told)
                        expected.append((told.decode(), None if taken else name))
            lines = await gateway.lines(len(expected))
        for line, (told, name) in zip(lines, expected, strict=True):
            assert line["id"] == told
            assert ("client_id" in line) == (name is not None)
            assert "cut" not in line or len(name or b"") > 100

    async def test_several_lines_name_nothing(self, embedded):
        async with running_gateway([embedded.address], **BY_NONE) as gateway, proxy(gateway.address) as client:
            answer = await client.ask(options(b"X-Request-Id: a", b"X-Request-Id: a"))
            assert REQUEST_ID.fullmatch(answer.headers[b"x-request-id"])

    async def test_they_are_whichever_request_has_them_however_they_come(self, embedded):
        names = [b"name-%d" % number for number in range(10)]
        requests = b"".join(get(b"/", b"X-Request-Id: " + name, of(ONE)) + OPTIONS for name in names)
        async with running_gateway([embedded.address], **BY_X) as gateway:
            for piece_bytes in (len(requests), 11):
                async with proxy(gateway.address) as client:
                    for begins in range(0, len(requests), piece_bytes):
                        client.send(requests[begins : begins + piece_bytes])
                        await client.writer.drain()
                    for name in names:
                        answer = await client.response()
                        assert (answer.headers[b"x-request-id"], answer.kind()) == (name, "no-function")
                        assert REQUEST_ID.fullmatch((await client.response()).headers[b"x-request-id"])

    async def test_a_job_with_a_key_is_answered_by_the_name_of_its_request(self, embedded):
        async with (
            running_gateway([embedded.address], job_timeout_s=0.05, cancel_abandoned=False, **BY_NONE) as gateway,
            proxy(gateway.address) as client,
        ):
            key = b"Idempotency-Key: 8e03978e-40d5-43dd-bc93-6894a57f9324"
            answer = await client.ask(post(b"/f", b"w", key, b"X-Request-Id: of-a-key"))
            assert (answer.kind(), answer.headers[b"x-request-id"]) == ("job-timeout", b"of-a-key")

    async def test_a_sample_is_of_names(self, embedded, tmp_path):
        names = [f"name-{number}" for number in range(200)]
        async with logged([embedded.address], tmp_path / "log", access_log_sample=0.5, **BY_NONE) as gateway:
            sampled = [name for name in names if in_sample(name.encode(), 0.5)]
            async with proxy(gateway.address) as client:
                client.send(*(options(b"X-Request-Id: " + name.encode()) for name in names))
                for _ in names:
                    assert (await client.response()).status == 204
            assert [line["id"] for line in await gateway.lines(len(sampled))] == sampled
        assert 0 < len(sampled) < 200
