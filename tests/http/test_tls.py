"""Clients that speak TLS: handshakes and their bounds, ends that are told, records of every size."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator

import pytest

from gatewayx.net.tls import TlsServer
from support.gateway import RunningGateway, eventually, with_settings
from support.http import HttpClient, ask, get, head, post
from support.times import WAIT_S
from support.tls import authority
from support.tls_records import ASKING_KEY_UPDATE, KEY_UPDATE, ClientRecords

pytestmark = pytest.mark.anyio

MEBIBYTE = 1 << 20
OPTIONS = head(b"OPTIONS", b"*")
# RFC 8446 6: a fatal alert.
ALERT = 21


@pytest.fixture
def stream() -> str:
    """All of them speak TLS."""
    return "tls"


class Hand:
    """A client's TLS by hand over a socket: what is sent when is the test's."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.session = authority().context().wrap_bio(self.incoming, self.outgoing, server_hostname="127.0.0.1")

    def hello(self) -> bytes:
        """The client's first record, or what else it has to say in the handshake."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.session.do_handshake()
        return self.outgoing.read()

    async def send(self, data: bytes) -> None:
        """Send bytes as they are."""
        await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def receive(self) -> bytes:
        """What comes next, as it is; empty at the end."""
        return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(self.socket, 65536), WAIT_S)

    async def take(self) -> bool:
        """Give what comes next to TLS; whether anything came."""
        data = await self.receive()
        self.incoming.write(data)
        return bool(data)

    async def shake(self, behind: bytes = b"") -> None:
        """Shake hands; behind: what is sent in one piece with the last flight."""
        await self.send(self.hello())
        while True:
            assert await self.take()
            last = self.hello()
            try:
                self.session.do_handshake()
            except ssl.SSLWantReadError:
                await self.send(last)
                continue
            break
        if behind:
            self.session.write(behind)
        await self.send(last + self.outgoing.read())

    def records(self, data: bytes, size: int) -> bytes:
        """The bytes in records of so many each."""
        for start in range(0, len(data), size):
            self.session.write(data[start : start + size])
        return self.outgoing.read()

    async def read(self, size: int) -> bytes:
        """So many bytes, decrypted."""
        found = b""
        while len(found) < size:
            try:
                found += self.session.read(size - len(found))
            except ssl.SSLWantReadError:
                assert await self.take()
        return found


@contextlib.asynccontextmanager
async def by_hand(gateway: RunningGateway) -> AsyncIterator[Hand]:
    """A connection of which nothing was sent."""
    with socket.socket() as connected:
        connected.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connected, gateway.address)
        yield Hand(connected)


def tls_of(gateway: RunningGateway) -> TlsServer:
    """What the gateway has for it."""
    assert gateway.process.tls is not None
    return gateway.process.tls


def counted(gateway: RunningGateway, name: str) -> int:
    """A count of the process."""
    return gateway.process.counted_in.read()[name]


class TestHandshakes:
    async def test_http_1_1_is_agreed_on_and_the_newest_version(self, gateway):
        context = authority().context()
        context.set_alpn_protocols(["h2", "http/1.1"])
        async with HttpClient(gateway.address, context=context) as client:
            session = client.writer.protocol.session
            assert (session.selected_alpn_protocol(), session.version()) == ("http/1.1", "TLSv1.3")
            assert (await client.ask(OPTIONS)).status == 204
        assert counted(gateway, "tls_full") == 1

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
    async def test_a_session_is_taken_up_again(self, gateway, version):
        context = authority().context()
        context.maximum_version = version
        async with HttpClient(gateway.address, context=context) as client:
            assert (await client.ask(OPTIONS)).status == 204
            session = client.writer.protocol.session.session
        async with by_hand(gateway) as hand:
            hand.session = context.wrap_bio(hand.incoming, hand.outgoing, server_hostname="127.0.0.1", session=session)
            await hand.shake(OPTIONS)
            assert (await hand.read(12)) == b"HTTP/1.1 204"
            assert hand.session.session_reused
        assert (counted(gateway, "tls_full"), counted(gateway, "tls_resumed")) == (1, 1)

    @pytest.mark.parametrize("says_end", [False, True], ids=["FIN", "close_notify"])
    @with_settings(half_closed="answer")
    async def test_so_is_one_before_a_client_ends_its_side(self, gateway, says_end):
        async with by_hand(gateway) as hand:
            await hand.send(hand.hello())
            assert await hand.take()
            last = hand.hello()
            hand.session.write(OPTIONS)
            if says_end:
                with contextlib.suppress(ssl.SSLWantReadError):
                    hand.session.unwrap()
            await hand.send(last + hand.outgoing.read())
            hand.socket.shutdown(socket.SHUT_WR)
            assert await hand.read(12) == b"HTTP/1.1 204"

    async def test_keys_may_be_of_another_group(self, gateway):
        context = authority().context()
        context.set_ecdh_curve("secp384r1")
        async with HttpClient(gateway.address, context=context) as client:
            assert (await client.ask(OPTIONS)).status == 204

    async def test_a_request_behind_the_last_flight_is_served(self, gateway):
        async with by_hand(gateway) as hand:
            await hand.shake(OPTIONS)
            assert await hand.read(12) == b"HTTP/1.1 204"

    @pytest.mark.parametrize("size", [1, 7, 100])
    async def test_it_may_come_in_pieces(self, gateway, size):
        async with by_hand(gateway) as hand:
            hello = hand.hello()
            for start in range(0, len(hello), size):
                await hand.send(hello[start : start + size])
                await asyncio.sleep(0)
            await hand.take()
            last = hand.hello()
            hand.session.write(OPTIONS)
            last += hand.outgoing.read()
            for start in range(0, len(last), size):
                await hand.send(last[start : start + size])
                await asyncio.sleep(0)
            assert await hand.read(12) == b"HTTP/1.1 204"

    @pytest.mark.parametrize(
        "request_", [b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\nGET /", b"P", post(b"/f", b"body")]
    )
    async def test_plain_http_is_answered_plainly(self, gateway, request_):
        reader, writer = await asyncio.open_connection(*gateway.address)
        writer.write(request_)
        answer = await asyncio.wait_for(reader.read(), WAIT_S)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"\r\nConnection: close\r\n" in answer
        assert b"urn:gatewayx:plain-http" in answer
        assert b"https://" in answer
        writer.close()
        await writer.wait_closed()
        await gateway.let_go()
        assert counted(gateway, "tls_failed") == 0
        assert list(gateway.process.http.take_events()) == ["plain-http"]

    @pytest.mark.parametrize(
        "sent",
        [
            b"\x00" * 100,
            b"\x80\x2e\x01\x00\x02" + bytes(60),
            b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
            b"\x16\x03\x01\x40\x01" + bytes(16385),
            b"\x16\x09\x09\x00\x05hello",
            b"\x17\x03\x03\x00\x05hello",
            b"\x16\x03\x01\xff\xff" + bytes(20000),
        ],
    )
    async def test_what_is_no_handshake_fails_and_is_told_of(self, gateway, sent):
        async with by_hand(gateway) as hand:
            await hand.send(sent)
            answer = await hand.receive()
            # An alert, where TLS has one for it, and the end.
            assert not answer or answer[0] == ALERT
            if answer:
                assert await hand.receive() == b""
        await gateway.let_go()
        assert counted(gateway, "tls_failed") == 1
        [kind] = gateway.process.http.take_events()
        assert kind.startswith("a TLS handshake fails: ")

    @pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1], ids=["1.0", "1.1"])
    @pytest.mark.filterwarnings("ignore:.*TLSv1:DeprecationWarning")
    async def test_old_versions_are_refused(self, gateway, version):
        context = authority().context()
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|protocol version"):
            await HttpClient(gateway.address, context=context).connect()
        assert counted(gateway, "tls_failed") == 1

    @with_settings(tls_min="1.3")
    async def test_the_oldest_version_is_a_setting(self, gateway):
        context = authority().context()
        context.maximum_version = ssl.TLSVersion.TLSv1_2
        with pytest.raises(ssl.SSLError, match=r"PROTOCOL_VERSION|protocol version"):
            await HttpClient(gateway.address, context=context).connect()
        async with HttpClient(gateway.address) as client:
            assert (await client.ask(OPTIONS)).status == 204

    async def test_an_authority_that_the_client_does_not_know_is_its_own_affair(self, gateway):
        context = ssl.create_default_context()
        with pytest.raises(ssl.SSLCertVerificationError):
            await HttpClient(gateway.address, context=context).connect()
        assert (await ask(gateway.address, OPTIONS)).status == 204


class TestBounds:
    @with_settings(first_byte_timeout_s=0.3)
    @pytest.mark.parametrize("part", ["nothing", "half a hello", "a hello", "all but the request"])
    async def test_the_handshake_is_part_of_the_first_bytes_time(self, gateway, part):
        async with by_hand(gateway) as hand:
            if part == "half a hello":
                await hand.send(hand.hello()[:100])
            elif part == "a hello":
                await hand.send(hand.hello())
                assert await hand.receive()
            elif part == "all but the request":
                await hand.shake()
                await hand.read(0)
            while await hand.receive():
                pass
        await gateway.let_go()
        assert counted(gateway, "tls_left") == (part == "a hello")

    @with_settings(max_handshakes=2)
    async def test_the_oldest_handshake_is_given_up_for_a_further_one(self, gateway):
        async with contextlib.AsyncExitStack() as stack:
            hands = [await stack.enter_async_context(by_hand(gateway)) for _ in range(3)]
            for hand in hands:
                await hand.send(hand.hello())
                assert await hand.receive()
            assert await hands[0].receive() == b""
            assert tls_of(gateway).counters() == {"handshakes": 2}
            # A client that goes on gets in.
            assert (await ask(gateway.address, OPTIONS)).status == 204
            assert counted(gateway, "tls_left") == 2
        await gateway.let_go()
        assert counted(gateway, "tls_left") == 3

    async def test_many_at_once_all_get_in(self, gateway):
        answers = await asyncio.gather(*(ask(gateway.address, OPTIONS) for _ in range(100)))
        assert [answer.status for answer in answers] == [204] * 100
        assert counted(gateway, "tls_full") == 100

    async def test_a_flood_that_leaves_lets_others_in(self, gateway):
        loop = asyncio.get_running_loop()
        async with by_hand(gateway) as hand:
            hello = hand.hello()
        for _ in range(300):
            with socket.socket() as connected:
                connected.setblocking(False)
                await loop.sock_connect(connected, gateway.address)
                await loop.sock_sendall(connected, hello)
        assert (await ask(gateway.address, OPTIONS)).status == 204
        await gateway.let_go()
        assert tls_of(gateway).counters() == {"handshakes": 0}

    async def test_a_drain_ends_a_handshake(self, gateway):
        async with by_hand(gateway) as hand:
            await hand.send(hand.hello())
            assert await hand.receive()
            gateway.process.http.drain()
            gateway.process.http.refuse_unfinished()
            assert await hand.receive() == b""


class TestEnds:
    async def test_close_notify_comes_before_the_end(self, gateway):
        async with HttpClient(gateway.address) as client:
            assert (await client.ask(head(b"OPTIONS", b"*", b"Connection: close"))).status == 204
            assert await client.rest() == b""
            assert client.writer.protocol.is_whole

    async def test_the_clients_close_notify_is_answered(self, gateway):
        async with HttpClient(gateway.address) as client:
            assert (await client.ask(OPTIONS)).status == 204
            client.send_eof()
            assert await client.rest() == b""
            assert client.writer.protocol.is_whole

    async def test_a_close_notify_alone_ends_the_clients_side(self, gateway):
        async with by_hand(gateway) as hand:
            await hand.shake()
            with pytest.raises(ssl.SSLWantReadError):
                hand.session.unwrap()
            await hand.send(hand.outgoing.read())
            while await hand.take():
                pass
            # Tickets, and then its close_notify.
            hand.session.unwrap()

    @with_settings(max_pipelined=2)
    async def test_a_fin_behind_a_close_notify_is_noticed_of_one_that_is_not_read_from(self, embedded, gateway):
        async with by_hand(gateway) as hand:
            await hand.shake()
            requests = hand.records(post(b"/f") * 5, 16384)
            with pytest.raises(ssl.SSLWantReadError):
                hand.session.unwrap()
            await hand.send(requests + hand.outgoing.read())
            await gateway.reaches("http.requests_in_flight", 2)
            hand.socket.shutdown(socket.SHUT_WR)
            await gateway.reaches("pool.cancels_requested", 2)
            await gateway.let_go()
        assert embedded.submitted == 2

    @pytest.mark.parametrize("says_end", [False, True], ids=["FIN", "close_notify"])
    @pytest.mark.parametrize("framing", [b"Content-Length: 11", b"Transfer-Encoding: chunked"])
    async def test_a_cut_body_is_never_a_whole_one(self, embedded, gateway, says_end, framing):
        async with HttpClient(gateway.address) as client:
            client.send(head(b"POST", b"/by-hand", framing), b"5\r\nhello\r\n")
            await eventually(lambda: gateway.count("http.requests_in_flight") == 1)
            if says_end:
                client.send_eof()
            else:
                client.writer.cut()
            await client.rest()
        await gateway.let_go()
        assert embedded.submitted == 0

    async def test_a_cut_answer_does_not_end_like_a_whole_one(self, gateway, worker):
        async with HttpClient(gateway.address, receive_buffer_bytes=4096) as client:
            client.writer.transport.pause_reading()
            client.send(post(b"/by-hand"))
            handle, _, _, _ = await worker.take()
            worker.complete(handle, bytes(4 * MEBIBYTE))
            await gateway.reaches("http.requests_answered", 1)
            gateway.process.http.abort()
            client.writer.transport.resume_reading()
            with contextlib.suppress(ConnectionResetError):
                assert len(await client.rest()) < 4 * MEBIBYTE
            assert not client.writer.protocol.is_whole

    async def test_a_record_that_was_changed_ends_the_connection(self, gateway):
        async with by_hand(gateway) as hand:
            await hand.shake()
            record = bytearray(hand.records(OPTIONS, 1000))
            record[-1] ^= 1
            await hand.send(bytes(record))
            while await hand.take():
                pass
            # Behind the tickets stands an alert, or the connection was reset.
            with pytest.raises(ssl.SSLError, match=r"ALERT|alert|EOF"):
                hand.session.read(1000)
        await gateway.let_go()
        assert "TLS fails: DECRYPTION_FAILED_OR_BAD_RECORD_MAC" in gateway.process.http.take_events()


class TestRecords:
    @pytest.mark.parametrize("size", [1, 3, 1000, 2048, 16384, 100_000])
    async def test_of_every_size_carry_requests_and_bodies(self, gateway, worker, size):
        body = bytes(range(256)) * (4 if size < 100 else 800)
        async with by_hand(gateway) as hand:
            await hand.shake()
            sending = asyncio.ensure_future(hand.send(hand.records(post(b"/by-hand", body) * 2, size)))
            for _ in range(2):
                handle, _, _, workload = await worker.take()
                assert workload == body
                worker.complete(handle, workload[::-1])
            await sending
            for _ in range(2):
                received = b""
                while b"\r\n\r\n" not in received:
                    received += await hand.read(1)
                assert await hand.read(len(body)) == body[::-1]

    async def test_an_empty_one_is_nothing(self, gateway):
        async with by_hand(gateway) as hand:
            await hand.shake()
            hand.session.write(b"")
            await hand.send(hand.outgoing.read() + hand.records(OPTIONS, 5))
            assert await hand.read(12) == b"HTTP/1.1 204"

    @pytest.mark.parametrize("update", [KEY_UPDATE, ASKING_KEY_UPDATE], ids=["silent", "asking"])
    async def test_new_keys_are_taken_but_not_by_the_hundred(self, gateway, tmp_path, update):
        async with by_hand(gateway) as hand:
            context = authority().context()
            context.keylog_filename = str(tmp_path / "keys")
            hand.session = context.wrap_bio(hand.incoming, hand.outgoing, server_hostname="127.0.0.1")
            await hand.shake()
            records = ClientRecords(tmp_path / "keys")
            for _ in range(20):
                await hand.send(records.key_update(update) + records.record(OPTIONS))
                assert await hand.read(12) == b"HTTP/1.1 204"
                while not (await hand.read(1)).endswith(b"\n") or await hand.read(2) != b"\r\n":
                    pass
            await hand.send(b"".join(records.key_update(update) for _ in range(200)))
            with contextlib.suppress(ConnectionResetError):
                while await hand.take():
                    pass
        await gateway.let_go()
        assert "TLS fails: records without anything in them" in gateway.process.http.take_events()

    async def test_records_without_anything_in_them_do_not_last(self, gateway, tmp_path):
        async with by_hand(gateway) as hand:
            context = authority().context()
            context.keylog_filename = str(tmp_path / "keys")
            hand.session = context.wrap_bio(hand.incoming, hand.outgoing, server_hostname="127.0.0.1")
            await hand.shake()
            records = ClientRecords(tmp_path / "keys")
            await hand.send(b"".join(records.record(b"") for _ in range(20)) + records.record(OPTIONS))
            assert await hand.read(12) == b"HTTP/1.1 204"
            await hand.send(b"".join(records.record(b"") for _ in range(200)))
            with contextlib.suppress(ConnectionResetError):
                while await hand.take():
                    pass
        await gateway.let_go()
        [kind] = gateway.process.http.take_events()
        assert kind.startswith("TLS fails: ")

    async def test_large_bodies_pass_both_ways(self, gateway, worker):
        body = bytes(range(251)) * (7 * MEBIBYTE // 251)
        async with HttpClient(gateway.address) as client:
            sending = asyncio.ensure_future(client.send_all(post(b"/by-hand", body)))
            handle, _, _, workload = await worker.take()
            await sending
            assert workload == body
            worker.complete(handle, body + b"!")
            assert (await client.response()).body == body + b"!"

    @with_settings(write_timeout_s=4)
    async def test_one_that_reads_slowly_is_not_cut_off(self, gateway, worker):
        result = bytes(16 * MEBIBYTE)
        async with HttpClient(gateway.address, receive_buffer_bytes=65536) as slow:
            slow.send(post(b"/by-hand"))
            handle, _, _, _ = await worker.take()
            worker.complete(handle, result)
            loop = asyncio.get_running_loop()
            began_s = loop.time()
            received = 0
            while received < len(result):
                received += len(await asyncio.wait_for(slow.reader.read(131_072), WAIT_S)) or len(result)
                await asyncio.sleep(0.04)
            assert loop.time() - began_s > 5
        assert gateway.count("http.writes_timed_out") == 0

    async def test_what_a_client_has_not_read_counts_as_unread(self, gateway, worker):
        async with HttpClient(gateway.address, receive_buffer_bytes=4096) as deaf:
            deaf.writer.transport.pause_reading()
            deaf.send(post(b"/by-hand"))
            handle, _, _, _ = await worker.take()
            worker.complete(handle, bytes(8 * MEBIBYTE))
            await gateway.reaches("http.requests_answered", 1)
            await eventually(lambda: gateway.count("http.unread_connections") == 1)
            assert 3 * MEBIBYTE < gateway.process.budget.counters()["results_bytes"] <= 9 * MEBIBYTE
            deaf.writer.transport.resume_reading()
            assert len((await deaf.response()).body) == 8 * MEBIBYTE
            await eventually(lambda: gateway.process.budget.counters()["results_bytes"] == 0)
            assert (await deaf.ask(get(b"/v1/openapi.json"))).status == 200
