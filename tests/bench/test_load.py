"""The load generator against servers that do what a test says: what each request ends in, and what is measured."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket

import pytest

from gatewayx.bench.load import LoadGenerator
from gatewayx.net.sockets import Peer, clock_ns
from support.gateway import eventually
from support.load import (
    MANY,
    TAG,
    Outcome,
    echo,
    ended,
    load,
    load_in_time,
    never,
    raw_server,
    started,
    sweep_until,
    template,
)
from support.scripted_server import Request, ok, scripted_server
from support.times import WAIT_S

pytestmark = pytest.mark.anyio


class TestEveryRequestEndsOnce:
    @pytest.mark.parametrize("pipeline", [1, 4])
    async def test_answered(self, pipeline):
        async with scripted_server(echo) as server:
            outcome = await load(server.address, connections=3, pipeline=pipeline)
        assert outcome.sent == outcome.good == len(server.requests) >= MANY
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
        assert MANY <= outcome.errors["connect"] <= 2 * (outcome.sweeps + 1)

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
            generator.begin(begins_ns, begins_ns + round(2 * WAIT_S * 1e9))
            await sweep_until(generator, lambda told: told["ended"] >= 2)
            generator.stop()
            outcome = await ended(generator)
        assert outcome.sent == 0
        # The first one's time began before the load.
        assert 2 <= outcome.errors["connect"] <= (clock_ns() - begins_ns) / 1e9 / 0.1 + 1

    async def test_reset_after_the_request(self):
        async def reset(request: Request) -> None:
            request.reset()

        async with scripted_server(reset) as server:
            outcome = await load(server.address)
        assert outcome.errors == {"reset": outcome.sent}
        assert outcome.sent >= MANY
        assert outcome.statuses == {}

    async def test_closed_without_an_answer(self):
        async def close(request: Request) -> None:
            request.close()

        async with scripted_server(close) as server:
            outcome = await load(server.address)
        assert outcome.errors == {"reset": outcome.sent}
        assert outcome.sent >= MANY

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
            outcome = await load(server.address, connections=1)
        assert server.connections <= outcome.sweeps + 1

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
            outcome = await load(
                server.address, connections=3, timeout_s=0.15, until=lambda told: told["errors"].get("timeout", 0) >= 6
            )
        assert outcome.errors == {"timeout": outcome.sent}
        assert 6 <= outcome.sent <= 3 * (outcome.elapsed_s / 0.15 + 1)

    async def test_pipelined_and_never_answered(self):
        async with scripted_server(never) as server:
            outcome = await load(
                server.address, connections=1, pipeline=5, timeout_s=0.1, until=lambda told: told["ended"]
            )
        assert outcome.errors == {"timeout": 5}

    async def test_half_an_answer_that_stops(self):
        async def half(request: Request) -> bytes:
            return b"HTTP/1.1 200 OK\r\nContent-Le"

        async with scripted_server(half) as server:
            outcome = await load(server.address, connections=1, timeout_s=0.1, until=lambda told: told["ended"])
        assert outcome.errors == {"timeout": 1}

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
        assert outcome.sent >= MANY
        assert outcome.statuses == {}
        assert outcome.generator.bad_response

    async def test_answer_to_no_request(self):
        async def twice(request: Request) -> bytes:
            return ok() * 2

        async with scripted_server(twice) as server:
            generator = await started(server.address, template(), 1)
            begins_ns = clock_ns()
            generator.begin(begins_ns, begins_ns + round(2 * WAIT_S * 1e9))
            await sweep_until(generator, lambda told: told["ended"] >= MANY)
            generator.stop()
            await sweep_until(generator, lambda _: generator.done)
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
            outcome = await load(server.address)
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

        kinds = {"reset", "status", "bad_response", "timeout"}
        async with scripted_server(anything) as server:
            outcome = await load(
                server.address,
                template(check="echo"),
                connections=8,
                pipeline=3,
                timeout_s=0.1,
                until=lambda told: told["good"] and kinds <= told["errors"].keys(),
            )
        assert set(outcome.errors) == kinds
        assert outcome.good > 0


class TestConnections:
    async def test_closed_after_each_answer_is_no_error(self):
        async def close(request: Request) -> bytes:
            return ok(b"", b"Connection: close")

        async with scripted_server(close) as server:
            outcome = await load(server.address)
        assert outcome.errors == {}
        assert outcome.good == outcome.sent >= MANY
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
        assert outcome.good == outcome.sent >= MANY

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
            outcome = await load(address, template(bytes(8 << 20)))
        assert outcome.statuses == {"413": outcome.sent}
        assert outcome.errors == {"status": outcome.sent}
        assert outcome.sent >= MANY

    async def test_no_connection_is_left_when_it_is_finished(self):
        async with scripted_server(never) as server:
            generator = await started(server.address, template(), 4, timeout_s=WAIT_S)
            begins_ns = clock_ns()
            generator.begin(begins_ns, begins_ns + round(2 * WAIT_S * 1e9))
            await eventually(lambda: len(server.requests) == 4)
            generator.finish()
            outcome = Outcome(generator)
            assert generator.connected == 0
        # What was under way has failed.
        assert outcome.errors == {"timeout": 4}


class TestClosedLoop:
    async def test_latency_is_what_the_server_takes(self):
        async def slow(request: Request) -> bytes:
            await asyncio.sleep(0.05)
            return ok()

        async with scripted_server(slow) as server:
            outcome = await load(server.address)
        assert outcome.latency.count == outcome.good
        assert outcome.latency.percentile_s(0) >= 0.049
        # Each connection has one request under way at a time: together they took no longer than there was time for.
        assert outcome.latency.mean_s * outcome.good <= 2 * outcome.elapsed_s

    async def test_timeout_counts_in_the_latency(self):
        async def second(request: Request) -> bytes:
            if request.number % 2:
                await never(request)
            return ok()

        async with scripted_server(second) as server:
            outcome = await load(
                server.address, connections=1, timeout_s=0.5, until=lambda told: told["errors"].get("timeout", 0) >= 2
            )
        assert outcome.errors["timeout"] >= 2
        assert outcome.latency.count == outcome.good + outcome.errors["timeout"]
        assert outcome.latency.max_s >= 0.5
        assert outcome.latency.percentile_s(0) < 0.5

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
            generator.begin(begins_ns, begins_ns + round(2 * WAIT_S * 1e9))
            counts = []

            def several(told: dict) -> bool:
                counts.append(sum(told["interval"][4::2]))
                return sum(map(bool, counts)) > 2

            await sweep_until(generator, several)
            generator.stop()
            await sweep_until(generator, lambda told: several(told) and generator.done)
            generator.finish()
        assert sum(counts) == generator.good == generator.latency.count


class TestOpenLoop:
    async def test_rate_is_reached_on_an_idle_server(self):
        rate = 100
        outcome, _ = await load_in_time(echo, connections=32, rate=rate, duration_s=0.5)
        assert outcome.sent == outcome.good == rate * 0.5
        # All but what a busy machine holds up, of which the generator tells.
        assert outcome.sent_in_time >= rate * (0.5 - outcome.generator.lateness.max_s) - 1
        assert outcome.errors == {}
        assert outcome.latency.count == outcome.uncorrected.count == outcome.sent

    async def test_requests_are_spread_evenly(self):
        times_ns = []

        async def note(request: Request) -> bytes:
            times_ns.append(clock_ns())
            return ok()

        # A busy machine holds some up, not half of them, but when it stands still, which it does not each time.
        for _ in range(20):
            times_ns.clear()
            async with scripted_server(note) as server:
                begins_ns = clock_ns()
                # With few sweeps, so that it is not these that send.
                await load(server.address, connections=8, rate=200, duration_s=0.5, sweep_s=0.25)
            late_s = sorted((at_ns - begins_ns) / 1e9 - number / 200 for number, at_ns in enumerate(times_ns))
            assert late_s[0] >= 0
            if len(late_s) == 100 and late_s[50] < 0.05:
                break
        else:
            pytest.fail(f"of {len(late_s)} requests these are late: {late_s}")

    async def test_processes_take_turns(self):
        outcomes = [
            await load_in_time(echo, connections=4, rate=200, process=process, processes=3, duration_s=0.25)
            for process in range(3)
        ]
        assert [outcome.sent for outcome, _ in outcomes] == [17, 17, 16]
        assert sum(len(server.requests) for _, server in outcomes) == 50

    async def test_stall_is_seen_by_all_requests_that_it_kept_waiting(self):
        async def stall_once(request: Request) -> bytes:
            # One on each connection.
            if request.number in (30, 31):
                await asyncio.sleep(0.5)
            return ok()

        outcome, _ = await load_in_time(stall_once, connections=2, rate=100, duration_s=1.2)
        assert outcome.errors == {}
        assert outcome.sent == 120
        # Of 120 requests the stall held up 50, one after the other due, but only 2 were under way.
        assert outcome.latency.percentile_s(90) >= 0.2
        assert outcome.latency.percentile_s(99) >= 0.4
        assert outcome.uncorrected.percentile_s(90) < 0.2
        assert outcome.uncorrected.max_s >= 0.4

    async def test_waiting_for_the_server_is_not_the_generators_lateness(self):
        async def slow(request: Request) -> bytes:
            await asyncio.sleep(0.05)
            return ok()

        async with scripted_server(slow) as server:
            outcome = await load(server.address, connections=1, rate=100, duration_s=0.3)
        assert outcome.latency.percentile_s(50) > 0.2
        # Half of those that were sent waited longer; a busy machine holds some up, not half of them.
        assert outcome.generator.lateness.percentile_s(50) < 0.1

    async def test_what_could_not_be_sent_is_told_and_in_the_latency(self):
        async with scripted_server(never) as server:
            outcome = await load(server.address, connections=1, rate=200, duration_s=0.25, timeout_s=0.2)
        assert outcome.sent + outcome.errors["not_sent"] == 50
        # The last one by 0.5 s: a quarter of a second after the end.
        assert 1 <= outcome.errors["timeout"] == outcome.sent <= 3
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
            outcome = None
            # While the machine stands still the second one cannot be sent.
            while outcome is None or "not_sent" in outcome.errors:
                outcome = await load(server.address, connections=1, rate=1, duration_s=1.95, timeout_s=1.1)
        # Due at 0 and 1 s; the second one waits for the first one's timeout.
        assert outcome.errors == {"timeout": 2}
        assert outcome.latency.max_s >= 1.2
        assert outcome.uncorrected.max_s < outcome.latency.max_s - 0.05

    async def test_pipelined_requests_share_a_connection(self):
        # By connection.
        found: dict[asyncio.StreamWriter, list[Request]] = {}

        async def three(request: Request) -> None:
            held = found.setdefault(request.writer, [])
            held.append(request)
            if len(held) == 3:
                request.writer.write(b"".join(ok(each.body) for each in held))
                held.clear()

        outcome, server = await load_in_time(
            three, template(b"." * 20, tag=TAG, check="echo"), connections=1, pipeline=3, rate=120, duration_s=0.25
        )
        assert outcome.good == outcome.sent == 30
        assert server.connections == 1

    async def test_closed_after_each_answer_is_no_error(self):
        async def close(request: Request) -> bytes:
            return ok(b"", b"Connection: close")

        outcome, _ = await load_in_time(close, rate=100, connections=4, duration_s=0.25)
        assert outcome.errors == {}
        assert outcome.good == 25

    async def test_stop_ends_early(self):
        async with scripted_server(echo) as server:
            generator = await started(server.address, template(), 2, rate=100)
            begins_ns = clock_ns()
            generator.begin(begins_ns, begins_ns + 60_000_000_000)
            await eventually(lambda: len(server.requests) > 10)
            generator.stop()
            outcome = await ended(generator)
        assert outcome.good == outcome.sent == len(server.requests)
        assert outcome.errors.get("not_sent", 0) == 0
