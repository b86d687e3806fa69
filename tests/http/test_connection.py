"""Client connections over real sockets: order, ends, deadlines and bounds."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest

from support.gateway import eventually, with_settings
from support.http import HttpClient, chunked, get, head, post
from support.still import still_gateway
from support.times import NOT_BEFORE, SOON_S, WAIT_S

pytestmark = pytest.mark.anyio

POST = post(b"/by-hand", b"workload")
SIZED = b"Content-Length: 5"
CHUNKED = b"Transfer-Encoding: chunked"
EXPECT = b"Expect: 100-continue"
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
MEBIBYTE = 1 << 20


class TestKeepAlive:
    async def test_a_connection_serves_one_request_after_another(self, gateway, client, samples):
        for number in range(5):
            answer = await client.ask(post(b"/reverse", b"abc%d" % number))
            assert answer.body == b"%dcba" % number
            assert b"connection" not in answer.headers
        assert gateway.count("http.connections_accepted") == 1

    # RFC 9112 9.3: what HTTP/1.0 and 1.1 do without and with a Connection header.
    @pytest.mark.parametrize(
        ("version", "lines", "answered", "lives"),
        [
            pytest.param(b"1.1", (), None, True, id="1.1"),
            pytest.param(b"1.1", (b"Connection: keep-alive",), None, True, id="1.1-keep-alive"),
            pytest.param(b"1.1", (b"Connection: close",), b"close", False, id="1.1-close"),
            pytest.param(b"1.1", (b"connection:CLOSE ",), b"close", False, id="1.1-close-however-spelt"),
            pytest.param(b"1.1", (b"Connection: x, close",), b"close", False, id="1.1-close-in-a-list"),
            pytest.param(b"1.0", (), b"close", False, id="1.0"),
            pytest.param(b"1.0", (b"Connection: close",), b"close", False, id="1.0-close"),
            pytest.param(b"1.0", (b"Connection: keep-alive",), b"keep-alive", True, id="1.0-keep-alive"),
            pytest.param(b"1.0", (b"Connection: Keep-Alive",), b"keep-alive", True, id="1.0-keep-alive-as-spelt"),
            pytest.param(b"1.0", (b"Connection: x ,\tkeep-alive\t",), b"keep-alive", True, id="1.0-keep-alive-listed"),
            pytest.param(b"1.1", (b"Connection: close, keep-alive",), b"close", False, id="1.1-both"),
            pytest.param(b"1.0", (b"Connection: close, keep-alive",), b"close", False, id="1.0-both"),
            pytest.param(b"1.0", (b"Connection: keep-alive", b"Connection: close"), b"close", False, id="1.0-two"),
            pytest.param(b"1.1", (b"Connection: closed",), None, True, id="1.1-nearly-close"),
            pytest.param(b"1.1", (b"Connection: close x",), None, True, id="1.1-no-token"),
            # RFC 9112 C.2.2: Proxy-Connection means nothing.
            pytest.param(b"1.1", (b"Proxy-Connection: close",), None, True, id="1.1-proxy-close"),
            pytest.param(b"1.0", (b"Proxy-Connection: keep-alive",), b"close", False, id="1.0-proxy-keep-alive"),
            pytest.param(
                b"1.0",
                (b"Connection: close", b"Proxy-Connection: keep-alive"),
                b"close",
                False,
                id="1.0-close-and-proxy-keep-alive",
            ),
        ],
    )
    async def test_whether_the_connection_lives(self, client, samples, version, lines, answered, lives):
        answer = await client.ask(post(b"/echo", b"body", *lines, version=version))
        assert (answer.status, answer.body) == (200, b"body")
        assert answer.headers.get(b"connection") == answered
        if lives:
            assert (await client.ask(post(b"/echo", b"again"))).body == b"again"
        else:
            assert await client.rest() == b""

    async def test_nothing_after_the_last_request_is_run(self, embedded, gateway, client, worker):
        client.send(post(b"/by-hand", b"1", b"Connection: close"), POST, POST)
        handle, _, _, workload = await worker.take()
        assert workload == b"1"
        await worker.no_job()
        worker.complete(handle)
        assert (await client.response()).headers[b"connection"] == b"close"
        assert await client.rest() == b""
        assert embedded.submitted == 1

    async def test_HTTP_1_0_needs_no_host(self, client, samples):  # noqa: N802
        answer = await client.ask(b"POST /echo HTTP/1.0\r\nContent-Length: 2\r\n\r\nhi")
        assert (answer.status, answer.body) == (200, b"hi")

    async def test_empty_lines_before_a_request_are_ignored(self, client, samples):
        # RFC 9112 2.2
        for _ in range(2):
            assert (await client.ask(b"\r\n\r\n", post(b"/echo", b"body"))).body == b"body"

    async def test_requests_may_come_byte_by_byte(self, client, samples):
        requests = post(b"/echo", b"sized") + head(b"POST", b"/echo", CHUNKED) + chunked(b"in ", b"chunks")
        client.writer.transport.set_write_buffer_limits(high=0)
        for byte in requests:
            await client.send_all(bytes([byte]))
        assert [(await client.response()).body for _ in range(2)] == [b"sized", b"in chunks"]


class TestPipelining:
    async def test_jobs_run_at_once_and_answers_keep_the_order(self, gateway, client, worker):
        client.send(*(post(b"/by-hand", b"%d" % number) for number in range(4)))
        taken = {}
        for _ in range(4):
            handle, _, _, workload = await worker.take()
            taken[workload] = handle
        assert gateway.count("http.requests_in_flight") == 4
        for number in (3, 2, 1):
            worker.complete(taken[b"%d" % number], b"result %d" % number)
            await eventually(lambda number=number: gateway.count("pool.outstanding_jobs") == number)
        assert gateway.count("http.requests_answered") == 0
        worker.complete(taken[b"0"], b"result 0")
        for number in range(4):
            assert (await client.response()).body == b"result %d" % number

    async def test_answers_of_every_kind_keep_the_order(self, client, worker):
        client.send(
            POST, head(b"OPTIONS", b"*"), POST, head(b"DELETE", b"/x"), head(b"HEAD", b"/by-hand"), post(b"/"), b"\0"
        )
        handles = [(await worker.take())[0] for _ in range(3)]
        for number in (2, 1, 0):
            worker.complete(handles[number], b"%d" % number)
        statuses = [(await client.response(to_head=number == 4)).status for number in range(7)]
        assert statuses == [200, 204, 200, 405, 200, 404, 400]
        assert await client.rest() == b""

    @with_settings(max_pipelined=4, connections_per_server=1)
    async def test_beyond_the_bound_nothing_is_read_and_nothing_is_lost(self, embedded, gateway, client, worker):
        client.send(*(post(b"/by-hand", b"%d" % number) for number in range(50)))
        for number in range(50):
            if number == 0:
                taken = [await worker.take() for _ in range(4)]
                await worker.no_job()
            assert gateway.count("http.requests_in_flight") == len(taken)
            handle, _, _, workload = taken.pop(0)
            assert workload == b"%d" % number
            worker.complete(handle, b"result of " + workload)
            assert (await client.response()).body == b"result of %d" % number
            if number < 46:
                taken.append(await worker.take())
                assert embedded.submitted == number + 5

    @with_settings(max_pipelined=4)
    async def test_a_client_that_sends_without_end_is_not_read_without_end(self, gateway, client, worker, samples):
        count = 300
        body = bytes(65536)
        client.send(post(b"/by-hand", b"first"), *(post(b"/echo", body) for _ in range(count)))
        first, _, _, _ = await worker.take()
        await eventually(lambda: gateway.count("pool.outstanding_jobs") == 1)
        assert gateway.count("http.requests_in_flight") == 4
        assert client.writer.transport.get_write_buffer_size() > count * len(body) // 2
        worker.complete(first, b"first")
        assert (await client.response()).body == b"first"
        for _ in range(count):
            assert (await client.response()).body == body

    async def test_a_client_that_reads_late_gets_everything_in_order(self, gateway, samples):
        count = 200
        async with HttpClient(gateway.address, receive_buffer_bytes=4096) as client:
            client.writer.transport.pause_reading()
            client.send(*(post(b"/echo", b"%d." % number * 20_000) for number in range(count)))
            await gateway.reaches("http.unread_connections", 1)
            await asyncio.sleep(0.1)
            assert gateway.count("http.requests_answered") < count
            client.writer.transport.resume_reading()
            for number in range(count):
                assert (await client.response()).body == b"%d." % number * 20_000

    async def test_a_malformed_request_is_answered_behind_the_good_ones_and_ends_the_connection(
        self, embedded, client, worker
    ):
        client.send(POST, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", POST)
        handle, _, _, _ = await worker.take()
        worker.complete(handle, b"good")
        assert (await client.response()).body == b"good"
        answer = await client.response()
        assert (answer.status, answer.headers[b"connection"]) == (400, b"close")
        assert await client.rest() == b""
        assert embedded.submitted == 1


class TestContinue:
    """RFC 9110 10.1.1."""

    @pytest.mark.parametrize(("framing", "body"), [(SIZED, b"hello"), (CHUNKED, chunked(b"he", b"llo"))])
    async def test_it_comes_before_the_body(self, embedded, client, samples, framing, body):
        assert (await client.ask(head(b"POST", b"/echo", framing, EXPECT))).status == 100
        assert embedded.submitted == 0
        answer = await client.ask(body)
        assert (answer.status, answer.body) == (200, b"hello")
        assert (await client.ask(post(b"/echo", b"next"))).body == b"next"

    @pytest.mark.parametrize(
        ("request_bytes", "body"),
        [
            pytest.param(head(b"POST", b"/echo", SIZED, EXPECT) + b"hello", b"hello", id="sized"),
            pytest.param(head(b"POST", b"/echo", CHUNKED, EXPECT) + chunked(b"hello"), b"hello", id="chunked"),
            pytest.param(post(b"/echo", b"", EXPECT), b"", id="no-body"),
            pytest.param(get(b"/echo?q", EXPECT), b"q", id="GET"),
        ],
    )
    async def test_it_is_spared_when_the_body_has_come(self, client, samples, request_bytes, body):
        answer = await client.ask(request_bytes)
        assert (answer.status, answer.body) == (200, body)

    async def test_HTTP_1_0_gets_none(self, client, samples):  # noqa: N802
        client.send(head(b"POST", b"/echo", SIZED, EXPECT, version=b"1.0"))
        await asyncio.sleep(0.05)
        assert (await client.ask(b"hello")).body == b"hello"

    @with_settings(max_body_bytes=1000)
    @pytest.mark.parametrize(
        ("request_bytes", "status"),
        [
            pytest.param(head(b"POST", b"/", SIZED, EXPECT), 404, id="404"),
            pytest.param(head(b"POST", b"/echo?q", SIZED, EXPECT), 400, id="400"),
            pytest.param(head(b"DELETE", b"/echo", SIZED, EXPECT), 405, id="405"),
            pytest.param(head(b"POST", b"/echo", SIZED, b"Expect: 200-ok"), 417, id="417"),
            pytest.param(head(b"POST", b"/echo", b"Content-Length: 1001", EXPECT), 413, id="413"),
            pytest.param(head(b"POST", b"/echo", b"Transfer-Encoding: gzip", EXPECT), 501, id="501"),
        ],
    )
    async def test_a_request_that_is_refused_gets_the_refusal_instead(self, embedded, client, request_bytes, status):
        answer = await client.ask(request_bytes)
        # Whether the client sends the body now is not known, so nothing can be read after it.
        assert (answer.status, answer.headers[b"connection"]) == (status, b"close")
        assert await client.rest() == b""
        assert embedded.submitted == 0

    async def test_it_keeps_its_place_behind_earlier_answers(self, gateway, client, worker, samples):
        client.send(POST, head(b"POST", b"/echo", SIZED, EXPECT))
        handle, _, _, _ = await worker.take()
        assert gateway.count("http.requests_in_flight") == 2
        worker.complete(handle, b"first")
        assert (await client.response()).body == b"first"
        assert (await client.response()).status == 100
        assert (await client.ask(b"hello")).body == b"hello"

    @pytest.mark.parametrize("framing", [SIZED, CHUNKED], ids=["sized", "chunked"])
    @pytest.mark.parametrize("sends", [True, False], ids=["served", "too-slow"])
    def test_the_body_s_time_begins_with_it(self, framing, sends):
        # RFC 9110 10.1.1: who waits for it is not slow, however long the answers before it take.
        with still_gateway(body_timeout_s=0.3, body_rate_grace_s=0.3) as gateway:
            client = gateway.client()
            client.send(POST, head(b"POST", b"/echo", framing, EXPECT))
            gateway.pass_time(0.6)
            gateway.complete(b"first")
            assert client.written.endswith(b"first" + INTERIM)
            gateway.pass_time(0.2)
            assert gateway.count("http.requests_refused") == 0
            if sends:
                client.send(b"hello" if framing == SIZED else chunked(b"hello"))
                gateway.complete(b"second")
            else:
                # Deadlines are up to two ticks of 0.1 s late.
                gateway.pass_time(0.4)
            first, second = client.responses()
            assert (first.body, second.status, second.body == b"second") == (b"first", 200 if sends else 408, sends)
            assert client.wrote_eof == (not sends)

    async def test_it_is_spared_when_the_body_comes_while_earlier_answers_are_due(self, client, worker, samples):
        client.send(POST, head(b"POST", b"/echo", SIZED, EXPECT))
        handle, _, _, _ = await worker.take()
        client.send(b"hello")
        await eventually(lambda: samples.finished == 1)
        worker.complete(handle, b"first")
        assert [(await client.response()).body for _ in range(2)] == [b"first", b"hello"]


# RFC 9110 7.8: an Upgrade may be ignored; Java's HttpClient offers h2c with every first request.
H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk")


class TestUpgrade:
    @pytest.mark.parametrize(
        ("request_bytes", "workload"),
        [
            pytest.param(post(b"/echo", b"sized", *H2C), b"sized", id="sized"),
            pytest.param(head(b"POST", b"/echo", *H2C, CHUNKED) + chunked(b"in ", b"two"), b"in two", id="chunked"),
            pytest.param(get(b"/echo?query", *H2C), b"query", id="none"),
            pytest.param(post(b"/echo", b"", *H2C), b"", id="empty"),
            pytest.param(get(b"/echo?q", b"Connection: upgrade", b"Upgrade: websocket"), b"q", id="websocket"),
            pytest.param(post(b"/echo", b"x" * 100_000, *H2C), b"x" * 100_000, id="large"),
        ],
    )
    async def test_an_offer_is_served_as_if_not_made(self, client, samples, request_bytes, workload):
        client.send(request_bytes, request_bytes, post(b"/echo", b"next"))
        assert [(await client.response()).body for _ in range(3)] == [workload, workload, b"next"]

    async def test_an_offer_in_pieces_is_served_too(self, client, samples):
        request = head(b"POST", b"/echo", *H2C, SIZED)
        client.send(request)
        await asyncio.sleep(0.02)
        client.send(b"he")
        await asyncio.sleep(0.02)
        client.send(b"llo", post(b"/echo", b"next"))
        assert [(await client.response()).body for _ in range(2)] == [b"hello", b"next"]


class TestTimeouts:
    @with_settings(header_timeout_s=0.2)
    @pytest.mark.parametrize(
        "sent",
        [
            pytest.param(b"G", id="one-byte"),
            pytest.param(b"GET /f HTTP/1.1\r\n", id="request-line"),
            pytest.param(b"GET /f HTTP/1.1\r\nHost: gateway\r\nX: ", id="header"),
            pytest.param(head(b"OPTIONS", b"*") + b"POST /f", id="second-request"),
        ],
    )
    async def test_a_head_too_slow_is_408_and_closed(self, client, sent):
        client.send(sent)
        if sent.startswith(b"OPTIONS"):
            assert (await client.response()).status == 204
        began_s = time.monotonic()
        answer = await client.response()
        assert time.monotonic() - began_s < SOON_S
        assert (answer.status, answer.kind(), answer.headers[b"connection"]) == (408, "head-too-slow", b"close")
        assert await client.rest() == b""

    @with_settings(header_timeout_s=0.3)
    async def test_bytes_that_trickle_do_not_extend_the_time_for_a_head(self, client):
        began_s = time.monotonic()
        client.send(b"GET /f HTTP/1.1\r\nHost: gateway\r\nX: ")
        response = asyncio.create_task(client.response())
        while not response.done():
            client.send(b"x")
            await asyncio.sleep(0.02)
        assert (await response).status == 408
        assert NOT_BEFORE * 0.3 <= time.monotonic() - began_s < SOON_S

    @with_settings(first_byte_timeout_s=0.3, keepalive_timeout_s=0.3)
    @pytest.mark.parametrize("pieces", [(b"\r\n",), (b"\r", b"\n")], ids=["whole-lines", "half-lines"])
    @pytest.mark.parametrize("served", [False, True], ids=["at-first", "after-an-answer"])
    async def test_empty_lines_do_not_keep_a_connection_open(self, gateway, served, pieces):
        began_s = time.monotonic()
        client = await HttpClient(gateway.address).connect()
        if served:
            assert (await client.ask(head(b"OPTIONS", b"*"))).status == 204
        rest = asyncio.create_task(client.rest())
        while not rest.done() and time.monotonic() - began_s < SOON_S:
            for piece in pieces:
                # A reset closes the client's side at once.
                if not client.writer.is_closing():
                    client.send(piece)
                await asyncio.sleep(0.02)
        assert rest.done()
        await client.close()
        # A line that crossed the close may have been answered with a reset.
        assert isinstance(rest.exception(), ConnectionError) or rest.result() == b""
        assert NOT_BEFORE * 0.3 <= time.monotonic() - began_s < SOON_S

    @with_settings(body_timeout_s=0.2)
    @pytest.mark.parametrize(
        "sent",
        [
            pytest.param(head(b"POST", b"/f", SIZED), id="no-byte"),
            pytest.param(head(b"POST", b"/f", SIZED) + b"hell", id="sized"),
            pytest.param(head(b"POST", b"/f", CHUNKED) + b"5\r\nhello\r\n", id="chunked"),
            pytest.param(head(b"POST", b"/f", CHUNKED) + b"0\r\n", id="trailers"),
        ],
    )
    async def test_a_body_too_slow_is_408_closed_and_never_submitted(self, embedded, client, sent):
        client.send(sent)
        answer = await client.response()
        assert (answer.status, answer.kind(), answer.headers[b"connection"]) == (408, "body-too-slow", b"close")
        assert await client.rest() == b""
        assert embedded.submitted == 0

    @with_settings(first_byte_timeout_s=0.2)
    async def test_a_client_that_never_sent_a_byte_is_closed_without_a_word(self, gateway, client):
        assert await client.rest() == b""
        assert gateway.count("http.requests_refused") == 0

    @with_settings(keepalive_timeout_s=0.2)
    async def test_an_idle_connection_is_closed_without_a_word(self, client):
        began_s = time.monotonic()
        assert (await client.ask(head(b"OPTIONS", b"*"))).status == 204
        assert await client.rest() == b""
        assert NOT_BEFORE * 0.2 <= time.monotonic() - began_s < SOON_S

    @with_settings(keepalive_timeout_s=0.2, header_timeout_s=0.2, body_timeout_s=0.2, write_timeout_s=0.2)
    async def test_a_job_may_take_longer_than_a_client(self, client, worker):
        client.send(POST)
        handle, _, _, _ = await worker.take()
        await asyncio.sleep(0.6)
        worker.complete(handle, b"at last")
        assert (await client.response()).body == b"at last"


class TestBounds:
    @with_settings(max_body_bytes=1000)
    @pytest.mark.parametrize(
        "sent",
        [
            pytest.param(head(b"POST", b"/echo", b"Content-Length: 1001"), id="by-length"),
            pytest.param(head(b"POST", b"/echo", b"Content-Length: 99999999999"), id="by-a-huge-length"),
            pytest.param(head(b"POST", b"/echo", CHUNKED) + b"3e9\r\n", id="by-the-first-chunk"),
            pytest.param(head(b"POST", b"/echo", CHUNKED) + b"1f4\r\n" + b"x" * 500 + b"\r\n1f5\r\n", id="by-the-sum"),
        ],
    )
    async def test_a_body_too_large_is_413_before_it_came(self, embedded, client, sent):
        client.send(sent)
        answer = await client.response()
        assert (answer.status, answer.kind(), answer.headers[b"connection"]) == (413, "body-too-large", b"close")
        assert await client.rest() == b""
        assert embedded.submitted == 0

    @with_settings(max_body_bytes=1000)
    @pytest.mark.parametrize("framing", [b"Content-Length: 1000", CHUNKED])
    async def test_a_body_of_the_largest_size_is_served(self, client, samples, framing):
        body = b"x" * 1000
        answer = await client.ask(head(b"POST", b"/echo", framing), chunked(body) if framing == CHUNKED else body)
        assert (answer.status, answer.body) == (200, body)

    @with_settings(max_body_bytes=1000)
    async def test_a_client_that_sends_all_of_a_body_too_large_reads_the_whole_answer(self, client):
        # RFC 9112 9.6: a close with unread input would reset the connection and could destroy the answer.
        body = bytes(3 * MEBIBYTE // 2)
        await client.send_all(head(b"POST", b"/echo", b"Content-Length: %d" % len(body)))
        for start in range(0, len(body), 65536):
            await client.send_all(body[start : start + 65536])
        answer = await client.response()
        assert (answer.status, answer.kind()) == (413, "body-too-large")
        assert await client.rest() == b""

    async def test_a_client_that_sends_on_after_its_last_answer_is_cut_off(self, gateway, client):
        await client.ask(b"malformed\r\n")
        with pytest.raises(ConnectionError):
            await client.send_all(bytes(64 * MEBIBYTE))
        await gateway.let_go()

    # Every kind of error a client's bytes can have, as it looks from outside; test_parser.py has all the cases.
    @with_settings(max_target_bytes=300, max_header_bytes=1024, max_headers=5)
    @pytest.mark.parametrize(
        ("sent", "status", "kind", "title"),
        [
            (b"AAA\r\n", 400, "malformed-request", "Bad Request"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed-request", "Bad Request"),
            (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed-request", "Bad Request"),
            (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505, "version-not-supported", "HTTP Version Not Supported"),
            (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405, "method-not-allowed", "Method Not Allowed"),
            (get(b"/" + b"x" * 300), 414, "target-too-long", "URI Too Long"),
            (get(b"/", *[b"A: b"] * 5), 431, "headers-too-large", "Request Header Fields Too Large"),
            (get(b"/", b"A: " + b"x" * 1024), 431, "headers-too-large", "Request Header Fields Too Large"),
            (head(b"POST", b"/f", b"Transfer-Encoding: x"), 501, "transfer-encoding-not-supported", "Not Implemented"),
            (head(b"POST", b"/f", CHUNKED) + b"x\r\n", 400, "malformed-request", "Bad Request"),
        ],
    )
    async def test_what_is_refused_is_told_as_a_problem_and_closed(self, gateway, client, sent, status, kind, title):
        answer = await client.ask(sent)
        problem = answer.problem()
        assert (answer.status, answer.kind(), problem["title"]) == (status, kind, title)
        assert isinstance(problem["detail"], str)
        assert answer.headers[b"connection"] == b"close"
        assert await client.rest() == b""
        assert gateway.count("http.requests_refused") == 1


class TestClientsThatMisbehave:
    @with_settings(write_timeout_s=0.3, max_result_bytes=64 * MEBIBYTE)
    async def test_one_that_does_not_read_is_cut_off_and_disturbs_nobody(self, gateway, worker, samples):
        async with HttpClient(gateway.address, receive_buffer_bytes=4096) as deaf, HttpClient(gateway.address) as other:
            deaf.writer.transport.pause_reading()
            deaf.send(POST)
            handle, _, _, _ = await worker.take()
            worker.complete(handle, bytes(32 * MEBIBYTE))
            while gateway.count("http.writes_timed_out") == 0:
                assert (await other.ask(post(b"/echo", b"undisturbed"))).body == b"undisturbed"
            assert (await other.ask(post(b"/echo", b"undisturbed"))).body == b"undisturbed"
            await eventually(lambda: gateway.count("http.connections") == 1)

    @pytest.mark.needs_sockets("the kernel gives it up: tcp(7), TCP_USER_TIMEOUT")
    @with_settings(write_timeout_s=0.3)
    async def test_an_answer_that_lies_unread_in_the_kernel_is_given_up(self, gateway, worker):
        async with HttpClient(gateway.address, receive_buffer_bytes=4096) as deaf:
            deaf.writer.transport.pause_reading()
            deaf.send(POST)
            handle, _, _, _ = await worker.take()
            # Small enough for the kernel to take it all, too large for the client's buffers.
            worker.complete(handle, bytes(192 * 1024))
            await gateway.reaches("http.requests_answered", 1)
            assert gateway.count("budget.held_bytes") == 0
            await gateway.let_go()
            assert gateway.count("http.writes_timed_out") == 0

    @pytest.mark.needs_plain("it reads the socket itself; tests/net/test_tls has the same over TLS")
    @with_settings(write_timeout_s=4)
    async def test_one_that_reads_slowly_is_not_cut_off(self, gateway, worker):
        loop = asyncio.get_running_loop()
        result = bytes(16 * MEBIBYTE)
        with socket.socket() as slow:
            slow.setblocking(False)
            slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            await loop.sock_connect(slow, gateway.address)
            await loop.sock_sendall(slow, POST)
            handle, _, _, _ = await worker.take()
            worker.complete(handle, result)
            began_s = time.monotonic()
            received = 0
            while received < len(result):
                received += len(await asyncio.wait_for(loop.sock_recv(slow, 131_072), WAIT_S)) or len(result) + 1
                await asyncio.sleep(0.04)
            assert time.monotonic() - began_s > 5
        assert len(result) < received < len(result) + 1000
        assert gateway.count("http.writes_timed_out") == 0

    @pytest.mark.parametrize("reset", [False, True])
    async def test_one_that_leaves_with_jobs_in_flight_leaves_nothing_behind(self, gateway, worker, reset):
        async with HttpClient(gateway.address) as client:
            client.send(POST, POST, POST)
            handles = [(await worker.take())[0] for _ in range(3)]
            if reset:
                client.reset()
        await gateway.let_go()
        assert gateway.count("http.requests_abandoned") == 3
        await gateway.reaches("pool.cancels_requested", 3)
        for handle in handles:
            worker.complete(handle)
        await eventually(lambda: gateway.count("pool.abandoned_jobs") == 0)

    async def test_one_that_ends_its_sending_while_a_job_runs_has_hung_up(self, gateway, client, worker):
        client.send(POST)
        handle, _, _, _ = await worker.take()
        client.send_eof()
        assert await client.rest() == b""
        await gateway.let_go()
        assert gateway.count("http.requests_abandoned") == 1
        worker.complete(handle)

    async def test_one_that_ends_its_sending_gets_what_is_ready(self, client):
        client.send(head(b"OPTIONS", b"*"))
        client.send_eof()
        assert (await client.response()).status == 204
        assert await client.rest() == b""

    @pytest.mark.parametrize(
        "sent",
        [
            pytest.param(b"POST /by-hand HTTP/1.1\r\nHost: a\r\n", id="head"),
            pytest.param(head(b"POST", b"/by-hand", SIZED) + b"hell", id="sized"),
            pytest.param(head(b"POST", b"/by-hand", CHUNKED) + b"5\r\nhello\r\n", id="chunked"),
            pytest.param(head(b"POST", b"/by-hand", CHUNKED) + b"5\r\nhello\r\n0\r\n", id="last-chunk"),
            pytest.param(head(b"POST", b"/by-hand", SIZED, EXPECT), id="expecting"),
        ],
    )
    async def test_half_a_request_is_never_submitted(self, embedded, gateway, client, sent):
        # RFC 9112 8: an incomplete request must not be acted on.
        client.send(sent)
        client.send_eof()
        await client.rest()
        await gateway.let_go()
        assert embedded.submitted == 0

    # Parsers go from one client's request to another's: whatever the first has sent, the second finds a clean one.
    @pytest.mark.parametrize(
        "sent",
        [
            pytest.param(head(b"POST", b"/", CHUNKED) + b"0\r\nConnection: close\r\n\r\n", id="close-as-a-trailer"),
            pytest.param(
                head(b"POST", b"/", CHUNKED) + b"0\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
                id="upgrade-as-a-trailer",
            ),
            pytest.param(head(b"POST", b"/", *H2C, CHUNKED) + chunked(b"x"), id="upgrade"),
            pytest.param(post(b"/", b"x", *H2C), id="upgrade-sized"),
            pytest.param(get(b"/", b"Connection: close"), id="close"),
            pytest.param(get(b"/", version=b"1.0"), id="1.0"),
            pytest.param(post(b"/", b"x", b"Proxy-Connection: close"), id="proxy-connection"),
            pytest.param(head(b"POST", b"/", SIZED) + b"he", id="half-a-body"),
            pytest.param(head(b"POST", b"/", CHUNKED) + b"5\r\nhe", id="half-a-chunk"),
            pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nX", id="half-a-head"),
            pytest.param(b"POST / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n", id="malformed"),
            pytest.param(get(b"/", b"Transfer-Encoding: x"), id="unknown-coding"),
            pytest.param(b"\r\n\r\n", id="empty-lines"),
        ],
    )
    async def test_one_that_sends_anything_spoils_no_request_of_another(self, gateway, samples, sent):
        async with HttpClient(gateway.address) as one:
            one.send(sent)
            one.send_eof()
            await one.rest()
        async with HttpClient(gateway.address) as two:
            for _ in range(2):
                assert (await two.ask(head(b"POST", b"/echo", CHUNKED), chunked(b"clean"))).body == b"clean"

    async def test_hundreds_that_come_and_go_leave_nothing(self, gateway, samples):
        async def visit(number: int) -> None:
            async with HttpClient(gateway.address) as client:
                if number % 4 == 0:
                    client.send(b"POST /echo HT")
                elif number % 4 == 1:
                    client.send(post(b"/echo", b"for nobody"))
                    client.reset()
                elif number % 4 == 2:
                    assert (await client.ask(post(b"/echo", b"%d" % number))).body == b"%d" % number

        await asyncio.gather(*(visit(number) for number in range(400)))
        await gateway.let_go()
        assert gateway.count("http.connections_accepted") == 400
