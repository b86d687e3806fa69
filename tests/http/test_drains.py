"""What a drain does to kept connections: who is in use is told, who is idle is closed, one after the other.

Time passes when the tests say so, and the ticks are counted.
"""

from __future__ import annotations

import pytest

from gatewayx.http.idle import CLOSES_PER_S, IN_USE_S, LEAST_SPREAD_S
from gatewayx.server.process import DEADLINES_PER_TURN, TICK_S
from support.http import get, head, post
from support.still import StillClient, StillGateway, still_gateway

OPTIONS = head(b"OPTIONS", b"*")
POST = post(b"/f", b"workload")
# Longer than IN_USE_S, shorter than any deadline of a connection that was served.
IDLE_S = 5.0
# The seconds that a drain has for idle connections where it does not matter.
LONG_S = 15.0


def kept(gateway: StillGateway, count: int) -> list[StillClient]:
    """So many clients, whose connections have served a request each, in their order."""
    clients = [gateway.client() for _ in range(count)]
    for client in clients:
        client.send(OPTIONS)
    gateway.loop.settle()
    assert all(len(client.responses()) == 1 and not client.closed for client in clients)
    return clients


def is_last(client: StillClient, count: int) -> bool:
    """Whether the client has so many answers, the last of which alone says that it is the last, and has met the end."""
    said = [answer.headers.get(b"connection") for answer in client.responses()]
    return said == [None] * (count - 1) + [b"close"] and (client.wrote_eof or client.closed)


def closed_by_tick(gateway: StillGateway, clients: list[StillClient], within_s: float) -> list[list[int]]:
    """For each tick at which any was closed, which of the clients were, up to the end of the drain."""
    wheel, closed, ticks = gateway.process.wheel, [], {}
    ends_s = gateway.loop.now_s + within_s
    while not gateway.process.http.emptied.is_set():
        assert gateway.loop.now_s < ends_s, "connections are left"
        gateway.pass_time(TICK_S / 20)
        for number, client in enumerate(clients):
            if client.closed and number not in closed:
                closed.append(number)
                ticks.setdefault(wheel.tick, []).append(number)
    return list(ticks.values())


class TestInUse:
    @pytest.mark.parametrize("pause_s", [0.0, 0.3, 0.9 * IN_USE_S])
    def test_the_next_answer_says_that_it_is_the_last(self, pause_s):
        with still_gateway() as gateway:
            clients = kept(gateway, 50)
            gateway.process.http.drain()
            gateway.pass_time(pause_s)
            for client in clients:
                assert not client.closed
                client.send(OPTIONS)
            gateway.loop.settle()
            assert all(is_last(client, 2) for client in clients)

    def test_a_job_is_run_and_waited_for(self):
        with still_gateway() as gateway:
            [client] = kept(gateway, 1)
            gateway.process.http.drain()
            gateway.pass_time(IN_USE_S / 2)
            client.send(POST)
            gateway.pass_time(2 * IN_USE_S)
            assert not client.closed
            gateway.complete(b"result")
            assert client.responses()[-1].body == b"result"
            assert is_last(client, 2)

    def test_http_1_0_is_told_too(self):
        with still_gateway() as gateway:
            client = gateway.client()
            keep_alive = get(b"/", b"Connection: keep-alive", version=b"1.0")
            client.send(keep_alive)
            gateway.process.http.drain()
            client.send(keep_alive)
            gateway.loop.settle()
            assert [answer.headers[b"connection"] for answer in client.responses()] == [b"keep-alive", b"close"]

    def test_nothing_behind_the_last_request_is_run(self):
        with still_gateway() as gateway:
            [client] = kept(gateway, 1)
            gateway.process.http.drain()
            client.send(OPTIONS + POST)
            gateway.loop.settle()
            assert is_last(client, 2)
            assert gateway.count("pool.outstanding_jobs") == 0

    def test_one_whose_request_is_half_there_is_not_idle(self):
        with still_gateway() as gateway:
            [client] = kept(gateway, 1)
            gateway.process.http.drain()
            client.send(OPTIONS[:-2])
            gateway.pass_time(2 * IN_USE_S)
            assert not client.closed
            client.send(OPTIONS[-2:])
            gateway.loop.settle()
            assert is_last(client, 2)

    def test_one_whose_request_the_kernel_has_is_not_closed(self, monkeypatch):
        with still_gateway() as gateway:
            waits, idle = kept(gateway, 2)
            gateway.pass_time(IDLE_S)
            monkeypatch.setattr(waits, "incoming_bytes", lambda: len(OPTIONS), raising=False)
            gateway.process.http.drain()
            gateway.pass_time(IDLE_S)
            assert (waits.closed, idle.closed) == (False, True)
            waits.send(OPTIONS)
            gateway.loop.settle()
            assert is_last(waits, 2)

    def test_answers_that_were_made_before_the_drain_are_not_the_last_ones(self):
        with still_gateway() as gateway:
            client = gateway.client()
            client.send(POST, OPTIONS)
            gateway.loop.settle()
            # The second answer waits for the first one.
            gateway.process.http.drain()
            gateway.complete(b"result")
            assert not client.closed
            client.send(OPTIONS)
            gateway.loop.settle()
            assert is_last(client, 3)

    def test_one_that_waits_for_such_an_answer_is_answered_once_a_request(self):
        with still_gateway() as gateway:
            client = gateway.client()
            client.send(POST, OPTIONS)
            gateway.loop.settle()
            gateway.process.http.drain()
            gateway.process.http.refuse_unfinished()
            gateway.complete(b"result")
            assert [answer.status for answer in client.responses()] == [200, 204]
            assert client.wrote_eof

    def test_an_answer_of_this_turn_of_the_loop_is_not_the_last_one(self):
        with still_gateway() as gateway:
            client = gateway.client()
            client.send(OPTIONS)
            gateway.process.http.drain()
            gateway.loop.settle()
            assert not client.closed
            client.send(OPTIONS)
            gateway.loop.settle()
            assert is_last(client, 2)


class TestIdle:
    def test_the_longest_idle_is_closed_first(self):
        with still_gateway() as gateway:
            clients = kept(gateway, 6)
            for number in (3, 0):
                clients[number].send(OPTIONS)
            gateway.pass_time(IDLE_S)
            gateway.process.http.drain(LONG_S)
            assert closed_by_tick(gateway, clients, 1) == [[1], [2], [4], [5], [3], [0]]

    @pytest.mark.parametrize(
        ("count", "within_s", "per_tick"),
        [
            (1, LONG_S, 1),
            (30, LONG_S, 3),
            (CLOSES_PER_S, LONG_S, CLOSES_PER_S * TICK_S),
            (2 * CLOSES_PER_S, LONG_S, CLOSES_PER_S * TICK_S),
            (2 * CLOSES_PER_S, 0.5, 2 * CLOSES_PER_S * TICK_S / 0.5),
            (2 * DEADLINES_PER_TURN + 5, 0, 2 * DEADLINES_PER_TURN + 5),
        ],
    )
    def test_they_are_closed_evenly(self, count, within_s, per_tick):
        with still_gateway() as gateway:
            clients = kept(gateway, count)
            gateway.pass_time(IDLE_S)
            gateway.process.http.drain(within_s)
            ticks = closed_by_tick(gateway, clients, max(LEAST_SPREAD_S, within_s) + 2 * TICK_S)
            assert [number for tick in ticks for number in tick] == list(range(count))
            # Each tick closes as many, the last one what is left.
            assert {len(tick) for tick in ticks[:-1]} <= {per_tick}
            assert len(ticks[-1]) <= per_tick

    def test_few_that_nobody_uses_are_gone_within_a_second(self):
        with still_gateway() as gateway:
            clients = kept(gateway, 20)
            gateway.pass_time(IDLE_S)
            gateway.process.http.drain(LONG_S)
            gateway.pass_time(LEAST_SPREAD_S + 2 * TICK_S)
            assert all(client.closed for client in clients)
            assert gateway.process.http.emptied.is_set()

    def test_those_in_use_when_it_began_are_closed_evenly_once_they_are_idle(self):
        with still_gateway() as gateway:
            clients = kept(gateway, 40)
            gateway.process.http.drain(LONG_S)
            gateway.pass_time(IN_USE_S - TICK_S)
            assert not any(client.closed for client in clients)
            # What waited for them is not made up for at once.
            ticks = closed_by_tick(gateway, clients, LEAST_SPREAD_S + 4 * TICK_S)
            assert [len(tick) for tick in ticks] == [4] * 10

    def test_one_that_is_in_use_does_not_hold_up_the_others(self):
        with still_gateway() as gateway:
            clients = kept(gateway, 4)
            gateway.pass_time(IDLE_S)
            busy = clients.pop(1)
            busy.send(POST)
            gateway.loop.settle()
            gateway.process.http.drain(LONG_S)
            gateway.pass_time(LEAST_SPREAD_S)
            assert all(client.closed for client in clients)
            assert not busy.closed
            gateway.complete(b"result")
            assert is_last(busy, 2)

    def test_one_that_becomes_idle_in_the_drain_is_closed_too(self):
        with still_gateway() as gateway:
            client = gateway.client()
            client.send(OPTIONS, b"\r")
            gateway.process.http.drain(LONG_S)
            client.send(b"\n")
            gateway.pass_time(IN_USE_S - TICK_S)
            assert not client.closed
            gateway.pass_time(4 * TICK_S)
            assert client.closed

    def test_empty_lines_do_not_make_it_in_use(self):
        with still_gateway() as gateway:
            [client] = kept(gateway, 1)
            gateway.process.http.drain(LONG_S)
            for _ in range(int((IN_USE_S + 3 * TICK_S) / TICK_S)):
                client.send(b"\r\n")
                gateway.pass_time(TICK_S)
            assert client.closed

    def test_one_that_has_sent_nothing_has_its_second_and_no_more(self):
        with still_gateway() as gateway:
            silent = [gateway.client() for _ in range(30)]
            gateway.pass_time(IDLE_S)
            gateway.process.http.drain(LONG_S)
            gateway.pass_time(0.9)
            assert not any(client.closed for client in silent)
            gateway.pass_time(0.4)
            assert all(client.closed and not client.written for client in silent)

    def test_keep_alive_ends_as_before(self):
        with still_gateway(keepalive_timeout_s=0.5) as gateway:
            clients = kept(gateway, 3)
            gateway.process.http.drain(LONG_S)
            gateway.pass_time(0.8)
            assert all(client.closed for client in clients)

    def test_at_the_end_of_the_drain_all_are_closed(self):
        with still_gateway() as gateway:
            clients = kept(gateway, 3)
            gateway.process.http.drain(LONG_S)
            gateway.process.http.refuse_unfinished()
            gateway.loop.settle()
            assert all(client.closed and len(client.responses()) == 1 for client in clients)
