"""How answers that come in pieces end early: their clients hang up, their sources give up, the gateway stops."""

from __future__ import annotations

import json
import os

import pytest

from gatewayx.http.python_handler import PlainPieces
from gatewayx.server.access_log import AccessLog
from support.http import get, post
from support.piecewise import chunks_of, pieces_server

GET = get(b"/pieces")
OLD_GET = get(b"/pieces", version=b"1.0")
LARGE = bytes(1 << 16)
HOUR_S = 3600.0


class TestHangUps:
    @pytest.mark.parametrize("request_", [GET, OLD_GET], ids=["1.1", "1.0"])
    @pytest.mark.parametrize("behind", [b"", get(b"/behind")], ids=["alone", "with one behind"])
    @pytest.mark.parametrize("how", ["fin", "rst"])
    def test_is_noticed_at_once(self, request_, behind, how):
        with pieces_server() as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(request_, behind)
            pieces.give(b"one")
            if how == "fin":
                client.receive_eof()
            else:
                client.lose(ConnectionResetError())
            assert pieces.abandoned
            assert not pieces.give(b"two")
            assert pieces.waiting_bytes() == 0
            pieces.end()
            assert not pieces.take_back()
            server.loop.settle()
            assert client.gone
            # A half of a body that ends with the connection must not seem whole to one that still reads.
            assert client.was_reset == (how == "fin" and request_ is OLD_GET)
            assert ("client-gone", 499) in server.outcomes()
            assert ("answer-cut", 200) not in server.outcomes()
            assert client.body() == (b"one" if request_ is OLD_GET else b"3\r\none\r\n")

    def test_of_a_connection_that_is_not_read_from_is_noticed_as_well(self):
        with pieces_server(max_pipelined=2) as server:
            first, second = server.pieces(b"/1"), server.pieces(b"/2")
            client = server.client()
            client.ask(get(b"/1"), get(b"/2"), get(b"/3"))
            assert not client.reads
            client.receive_eof()
            server.loop.settle()
            assert first.abandoned
            assert second.abandoned
            server.pass_time(3)
            assert client.gone

    def test_whoever_only_closes_its_sending_side_may_wait_for_the_end(self):
        with pieces_server(answers_half_closed=True) as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(GET)
            client.receive_eof()
            server.pass_time(HOUR_S)
            assert pieces.give(b"one")
            pieces.end()
            server.loop.settle()
            assert chunks_of(client.body()) == ([b"one"], b"")
            assert client.gone
            assert server.outcomes() == [("ok", 200)]


class TestCut:
    """take_back() once the head has left."""

    @pytest.mark.parametrize("request_", [GET, OLD_GET], ids=["1.1", "1.0"])
    @pytest.mark.parametrize("body_bytes", [-1, 100], ids=["without a length", "with a length"])
    def test_it_does_not_seem_whole(self, request_, body_bytes):
        with pieces_server() as server:
            pieces = server.pieces(body_bytes=body_bytes)
            client = server.client()
            client.ask(request_, get(b"/behind") if request_ is GET else b"")
            pieces.give(b"one")
            assert not pieces.take_back()
            assert not pieces.take_back()
            assert not pieces.give(b"two")
            server.loop.settle()
            assert client.gone
            assert client.was_reset == (request_ is OLD_GET and body_bytes < 0)
            assert not client.wrote_eof
            assert client.body().removeprefix(b"3\r\n").removesuffix(b"\r\n") == b"one"
            assert ("answer-cut", 200) in server.outcomes()
            assert server.http.counters()["answers_cut"] == 1

    def test_with_pieces_that_were_not_taken(self):
        with pieces_server() as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(GET)
            client.stop_taking(10)
            pieces.give(LARGE)
            assert server.held_bytes() > 0
            assert not pieces.take_back()
            server.loop.settle()
            assert client.gone
            assert server.held_bytes() == 0
            assert server.outcomes() == [("answer-cut", 200)]


class TestDrain:
    def test_one_that_is_open_is_waited_for_and_counts(self):
        with pieces_server() as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(GET)
            server.http.drain()
            assert server.http.requests_in_flight == 1
            server.pass_time(10)
            assert pieces.give(b"one")
            pieces.end()
            server.loop.settle()
            # Its head does not say that it is the last one, so the next one does.
            assert chunks_of(client.body()) == ([b"one"], b"")
            client.ask(get(b"/next"))
            assert b"\r\nConnection: close\r\n" in client.heads()[1]

    def test_one_whose_head_comes_later_says_that_it_is_the_last(self):
        with pieces_server() as server:
            before, pieces = server.pieces(b"/1"), server.pieces(b"/2")
            client = server.client()
            client.ask(get(b"/1"), get(b"/2")[:-2])
            server.http.drain()
            client.ask(b"\r\n")
            before.end()
            pieces.end()
            server.loop.settle()
            assert b"\r\nConnection: close\r\n" not in client.heads()[0]
            assert b"\r\nConnection: close\r\n" in client.heads()[1]
            assert client.wrote_eof

    @pytest.mark.parametrize("request_", [GET, OLD_GET], ids=["1.1", "1.0"])
    def test_at_the_end_it_is_cut(self, request_):
        with pieces_server() as server:
            pieces = server.pieces()
            client = server.client()
            client.ask(request_)
            pieces.give(b"one")
            server.http.drain()
            server.http.refuse_unfinished()
            assert not client.closed
            server.http.abort()
            server.loop.settle()
            assert pieces.abandoned
            assert client.gone
            assert client.was_reset == (request_ is OLD_GET)
            assert server.outcomes() == [("answer-cut", 200)]
            assert server.http.emptied.is_set()


class TestErrors:
    def test_a_source_that_fails_ends_its_connection_alone(self):
        def fail() -> None:
            raise ValueError("as asked for")

        with pieces_server(fails=True) as server:
            failing = server.answers[b"/fails"] = PlainPieces(on_wanted=fail)
            other, client = server.client(), server.client()
            client.ask(get(b"/fails"))
            assert client.gone
            assert failing.abandoned
            other.ask(post(b"/other", b"body"))
            assert len(other.heads()) == 1


class TestAccessLog:
    @pytest.mark.parametrize("request_", [GET, OLD_GET], ids=["1.1", "1.0"])
    @pytest.mark.parametrize("how", ["whole", "cut", "gone"])
    @pytest.mark.parametrize("takes", [True, False])
    def test_it_tells_of_as_many_bytes_as_have_left(self, request_, how, takes):
        reads, writes = os.pipe()
        with pieces_server() as server:
            log = server.records.log = AccessLog(server.counters)
            log.batch.attach(writes)
            pieces = server.pieces(first=b"first")
            client = server.client()
            client.ask(request_)
            pieces.give(LARGE)
            if not takes:
                client.stop_taking(1000)
                pieces.give(LARGE)
            if how == "whole":
                pieces.end()
                server.loop.settle()
                client.take()
            elif how == "cut":
                pieces.take_back()
            else:
                client.lose(ConnectionResetError())
            server.loop.settle()
            assert log.batch.flush()
            line = json.loads(os.read(reads, 65536))
            assert line["bytes_out"] == client.taken_bytes
            assert (client.taken_bytes == len(client.written)) == (takes or how == "whole")
            assert line["outcome"] == {"whole": "ok", "cut": "answer-cut", "gone": "client-gone"}[how]
            log.batch.detach()
        os.close(reads)
        os.close(writes)
