"""Answers whose length nobody knows that come from another process: as they come, as fast as the client takes them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fuzz.links import LinkEnd
from gatewayx.gearman.packet import PacketType
from support.http import get, head, post
from support.piecewise import chunks_of
from support.still import StillClient, StillGateway, still_gateway
from support.streaming import ACCEPT_EVENTS

HEAD = (
    b"HTTP/1.1 200 OK\r\nX-Gearman-Unique: u\r\nOutcome: 0 0 0\r\n"
    b"Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
)
CHUNKS = b"3\r\none\r\n10\r\nsixteen letters.\r\n1\r\n\n\r\n"
DATA = b"onesixteen letters.\n"
LAST = b"0\r\n\r\n"
# As much as one read takes of a link.
READ_BYTES = 1 << 16


class NotingClient(StillClient):
    """A client's connection that knows what was written at once."""

    def __init__(self, gateway: StillGateway, place: int) -> None:
        self.writes: list[bytes] = []
        super().__init__(gateway, place)

    def write_all(self, pieces: list[bytes]) -> int:
        """FakeStream."""
        self.writes.append(b"".join(pieces))
        return super().write_all(pieces)

    def ask(self, *requests: bytes) -> None:
        """Send them, and let all come to rest."""
        self.send(*requests)
        self.gateway.loop.settle()

    def body(self) -> bytes:
        """What stands behind the first head."""
        return bytes(self.written).partition(b"\r\n\r\n")[2]

    def data(self) -> bytes:
        """What the chunks of the first body hold."""
        return b"".join(chunks_of(self.body())[0])

    def is_whole(self) -> bool:
        """Whether the last chunk has come, and nothing behind it."""
        return chunks_of(self.body())[1] == b""


class Two:
    """Two worker processes, the first of which has a kept job of which the client of the second one asks."""

    def __init__(self, gateway: StillGateway) -> None:
        self.gateway = gateway
        submitting = NotingClient(gateway, 0)
        submitting.ask(post(b"/f", b"workload", b"Prefer: respond-async"))
        self.connection = next(found for found in gateway.server.open() if found.pending)
        self.connection.create()
        gateway.loop.settle()
        (self.path,) = re.findall(rb"\r\nLocation: (\S+)\r\n", submitting.written)
        self.client = NotingClient(gateway, 1)

    def waits(self, *, version: bytes = b"1.1", method: bytes = b"GET") -> LinkEnd:
        """Have the client ask for the end of the job; where the answer to the asking process comes from."""
        self.client.ask(head(method, self.path + b"?wait=50", b"Connection: keep-alive", version=version))
        (link,) = self.gateway.links.links
        return link.ends[0]

    def answer(self, end: LinkEnd, *pieces: bytes) -> None:
        """Send this to the asking process, each piece by itself, in the place of the owner."""
        for piece in pieces:
            end.arrived += piece
            end.arrive()
            self.gateway.loop.settle()

    def work(self, packet_type: PacketType, data: bytes = b"") -> None:
        """Something happens to the job."""
        self.connection.work(self.connection.jobs[0], packet_type, data)
        self.gateway.loop.settle()

    def held_bytes(self) -> int:
        """What the asking process holds."""
        return self.gateway.processes[1].budget.counters()["held_bytes"]


@contextmanager
def two(**settings: object) -> Iterator[Two]:
    """They."""
    with still_gateway(workers=2, **settings) as gateway:
        yield Two(gateway)


class TestFraming:
    @pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 1000])
    @pytest.mark.parametrize("version", [b"1.0", b"1.1"])
    def test_however_it_is_cut(self, size, version):
        whole = HEAD + CHUNKS + LAST
        with two() as both:
            end = both.waits(version=version)
            both.answer(end, *(whole[at : at + size] for at in range(0, len(whole), size)))
            client = both.client
            assert b"\r\nX-Gearman-Unique: u\r\n" in client.written
            if version == b"1.0":
                assert client.body() == DATA
                assert client.wrote_eof
            else:
                assert client.data() == DATA
                assert client.is_whole()
                client.ask(head(b"OPTIONS", b"*"))
                assert b"HTTP/1.1 204" in client.body()
            # The connection to the owner is kept for the next request.
            assert not end.closed
            assert both.gateway.processes[1].relay.counters() == {"relayed": 0, "patient": 0, "idle_connections": 1}

    def test_what_comes_with_the_head_leaves_with_the_head(self):
        with two() as both:
            end = both.waits()
            both.answer(end, HEAD + CHUNKS)
            assert len(both.client.writes) == 1
            assert both.client.data() == DATA
            both.answer(end, CHUNKS)
            assert both.client.data() == DATA * 2
            assert not both.client.is_whole()
            both.answer(end, LAST)
            assert both.client.is_whole()

    def test_all_of_it_may_come_with_the_head(self):
        with two() as both:
            both.answer(both.waits(), HEAD + CHUNKS + LAST)
            assert len(both.client.writes) == 1
            assert both.client.data() == DATA
            assert both.client.is_whole()

    @pytest.mark.parametrize("behind", [b"x", LAST, HEAD])
    def test_of_what_stands_behind_it_nothing_is_taken_for_the_next_answer(self, behind):
        with two() as both:
            end = both.waits()
            both.answer(end, HEAD + CHUNKS + LAST + behind)
            assert both.client.is_whole()
            assert end.closed

    def test_to_head_its_head_is_all(self):
        with two() as both:
            end = both.waits(method=b"HEAD")
            both.answer(end, HEAD + CHUNKS)
            assert both.client.body() == b""
            assert end.closed
            both.client.ask(head(b"OPTIONS", b"*"))
            assert b"HTTP/1.1 204" in both.client.body()


class TestCut:
    @pytest.mark.parametrize("version", [b"1.0", b"1.1"])
    @pytest.mark.parametrize(
        "how", [b"x", b"3\r\noneX", b"3\r\none\nX", b"-1\r\n", b"\r\n", b"1000000000000000\r\n", b"lost", b"ends"]
    )
    def test_one_that_is_not_whole_does_not_seem_so(self, how, version):
        with two() as both:
            end = both.waits(version=version)
            both.answer(end, HEAD + CHUNKS)
            if how == b"lost":
                end.lose(None)
            elif how == b"ends":
                end.receive_eof()
            else:
                both.answer(end, how)
            both.gateway.loop.settle()
            assert both.client.gone
            assert not both.client.wrote_eof
            assert end.closed
            if version == b"1.1":
                assert both.client.data().startswith(DATA)
                assert chunks_of(both.client.body())[1] is None
            assert both.gateway.processes[1].http.counters()["answers_cut"] == 1
            assert both.held_bytes() == 0

    @pytest.mark.parametrize("how", [b"x\r\n", b"1 \r\n", b";\r\n"])
    def test_one_that_is_wrong_with_its_head_is_none(self, how):
        with two() as both:
            both.answer(both.waits(), HEAD + how)
            answer = both.client.responses()[0]
            assert (answer.status, json.loads(answer.body)["type"]) == (503, "urn:gatewayx:owner-away")

    @pytest.mark.parametrize("before", [HEAD[:-2], HEAD, HEAD + CHUNKS, HEAD + CHUNKS[:1]])
    def test_a_client_that_hangs_up_ends_it_for_the_owner(self, before):
        with two() as both:
            end = both.waits()
            both.answer(end, before)
            both.client.receive_eof()
            both.gateway.loop.settle()
            assert end.closed
            assert both.client.gone
            assert both.gateway.processes[1].relay.counters() == {"relayed": 0, "patient": 0, "idle_connections": 0}
            assert both.held_bytes() == 0


class TestBackPressure:
    def test_no_more_is_read_than_the_client_takes(self):
        piece = b"%x\r\n%b\r\n" % (READ_BYTES, bytes(READ_BYTES))
        with two() as both:
            end = both.waits()
            both.answer(end, HEAD)
            assert end.reads
            both.client.stop_taking(1000)
            both.answer(end, *[piece] * 10)
            # What one read takes is held, and the rest stays with the owner.
            assert not end.reads
            assert 0 < both.held_bytes() <= READ_BYTES
            assert len(end.arrived) > 8 * READ_BYTES
            both.client.take()
            both.gateway.loop.settle()
            assert both.held_bytes() == 0
            both.answer(end, LAST)
            assert both.client.data() == bytes(10 * READ_BYTES)
            assert both.client.is_whole()

    def test_many_small_pieces_count_as_well(self):
        with two() as both:
            end = both.waits()
            both.answer(end, HEAD)
            both.client.stop_taking(0)
            both.answer(end, CHUNKS * 5000)
            assert not end.reads
            # Chunks of one byte are larger with what is around them.
            assert 0 < both.held_bytes() <= 2 * READ_BYTES
            both.client.take()
            both.gateway.loop.settle()
            both.answer(end, LAST)
            assert both.client.data() == DATA * 5000

    def test_behind_another_answer_it_waits(self):
        with two() as both:
            both.client.ask(post(b"/f", b"before"))
            first = next(found for found in both.gateway.server.open() if found.pending)
            end = both.waits()
            both.answer(end, HEAD + CHUNKS)
            both.answer(end, CHUNKS * 5000)
            assert not both.client.writes
            assert not end.reads
            first.run_all()
            both.gateway.loop.settle()
            both.answer(end, LAST)
            rest = bytes(both.client.written).partition(b"chunked\r\n\r\n")[2]
            assert b"".join(chunks_of(rest)[0]) == DATA * 5001


class TestJobs:
    def test_events_come_as_they_happen(self):
        with two() as both:
            both.client.ask(get(both.path + b"/events"))
            (begun,) = both.client.writes
            assert b"event: created\n" in begun
            both.work(PacketType.WORK_STATUS)
            assert len(both.client.writes) == 2
            assert b"event: status\n" in both.client.writes[1]
            both.work(PacketType.WORK_COMPLETE, b"result")
            assert b"event: complete\n" in both.client.data()
            assert both.client.is_whole()
            assert len(both.gateway.links.links) == 1
            both.client.ask(get(both.path + b"/result"))
            assert both.client.body().endswith(b"result")
            # Over the same connection.
            assert len(both.gateway.links.links) == 1

    def test_they_may_come_for_longer_than_any_answer_is_waited_for(self):
        with two(job_timeout_s=5, keepalive_timeout_s=5, write_timeout_s=5) as both:
            both.client.ask(get(both.path + b"/events"))
            both.gateway.pass_time(120)
            both.work(PacketType.WORK_COMPLETE, b"result")
            assert b"event: complete\n" in both.client.data()
            assert both.client.is_whole()

    def test_whoever_has_submitted_with_a_unique_of_its_own_gets_the_first_with_the_head(self):
        with still_gateway(workers=2) as gateway:
            for number in range(16):
                client = NotingClient(gateway, number % 2)
                unique = b"X-Gearman-Unique: u%d" % number
                client.ask(post(b"/f", b"w", ACCEPT_EVENTS, unique))
                next(found for found in gateway.server.open() if found.pending).create()
                gateway.loop.settle()
                (begun,) = client.writes
                assert b"event: created\n" in begun
                assert chunks_of(client.body())[1] is None
            # Each of both owns some of them.
            assert 0 < sum(not link.ends[0].gone for link in gateway.links.links) < 16

    def test_an_owner_that_has_ended_cuts_them(self):
        with two() as both:
            both.client.ask(get(both.path + b"/events"))
            both.gateway.links.lose(0)
            both.gateway.loop.settle()
            assert both.client.gone
            assert chunks_of(both.client.body())[1] is None

    def test_a_job_is_forgotten_from_anywhere(self):
        with two() as both:
            both.work(PacketType.WORK_COMPLETE, b"result")
            both.client.ask(head(b"DELETE", both.path))
            both.client.ask(head(b"DELETE", both.path))
            assert [answer.status for answer in both.client.responses()] == [204, 404]
            (link,) = both.gateway.links.links
            assert not link.ends[0].gone

    def test_a_job_that_has_not_changed_is_told_without_a_body(self):
        with two() as both:
            both.client.ask(get(both.path))
            (tag,) = re.findall(rb"\r\nETag: (\S+)\r\n", both.client.written)
            begun = len(both.client.written)
            both.client.ask(get(both.path, b"If-None-Match: " + tag), head(b"OPTIONS", b"*"))
            rest = bytes(both.client.written)[begun:]
            assert rest.startswith(b"HTTP/1.1 304 Not Modified\r\n")
            assert b"\r\nETag: " + tag + b"\r\n" in rest
            assert rest.partition(b"\r\n\r\n")[2].startswith(b"HTTP/1.1 204")
