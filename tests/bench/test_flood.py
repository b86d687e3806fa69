"""The floods against servers that do what a test says, and against the gateway: what is sent, what is counted."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from gatewayx.bench.flood import FLOODED_HEADERS, KIND_NAMES, MIXED, OVERSIZE_BYTES, FloodGenerator, flood_kinds
from gatewayx.embedded.job_server import JobServer
from gatewayx.net.sockets import Peer, clock_ns
from support.gateway import RunningGateway, eventually, running_gateway
from support.scripted_server import LINGER_NOT
from support.times import SOON_S, WAIT_S

pytestmark = pytest.mark.anyio

SWEEP_S = 0.02
TARGET = b"/a/b"
HOST = b"example.test:81"
SINGLE_KINDS = [name for name in KIND_NAMES if name != MIXED]
# They stay until the server has had enough.
SLOW_KINDS = ["slow-head", "slow-body", "no-read"]
LEAVING_KINDS = ["half-head", "connect"]
REFUSAL = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


# Enough to see what happens to each.
SEVERAL = 6


def several(told: dict) -> bool:
    """Whether several connections were opened."""
    return told["opened"] >= SEVERAL


def none_open(told: dict) -> bool:
    """Whether every connection has ended, by the server or by itself."""
    return not told["open_now"]


async def flood(
    address: tuple[str, int],
    *kinds: str,
    until: Callable[[dict], object] = several,
    settled: Callable[[dict], object] = none_open,
    connections: int = 4,
    rate: float = 0,
    sources: int = 0,
) -> dict:
    """Flood until one condition holds of what the generator tells, and wait for another one; what it tells at the end.

    `least_s` and `most_s` are added, between which it flooded.
    """
    known = flood_kinds(TARGET, HOST)
    generator = FloodGenerator(
        asyncio.get_running_loop(),
        Peer(*address, sources),
        [known[kind] for kind in kinds],
        connections=connections,
        rate=rate,
    )
    begins_ns = swept_ns = clock_ns()
    generator.begin(begins_ns, begins_ns + round(3 * WAIT_S * 1e9))

    async def sweep_until(condition: Callable[[dict], object]) -> None:
        nonlocal swept_ns
        ends_ns = clock_ns() + round(WAIT_S * 1e9)
        while not condition(generator.snapshot()):
            assert clock_ns() < ends_ns, f"the condition never came true: {generator.snapshot()}"
            await asyncio.sleep(SWEEP_S)
            swept_ns = clock_ns()
            generator.sweep()
            assert generator.open_now <= connections

    await sweep_until(until)
    flooded_s = {"least_s": (swept_ns - begins_ns) / 1e9}
    generator.stop()
    flooded_s["most_s"] = (clock_ns() - begins_ns) / 1e9
    await sweep_until(settled)
    told = generator.snapshot() | flooded_s
    generator.finish()
    assert generator.open_now == 0
    assert told["highest_open"] <= connections
    ended = sum(told["statuses"].values()) + told["closed_silently"] + told["resets"] + told["failed"]
    assert ended + told["open_now"] <= told["opened"]
    return told


class Visit:
    """One connection: where it came from, and what it sent when."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.data = b""
        self.pieces: list[tuple[float, bytes]] = []


class Server:
    """Notes what comes; `answer` is called with each connection once it has sent something or ended."""

    def __init__(self, answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> None:
        self.answer = answer
        self.visits: list[Visit] = []
        self.open = 0
        self.tasks: set[asyncio.Task[None] | None] = set()
        self.address = ("127.0.0.1", 0)

    def has_heard(self, connections: int, kind: str) -> bool:
        """Whether so many have come, and all of them have sent something if the kind sends anything."""
        return len(self.visits) == connections and (kind == "connect" or all(visit.data for visit in self.visits))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        visit = Visit(writer.get_extra_info("peername")[0])
        self.visits.append(visit)
        self.tasks.add(asyncio.current_task())
        self.open += 1
        # Cancelled by the end of the test alone.
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while data := await reader.read(65536):
                if not visit.data:
                    await self.answer(writer)
                visit.data += data
                visit.pieces.append((asyncio.get_running_loop().time(), data))
                if writer.is_closing():
                    break
        self.open -= 1
        writer.close()


@asynccontextmanager
async def noting_server(answer: Callable[[asyncio.StreamWriter], Awaitable[None]]) -> AsyncIterator[Server]:
    """A server on a free port of every address of the loopback."""
    noting = Server(answer)
    server = await asyncio.start_server(noting.serve, "127.0.0.1", 0)
    noting.address = server.sockets[0].getsockname()[:2]
    try:
        yield noting
    finally:
        server.close()
        for task in noting.tasks:
            if task is not None:
                task.cancel()
        await asyncio.gather(*noting.tasks, return_exceptions=True)


async def nothing(writer: asyncio.StreamWriter) -> None:
    """Say nothing."""


async def refuse(writer: asyncio.StreamWriter) -> None:
    """Say 400 and close."""
    writer.write(REFUSAL)
    writer.close()


HEAD = b"POST /a/b HTTP/1.1\r\nHost: example.test:81\r\n"

# What a connection of each kind sends at first, as a pattern for all of it.
SENT = {
    "bad-line": b"AAA\r\n",
    "bad-version": b"GET /a/b HTTP/4\\.7\r\nHost: example\\.test:81\r\n\r\n",
    "bad-chunk": re.escape(HEAD) + b"Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n",
    "nul": b"GET /a/b\\?\0 HTTP/1\\.1\r\nHost: example\\.test:81\r\n\r\n",
    "header-flood": re.escape(HEAD) + b"(X-Flood: x\r\n){%d}\r\n" % FLOODED_HEADERS,
    "half-head": re.escape(HEAD) + b"X-Half: ",
    "slow-head": re.escape(HEAD) + b"X-Slow: ",
    "slow-body": re.escape(HEAD) + b"Content-Length: 100000\r\n\r\n",
    "no-read": b"(OPTIONS \\* HTTP/1\\.1\r\nHost: example\\.test:81\r\n\r\n){100,}.*",
    "connect": b"",
    "oversize": re.escape(HEAD) + b"Content-Length: %d\r\n\r\n" % OVERSIZE_BYTES,
}


def test_every_kind_is_known():
    assert set(SENT) | {MIXED} == set(KIND_NAMES)
    assert list(flood_kinds(TARGET, HOST)) == SINGLE_KINDS


class TestScriptedServer:
    @pytest.mark.parametrize("kind", SINGLE_KINDS)
    async def test_each_kind_sends_what_it_says(self, kind):
        async with noting_server(nothing) as server:
            told = await flood(
                server.address,
                kind,
                connections=2,
                rate=40,
                until=lambda told: told["opened"] >= 2,
                settled=lambda told: server.has_heard(told["opened"], kind),
            )
            await eventually(lambda: not server.open)
        assert told["opened"] == len(server.visits) >= 2
        for visit in server.visits:
            assert re.fullmatch(SENT[kind], visit.data, re.DOTALL), visit.data[:200]

    @pytest.mark.parametrize("kind", [kind for kind in SINGLE_KINDS if kind not in LEAVING_KINDS])
    async def test_answers_are_counted_by_status(self, kind):
        async with noting_server(refuse) as server:
            told = await flood(server.address, kind, rate=150)
        assert told["closed_silently"] == told["failed"] == 0
        if kind == "no-read":
            # It reads no answer: that the server has gone is all it sees.
            assert told["statuses"] == {}
            assert told["resets"] == told["opened"]
        else:
            assert told["statuses"] == {"400": told["opened"]}
            assert told["resets"] == 0

    @pytest.mark.parametrize("kind", LEAVING_KINDS)
    async def test_who_leaves_waits_for_nothing(self, kind):
        async with noting_server(nothing) as server:
            told = await flood(server.address, kind, rate=150)
            await eventually(lambda: len(server.visits) == told["opened"] and not server.open)
        assert told["statuses"] == {}
        assert told["resets"] == told["closed_silently"] == told["failed"] == 0

    async def test_what_is_no_answer_counts_as_status_0(self):
        async def babble(writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-OpenSSH\r\n")

        async with noting_server(babble) as server:
            told = await flood(server.address, "bad-line", rate=150)
        assert told["statuses"] == {"0": told["opened"]}

    async def test_closed_without_a_word(self):
        async def close(writer: asyncio.StreamWriter) -> None:
            writer.close()

        async with noting_server(close) as server:
            told = await flood(server.address, "bad-line", rate=150)
        assert told["statuses"] == {}
        assert told["closed_silently"] == told["opened"]

    async def test_reset(self):
        async def reset(writer: asyncio.StreamWriter) -> None:
            writer.get_extra_info("socket").setsockopt(*LINGER_NOT)
            writer.transport.abort()

        async with noting_server(reset) as server:
            told = await flood(server.address, "bad-line", rate=150)
        assert told["statuses"] == {}
        assert told["resets"] == told["opened"]

    async def test_refused_connections_have_failed(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            told = await flood(unused.getsockname(), "bad-line", rate=150)
        assert told["failed"] == told["opened"]

    async def test_connections_come_from_127_0_0_2_and_up_in_turn(self):
        async with noting_server(refuse) as server:
            await flood(server.address, "bad-line", rate=150, sources=3)
        sources = [visit.source for visit in server.visits]
        assert sources[:6] == ["127.0.0.2", "127.0.0.3", "127.0.0.4"] * 2
        assert set(sources) == set(sources[:3])

    async def test_without_sources_the_kernel_chooses(self):
        async with noting_server(refuse) as server:
            await flood(server.address, "bad-line", rate=150)
        assert {visit.source for visit in server.visits} == {"127.0.0.1"}

    @pytest.mark.parametrize("kind", ["bad-line", *SLOW_KINDS])
    async def test_no_more_open_than_asked_for(self, kind):
        async with noting_server(nothing) as server:
            # The server has heard of them some turns of the loop later than they were opened.
            told = await flood(
                server.address, kind, connections=5, until=lambda _: server.has_heard(5, kind), settled=lambda _: True
            )
            assert told["opened"] == told["open_now"] == told["highest_open"] == len(server.visits) == 5
            await eventually(lambda: not server.open)

    async def test_more_than_a_burst_are_opened_in_time(self):
        async with noting_server(nothing) as server:
            told = await flood(
                server.address,
                "bad-line",
                connections=300,
                until=lambda told: told["opened"] == 300,
                settled=lambda _: len(server.visits) == 300,
            )
        assert told["open_now"] == 300

    @pytest.mark.parametrize("rate", [50, 200])
    async def test_rate_is_kept(self, rate):
        async with noting_server(refuse) as server:
            told = await flood(
                server.address,
                "bad-line",
                connections=200,
                rate=rate,
                until=lambda told: told["opened"] >= rate * 0.3,
            )
        # Of those that it has places for it opens all that are due at a sweep, and none before.
        # Beyond the places for 200 none is opened while the machine stands still.
        assert min(round(rate * told["least_s"], 6), 200) <= told["opened"] <= round(rate * told["most_s"] + 1, 6)

    async def test_without_a_rate_the_next_comes_when_one_has_ended(self):
        async with noting_server(refuse) as server:
            told = await flood(
                server.address, "bad-line", connections=2, until=lambda told: told["statuses"].get("400", 0) > 20
            )
        assert told["highest_open"] == 2

    async def test_slow_ones_drip_a_byte_a_second(self):
        begins_s = asyncio.get_running_loop().time()
        async with noting_server(nothing) as server:

            def dripped(_: dict) -> bool:
                return len(server.visits) == 8 and all(len(visit.pieces) > 2 for visit in server.visits)

            floods = (
                flood(server.address, kind, until=dripped, settled=lambda _: True)
                for kind in ("slow-head", "slow-body")
            )
            await asyncio.gather(*floods)
        for visit in server.visits:
            (_, first), *drips = visit.pieces
            assert any(re.fullmatch(SENT[kind], first) for kind in ("slow-head", "slow-body"))
            for number, (at_s, data) in enumerate(drips, 1):
                assert data == b"x"
                assert at_s - begins_s >= number

    async def test_no_read_never_reads(self):
        written = 0
        history = []

        async def answer(writer: asyncio.StreamWriter) -> None:
            nonlocal written
            while True:
                writer.write(bytes(65536))
                await writer.drain()
                written += 65536

        def no_more_goes(_: dict) -> bool:
            history.append(written)
            return bool(written) and history[-10:] == 10 * [written]

        async with noting_server(answer) as server:
            told = await flood(server.address, "no-read", connections=1, until=no_more_goes, settled=lambda _: True)
        assert told["open_now"] == 1
        assert told["resets"] == 0
        # What the kernel holds for it on the server's side, whatever the time.
        assert written < 16 * 1024 * 1024

    async def test_no_read_sends_good_requests_also_when_the_server_takes_them_in_parts(self):
        async def pause(writer: asyncio.StreamWriter) -> None:
            # Until everything between the two is full.
            await asyncio.sleep(0.2)

        async with noting_server(pause) as server:
            await flood(
                server.address,
                "no-read",
                connections=1,
                until=lambda _: server.visits and len(server.visits[0].data) > 1_000_000,
                settled=lambda _: True,
            )
            await eventually(lambda: not server.open)
        [visit] = server.visits
        request = b"OPTIONS * HTTP/1.1\r\nHost: example.test:81\r\n\r\n"
        assert visit.data == (request * (len(visit.data) // len(request) + 1))[: len(visit.data)]

    async def test_mixed_sends_all_kinds_and_leaves_room_for_the_quick_ones(self):
        async with noting_server(refuse) as server:

            def sent(kind: str) -> bool:
                return any(re.fullmatch(SENT[kind], visit.data, re.DOTALL) for visit in server.visits)

            await flood(
                server.address,
                *SINGLE_KINDS,
                connections=12,
                until=lambda told: told["opened"] > 100 and all(map(sent, SINGLE_KINDS)),
            )

    async def test_slow_ones_of_a_mixed_flood_are_a_quarter_at_most(self):
        async with noting_server(nothing) as server:
            await flood(
                server.address,
                *SLOW_KINDS,
                "connect",
                connections=8,
                until=lambda told: told["opened"] > 20,
                settled=lambda told: told["open_now"] == sum(bool(visit.data) for visit in server.visits) == 2,
            )


@pytest.fixture
async def gateway(embedded: JobServer) -> AsyncIterator[RunningGateway]:
    """A gateway that has had enough of slow clients after half a second."""
    async with running_gateway([embedded.address], header_timeout_s=0.5, body_rate_grace_s=0.5) as gateway:
        yield gateway


def thirty(told: dict) -> bool:
    """Whether so many connections were opened."""
    return told["opened"] >= 30


class TestGateway:
    @pytest.mark.parametrize(
        ("kind", "status"),
        [
            ("bad-line", "400"),
            ("bad-version", "505"),
            ("bad-chunk", "400"),
            ("nul", "400"),
            ("header-flood", "431"),
            ("oversize", "413"),
        ],
    )
    async def test_bad_requests_are_refused(self, gateway, kind, status):
        told = await flood(gateway.address, kind, connections=8, rate=300, sources=200, until=thirty)
        assert told["statuses"] == {status: told["opened"]}

    @pytest.mark.parametrize("kind", LEAVING_KINDS)
    async def test_who_leaves_is_forgotten(self, gateway, kind):
        told = await flood(gateway.address, kind, connections=8, rate=300, sources=200, until=thirty)
        assert told["statuses"] == {}
        assert told["failed"] == told["resets"] == 0

    async def test_slow_ones_are_refused_in_time(self, gateway):
        floods = (
            flood(
                gateway.address,
                kind,
                connections=3,
                until=lambda told: told["statuses"].get("408", 0) >= 3,
                settled=lambda _: True,
            )
            for kind in ("slow-head", "slow-body")
        )
        for told in await asyncio.gather(*floods):
            assert told["statuses"] == {"408": told["opened"] - told["open_now"]}
            assert 0.5 <= told["most_s"] < SOON_S

    async def test_who_does_not_read_is_held_and_let_go(self, gateway):
        told = await flood(
            gateway.address,
            "no-read",
            connections=2,
            until=lambda told: told["opened"] >= 2 and gateway.count("http.connections") >= 2,
            settled=lambda _: True,
        )
        assert told["open_now"] + told["resets"] == told["opened"]
        assert told["statuses"] == {}

    async def test_mixed_is_answered_each_by_its_status(self, gateway):
        told = await flood(
            gateway.address,
            *SINGLE_KINDS,
            connections=24,
            rate=200,
            sources=200,
            until=lambda told: told["statuses"].keys() >= {"400", "413", "431", "505"},
            settled=lambda _: True,
        )
        assert told["failed"] == 0


async def test_stop_ends_early():
    async with noting_server(refuse) as server:
        generator = FloodGenerator(
            asyncio.get_running_loop(),
            Peer(*server.address),
            [flood_kinds(TARGET, HOST)["bad-line"]],
            connections=1,
            rate=100,
        )
        begins_ns = clock_ns()
        generator.begin(begins_ns, begins_ns + round(2 * WAIT_S * 1e9))
        await eventually(lambda: len(server.visits) > 3)
        assert not generator.done
        generator.stop()
        assert generator.done
        generator.finish()
        told = len(server.visits)
        await asyncio.sleep(0.05)
        assert len(server.visits) <= told + 1
