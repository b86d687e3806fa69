"""The three accounts of what is held for clients: what counts in which, and who is ended when one is crowded or full.

With `max_held_bytes` small things have an eighth of it, bodies three eighths, results a half.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator

import pytest

from support.gateway import RunningGateway, eventually, with_settings
from support.http import HttpClient, ask, chunked, get, head, post
from support.job_servers import HandWorker
from support.times import NOT_BEFORE, SOON_S

pytestmark = pytest.mark.anyio

KIBIBYTE = 1024
MEBIBYTE = 1024 * KIBIBYTE
CHUNKED = b"Transfer-Encoding: chunked"
EXPECT = b"Expect: 100-continue"
HALF_A_HEAD = b"GET /echo?" + b"q" * 4000 + b" HTTP/1.1\r\nHost: gateway\r\n"


def sized(size_bytes: int, *headers: bytes) -> bytes:
    """The head of a POST to /echo whose body has so many bytes."""
    return head(b"POST", b"/echo", b"Content-Length: %d" % size_bytes, *headers)


@contextlib.asynccontextmanager
async def clients_of(address: tuple[str, int], count: int, **options: object):
    """So many connected clients."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(HttpClient(address, **options)) for _ in range(count)]


async def is_refused(client: HttpClient, *, closed: bool) -> None:
    """The next answer is a 503 for want of room, and the last one if `closed`."""
    answer = await client.response()
    assert (answer.status, answer.kind()) == (503, "too-many-bytes")
    assert int(answer.headers[b"retry-after"]) >= 1
    assert (answer.headers.get(b"connection") == b"close") == closed
    if closed:
        assert await client.rest() == b""


class TestDeclarations:
    @pytest.mark.parametrize("framing", [b"Content-Length: 8388608", CHUNKED], ids=["sized", "chunked"])
    async def test_who_declares_and_does_not_send_holds_next_to_nothing(self, gateway, samples, framing):
        async with clients_of(gateway.address, 100) as parked, HttpClient(gateway.address) as good:
            for client in parked:
                client.send(head(b"POST", b"/echo", framing))
            await gateway.reaches("http.arrivals", 100)
            assert gateway.count("budget.held_bytes") < 100 * 64
            good.send(b"POST /echo HTTP/1.1\r\nHo")
            await gateway.reaches("http.arrivals", 101)
            good.send(b"st: gateway\r\nContent-Length: 5000\r\n\r\n" + bytes(5000))
            assert (await good.response()).body == bytes(5000)
            assert (await good.ask(sized(MEBIBYTE), bytes(MEBIBYTE))).body == bytes(MEBIBYTE)

    @pytest.mark.parametrize("framing", [b"Content-Length: 1000000", CHUNKED], ids=["sized", "chunked"])
    async def test_room_begins_with_4_kib_and_grows_by_half(self, gateway, client, framing):
        client.send(head(b"POST", b"/echo", framing))
        rooms = [4096, 6144, 9216, 13824, 20736, 31104, 46656]
        for number in range(1, 41):
            client.send(b"400\r\n" + bytes(1024) + b"\r\n" if framing == CHUNKED else bytes(1024))
            while rooms[0] < number * 1024:
                rooms.pop(0)
            await eventually(lambda: gateway.count("budget.held_bytes") == len(b"/echo") + rooms[0])
        assert gateway.count("budget.bodies_bytes") == 46656
        client.reset()

    async def test_a_short_body_has_no_more_room_than_its_length(self, gateway, client, samples):
        client.send(sized(10), b"x")
        await gateway.reaches("budget.held_bytes", 1)
        assert gateway.count("budget.small_bytes") == len(b"/echo") + 10
        client.send(b"y" * 9)
        assert (await client.response()).body == b"x" + b"y" * 9

    async def test_head_and_query_are_let_go_once_the_job_is_submitted(self, gateway, client, worker):
        unique = b"u" * 63
        client.send(
            get(
                b"/by-hand?" + b"q" * 8000,
                b"X-Gearman-Unique: " + unique,
                b"X-Gearman-Other: " + bytes(5000).hex().encode(),
            )
        )
        handle, _, _, workload = await worker.take()
        assert len(workload) == 8000
        await eventually(lambda: gateway.count("budget.held_bytes") == len(b"by-hand" + unique))
        worker.complete(handle, b"done")
        assert (await client.response()).body == b"done"

    async def test_half_a_plain_head_counts_as_it_came(self, gateway, client):
        sent = HALF_A_HEAD + b"X-Other: " + b"o" * 5000 + b"\r\n" + b"X-Gearman-Unique: half"
        client.send(sent)
        await gateway.reaches("budget.small_bytes", len(sent))
        assert gateway.count("budget.small_bytes") == len(sent)

    async def test_half_a_head_that_is_not_plain_counts_and_only_what_is_kept_of_it(self, gateway, client):
        client.send(HALF_A_HEAD, b"X-Other: \t" + b"o" * 5000 + b"\r\n", b"X-Gearman-Unique: half")
        kept = len("/echo?") + 4000 + len("X-Gearman-Unique: half")
        await gateway.reaches("budget.small_bytes", kept)
        assert gateway.count("budget.small_bytes") == kept


class TestCrowded:
    @with_settings(max_held_bytes=MEBIBYTE)
    async def test_large_bodies_are_refused_at_their_head_and_small_ones_are_not(self, gateway, samples):
        # Three quarters of 384 KiB are 288 KiB.
        async with HttpClient(gateway.address) as holder, HttpClient(gateway.address) as client:
            holder.send(sized(360 * KIBIBYTE), bytes(300 * KIBIBYTE))
            await gateway.reaches("budget.bodies_bytes", 300 * KIBIBYTE)
            client.send(sized(16 * KIBIBYTE + 1, EXPECT))
            await is_refused(client, closed=True)
            async with HttpClient(gateway.address) as other:
                other.send(sized(16 * KIBIBYTE + 1))
                await is_refused(other, closed=False)
                other.send(bytes(16 * KIBIBYTE + 1))
                # Read and dropped, the connection lives.
                assert (await other.ask(post(b"/echo", b"next"))).body == b"next"
                # A chunked body shows only now that it is large.
                other.send(head(b"POST", b"/echo", CHUNKED), b"4001\r\n" + bytes(0x4001) + b"\r\n")
                await is_refused(other, closed=False)
                other.send(b"0\r\n\r\n")
                other.send(sized(16 * KIBIBYTE, EXPECT))
                assert (await other.response()).status == 100
                assert len((await other.ask(bytes(16 * KIBIBYTE))).body) == 16 * KIBIBYTE
            holder.send(bytes(60 * KIBIBYTE))
            assert len((await holder.response()).body) == 360 * KIBIBYTE

    @with_settings(max_held_bytes=MEBIBYTE)
    @pytest.mark.parametrize("drains", [False, True], ids=["close", "drain"])
    async def test_a_last_request_whose_body_ends_in_the_piece_that_has_no_room_is_told_so(self, gateway, drains):
        last = b"X-Other: 1" if drains else b"Connection: close"
        async with HttpClient(gateway.address) as holder, HttpClient(gateway.address) as client:
            holder.send(sized(360 * KIBIBYTE), bytes(300 * KIBIBYTE))
            await gateway.reaches("budget.bodies_bytes", 300 * KIBIBYTE)
            client.send(head(b"POST", b"/echo", CHUNKED, last))
            await gateway.reaches("http.requests_in_flight", 2)
            if drains:
                gateway.process.http.drain()
            client.send(b"4001\r\n" + bytes(0x4001) + b"\r\n0\r\n\r\n")
            await is_refused(client, closed=True)

    @with_settings(max_held_bytes=MEBIBYTE, max_body_bytes=8 * MEBIBYTE)
    @pytest.mark.parametrize("framing", [b"Content-Length: 8388608", CHUNKED], ids=["sized", "chunked"])
    async def test_a_body_behind_its_pace_is_ended_and_closed_after_two_seconds(self, gateway, framing):
        # In 2 s come 559 KB of 8 MiB in 30 s.
        piece = bytes(300 * KIBIBYTE)
        began_s = time.monotonic()
        async with HttpClient(gateway.address) as slow:
            slow.send(head(b"POST", b"/echo", framing), b"800000\r\n" if framing == CHUNKED else b"", piece)
            await gateway.reaches("budget.bodies_bytes", len(piece))
            await is_refused(slow, closed=True)
            assert 1.8 <= time.monotonic() - began_s < SOON_S
            assert gateway.count("budget.held_bytes") == 0
            assert gateway.count("http.arrivals_ended") == 1

    @with_settings(max_held_bytes=2 * MEBIBYTE, max_body_bytes=8 * MEBIBYTE)
    async def test_a_body_that_keeps_its_pace_is_not_ended(self, gateway, samples):
        # 640 KiB of 768: more than three quarters.
        async with HttpClient(gateway.address) as quick:
            quick.send(sized(700 * KIBIBYTE), bytes(640 * KIBIBYTE))
            await gateway.reaches("budget.bodies_bytes", 640 * KIBIBYTE)
            await asyncio.sleep(2.5)
            quick.send(bytes(60 * KIBIBYTE))
            assert len((await quick.response()).body) == 700 * KIBIBYTE

    @with_settings(max_held_bytes=256 * KIBIBYTE)
    async def test_half_heads_that_stand_still_are_ended_while_small_things_are_crowded(self, gateway, samples):
        # 24 of 32 KiB are crowded.
        async with clients_of(gateway.address, 7) as parked, HttpClient(gateway.address) as moving:
            moving.send(b"GET /echo?q HTTP/1.1\r\n")
            began_s = time.monotonic()
            for client in parked:
                client.send(HALF_A_HEAD)
            await gateway.reaches("budget.small_bytes", 7 * 4000)
            after_it = 5
            while after_it:
                moving.send(b"X-Other: o\r\n")
                await asyncio.sleep(0.1)
                after_it -= gateway.count("http.arrivals_ended") > 0
                assert time.monotonic() - began_s < SOON_S
            # As many as it takes, and no more.
            assert gateway.count("http.arrivals_ended") <= 2
            await is_refused(parked[0], closed=True)
            assert time.monotonic() - began_s >= NOT_BEFORE * 0.9
            moving.send(b"Host: gateway\r\n\r\n")
            assert (await moving.response()).body == b"q"


class TestFull:
    @with_settings(max_held_bytes=MEBIBYTE)
    async def test_the_youngest_body_of_the_sender_who_holds_most_is_ended(self, gateway, samples):
        # 384 KiB in all; everybody has declared before anybody holds anything.
        async with (
            HttpClient(gateway.address, source="127.0.0.2") as first,
            HttpClient(gateway.address, source="127.0.0.2") as second,
            HttpClient(gateway.address, source="127.0.0.3") as other,
        ):
            for client in (first, second, other):
                client.send(sized(300 * KIBIBYTE), bytes(1))
                await gateway.reaches("http.arrivals", [first, second, other].index(client) + 1)
            first.send(bytes(100 * KIBIBYTE))
            await gateway.reaches("budget.bodies_bytes", 100 * KIBIBYTE)
            second.send(bytes(120 * KIBIBYTE))
            await gateway.reaches("budget.bodies_bytes", 220 * KIBIBYTE)
            other.send(bytes(200 * KIBIBYTE))
            await is_refused(second, closed=False)
            assert gateway.count("budget.bodies_bytes") < 384 * KIBIBYTE
            first.send(bytes(200 * KIBIBYTE - 1))
            # The one that asks is the youngest of the sender who holds most.
            await is_refused(other, closed=False)
            assert len((await first.response()).body) == 300 * KIBIBYTE
            # What was refused is read and dropped; the connections live.
            second.send(bytes(180 * KIBIBYTE - 1))
            assert (await second.ask(post(b"/echo", b"next"))).body == b"next"

    @with_settings(max_held_bytes=16 * MEBIBYTE, max_body_bytes=4 * MEBIBYTE)
    async def test_of_many_bodies_at_once_the_oldest_always_finishes(self, gateway, samples):
        statuses = []
        async with clients_of(gateway.address, 40) as clients:

            async def upload(client):
                client.send(sized(4 * MEBIBYTE, EXPECT))
                answer = await client.response()
                if answer.status == 100:
                    client.send(bytes(4 * MEBIBYTE))
                    answer = await client.response()
                statuses.append(answer.status)

            await asyncio.gather(*(upload(client) for client in clients))
        assert set(statuses) <= {200, 503}
        assert statuses.count(200) >= 1

    @with_settings(max_held_bytes=256 * KIBIBYTE)
    async def test_the_503_of_one_that_is_ended_keeps_its_place(self, gateway, worker, samples):
        async with HttpClient(gateway.address, source="127.0.0.2") as ended, HttpClient(gateway.address) as other:
            ended.send(post(b"/by-hand"), sized(90 * KIBIBYTE), bytes(60 * KIBIBYTE))
            handle, _, _, _ = await worker.take()
            await gateway.reaches("budget.bodies_bytes", 60 * KIBIBYTE)
            other.send(head(b"POST", b"/echo", CHUNKED), b"a\r\n" + bytes(10) + b"\r\n")
            await gateway.reaches("http.arrivals", 2)
            # The bodies' account is 96 KiB: its room goes before its answer is due.
            with contextlib.suppress(asyncio.IncompleteReadError):
                other.send(chunked(bytes(50 * KIBIBYTE)))
            await gateway.reaches("http.arrivals_ended", 1)
            assert (await other.response()).status == 200
            worker.complete(handle, b"first")
            assert (await ended.response()).body == b"first"
            await is_refused(ended, closed=False)

    @with_settings(max_held_bytes=256 * KIBIBYTE)
    async def test_half_heads_make_room_for_others_when_small_things_are_full(self, gateway, samples):
        async with clients_of(gateway.address, 8, source="127.0.0.2") as parked:
            # None of them stands still for a second.
            with gateway.within_a_tick():
                for number, client in enumerate(parked, 1):
                    client.send(HALF_A_HEAD)
                    await gateway.reaches("http.arrivals", min(number, 7))
                # 32 KiB hold eight of them and no more.
                assert (await ask(gateway.address, get(b"/echo?" + b"r" * 2000))).body == b"r" * 2000
            await is_refused(parked[-1], closed=True)

    @with_settings(max_held_bytes=8 * 600)
    async def test_while_nothing_fits_two_requests_in_one_segment_are_answered_one_at_a_time(self, gateway, worker):
        async with HttpClient(gateway.address) as client:
            client.send(post(b"/by-hand", b"1"))
            handle, _, _, _ = await worker.take()
            client.send(head(b"OPTIONS", b"*") * 4)
            # The answers wait behind the job.
            await gateway.reaches("budget.small_bytes", 600)
            client.send(post(b"/by-hand", b"2") * 2)
            await asyncio.sleep(0.05)
            worker.complete(handle, b"one")
            assert (await client.response()).body == b"one"
            assert [(await client.response()).status for _ in range(4)] == [204] * 4
            for _ in range(2):
                handle, _, _, workload = await worker.take()
                worker.complete(handle, workload)
                assert (await client.response()).body == b"2"

    @with_settings(max_held_bytes=256 * KIBIBYTE)
    async def test_one_that_is_ended_within_a_line_of_its_framing_is_closed_and_nothing_behind_it_runs(
        self, embedded, gateway, samples
    ):
        async with HttpClient(gateway.address, source="127.0.0.2") as ended:
            ended.send(head(b"POST", b"/echo", CHUNKED), b"f000\r\n" + bytes(0xF000) + b"\r\n1")
            await gateway.reaches("budget.bodies_bytes", 0xF000)
            answer = await ask(gateway.address, sized(60 * KIBIBYTE), bytes(60 * KIBIBYTE))
            assert answer.status == 200
            await gateway.reaches("http.arrivals_ended", 1)
            # Without the "1" this would be the end of the body, and a request behind it.
            ended.send(b"0\r\n\r\n" + post(b"/echo", b"smuggled"))
            await is_refused(ended, closed=True)
            assert embedded.submitted == 1

    @with_settings(max_held_bytes=8 * 40)
    async def test_what_does_not_fit_is_counted_once_and_the_connection_lives(self, gateway, client):
        client.send(post(b"/echo", b"x" * 100) * 2)
        for _ in range(2):
            await is_refused(client, closed=False)
        assert gateway.count("budget.refused") == 2


@contextlib.asynccontextmanager
async def unread(
    gateway: RunningGateway, worker: HandWorker, result: bytes, *, receive_buffer_bytes: int
) -> AsyncIterator[HttpClient]:
    """A client that does not read the result of its job, of which the gateway holds all that the kernels do not."""
    async with HttpClient(gateway.address, receive_buffer_bytes=receive_buffer_bytes) as client:
        client.writer.transport.pause_reading()
        client.send(post(b"/by-hand"))
        handle, _, _, _ = await worker.take()
        worker.complete(handle, result)
        await gateway.reaches("budget.results_bytes", len(result))
        yield client


class TestResults:
    @with_settings(max_held_bytes=256 * KIBIBYTE)
    @pytest.mark.parametrize("parts", [1, 10])
    async def test_a_result_that_does_not_fit_is_502_and_disturbs_nobody(self, gateway, client, worker, samples, parts):
        client.send(post(b"/by-hand"))
        handle, _, _, _ = await worker.take()
        for _ in range(parts - 1):
            worker.send_data(handle, bytes(300 * KIBIBYTE // parts))
        worker.complete(handle, bytes(300 * KIBIBYTE // parts))
        answer = await client.response()
        assert (answer.status, answer.kind()) == (502, "result-too-large")
        assert "beside what the gateway holds" in answer.problem()["detail"]
        assert (await client.ask(post(b"/echo", b"others"))).body == b"others"
        assert gateway.count("budget.refused") == 1

    @with_settings(max_held_bytes=20 * MEBIBYTE)
    async def test_an_answer_that_is_not_read_counts_until_it_is_and_stops_no_body(self, gateway, worker, samples):
        # Of results 10 MiB are held; more than the kernel takes off our hands, less than three quarters.
        result = bytes(7 * MEBIBYTE)
        async with unread(gateway, worker, result, receive_buffer_bytes=4096) as slow:
            body = bytes(2 * MEBIBYTE)
            assert (await ask(gateway.address, sized(len(body)), body)).body == body
            slow.writer.transport.resume_reading()
            assert (await slow.response()).body == result
            await eventually(lambda: gateway.count("budget.held_bytes") == 0)

    @with_settings(max_held_bytes=20 * MEBIBYTE)
    async def test_an_answer_that_is_read_too_slowly_is_ended_while_results_are_crowded(self, gateway, worker, samples):
        result = bytes(9 * MEBIBYTE)
        began_s = time.monotonic()
        async with unread(gateway, worker, result, receive_buffer_bytes=4096) as slow:
            # Whoever needs little is not concerned.
            small = bytes(16 * KIBIBYTE)
            assert (await ask(gateway.address, sized(len(small)), small)).body == small
            await gateway.reaches("http.answers_ended", 1)
            assert 1.8 <= time.monotonic() - began_s < SOON_S
            await eventually(lambda: gateway.count("budget.held_bytes") == 0)
            slow.writer.transport.resume_reading()
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await slow.response()

    @with_settings(max_held_bytes=20 * MEBIBYTE)
    async def test_an_answer_that_is_read_in_time_is_not_ended(self, gateway, worker):
        result = bytes(9 * MEBIBYTE)
        async with unread(gateway, worker, result, receive_buffer_bytes=65536) as steady:
            steady.writer.transport.resume_reading()
            read = 0
            for _ in range(9):
                read += len(await steady.reader.readexactly(900 * KIBIBYTE))
                await asyncio.sleep(0.3)
            assert gateway.count("http.answers_ended") == 0
            await steady.close()
        assert read == 9 * 900 * KIBIBYTE

    @with_settings(max_held_bytes=2 * MEBIBYTE)
    async def test_answers_that_wait_behind_a_job_are_ended_while_results_are_crowded(self, gateway, worker, samples):
        async with HttpClient(gateway.address) as parking, HttpClient(gateway.address) as small:
            parking.send(post(b"/by-hand"))
            await worker.take()
            for number in range(1, 11):
                await parking.send_all(post(b"/echo", bytes(100 * KIBIBYTE)))
                # One after the other, or the bodies together would be too many bytes.
                await gateway.reaches("budget.results_bytes", min(number, 8) * 100 * KIBIBYTE)
            small.send(post(b"/by-hand"), post(b"/echo", b"second"))
            await worker.take()
            await gateway.reaches("http.answers_ended", 1)
            await eventually(lambda: gateway.count("budget.results_bytes") == 0)
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await parking.response()
            assert (await ask(gateway.address, post(b"/echo", bytes(100 * KIBIBYTE)))).status == 200
            # Small answers stand in nobody's way.
            assert gateway.count("http.answers_ended") == 1
            await eventually(lambda: gateway.count("http.connections") == 1)
            await small.close()


class TestConnections:
    @with_settings(max_connections=3)
    @pytest.mark.parametrize(
        "unfinished",
        [b"GET /f HTTP/1.1\r\nHo", sized(1000), sized(1000) + b"part"],
        ids=["head", "declared", "part-of-a-body"],
    )
    async def test_the_one_without_a_byte_for_longest_makes_room_after_a_second(self, gateway, unfinished):
        async with clients_of(gateway.address, 3) as parked:
            with gateway.within_a_tick():
                for number, client in enumerate(parked, 1):
                    client.send(unfinished)
                    await gateway.reaches("http.arrivals", number)
                answer = await ask(gateway.address, head(b"OPTIONS", b"*"))
                assert (answer.status, answer.kind()) == (503, "too-many-connections")
            await asyncio.sleep(0.6)
            parked[0].send(b"s" if unfinished.endswith(b"Ho") else b"more")
            await asyncio.sleep(0.6)
            # The first one has moved, so the second is next.
            assert (await ask(gateway.address, head(b"OPTIONS", b"*"))).status == 204
            answer = await parked[1].response()
            assert (answer.status, answer.kind()) == (503, "too-many-connections")
            assert answer.headers[b"connection"] == b"close"
            assert gateway.count("http.arrivals") == 2
            assert gateway.count("http.connections_evicted") == 1

    @with_settings(max_connections=1)
    async def test_one_with_a_job_under_way_is_not_ended_for_half_a_head_behind_it(self, gateway, client, worker):
        client.send(post(b"/by-hand"), b"GET /f HT")
        handle, _, _, _ = await worker.take()
        await asyncio.sleep(1.2)
        assert (await ask(gateway.address, head(b"OPTIONS", b"*"))).status == 503
        worker.complete(handle, b"kept")
        assert (await client.response()).body == b"kept"
