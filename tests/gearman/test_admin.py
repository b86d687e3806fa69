"""The text connection to a job server: a long answer is read in portions, so that it holds up nobody."""

from __future__ import annotations

import asyncio
import time

import pytest

from gatewayx.config.kinds import FunctionBound
from gatewayx.core.counters import Counters
from gatewayx.core.turns import Turn
from gatewayx.gearman.admin import AdminConnection, ServerStatus
from gatewayx.net.stream import Stream
from support.gateway import eventually, running_gateway
from support.http import ask, post
from support.job_servers import ScriptedJobServer

pytestmark = pytest.mark.anyio

# As in gearman/admin.pxd.
TURN_BYTES = 16384
MAX_LINE_BYTES = 16384

STATUS = b"".join(b"function-%d\t1\t0\t1\n" % number for number in range(12_000)) + b".\n"


class FakeStream(Stream):
    """What a text connection writes to, and whether it reads."""

    def __init__(self) -> None:
        self.written = b""
        self.reads = True
        self.pauses = 0
        self.aborted = False

    def write(self, data: bytes) -> int:
        """Keep it."""
        self.written += data
        return 0

    def pause(self) -> int:
        """Count it."""
        assert not self.aborted
        self.pauses += 1
        self.reads = False
        return 0

    def resume(self) -> int:
        """Note it."""
        assert not self.aborted
        self.reads = True
        return 0

    def closing(self) -> bool:
        """Whether it was aborted."""
        return self.aborted

    def abort(self) -> int:
        """Note it."""
        self.aborted = True
        return 0

    def peer(self) -> tuple[str, int]:
        """A job server's address."""
        return ("127.0.0.1", 4730)


def asked() -> tuple[AdminConnection, ServerStatus, FakeStream]:
    """A text connection that is up and has asked for the status."""
    known, stream = ServerStatus(), FakeStream()
    loop = asyncio.get_running_loop()
    connection = AdminConnection(loop, Turn(loop), known, Counters())
    connection.opened(stream)
    connection.receive(b"OK 1.1.20\n")
    connection.ask_status(0)
    assert (known.asked, known.answered) == (1, 0)
    return connection, known, stream


async def turns_until_read(stream: FakeStream) -> int:
    """Loop turns until the connection reads again."""
    turns = 0
    while not stream.reads:
        await asyncio.sleep(0)
        turns += 1
        assert turns < 1000
    return turns


async def test_a_long_status_takes_many_turns_and_nothing_more_is_read_meanwhile():
    connection, known, stream = asked()
    connection.receive(STATUS)
    assert known.answered == 0
    assert not stream.reads
    turns = await turns_until_read(stream)
    assert known.answered == 1
    assert turns >= len(STATUS) // TURN_BYTES
    assert stream.pauses == 1
    connection.close("over")


@pytest.mark.parametrize("size", [1, 1000, 16_384, 100_000])
async def test_it_is_the_same_in_pieces(size):
    connection, known, stream = asked()
    status = STATUS[-40_000:] if size == 1 else STATUS
    for start in range(0, len(status), size):
        await turns_until_read(stream)
        connection.receive(status[start : start + size])
    await turns_until_read(stream)
    assert known.answered == 1
    assert not connection.closed
    # And the next answer is read right.
    connection.ask_status(0)
    connection.receive(b"f\t1\t0\t1\r\n.\r\n")
    assert known.answered == 2
    connection.close("over")


def status_takes(connection: AdminConnection, took_s: float) -> float:
    """What a status costs, once the one that was asked for is answered after so long, and the next is asked for."""
    # The job server takes so long.
    time.sleep(took_s)
    connection.receive(b".\n")
    connection.ask_status(0)
    return connection.status_cost_s


async def test_what_a_status_costs_is_how_much_longer_it_takes_than_the_quickest_answer():
    connection, known, _ = asked()
    status_takes(connection, 0.3)
    cost_s = status_takes(connection, 0.3)
    assert cost_s > 0.1
    assert status_takes(connection, 0) < cost_s
    assert known.answered == 3
    connection.close("over")


async def test_one_status_that_comes_late_between_others_says_nothing_of_what_they_cost():
    connection, _, _ = asked()
    assert max(status_takes(connection, took_s) for took_s in (0, 0.5, 0)) < 0.25
    connection.close("over")


async def test_one_that_is_closed_meanwhile_reads_no_further():
    connection, known, stream = asked()
    connection.receive(STATUS)
    await asyncio.sleep(0)
    connection.close("over")
    for _ in range(len(STATUS) // TURN_BYTES + 5):
        await asyncio.sleep(0)
    assert known.answered == 0
    assert stream.aborted


async def test_a_job_server_that_waits_for_us_is_not_silent():
    connection, known, stream = asked()
    connection.receive(STATUS)
    await asyncio.sleep(0.05)
    while not stream.reads:
        connection.check(0.05)
        await asyncio.sleep(0)
    assert known.answered == 1
    assert not connection.closed
    connection.close("over")


@pytest.mark.parametrize("lines_before", [0, 2000])
async def test_a_line_without_an_end_is_bounded_behind_any_others(lines_before):
    connection, _, stream = asked()
    connection.receive(b"f\t1\t0\t1\n" * lines_before + b"x" * (MAX_LINE_BYTES + 1))
    for _ in range(lines_before // 100 + 5):
        await asyncio.sleep(0)
    assert connection.closed
    assert stream.aborted


@pytest.mark.parametrize(
    ("line", "queued"),
    [
        (b"f\t5\t2\t1", 3),
        (b"f\t5\t2\t1\r", 3),
        (b"f\t999999999999999999\t0\t1", 999_999_999_999_999_999),
        (b"f\t2\t5\t1", 0),
        (b"f\t1000000000000000000\t0\t1", 0),
        (b"f\t-1\t0\t1", 0),
        (b"f\t1\t0\t", 0),
        (b"f\t1\t\t1", 0),
        (b"f\t1\t1", 0),
        (b"\t5\t2\t1", 0),
        (b"f5\t2\t1", 0),
        (b"", 0),
    ],
    ids=repr,
)
async def test_what_a_line_says_and_which_say_nothing(line, queued):
    async with ScriptedJobServer() as server:
        server.status_lines = lambda: [line + b"\n", b"g\t0\t0\t1\n"]
        async with running_gateway(
            [server.address], connections_per_server=1, status_interval_s=0.05, max_queued=(FunctionBound("f", 1),)
        ) as gateway:
            await eventually(lambda: server.statuses >= 3)
            await server.connection()
            answer = await ask(gateway.address, post(b"/f", b"", b"X-Gearman-Timeout: 0.05"))
            assert answer.kind() == ("queue-too-long" if queued else "job-timeout")
