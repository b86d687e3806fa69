"""Answers that come in pieces: how they are framed, and who waits for whom."""

from __future__ import annotations

import pytest

from gatewayx.core.budget import LARGEST_SMALL_BYTES
from gatewayx.http.python_handler import PlainAnswer
from support.http import get, head
from support.piecewise import PiecesClient, chunks_of, pieces_server

GET = get(b"/pieces")
OLD_GET = get(b"/pieces", version=b"1.0")
KEEPING_OLD_GET = get(b"/pieces", b"Connection: keep-alive", version=b"1.0")
TO_HEAD = head(b"HEAD", b"/pieces")
# More than is copied behind its frame.
LARGE = bytes(range(256)) * 256
HOUR_S = 3600.0
FRAMED = 5


def is_whole(client: PiecesClient, *pieces: bytes) -> None:
    """The one answer that came has these chunks and its end, and nothing is behind it."""
    assert len(client.heads()) == 1
    assert chunks_of(client.body()) == (list(pieces), b"")


class TestWithoutALength:
    @pytest.mark.parametrize("first", [None, b"", b"first", LARGE], ids=["none", "empty", "small", "large"])
    @pytest.mark.parametrize("size", [1, 15, 16, 1000, 16384, 16385, 100_000])
    def test_each_piece_is_a_chunk_in_one_write(self, first, size):
        with pieces_server() as server:
            pieces = server.pieces(first=first)
            client = server.client()
            client.ask(GET)
            (found,) = client.heads()
            assert b"\r\nTransfer-Encoding: chunked\r\n" in found
            assert b"Content-Length" not in found
            assert b"Connection" not in found
            # The first one leaves with the head.
            expected = [first] if first else []
            assert chunks_of(client.body()) == (expected, None)
            assert len(client.writes) == 1
            assert pieces.times_wanted == 1
            for count in range(1, 4):
                assert pieces.give(bytes([count]) * size)
                expected.append(bytes([count]) * size)
                assert chunks_of(client.body()) == (expected, None)
                assert len(client.writes) == 1 + count
            pieces.end()
            server.loop.settle()
            is_whole(client, *expected)
            assert server.outcomes() == [("ok", 200)]
            assert not client.closed
            client.ask(get(b"/next"))
            assert bytes(client.written).endswith(b"\r\n\r\n/next")

    def test_a_piece_without_bytes_is_not_the_end(self):
        with pieces_server() as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(GET)
            assert pieces.give(b"")
            assert client.body() == b""
            pieces.give(b"one")
            pieces.end()
            server.loop.settle()
            is_whole(client, b"one")

    def test_one_that_has_no_pieces_ends_as_well(self):
        with pieces_server() as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(GET)
            pieces.end()
            pieces.end()
            server.loop.settle()
            is_whole(client)

    def test_a_client_that_wants_the_connection_closed_gets_it_closed_behind_the_last_chunk(self):
        with pieces_server() as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(get(b"/pieces", b"Connection: close"))
            assert b"\r\nConnection: close\r\n" in client.heads()[0]
            pieces.give(b"one")
            assert not client.wrote_eof
            pieces.end()
            server.loop.settle()
            is_whole(client, b"one")
            assert client.wrote_eof
            assert not client.was_reset

    @pytest.mark.parametrize("request_", [OLD_GET, KEEPING_OLD_GET], ids=["closes", "keeps"])
    @pytest.mark.parametrize("first", [None, b"first", LARGE], ids=["none", "small", "large"])
    def test_to_http_1_0_it_ends_with_the_connection(self, request_, first):
        with pieces_server() as server:
            pieces = server.pieces(first=first)
            client = server.client()
            client.ask(request_)
            (found,) = client.heads()
            assert b"\r\nConnection: close\r\n" in found
            assert b"Transfer-Encoding" not in found
            assert b"Content-Length" not in found
            assert client.body() == (first or b"")
            assert pieces.give(b"5\r\nhello\r\n")
            assert pieces.give(LARGE)
            assert not client.wrote_eof
            pieces.end()
            server.loop.settle()
            assert client.body() == (first or b"") + b"5\r\nhello\r\n" + LARGE
            # It lingers, as behind any last answer.
            assert client.wrote_eof
            assert not client.closed
            assert not client.was_reset
            assert server.outcomes() == [("ok", 200)]
            server.pass_time(3)
            assert client.gone

    def test_to_http_1_0_the_end_waits_until_all_was_taken(self):
        with pieces_server() as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(OLD_GET)
            client.stop_taking(10)
            assert not pieces.give(LARGE)
            pieces.end()
            server.loop.settle()
            assert not client.closed
            assert client.pending_bytes() == len(LARGE) - 10
            assert server.outcomes() == []
            client.take()
            server.loop.settle()
            assert client.wrote_eof
            assert not client.was_reset
            assert client.body() == LARGE
            assert server.outcomes() == [("ok", 200)]

    def test_nothing_behind_one_to_http_1_0_is_read(self):
        with pieces_server() as server:
            first, second = server.pieces(b"/1"), server.pieces(b"/2")
            client = server.client()
            keeps = b"Connection: keep-alive"
            client.ask(*(get(target, keeps, version=b"1.0") for target in (b"/1", b"/2")), get(b"/never"))
            first.give(b"one")
            first.end()
            server.loop.settle()
            assert client.body() == b"one"
            assert client.wrote_eof
            assert not second.times_wanted
            assert server.outcomes() == [("ok", 200)]

    @pytest.mark.parametrize("version", [b"1.0", b"1.1"])
    @pytest.mark.parametrize("first", [None, b"first"])
    def test_to_head_there_is_none(self, version, first):
        with pieces_server() as server:
            pieces = server.pieces(first=first)
            client = server.client()
            client.ask(head(b"HEAD", b"/pieces", b"Connection: keep-alive", version=version), get(b"/next"))
            assert client.body().endswith(b"\r\n\r\n/next")
            assert client.body().startswith(b"HTTP/1.1 200")
            assert b"Transfer-Encoding" not in client.heads()[0]
            assert not pieces.times_wanted
            assert not pieces.give(b"nothing")
            pieces.end()
            assert not pieces.take_back()
            assert not pieces.abandoned
            assert server.outcomes() == [("ok", 200)] * 2


class TestWithALength:
    @pytest.mark.parametrize("version", [b"1.0", b"1.1"])
    @pytest.mark.parametrize("first", [None, b"first", LARGE], ids=["none", "small", "large"])
    def test_it_is_sent_as_it_is_and_ends_with_the_last_byte(self, version, first):
        whole = (first or b"") + b"second" + LARGE
        with pieces_server() as server:
            pieces = server.pieces(body_bytes=len(whole), first=first)
            client = server.client()
            client.ask(get(b"/pieces", b"Connection: keep-alive", version=version))
            assert b"\r\nContent-Length: %d\r\n" % len(whole) in client.heads()[0]
            assert b"Transfer-Encoding" not in client.heads()[0]
            assert client.body() == (first or b"")
            assert len(client.writes) == 1
            assert pieces.give(b"second")
            assert not pieces.give(LARGE)
            server.loop.settle()
            assert client.body() == whole
            assert server.outcomes() == [("ok", 200)]
            client.ask(get(b"/next"))
            assert bytes(client.written).endswith(b"\r\n\r\n/next")

    def test_the_first_piece_may_be_all_of_it(self):
        with pieces_server() as server:
            pieces = server.pieces(body_bytes=4, first=b"whole"[:4])
            client = server.client()
            client.ask(GET, get(b"/next"))
            assert not pieces.times_wanted
            assert len(client.writes) == 1
            assert server.outcomes() == [("ok", 200)] * 2

    def test_to_head_its_length_is_told(self):
        with pieces_server() as server:
            server.pieces(body_bytes=10, first=b"first")
            client = server.client()
            client.ask(TO_HEAD, get(b"/next"))
            assert b"\r\nContent-Length: 10\r\n" in client.heads()[0]
            assert client.body().startswith(b"HTTP/1.1 200")


def test_304_has_neither_a_length_nor_a_body():
    with pieces_server() as server:
        server.answers[b"/same"] = PlainAnswer(304, None, None, b'ETag: "1"\r\n')
        client = server.client()
        client.ask(get(b"/same"), get(b"/next"))
        assert client.heads()[0].startswith(b"HTTP/1.1 304 Not Modified\r\n")
        assert b'\r\nETag: "1"\r\n' in client.heads()[0]
        assert b"\r\nContent-" not in client.heads()[0]
        assert client.body().startswith(b"HTTP/1.1 200")


class TestPipelined:
    def test_one_behind_another_request_waits_and_its_source_is_told(self):
        with pieces_server() as server:
            first, second = server.pieces(b"/1"), server.pieces(b"/2", first=b"second's first")
            client = server.client()
            client.ask(get(b"/1"), get(b"/2"), get(b"/3"))
            assert (first.times_wanted, second.times_wanted) == (1, 0)
            assert len(client.heads()) == 1
            first.give(b"one")
            assert len(client.heads()) == 1
            assert not second.times_wanted
            first.end()
            server.loop.settle()
            # The last chunk and the next head leave together.
            assert client.writes[-1].startswith(b"0\r\n\r\nHTTP/1.1 200")
            assert (first.times_wanted, second.times_wanted) == (1, 1)
            second.give(b"two")
            second.end()
            server.loop.settle()
            assert len(client.heads()) == 3
            assert b"e\r\nsecond's first\r\n3\r\ntwo\r\n0\r\n\r\nHTTP/1.1" in client.body()
            assert client.body().endswith(b"/3")
            assert server.outcomes() == [("ok", 200)] * 3

    def test_a_piece_before_its_turn_is_an_error_and_nothing_is_written(self):
        with pieces_server() as server:
            server.pieces(b"/1")
            second = server.pieces(b"/2")
            client = server.client()
            client.ask(get(b"/1"), get(b"/2"))
            written = bytes(client.written)
            with pytest.raises(Exception, match="whose head has not left"):
                second.give(b"too early")
            assert bytes(client.written) == written

    @pytest.mark.parametrize("first", [None, b"first", LARGE], ids=["none", "small", "large"])
    def test_one_that_has_ended_before_its_turn_is_whole(self, first):
        with pieces_server() as server:
            before = server.pieces(b"/1")
            second = server.pieces(b"/2", first=first)
            client = server.client()
            client.ask(get(b"/1"), get(b"/2"), get(b"/3"))
            assert second.waiting_bytes() > len(first or b"")
            second.end()
            before.end()
            server.loop.settle()
            rest = client.body().removeprefix(b"0\r\n\r\n").partition(b"\r\n\r\n")[2]
            chunks, behind = chunks_of(rest)
            assert chunks == ([first] if first else [])
            assert behind.endswith(b"/3")
            assert not second.times_wanted
            assert not second.abandoned

    def test_one_that_is_taken_back_before_its_turn_may_be_answered_otherwise(self):
        with pieces_server() as server:
            before = server.pieces(b"/1")
            second = server.pieces(b"/2", first=LARGE)
            client = server.client()
            client.ask(get(b"/1"), get(b"/2"))
            held = server.held_bytes()
            assert held > len(LARGE)
            assert second.take_back()
            assert server.held_bytes() <= held - len(LARGE)
            assert not second.give(b"nobody takes it")
            before.end()
            server.loop.settle()
            # Nobody has answered it otherwise here.
            assert len(client.heads()) == 1
            assert client.body() == b"0\r\n\r\n"

    def test_what_is_behind_waits_and_counts_and_no_more_is_read_than_may_be_under_way(self):
        with pieces_server(max_pipelined=3) as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(GET, *(get(b"/%d" % number) for number in range(8)))
            assert server.http.requests_in_flight == 3
            assert server.held_bytes() > 0
            server.pass_time(HOUR_S / 10)
            assert not client.closed
            assert pieces.give(b"one")
            pieces.end()
            server.loop.settle()
            assert len(client.heads()) == 9

    def test_a_half_head_behind_it_has_its_own_deadline_and_the_answer_goes_on(self):
        with pieces_server(header_timeout_s=5) as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(GET, b"GET / HT")
            server.pass_time(6)
            assert pieces.give(b"one")
            pieces.end()
            server.loop.settle()
            assert client.heads()[1].startswith(b"HTTP/1.1 408")
            assert chunks_of(client.body())[0] == [b"one"]


class TestBackPressure:
    def test_nothing_is_wanted_until_all_was_taken(self):
        with pieces_server() as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(GET)
            client.stop_taking(100)
            assert not pieces.give(bytes(200))
            waiting = 200 + len(b"c8\r\n\r\n") - 100
            assert pieces.waiting_bytes() == waiting
            assert server.held_bytes() == waiting
            client.take(waiting - 1)
            assert pieces.times_wanted == 1
            assert pieces.waiting_bytes() == 1
            assert server.held_bytes() == 1
            client.take(1)
            assert pieces.times_wanted == 2
            assert pieces.waiting_bytes() == 0
            assert server.held_bytes() == 0

    def test_a_piece_may_be_given_that_is_not_wanted(self):
        with pieces_server() as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(GET)
            client.stop_taking(0)
            for number in range(1, 101):
                assert not pieces.give(b"piece")
                assert pieces.waiting_bytes() == server.held_bytes() == number * (5 + FRAMED)
            for number in range(99, 49, -1):
                client.take(5 + FRAMED)
                assert pieces.waiting_bytes() == server.held_bytes() == number * (5 + FRAMED)
            for _ in range(100):
                # It takes as fast as there is more, and never has all of it.
                pieces.give(b"piece")
                client.take(5 + FRAMED)
            assert pieces.waiting_bytes() == server.held_bytes() == 50 * (5 + FRAMED)
            assert pieces.times_wanted == 1
            client.take()
            assert (pieces.times_wanted, server.held_bytes()) == (2, 0)
            pieces.end()
            server.loop.settle()
            is_whole(client, *[b"piece"] * 200)

    def test_of_one_whose_head_is_not_taken_none_is_wanted(self):
        with pieces_server() as server:
            pieces = server.pieces(first=b"first")
            client = server.client()
            client.stop_taking(10)
            client.ask(GET)
            assert pieces.times_wanted == 0
            assert pieces.waiting_bytes() == server.held_bytes() > 100
            client.take()
            assert pieces.times_wanted == 1
            assert server.held_bytes() == 0

    def test_whoever_takes_nothing_for_write_timeout_is_ended(self):
        with pieces_server(write_timeout_s=20) as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(GET)
            client.stop_taking(10)
            pieces.give(b"more than that")
            for _ in range(5):
                server.pass_time(15)
                client.take(1)
                assert not client.closed
            pieces.give(b"and more")
            # It is asked every 20 s whether it has taken anything since.
            server.pass_time(41)
            assert client.gone
            assert pieces.abandoned
            assert server.outcomes() == [("answer-cut", 200)]
            assert server.http.counters()["writes_timed_out"] == 1

    def test_in_a_crowded_budget_whoever_is_too_slow_is_ended(self):
        # Results have half of it.
        with pieces_server(LARGEST_SMALL_BYTES * 16) as server:
            still, fast = server.pieces(b"/still"), server.pieces(b"/fast")
            slow_client, fast_client = server.client(), server.client()
            slow_client.ask(get(b"/still"))
            fast_client.ask(get(b"/fast"))
            for pieces, client in ((still, slow_client), (fast, fast_client)):
                client.stop_taking(0)
                pieces.give(bytes(LARGEST_SMALL_BYTES * 4 - 1000))
            for _ in range(60):
                # It has a piece more each time before it has taken the last one.
                server.pass_time(1)
                fast_client.take(LARGEST_SMALL_BYTES)
                fast.give(bytes(LARGEST_SMALL_BYTES))
                still.give(b"x")
            assert slow_client.gone
            assert still.abandoned
            assert not fast_client.closed
            assert server.outcomes() == [("answer-cut", 200)]
            assert server.http.counters()["answers_ended"] == 1

    def test_without_others_whoever_takes_it_slowly_has_all_the_time(self):
        with pieces_server(write_timeout_s=20) as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(GET)
            client.stop_taking(0)
            pieces.give(bytes(300))
            for _ in range(20):
                server.pass_time(15)
                client.take(10)
            assert not client.closed


class TestTime:
    @pytest.mark.parametrize("request_", [GET, OLD_GET], ids=["1.1", "1.0"])
    def test_one_that_is_quiet_for_an_hour_lives(self, request_):
        bounds = {"keepalive_timeout_s": 5, "first_byte_timeout_s": 5, "header_timeout_s": 5, "body_timeout_s": 5}
        with pieces_server(write_timeout_s=5, **bounds) as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(request_)
            pieces.give(b"one")
            server.pass_time(HOUR_S)
            assert pieces.give(b"two")
            server.pass_time(HOUR_S)
            assert not client.closed
            assert not pieces.abandoned
            pieces.end()
            server.loop.settle()
            assert server.outcomes() == [("ok", 200)]

    def test_the_connection_is_idle_behind_it_as_behind_any(self):
        with pieces_server(keepalive_timeout_s=5) as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(GET)
            pieces.end()
            server.loop.settle()
            server.pass_time(6)
            assert client.gone

    def test_one_that_is_quiet_makes_no_room_for_other_connections(self):
        with pieces_server(max_connections=1) as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(GET)
            server.pass_time(10)
            other = server.client()
            other.ask(get(b"/other"))
            assert other.heads()[0].startswith(b"HTTP/1.1 503")
            assert not pieces.abandoned
